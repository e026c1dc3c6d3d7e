"""Tasks of one unit each, n_way 1: regression and control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmaml.common.errors import DataError, TooFewUnitsError
from dmaml.common.seeds import Stream
from dmaml.worker.tasks.base import Units


def draw_units(source: str, streams: Sequence[Stream], units: Units, n_way: int) -> Units:
    """Return the unit of each task, drawn from its stream, int64 `[T, 1]`.

    Args:
        source: name, for people.
        units: those allowed, int64, in any order.

    Raises:
        TooFewUnitsError: no units.
        DataError: n_way other than 1.
    """
    allowed = np.unique(np.asarray(units, dtype=np.int64))
    if n_way != 1 or len(allowed) == 0:
        kind = TooFewUnitsError if n_way == 1 else DataError
        raise kind(
            f"source {source!r} required n_way 1 and at least one unit, found n_way {n_way} and "
            f"{len(allowed)} units. Set task.n_way to 1."
        )
    numbers = [int(one.integers(1, len(allowed))[0]) for one in streams]
    return allowed[np.array(numbers, dtype=np.int64)].reshape(-1, 1)
