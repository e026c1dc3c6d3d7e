"""Means and their 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def interval(values: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return `mean` and `ci95` (1.96 σ/√n, σ with n − 1) of each column of `[n, columns]`."""
    count = len(values)
    with np.errstate(invalid="ignore", over="ignore"):  # figures may be infinite or NaN
        spread = values.std(axis=0, ddof=1) if count > 1 else np.zeros(values.shape[1])
        half = 1.96 * spread / math.sqrt(count)
        return {"mean": values.mean(axis=0).tolist(), "ci95": half.tolist()}
