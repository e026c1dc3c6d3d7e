"""Multi-Krum: the mean of the contributions that are nearest to their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import weighted_sum
from dmaml.server.aggregation.scores import best
from dmaml.server.options import count


@final
class MultiKrum:
    """g = Σ wᵢ gᵢ / Σ wᵢ over the m contributions with the least scores of `Krum`.

    Weights: they do not choose, they weigh the chosen; if all chosen have weight 0, these count
    the same. One contribution is returned as it is; 2 to 2f + 2 of them are refused. A void
    contribution is one of the f that is known: see `without`.

    Args:
        num_byzantine: f, as in `Krum`.
        num_selected: m; null: n − f − 2, as many as a score looks at. At most n are taken.

    Raises:
        ValueError: num_byzantine not a whole number >= 0, num_selected neither null nor >= 1.

    References:
        Blanchard, El Mhamdi, Guerraoui, Stainer 2017, "Machine Learning with Adversaries:
        Byzantine Tolerant Gradient Descent" (NeurIPS): Multi-Krum, there with the plain average.
    """

    def __init__(self, num_byzantine: int = 1, num_selected: int | None = None) -> None:
        self._num_byzantine = count("num_byzantine", num_byzantine, least=0)
        self.num_required = 2 * num_byzantine + 3
        if num_selected is not None:
            count("num_selected", num_selected, least=1)
        self._num_selected = num_selected

    def without(self, num_voids: int) -> MultiKrum:
        """Return the rule of max(0, f − v) for what is left beside v void contributions."""
        return MultiKrum(max(0, self._num_byzantine - num_voids), self._num_selected)

    def idle(self, num_contributions: int) -> str:
        """Say why all would be kept, or ""; see `aggregation.check`."""
        if self._num_selected is None or self._num_selected < num_contributions:
            return ""
        return (
            f"num_selected = {self._num_selected} of {num_contributions} contributions in a commit "
            "leaves none out, so it would be the mean. Lower aggregation.options.num_selected to "
            f"{num_contributions - 1} or less, or leave it out."
        )

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return the mean of the chosen, float32 `[d]`; see `scores.best` for Raises."""
        n = len(gradients)
        if n == 1:
            return np.array(gradients[0])
        wanted = self._num_selected or n - self._num_byzantine - 2
        chosen = best(gradients, self._num_byzantine, min(max(wanted, 1), n))
        shares = weights[chosen] if weights[chosen].any() else np.ones(len(chosen))
        return weighted_sum([gradients[i] for i in chosen], (shares / shares.sum()).tolist())
