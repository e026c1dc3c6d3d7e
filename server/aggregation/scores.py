"""Krum's scores, and which contributions have the best.

Squared distances come from the Gram matrix G of the gradients, ‖gᵢ − gⱼ‖² = Gᵢᵢ + Gⱼⱼ − 2 Gᵢⱼ, by
matrix products of blocks, added in float64. This decides only *which* contributions are taken,
never a bit of their values. The products are first done in float32; every distance then carries
the bound `bound · (Gᵢᵢ + Gⱼⱼ)` on its error, and if that leaves the choice open they are done again
in float64 (about half as fast). So the choice is float64's, whatever the blocks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import RunFailedError
from dmaml.common.layout import Flat

WIDTH: Final = 1 << 12  # values of a row in a block; 32 rows are 512 KiB in float32
# far above what products of WIDTH values err by: 2^-24 and 2^-53 are the units of roundoff
BOUNDS: Final = {"<f4": 2.0**-20, "<f8": 2.0**-46}
LEAST: Final = 2.0**-100  # mean square below which float32 products lose bits to underflow

Float64 = NDArray[np.float64]


def best(gradients: Sequence[Flat], num_byzantine: int, num_best: int) -> list[int]:
    """Return the places of the contributions with the least scores, in slot order.

    score(i) = Σ of the n − f − 2 least ‖gᵢ − gⱼ‖², j ≠ i. Ties go to the lower slot; a tie is what
    float64 cannot tell apart.

    Args:
        num_byzantine: f.
        num_best: how many, <= n.

    Raises:
        RunFailedError: n < 2f + 3.
    """
    n = len(gradients)
    if n < 2 * num_byzantine + 3:
        raise RunFailedError(
            f"krum needs at least 2 f + 3 = {2 * num_byzantine + 3} contributions for "
            f"num_byzantine f = {num_byzantine}, found {n} that are not void. Lower "
            "aggregation.options.num_byzantine or raise topology.slots."
        )
    near = n - num_byzantine - 2
    for dtype, bound in BOUNDS.items():
        gram = gram_matrix(gradients, dtype)
        if dtype == "<f4" and not _is_in_range(gram, gradients[0].size):
            continue
        clear, close = candidates(gram, bound, near, num_best)
        if len(clear) + len(close) == num_best:
            break
    return sorted([*clear, *close[: num_best - len(clear)]])


def candidates(
    gram: Float64, bound: float, near: int, num_best: int
) -> tuple[list[int], list[int]]:
    """Return the places that are surely among the best, and those that may be, each in order."""
    diagonal = np.diagonal(gram)
    norms = diagonal[:, None] + diagonal[None, :]
    squared = np.maximum(norms - 2 * gram, 0.0)
    low, score, high = (_scores(squared + sign * bound * norms, near) for sign in (-1, 0, 1))
    last = np.argsort(score, kind="stable")[num_best - 1]
    clear = high < low[last]
    close = ~clear & (low <= high[last])
    return np.flatnonzero(clear).tolist(), np.flatnonzero(close).tolist()


def gram_matrix(gradients: Sequence[Flat], dtype: str) -> Float64:
    """Return Σₖ gᵢ[k] gⱼ[k], products of blocks in `dtype`, their sum in float64, `[n, n]`."""
    n, size = len(gradients), gradients[0].size
    total = np.zeros((n, n))
    memory = np.empty((n, min(WIDTH, size)), dtype=dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, size, WIDTH):
            rows = memory[:, : min(WIDTH, size - start)]
            for row, gradient in zip(rows, gradients, strict=True):
                row[:] = gradient[start : start + WIDTH]
            total += rows @ rows.T
    return total


def _is_in_range(gram: Float64, size: int) -> bool:
    """Tell whether float32 products neither overflowed nor lost bits to underflow."""
    return bool(np.isfinite(gram).all() and np.diagonal(gram).min() > LEAST * size)


def _scores(squared: Float64, near: int) -> Float64:
    others = squared.copy()
    np.fill_diagonal(others, np.inf)
    scores: Float64 = np.sort(others, axis=1)[:, :near].sum(axis=1)
    return scores
