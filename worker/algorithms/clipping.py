"""Inner gradients that are shortened to a norm before they are taken a step along."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dmaml.worker.algorithms.rates import Rates
from dmaml.worker.models.base import Params


@final
class Clipped:
    """Rates whose step takes, for each task by itself, c(g) in the place of its gradient g:

        c(g) = s g,  s = min(1, norm / ‖g‖)

    with the Euclidean norm over all adapted parameters of the task. Its derivative is s I where
    g is short enough, and s (I - u uᵀ), u = g / ‖g‖, where it is not; both are symmetric.

    Args:
        rates: what multiplies c(g).
        norm: the longest gradient, > 0.

    References:
        Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013),
        algorithm 1, there for the gradient of training.
    """

    reads_gradient = True

    def __init__(self, rates: Rates, norm: float) -> None:
        self._rates = rates
        self._norm = norm

    def init(self, adapted: Params) -> Params:
        """Return the meta-parameters of the rates."""
        return self._rates.init(adapted)

    def step(self, phi: Params, gradient: Params, meta: Params, step: int) -> Params:
        """Return φ - α c(gradient)."""
        return self._rates.step(phi, _scaled(gradient, self._scale(gradient)), meta, step)

    def pulled_back(
        self, v: Params, gradient: Params, meta: Params, step: int
    ) -> tuple[Params, Params]:
        """Return -c'(gradient) α v, and -Σ c(gradient) v; see `Rates`."""
        scale = self._scale(gradient)
        short = _scaled(gradient, scale)
        direction, by_rate = self._rates.pulled_back(v, short, meta, step)
        along = _dot(short, direction) * (scale < 1) / self._norm**2
        bent = {
            name: _by_task(scale, value) * value - _by_task(along * scale, value) * short[name]
            for name, value in direction.items()
        }
        return bent, by_rate

    def _scale(self, gradient: Params) -> Tensor:
        """Return s of each task, `[T]`; 1 for a gradient of zeros, also in its derivative."""
        squared = _dot(gradient, gradient)
        is_long = squared > self._norm**2
        length = torch.where(is_long, squared, self._norm**2).sqrt()
        return torch.where(is_long, self._norm / length, 1.0)


def _dot(a: Params, b: Params) -> Tensor:
    return torch.stack([(a[name] * b[name]).flatten(1).sum(1) for name in a]).sum(0)


def _by_task(factor: Tensor, value: Tensor) -> Tensor:
    return factor.view(-1, *[1] * (value.dim() - 1))


def _scaled(gradient: Params, scale: Tensor) -> Params:
    return {name: value * _by_task(scale, value) for name, value in gradient.items()}
