"""Inner learning rates: one number, or meta-parameters."""

from __future__ import annotations

from typing import Final, Literal, Protocol, final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.worker.algorithms.roles import layer_of
from dmaml.worker.models.base import Params

PREFIX: Final = "inner_lr/"  # reserved: no parameter of a model begins with it
Per = Literal["scalar", "layer", "layer_step", "parameter"]


class Rates(Protocol):
    """How long the inner steps are. φ, gradients and v: adapted parameters, `[T, *shape]`.

    Attributes:
        reads_gradient: whether `pulled_back` reads the inner gradient.
    """

    reads_gradient: bool

    def init(self, adapted: Params) -> Params:
        """Return the meta-parameters that the rates are, float32; none where they are fixed."""
        ...

    def step(self, phi: Params, gradient: Params, meta: Params, step: int) -> Params:
        """Return φ - α gradient, with the α of this step."""
        ...

    def pulled_back(
        self, v: Params, gradient: Params, meta: Params, step: int
    ) -> tuple[Params, Params]:
        """Return v times the derivatives of `step` by its gradient and by the rates.

        That is (-α v, and -Σ gradient v over all that has a rate in common). Without
        `reads_gradient`, `gradient` may be empty.
        """
        ...


@final
class FixedRate:
    """The same α for every parameter and step."""

    reads_gradient = False

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def init(self, adapted: Params) -> Params:
        """Return nothing."""
        return {}

    def step(self, phi: Params, gradient: Params, meta: Params, step: int) -> Params:
        """Return φ - α gradient."""
        return {name: value.sub(gradient[name], alpha=self._alpha) for name, value in phi.items()}

    def pulled_back(
        self, v: Params, gradient: Params, meta: Params, step: int
    ) -> tuple[Params, Params]:
        """Return -α v, and nothing."""
        return {name: -self._alpha * value for name, value in v.items()}, {}


@final
class LearnedRates:
    """Rates that are meta-parameters under `inner_lr/`, trained like any other.

    They may become negative, as in Meta-SGD, where the rate gives the direction too.

    Args:
        initial: what each starts from.
        per: what has one of its own; a layer is what precedes the last dot of a name.
        factor: what each is multiplied by (`inner_reduction`).
        steps: the inner steps of training; a later step takes the last one's.

    References:
        Li, Zhou, Chen, Li, "Meta-SGD: Learning to learn quickly for few-shot learning" (2017),
        equation 2 (`parameter`; there each starts from a random number). Antoniou, Edwards,
        Storkey, "How to train your MAML" (2019), section 4 (`layer_step`; their code has a rate
        for every tensor, here a layer's weight and bias share one).
    """

    reads_gradient = True

    def __init__(self, initial: float, per: Per, factor: float, steps: int) -> None:
        self._initial = initial
        self._per: Per = per
        self._factor = factor
        self._steps = steps

    def init(self, adapted: Params) -> Params:
        """Return the rates: `[1]`, `[steps]` for layer_step, a parameter's own shape."""
        found: Params = {}
        for name, value in adapted.items():
            shape = {"layer_step": (self._steps,), "parameter": tuple(value.shape)}
            found[self._key(name)] = torch.full(shape.get(self._per, (1,)), self._initial)
        return found

    def step(self, phi: Params, gradient: Params, meta: Params, step: int) -> Params:
        """Return φ - α gradient, α by parameter."""
        return {
            name: value - self._alpha(meta, name, step) * gradient[name]
            for name, value in phi.items()
        }

    def pulled_back(
        self, v: Params, gradient: Params, meta: Params, step: int
    ) -> tuple[Params, Params]:
        """Return -α v, and minus the sum of gradient v over what shares a rate."""
        direction = {n: -self._alpha(meta, n, step) * value for n, value in v.items()}
        by_rate: Params = {}
        for name, value in v.items():
            key = self._key(name)
            rate = meta[key]
            product = gradient[name] * value * -self._factor
            if self._per == "layer_step":
                summed = torch.zeros_like(rate)
                summed[self._row(step)] = product.sum()
            else:
                summed = product.sum_to_size(rate.shape)
            by_rate[key] = by_rate[key] + summed if key in by_rate else summed
        return direction, by_rate

    def _alpha(self, meta: Params, name: str, step: int) -> Tensor:
        rate = meta[self._key(name)]
        return (rate[self._row(step)] if self._per == "layer_step" else rate) * self._factor

    def _row(self, step: int) -> int:
        return min(step, self._steps - 1)

    def _key(self, name: str) -> str:
        if self._per == "parameter":
            return PREFIX + name
        return PREFIX + ("all" if self._per == "scalar" else layer_of(name))


def rates_of(config: RunConfig) -> Rates:
    """Return the rates that a configuration describes."""
    section = config.algorithm
    factor = config.task.n_way if section.inner_reduction == "sum_over_ways" else 1
    if section.inner_lr == "learned":
        return LearnedRates(section.alpha, section.per, factor, section.inner_steps)
    return FixedRate(section.alpha * factor)
