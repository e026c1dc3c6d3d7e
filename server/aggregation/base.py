"""The contract of aggregation rules, and the sum that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat

BLOCK: Final = 1 << 16  # float32 values: 256 KiB stay in a core's cache


class AggregationRule(Protocol):
    """Makes one gradient of several."""

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return float32 `[d]` from n gradients float32 `[d]` in slot order and n weights."""
        ...


def weighted_sum(vectors: Sequence[Flat], weights: Sequence[float]) -> Flat:
    """Return Σ wᵢ vᵢ in the order given: float32, multiplied, then added, block by block.

    The order of operations on each element does not depend on the block size, so the bits do not.
    """
    total = np.empty_like(vectors[0], dtype="<f4")
    scratch = np.empty(min(BLOCK, total.size), dtype="<f4")
    for start in range(0, total.size, BLOCK):
        part = total[start : start + BLOCK]
        np.multiply(vectors[0][start : start + BLOCK], np.float32(weights[0]), out=part)
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            product = scratch[: part.size]
            np.multiply(vector[start : start + BLOCK], np.float32(weight), out=product)
            np.add(part, product, out=part)
    return total
