"""Every contribution counts the same."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dmaml.server.weights.base import Float64


@final
class Mean:
    """wᵢ = 1/n (DMAML thesis, Soulier 2020: the arithmetic mean of the workers' gradients)."""

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Return 1/n for each of the n contributions."""
        return np.full(losses.size, 1.0 / losses.size)

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no history."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take nothing back."""
