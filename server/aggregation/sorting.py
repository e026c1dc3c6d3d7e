"""Order statistics by coordinate, with a sorting network over rows.

`numpy.sort(axis=0)` visits one coordinate at a time. A network is a fixed list of "put the smaller
of row i and row j into i, the larger into j": each step is one `minimum` and one `maximum` over a
whole block, which run at the speed of the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from dmaml.common.layout import Flat
from dmaml.server.aggregation.base import weighted_sum

WIDTH: Final = 1 << 14  # float32 values of a row in a block: 64 KiB, and there are n + 1 rows


class Step(NamedTuple):
    """Compare rows i < j; which of the two results anything later needs."""

    i: int
    j: int
    low: bool
    high: bool


def merge_exchange(n: int) -> Iterator[tuple[int, int]]:
    """Yield the comparisons (i, j), i < j, that sort n rows.

    References:
        Batcher's method as Knuth gives it: The Art of Computer Programming 3, 5.2.2, Algorithm M.
    """
    top = p = 1 << max((n - 1).bit_length() - 1, 0)
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            yield from ((i, i + d) for i in range(n - d) if i & p == r)
            d, q, r = q - p, q >> 1, p
        p >>= 1


@lru_cache(maxsize=64)
def network(n: int, start: int, stop: int) -> tuple[Step, ...]:
    """Return the steps that bring ranks start <= r < stop of n rows to their places."""
    wanted, kept = set(range(start, stop)), []
    for i, j in reversed(list(merge_exchange(n))):
        if i in wanted or j in wanted:
            kept.append(Step(i, j, i in wanted, j in wanted))
            wanted |= {i, j}
    return tuple(reversed(kept))


def middle_mean(vectors: Sequence[Flat], cut: int) -> Flat:
    """Return by coordinate the mean of all but the `cut` least and `cut` greatest values.

    Summed in ascending order, float32, multiplied by 1/m, then added; a zero is always +0. So the
    bits depend neither on the order of the vectors nor on the blocks.

    Args:
        vectors: finite float32 `[d]`, n > 2 cut of them.
    """
    n = len(vectors)
    shares = [1.0 / (n - 2 * cut)] * (n - 2 * cut)
    steps = network(n, cut, n - cut)
    total = np.empty(vectors[0].size, dtype="<f4")
    memory = np.empty((n + 1, min(WIDTH, total.size)), dtype="<f4")
    for start in range(0, total.size, WIDTH):
        part = total[start : start + WIDTH]
        rows = [vector[start : start + WIDTH] for vector in vectors]
        _sort(rows, steps, list(memory[:, : part.size]))
        # minimum(-0, +0) may be either; adding +0 makes both +0
        np.add(weighted_sum(rows[cut : n - cut], shares), np.float32(0), out=part)
    return total


def _sort(rows: list[Flat], steps: Sequence[Step], free: list[Flat]) -> None:
    """Replace rows by sorted ones in the memory of `free`, n + 1 rows; the given are only read."""
    is_own = [False] * len(rows)
    for i, j, low, high in steps:
        a, b = rows[i], rows[j]
        if low:
            rows[i] = np.minimum(a, b, out=free.pop())
        if high:
            rows[j] = np.maximum(a, b, out=b if is_own[j] else free.pop())
        elif is_own[j]:
            free.append(b)
        if is_own[i]:
            free.append(a)
        is_own[i], is_own[j] = low, high
