"""The weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import weighted_sum


@final
class Sum:
    """g = n Σ wᵢ gᵢ over the n contributions that are not void: Σ gᵢ for equal weights.

    The weights share n instead of 1. One contribution is returned as it is. With fewer
    contributions (void ones, a quorum) the step is smaller; under Adam it is not.
    """

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the weighted sum, float32 `[d]`."""
        return weighted_sum(gradients, (len(gradients) * weights).tolist())
