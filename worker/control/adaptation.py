"""Adaptation by the policy gradient, and the derivative of its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from dmaml.worker.algorithms.episodes import gradients
from dmaml.worker.control.advantages import Experience
from dmaml.worker.control.policy import GaussianPolicy
from dmaml.worker.models.base import Params

Surrogate = Literal["likelihood", "ratio"]
SURROGATES: Final[dict[str, Surrogate]] = {"likelihood": "likelihood", "ratio": "ratio"}


@dataclass(frozen=True)
class Step:
    """One step φ' = φ - α g(φ) and what its derivative needs.

    Attributes:
        phi: leaves, `[T, *shape]` each.
        gradient: g(φ), with its graph where a derivative is asked for.
    """

    phi: Params
    gradient: Params


def surrogate(kind: Surrogate, policy: GaussianPolicy, phi: Params, given: Experience) -> Tensor:
    """Return each task's loss whose gradient is minus the policy gradient, `[T]`.

    likelihood: -mean log π_φ(a|s) Â. ratio: -mean π_φ(a|s) / π(a|s) Â with π the policy as it is
    where this is called: the same gradient there, another curvature, whose expectation is that of
    the expected return (low variance curvature).

    References:
        Williams, "Simple statistical gradient-following algorithms" (1992); Finn, Abbeel, Levine
        (2017), equation 4 and algorithm 3 (likelihood). Rothfuss, Lee, Clavera, Asfour, Abbeel,
        "ProMP" (2019), equation 9 (ratio).
    """
    likelihood = policy.log_likelihood(phi, given.observations, given.actions)
    if kind == "ratio":
        likelihood = torch.exp(likelihood - likelihood.detach())
    return -given.mean(likelihood * given.advantages)


def descend(
    kind: Surrogate,
    policy: GaussianPolicy,
    phi: Params,
    given: Experience,
    alpha: float,
    keeps_graph: bool = False,
) -> tuple[Step, Params]:
    """Return one policy gradient step of each task, and φ after it, detached.

    Args:
        phi: `[T, *shape]` each.
        alpha: step size α.
        keeps_graph: `pullback` and `pushforward` will be asked for.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
    loss = surrogate(kind, policy, leaves, given).sum()
    gradient = gradients(loss, leaves, create_graph=keeps_graph)
    after = {name: (value - alpha * gradient[name]).detach() for name, value in leaves.items()}
    return Step(leaves, gradient), after


def pullback(steps: Sequence[Step], alpha: float, cotangent: Params) -> Params:
    """Return Jᵀ w for J = ∂φ_K/∂φ_0 = Π (I - α ∂g/∂φ), task by task, `[T, *shape]`.

    Args:
        steps: in the order in which they were taken.
        cotangent: w, `[T, *shape]` each.
    """
    for step in reversed(steps):
        cotangent = _shrunk(step, alpha, cotangent)
    return cotangent


def pushforward(steps: Sequence[Step], alpha: float, tangent: Params) -> Params:
    """Return J v; see `pullback`. The Hessians are symmetric, so it takes them the other way."""
    for step in steps:
        tangent = _shrunk(step, alpha, tangent)
    return tangent


def _shrunk(step: Step, alpha: float, vector: Params) -> Params:
    """Return (I - α H) v with H = ∂g/∂φ by a backward pass through g."""
    names = list(vector)
    products = torch.autograd.grad(
        [step.gradient[name] for name in names],
        [step.phi[name] for name in names],
        [vector[name] for name in names],
        retain_graph=True,
        materialize_grads=True,
    )
    return {
        name: vector[name] - alpha * product for name, product in zip(names, products, strict=True)
    }
