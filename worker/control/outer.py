"""The outer step of one item: from θ to what is pushed.

An actor pushes a gradient and the server takes the step. A trust region and a clipped surrogate
need more than one evaluation on the same trajectories, so they are solved here, on the item's own
trajectories, and θ - θ' is pushed; `outer: {name: sgd, lr: 1.0}` then makes it the server's step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from dmaml.worker.control.objective import Objective
from dmaml.worker.models.base import Params


class OuterStep(Protocol):
    """Solves an item's outer problem."""

    def __call__(self, objective: Objective, theta: Params) -> tuple[Params, dict[str, float]]:
        """Return what is pushed, of θ's names and shapes, and figures of the solution."""
        ...


@dataclass(frozen=True)
class PlainGradient:
    """∂L/∂θ itself, for any optimiser of the server."""

    def __call__(self, objective: Objective, theta: Params) -> tuple[Params, dict[str, float]]:
        """Return the gradient at θ."""
        _, gradient, _ = objective.gradient(theta)
        return gradient, {}


@dataclass(frozen=True)
class Clipped:
    """`epochs` steps of Adam on the clipped surrogate, all from the same trajectories.

    Attributes:
        epochs: how many.
        lr: Adam's step size; it starts fresh with each item.
        clip: ε.
    """

    epochs: int
    lr: float
    clip: float

    def __call__(self, objective: Objective, theta: Params) -> tuple[Params, dict[str, float]]:
        """Return θ - θ', and the divergence at θ'."""
        now = {name: value.detach().clone() for name, value in theta.items()}
        adam = torch.optim.Adam(now.values(), lr=self.lr, foreach=False)
        for _ in range(self.epochs):
            _, gradient, _ = objective.gradient(now, self.clip)
            for name, value in now.items():
                value.grad = gradient[name]
            adam.step()
        now = {name: value.detach() for name, value in now.items()}
        return difference(theta, now), {"divergence": objective.at(now)[1]}


@dataclass(frozen=True)
class TrustRegion:
    """The natural gradient step to the edge of a trust region, cut back until it holds.

        d = F⁻¹ g by conjugate gradients,  θ' = θ - c^i sqrt(2 δ / dᵀ F d) d

    with i = 0, 1, ... the first that lowers the surrogate and keeps the divergence within δ;
    θ' = θ where none does.

    Attributes:
        divergence: δ, the largest mean divergence.
        cg_steps: conjugate gradient iterations.
        damping: λ of F + λ I.
        cuts: how many i are tried.
        cut: c.

    References:
        Schulman, Levine, Moritz, Jordan, Abbeel, "Trust region policy optimization" (2015),
        appendix C.
    """

    divergence: float
    cg_steps: int
    damping: float
    cuts: int
    cut: float

    def __call__(self, objective: Objective, theta: Params) -> tuple[Params, dict[str, float]]:
        """Return θ - θ', the divergence at θ' and the share of the full step that was taken."""
        loss, gradient, steps = objective.gradient(theta)
        curvature = objective.curvature(theta, steps)

        def product(vector: Params) -> Params:
            curved = curvature.times(vector)
            return {name: curved[name] + self.damping * vector[name] for name in vector}

        direction = conjugate_gradients(product, gradient, self.cg_steps)
        length = dot(direction, product(direction))
        size = (2 * self.divergence / length) ** 0.5 if length > 0 else 0.0
        for i in range(self.cuts if size else 0):
            share = self.cut**i
            now = {name: theta[name] - share * size * direction[name] for name in theta}
            new_loss, divergence = objective.at(now)
            if new_loss < loss and divergence <= self.divergence:
                return difference(theta, now), {"divergence": divergence, "step_share": share}
        nothing = {name: torch.zeros_like(value) for name, value in theta.items()}
        return nothing, {"divergence": 0.0, "step_share": 0.0}


def conjugate_gradients(
    product: Callable[[Params], Params], target: Params, num_steps: int
) -> Params:
    """Return x with A x ≈ b for a positive definite A.

    Args:
        product: v -> A v.
        target: b.
        num_steps: iterations at most; it stops where the residual's square is below 1e-10.
    """
    x = {name: torch.zeros_like(value) for name, value in target.items()}
    residual = dict(target)
    direction = dict(target)
    square = dot(residual, residual)
    for _ in range(num_steps):
        if square < 1e-10:
            break
        curved = product(direction)
        length = square / dot(direction, curved)
        x = {name: x[name] + length * direction[name] for name in x}
        residual = {name: residual[name] - length * curved[name] for name in x}
        before, square = square, dot(residual, residual)
        direction = {name: residual[name] + (square / before) * direction[name] for name in x}
    return x


def dot(a: Params, b: Params) -> float:
    """Return the inner product, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


def difference(theta: Params, now: Params) -> Params:
    """Return θ - θ'."""
    return {name: theta[name] - now[name] for name in theta}
