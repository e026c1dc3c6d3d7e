"""Krum's scores, and which contributions have the best.

Squared distances come from the Gram matrix G of the gradients, ‖gᵢ − gⱼ‖² = Gᵢᵢ + Gⱼⱼ − 2 Gᵢⱼ, by
matrix products of short chunks, added in float64. This decides only *which* contributions are
taken, never a bit of their values. The products are first done in float32; every distance then
carries the bound `bound · (Gᵢᵢ + Gⱼⱼ)` on its error, and if that leaves the choice open they are
done again in float64 (about half as fast), of the gradients less one that may be taken: distances
are the same, norms are smaller. So the choice is float64's, whatever the chunks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import RunFailedError
from dmaml.common.layout import Flat

CHUNK: Final = 1 << 7  # values of one product; the longer, the faster, and the wider the bound
NUM_CHUNKS: Final = 32  # that are copied together; of 32 rows they are 512 KiB in float32
UNITS: Final = {"<f4": 2.0**-24, "<f8": 2.0**-53}  # of roundoff
PASSES: Final = ("<f4", "<f8", "<f8")  # the third only where float32 is out of its range
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
    size = gradients[0].size
    centre: int | None = None
    for dtype in PASSES:
        gram = gram_matrix(gradients, dtype, centre)
        if dtype == "<f4" and not _is_in_range(gram, size):
            continue
        clear, close = candidates(gram, bound_of(dtype, size), near, num_best)
        if len(clear) + len(close) == num_best or centre is not None:
            break
        centre = close[0]
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


def bound_of(dtype: str, size: int) -> float:
    """Return b such that every ‖gᵢ − gⱼ‖² out of `gram_matrix` errs by at most b (Gᵢᵢ + Gⱼⱼ).

    A product of m values errs by at most γₘ Σₖ |gᵢ[k] gⱼ[k]|, γₘ = m u/(1 − m u), in whatever
    order it adds, with fused steps or without; each sum in float64 adds one 2⁻⁵³ to that. Two
    halves of it come from the norms, and two of 2 Gᵢⱼ, for 2 |x y| <= x² + y². A sixteenth more
    covers the second order and what underflows.

    References:
        Higham 2002, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1.
    """
    num_chunks = -(-size // CHUNK)
    return 2 * (17 / 16) * (CHUNK * UNITS[dtype] + num_chunks * UNITS["<f8"])


def gram_matrix(gradients: Sequence[Flat], dtype: str, centre: int | None = None) -> Float64:
    """Return Σₖ gᵢ[k] gⱼ[k], products of chunks in `dtype`, their sum in float64, `[n, n]`.

    Args:
        centre: place of the gradient that is subtracted from all, or None.
    """
    n, size = len(gradients), gradients[0].size
    total = np.zeros((n, n))
    width = CHUNK * min(NUM_CHUNKS, -(-size // CHUNK))
    memory = np.empty((n, width), dtype=dtype)
    chunks = memory.reshape(n, -1, CHUNK).transpose(1, 0, 2)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, size, width):
            if start + width > size:
                memory[:, size - start :] = 0
            for row, gradient in zip(memory, gradients, strict=True):
                row[: size - start] = gradient[start : start + width]
            if centre is not None:
                memory -= memory[centre].copy()
            products = chunks @ chunks.transpose(0, 2, 1)
            total += products.sum(axis=0, dtype=np.float64)
    return total


def _is_in_range(gram: Float64, size: int) -> bool:
    """Tell whether float32 products neither overflowed nor lost bits to underflow."""
    return bool(np.isfinite(gram).all() and np.diagonal(gram).min() > LEAST * size)


def _scores(squared: Float64, near: int) -> Float64:
    others = squared.copy()
    np.fill_diagonal(others, np.inf)
    scores: Float64 = np.sort(others, axis=1)[:, :near].sum(axis=1)
    return scores
