"""The contract of weight generators."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class WeightGenerator(Protocol):
    """Maps the contributions' losses (and history) to their weights in the sum.

    The state is explicit: `state` gives JSON values that `load` takes back.
    """

    def weights(
        self, losses: Float64, slots: NDArray[np.int64], staleness: NDArray[np.int64]
    ) -> Float64:
        """Return non-negative weights that sum to 1, float64 `[n]`.

        Contributions come in slot order. In mode sync a slot is there once. It is there once for
        each of its rounds, the older round first, in mode quorum where late answers are merged
        (this round's and late ones) and in mode async (`sync.async_batch` of one round or more).

        Args:
            losses: mean query loss of each contribution that is not void, `[n]`, n >= 1.
            slots: the slot each came from, `[n]`.
            staleness: TRAIN commits since the parameters it was computed from, `[n]`, >= 0.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        ...


def normalised(raw: Float64) -> Float64:
    """Return raw / Σ raw.

    The sum is exact before it is rounded, so that it does not depend on the order.

    Args:
        raw: non-negative and finite, at least one of them positive, `[n]`.
    """
    shares: Float64 = raw / math.fsum(raw)
    return shares
