"""Sparse random projections: short rows whose inner products are those of the long ones."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.items import block
from dmaml.common.seeds import Kind, stream

MOST_PLACES: Final = 4


@final
class Projection:
    """x -> S x, where each column of S has s = min(4, dims) entries of ±1 / √s, one per block.

        E <S x, S y> = <x, y>,  Var <= 2 |x|² |y|² / dims

    A function of (seed, width, dims) alone, so that rows of all rounds can be compared. Sums run
    in float64, in the order of the columns.

    Args:
        seed: the run's.
        width: length of a row.
        dims: length of its projection, 1 or more.

    References:
        Kane, Nelson, "Sparser Johnson-Lindenstrauss transforms" (2014), the block construction.
    """

    def __init__(self, seed: int, width: int, dims: int) -> None:
        self.dims = dims
        num_places = min(MOST_PLACES, dims)
        random = stream(seed, Kind.PROJECTION, width, dims)
        blocks = [block(dims, num_places, number) for number in range(num_places)]
        places = [one.start + random.integers(width, len(one)) for one in blocks]
        signs = 2.0 * random.integers(width * num_places, 2) - 1.0
        self._places = np.stack(places, axis=1).ravel()
        self._signs = signs.reshape(width, num_places) / np.sqrt(num_places)

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the projections, float32 `[rows, dims]`, of float32 `[rows, width]`."""
        out = np.empty((len(rows), self.dims), dtype=np.float32)
        for number, row in enumerate(rows):
            weights = (row[:, None] * self._signs).ravel()
            out[number] = np.bincount(self._places, weights, minlength=self.dims)
        return out


def narrowed(rows: NDArray[np.float32], seed: int, dims: int) -> NDArray[np.float32]:
    """Return the rows, projected to `dims` columns where they have more; 0: never."""
    width = rows.shape[1]
    return Projection(seed, width, dims)(rows) if 0 < dims < width else rows
