"""The lower the loss, the larger the weight."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dmaml.server.options import choice, number
from dmaml.server.weights.base import Float64, normalised


@final
class LossWeighted:
    """Weights fall with the loss ℓᵢ (DMAML thesis, Soulier 2020: loss-weighted gradients).

    form `softmax`: wᵢ = exp(−ℓᵢ/T) / Σⱼ exp(−ℓⱼ/T), T = `temperature`, in units of the loss.
    form `inverse`: wᵢ = (1/(ℓᵢ + ε)) / Σⱼ 1/(ℓⱼ + ε), ε = `eps`.

    See `softmax` and `inverse` for extreme losses.

    Raises:
        ValueError: an unknown form; T or ε not finite and > 0.
    """

    def __init__(self, form: str = "softmax", temperature: float = 1.0, eps: float = 1e-8) -> None:
        self._form = choice("form", form, ("softmax", "inverse"))
        self._temperature = number("temperature", temperature, "> 0", lambda v: v > 0)
        self._eps = number("eps", eps, "> 0", lambda v: v > 0)

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Return weights by loss alone, float64 `[n]`."""
        if self._form == "softmax":
            return softmax(losses, self._temperature)
        return inverse(losses, self._eps)

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no history."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


def softmax(losses: Float64, temperature: float) -> Float64:
    """Return exp(−(ℓᵢ − min ℓ)/T), normalised, `[n]`.

    The least loss has exponent 0, so that the sum is at least 1 whatever the losses are; a loss
    more than about 745 T above it has weight 0. Negative losses are as good as any.
    """
    with np.errstate(over="ignore", under="ignore"):
        return normalised(np.exp(-(losses - losses.min()) / temperature))


def inverse(losses: Float64, eps: float) -> Float64:
    """Return (m + ε)/(ℓᵢ + ε), normalised, m = min ℓ, `[n]`: as 1/(ℓᵢ + ε), without overflow.

    1/ℓ has no meaning below 0: if any loss is negative, all are raised by −min ℓ first, which
    gives nearly everything to the least one. A loss of 0 does the same (ε is in the loss's unit).
    """
    with np.errstate(over="ignore", under="ignore"):
        raised = losses - min(float(losses.min()), 0.0)
        return normalised((raised.min() + eps) / (raised + eps))
