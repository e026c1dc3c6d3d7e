"""The meta-gradient by differentiating through all inner steps at once."""

from __future__ import annotations

from torch import Tensor

from dmaml.worker.algorithms.episodes import Stack, gradients
from dmaml.worker.algorithms.inner_loop import InnerLoop, Pass, free
from dmaml.worker.algorithms.recursion import MetaGradient
from dmaml.worker.models.base import Params


def unrolled(
    loop: InnerLoop, meta: Params, stack: Stack, weights: tuple[float, ...]
) -> MetaGradient:
    """Return the exact meta-gradient, from one graph of the whole inner loop.

    Args:
        meta: the meta-parameters.
        stack: the tasks.
        weights: of the query loss at φ_0 .. φ_K.
    """
    theta = free(meta)
    phi = loop.roles.start(theta, stack.num_tasks)
    first: Pass | None = None
    total: Tensor | None = None
    last = len(weights) - 1
    for step, weight in enumerate(weights):
        shared = loop.roles.shared_at(theta, step)
        if weight or step == last:
            query = loop.measured(phi, shared, stack.query_x, stack.query_y)
            loss = query.losses.sum() * weight
            total = loss if total is None else total + loss
        if step < last:
            support = loop.measured(phi, shared, stack.support_x, stack.support_y)
            gradient = gradients(support.losses.sum(), phi, create_graph=True)
            phi = loop.rates.step(phi, gradient, theta, step)
            first = first or support.detached()
    assert total is not None
    return MetaGradient(gradients(total, theta), first, query.detached())
