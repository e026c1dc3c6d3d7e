"""The contract of aggregation rules, and the sum that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dmaml.common.layout import Flat

BLOCK: Final = 1 << 16  # float32 values: 256 KiB stay in a core's cache


class AggregationRule(Protocol):
    """Makes one gradient of several.

    A rule that cannot do with few contributions says so by an attribute `num_required`. One that
    reckons with wrong ones may have a method `without(num_voids)` that returns the rule for a
    commit in which so many are void, and known by that.
    """

    def combine(self, gradients: Sequence[Flat], weights: NDArray[np.float64]) -> Flat:
        """Return float32 `[d]` from n gradients float32 `[d]` in slot order and n weights.

        The result is new memory, and a function of the arguments alone: it depends neither on the
        size of blocks nor on the number of threads. The arguments are left alone.

        Args:
            gradients: finite (others are void), n >= 1.
            weights: non-negative, sum to 1, `[n]`.

        Raises:
            RunFailedError: a rule that cannot do with so few.
        """
        ...


def weighted_sum(vectors: Sequence[Flat], weights: Sequence[float]) -> Flat:
    """Return Σ wᵢ vᵢ in the order given: float32, multiplied, then added, block by block.

    The order of operations on each element does not depend on the block size, so the bits do not.
    """
    total = np.empty(vectors[0].shape, dtype="<f4")
    scratch = np.empty(min(BLOCK, total.size), dtype="<f4")
    for start in range(0, total.size, BLOCK):
        part = total[start : start + BLOCK]
        np.multiply(vectors[0][start : start + BLOCK], np.float32(weights[0]), out=part)
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            product = scratch[: part.size]
            np.multiply(vector[start : start + BLOCK], np.float32(weight), out=product)
            np.add(part, product, out=part)
    return total


def counting(gradients: Sequence[Flat], weights: NDArray[np.float64]) -> list[Flat]:
    """Return the gradients with a positive weight, in slot order."""
    return [g for g, weight in zip(gradients, weights.tolist(), strict=True) if weight > 0]
