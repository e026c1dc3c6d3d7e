"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import counting
from dmaml.server.aggregation.sorting import middle_mean
from dmaml.server.options import number


@final
class TrimmedMean:
    """g[k] = mean of gᵢ[k] without the ⌊βn⌋ least and the ⌊βn⌋ greatest, for each coordinate k.

    Weights: a contribution of weight 0 is left out; all others count the same. One contribution
    is returned as it is. Below n = 1/β nothing is trimmed: this is then the plain mean.

    Args:
        fraction: β, the share that is dropped at each end.

    Raises:
        ValueError: fraction not in [0, 0.5).

    References:
        Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-Robust Distributed Learning: Towards
        Optimal Statistical Rates" (ICML), the coordinate-wise trimmed mean.
    """

    def __init__(self, fraction: float = 0.2) -> None:
        self._fraction = number("fraction", fraction, ">= 0 and < 0.5", lambda v: 0 <= v < 0.5)

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the trimmed mean, float32 `[d]`."""
        vectors = counting(gradients, weights)
        return middle_mean(vectors, self._cut(len(vectors)))

    def idle(self, num_contributions: int) -> str:
        """Say why nothing would be trimmed, or ""; see `aggregation.check`."""
        n = num_contributions
        if self._cut(n) > 0:
            return ""
        remedies = ["take aggregation.name mean or median"]
        if n > 2:
            remedies.insert(0, f"raise aggregation.options.fraction to {math.ceil(1e4 / n) / 1e4}")
        if self._fraction > 0:
            least = math.ceil(1 / self._fraction - 1e-9)
            remedies.insert(
                0,
                f"raise topology.slots (mode quorum: sync.quorum; async: sync.async_batch) to "
                f"{least}",
            )
        remedy = ", or ".join(remedies)
        return (
            f"fraction = {self._fraction:g} of {n} contributions in a commit trims none, so it "
            f"would be the plain mean. {remedy[0].upper()}{remedy[1:]}."
        )

    def _cut(self, n: int) -> int:
        cut = math.floor(self._fraction * n + 1e-9)  # 0.29 * 100 is 28.999999999999996
        return min(cut, (n - 1) // 2)
