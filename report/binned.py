"""A long noisy series as a few hundred points: mean and spread of neighbouring rounds; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Binned:
    """Mean and the middle 80 % of neighbouring values, float64 `[n]` each.

    Attributes:
        width: values in a bin; with 1 the spread is none.
    """

    x: Float64
    mean: Float64
    low: Float64
    high: Float64
    width: int


def binned(x: Sequence[float], y: Sequence[float | None], num_bins: int = 120) -> Binned:
    """Return a series in at most `num_bins` bins of as many values each (the last has the rest).

    Values that are None or NaN (void rounds) count nothing; a bin of nothing else is left out.
    """
    places = np.asarray(x, dtype=np.float64)
    values = np.array([np.nan if v is None else v for v in y], dtype=np.float64)
    keep = np.isfinite(values)
    places, values = places[keep], values[keep]
    width = max(1, -(-len(values) // num_bins))
    starts = range(0, len(values), width)
    parts = [values[i : i + width] for i in starts]
    return Binned(
        np.array([places[i : i + width].mean() for i in starts]),
        np.array([part.mean() for part in parts]),
        np.array([np.quantile(part, 0.1) for part in parts]),
        np.array([np.quantile(part, 0.9) for part in parts]),
        width,
    )
