"""Second derivatives times a vector: exactly, or by central differences."""

from __future__ import annotations

import threading
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dmaml.worker.algorithms.inner_loop import free
from dmaml.worker.algorithms.recursion import Product, Slope
from dmaml.worker.models.base import Params

_DUAL_NUMBERS: Final = threading.Lock()  # torch has them once in a process, not in each thread


def forward_over_reverse(slope: Slope, phi: Params, shared: Params, direction: Params) -> Params:
    """Return the derivative of ∂L/∂(φ, shared) along a direction of φ, exactly.

    One gradient is computed with dual numbers: its tangent is the product. Nothing of it outlives
    the call.

    References:
        Kemaev, Calian, Zintgraf, Farquhar, van Hasselt, "Scalable meta-learning via mixed-mode
        differentiation" (2025): MixFlow-MG, the meta-gradient by Hessian-vector products in
        forward-over-reverse mode. Pearlmutter, "Fast exact multiplication by the Hessian" (1994).
    """
    with _DUAL_NUMBERS, forward_ad.dual_level():
        dual = {
            # dual numbers need memory of their own for every number, φ_0 is one row seen T times
            name: _dual(value.contiguous(), direction[name].contiguous())
            for name, value in free(phi).items()
        }
        found = slope(dual, free(shared), None)
        tangents = {name: _tangent(value) for name, value in found.items()}
        return {
            name: torch.zeros_like(found[name]) if tangent is None else tangent
            for name, tangent in tangents.items()
        }


def central_difference(
    slope: Slope, phi: Params, shared: Params, direction: Params, epsilon: float
) -> Params:
    """Return the derivative of ∂L/∂(φ, shared) along a direction d of φ, approximately.

        (∂L(φ + h d) - ∂L(φ - h d)) / 2h,   h = ε ‖φ‖ / ‖d‖

    for each task, norms over all adapted parameters: whatever the length of d, what is added to φ
    is a share ε of φ. Where L is smooth the error is of order ε², plus that of rounding divided
    by ε. A ReLU unit that changes sides between the two points adds the jump of its gradient
    divided by 2h, which no derivative has: the smaller ε, the fewer do and the more each one
    counts. So the error of such networks stays large whatever ε (docs/algorithms.md).

    References:
        "Investigating MAML", equation 2, has it for one inner step, where d is the query
        gradient ∂L_Q/∂φ_1, and prints ∇f for ∇L. Here d is -α v_{k+1} of the recursion, so it
        serves any number of steps; at the last of them it is along the query gradient as there.
    """
    length, scale = norms(direction), norms(phi)
    tiny = torch.finfo(length.dtype).tiny
    unit = {name: value / rows(length.clamp(min=tiny), value) for name, value in direction.items()}
    h = epsilon * torch.where(scale > 0, scale, torch.ones_like(scale))
    weights = length / (2 * h)  # a task's loss counts so often: what tasks share is summed by then
    ends = []
    for sign in (1, -1):
        moved = {n: value + sign * rows(h, value) * unit[n] for n, value in phi.items()}
        ends.append(slope(free(moved), free(shared), weights))
    return {name: value - ends[1][name] for name, value in ends[0].items()}


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    made: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return made


def _tangent(value: Tensor) -> Tensor | None:
    found: Tensor | None = forward_ad.unpack_dual(value).tangent  # type: ignore[no-untyped-call]
    return found


def norms(params: Params) -> Tensor:
    """Return each task's Euclidean norm over all parameters, `[T]`."""
    squares = [value.reshape(value.shape[0], -1).square().sum(1) for value in params.values()]
    return torch.stack(squares).sum(0).sqrt()


def rows(values: Tensor, like: Tensor) -> Tensor:
    """Return `[T]` as `[T, 1, ...]`, to be multiplied with `like`."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def by_central_differences(epsilon: float) -> Product:
    """Return the product for a given ε."""
    return partial(central_difference, epsilon=epsilon)
