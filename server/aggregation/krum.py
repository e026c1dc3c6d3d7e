"""Krum: the one contribution that is nearest to its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.scores import best
from dmaml.server.options import count


@final
class Krum:
    """g = gᵢ with the least score(i) = Σ of the n − f − 2 least ‖gᵢ − gⱼ‖², j ≠ i.

    Weights: none; every contribution that is not void is judged, by its gradient alone. One
    contribution is returned as it is; 2 to 2f + 2 of them are refused. Ties go to the lower slot.
    A void contribution is one of the f that is known: see `without`.

    Args:
        num_byzantine: f, how many contributions may be anything at all; n >= 2f + 3.

    Raises:
        ValueError: num_byzantine not a whole number >= 0.

    References:
        Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine Learning with Adversaries:
        Byzantine Tolerant Gradient Descent" (NeurIPS): Krum, with 2f + 2 < n.
    """

    def __init__(self, num_byzantine: int = 1) -> None:
        self._num_byzantine = count("num_byzantine", num_byzantine, least=0)
        self.num_required = 2 * num_byzantine + 3

    def without(self, num_voids: int) -> Krum:
        """Return the rule of max(0, f − v) for what is left beside v void contributions."""
        return Krum(max(0, self._num_byzantine - num_voids))

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return a copy of one of the gradients, float32 `[d]`; see `scores.best` for Raises."""
        if len(gradients) == 1:
            return np.array(gradients[0])
        return np.array(gradients[best(gradients, self._num_byzantine, 1)[0]])
