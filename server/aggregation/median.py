"""The coordinate-wise median."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import counting
from dmaml.server.aggregation.sorting import middle_mean


@final
class Median:
    """g[k] = median of gᵢ[k] over i, for each coordinate k; the mean of the middle two for even n.

    Weights: a contribution of weight 0 is left out; all others count the same. One contribution
    is returned as it is. Fewer than half of the contributions cannot move a coordinate beyond
    the range of the others'.

    References:
        Yin, Chen, Ramchandran, Bartlett 2018, "Byzantine-Robust Distributed Learning: Towards
        Optimal Statistical Rates" (ICML), the coordinate-wise median.
    """

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the median, float32 `[d]`."""
        vectors = counting(gradients, weights)
        return middle_mean(vectors, (len(vectors) - 1) // 2)
