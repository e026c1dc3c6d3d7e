"""The nearer to the median loss, the larger the weight."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dmaml.server.options import number
from dmaml.server.weights.base import Float64, normalised


@final
class LossMedian:
    """wᵢ ∝ exp(−½ (dᵢ / (width · MAD))²), dᵢ = |ℓᵢ − median ℓ|, MAD = median dᵢ.

    Our reading: the thesis (Soulier 2020) names a generator by the median loss and gives no
    formula. Outliers on both sides count little, with no assumption about the loss's scale: a
    contribution 4 MADs from the median has exp(−8) of the weight of the median one at width 1.

    Where MAD is 0, at least half of the contributions have the median loss; they share the weight
    equally and the others have none, which is the limit of the formula.

    Args:
        width: width of the bell in MADs; the larger, the nearer to equal weights.

    Raises:
        ValueError: width not finite and > 0.
    """

    def __init__(self, width: float = 1.0) -> None:
        self._width = number("width", width, "> 0", lambda v: v > 0)

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Return weights by distance from the median, float64 `[n]`."""
        distances = doubled_distances(losses)
        spread = float(np.median(distances))
        if spread == 0.0:
            return normalised((distances == 0.0).astype(np.float64))
        with np.errstate(over="ignore", under="ignore"):
            squares = np.minimum(distances / spread / self._width, 1e150) ** 2
            # relative to the nearest one: it keeps 1, so the sum is never 0
            return normalised(np.exp(-0.5 * (squares - squares.min())))

    def state(self) -> dict[str, Any]:
        """Return nothing: there is no history."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


def doubled_distances(losses: Float64) -> Float64:
    """Return 2 |ℓᵢ − median ℓ| up to a common factor, `[n]`.

    As |(ℓᵢ − a) + (ℓᵢ − b)| with a, b the two middle losses: both of two contributions are then
    equally far, to the bit. The factor ¼ keeps the largest finite losses finite.
    """
    scaled = losses * 0.25
    ordered = np.sort(scaled)
    low, high = ordered[(losses.size - 1) // 2], ordered[losses.size // 2]
    distances: Float64 = np.abs((scaled - low) + (scaled - high))
    return distances
