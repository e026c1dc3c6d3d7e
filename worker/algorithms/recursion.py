"""The meta-gradient step by step, from the last inner step back to the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dmaml.worker.algorithms.episodes import Stack, gradients
from dmaml.worker.algorithms.inner_loop import InnerLoop, Pass, free
from dmaml.worker.models.base import Params

# ∂(Σ_t weight_t L_t)/∂(φ, shared) at these values; without weights each counts once
Slope = Callable[[Params, Params, Tensor | None], Params]
# the derivative of the slope along a direction of φ: (slope, φ, shared, direction)
Product = Callable[[Slope, Params, Params, Params], Params]


@dataclass(frozen=True)
class MetaGradient:
    """Of a stack of tasks.

    Attributes:
        gradient: the sum over the tasks, named as the meta-parameters.
        support: the support sets at φ_0; None without inner steps.
        query: the query sets at φ_K.
    """

    gradient: Params
    support: Pass | None
    query: Pass


def recursed(
    loop: InnerLoop,
    meta: Params,
    stack: Stack,
    weights: tuple[float, ...],
    product: Product | None,
) -> MetaGradient:
    """Return the meta-gradient by the recursion, no graph being longer than one step.

    With w_k the weights, v_{K+1} = 0, and everything at φ_k:

        v_k = w_k ∂L_Q/∂φ + v_{k+1} - ∂²L_S/∂φ² (α v_{k+1}),   ∂(Σ w L_Q)/∂θ = v_0

    where the term with α is there for k < K. What tasks share gets w_k ∂L_Q/∂s - ∂²L_S/∂s∂φ
    (α v_{k+1}) at every step, learned rates -v_{k+1} ∂L_S/∂φ.

    φ_0 .. φ_K are kept (with learned rates or clipping the inner gradients too), so memory grows by
    one or two copies of the adapted parameters for each step and task, but not by a network's
    activations.

    Args:
        meta: the meta-parameters.
        stack: the tasks.
        weights: of the query loss at φ_0 .. φ_K.
        product: second derivatives times a vector; None: taken as zero (first order).
    """
    roles = loop.roles
    keeps = tuple(product is not None or weight > 0 for weight in weights)
    tape, first = _adapt(loop, meta, stack, keeps)
    total = {name: torch.zeros_like(value) for name, value in meta.items()}
    v: Params = {}
    query: Pass | None = None
    for step in range(len(weights) - 1, -1, -1):
        phi, gradient = tape[step]
        if v:
            direction, by_rate = loop.rates.pulled_back(v, gradient, meta, step)
            _add(total, by_rate)
            if product is not None:
                shared = roles.shared_at(meta, step)
                slope = _slope(loop, stack.support_x, stack.support_y)
                bent = product(slope, phi, shared, direction)
                v = {name: value + bent[name] for name, value in v.items()}
                _add_shared(loop, total, bent, step)
        if weights[step] or query is None:
            found, slopes = _query(loop, meta, stack, phi, step, weights[step])
            query = query or found
            v = {n: v[n] + slopes[n] if v else slopes[n] for n in roles.adapted}
            _add_shared(loop, total, slopes, step)
        tape.pop()
    _add(total, {name: value.sum(0) for name, value in v.items()})
    assert query is not None
    return MetaGradient(total, first, query)


Tape = list[tuple[Params, Params]]  # φ_k, and the inner gradient there where it is needed


def _adapt(
    loop: InnerLoop, meta: Params, stack: Stack, keeps: tuple[bool, ...]
) -> tuple[Tape, Pass | None]:
    """Return those of φ_0 .. φ_K that are wanted, and the first pass over the support sets."""
    phi = loop.roles.start(meta, stack.num_tasks)
    tape: Tape = []
    first: Pass | None = None
    for step, is_kept in enumerate(keeps[:-1]):
        leaves = free(phi)
        shared = loop.roles.shared_at(meta, step)
        found = loop.measured(leaves, shared, stack.support_x, stack.support_y)
        gradient = gradients(found.losses.sum(), leaves)
        first = first or found.detached()
        tape.append((phi if is_kept else {}, gradient if loop.rates.reads_gradient else {}))
        phi = loop.rates.step(phi, gradient, meta, step)
    return [*tape, (phi, {})], first


def _query(
    loop: InnerLoop, meta: Params, stack: Stack, phi: Params, step: int, weight: float
) -> tuple[Pass, Params]:
    """Return the pass over the query sets, and weight ∂L_Q/∂(φ, shared)."""
    leaves, shared = free(phi), free(loop.roles.shared_at(meta, step))
    found = loop.measured(leaves, shared, stack.query_x, stack.query_y)
    return found.detached(), gradients(found.losses.sum() * weight, leaves | shared)


def _slope(loop: InnerLoop, x: Tensor, y: Tensor) -> Slope:
    def slope(phi: Params, shared: Params, weights: Tensor | None = None) -> Params:
        found = loop.measured(phi, shared, x, y)
        loss = found.losses if weights is None else found.losses * weights
        return gradients(loss.sum(), phi | shared)

    return slope


def _add_shared(loop: InnerLoop, total: Params, values: Params, step: int) -> None:
    for name in loop.roles.shared:
        if name in loop.roles.stepwise:
            total[name][loop.roles.row(step)] += values[name]
        else:
            total[name] += values[name]


def _add(total: Params, values: Params) -> None:
    for name, value in values.items():
        total[name] += value
