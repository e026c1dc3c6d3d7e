"""The weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import weighted_sum


@final
class Mean:
    """g = Σ wᵢ gᵢ, the weights being those of the weight generator (they sum to 1)."""

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the weighted mean, float32 `[d]`."""
        return weighted_sum(gradients, weights.tolist())
