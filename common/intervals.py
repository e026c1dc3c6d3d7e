"""Means and their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Final

import numpy as np
from numpy.typing import NDArray

# the figure that stands for a method, the first that it gives, and what makes it better
MAIN: Final = {"accuracy": 1.0, "return": 1.0, "mse": -1.0, "loss": -1.0}


def main_metric(names: Container[str]) -> str:
    """Return the figure that stands for a method: accuracy, return, mse, else loss."""
    return next((name for name in MAIN if name in names), "loss")


def interval(values: NDArray[np.float64]) -> dict[str, list[float]]:
    """Return `mean` and `ci95` (1.96 σ/√n, σ with n − 1) of each column of `[n, columns]`."""
    count = len(values)
    with np.errstate(invalid="ignore", over="ignore"):  # figures may be infinite or NaN
        spread = values.std(axis=0, ddof=1) if count > 1 else np.zeros(values.shape[1])
        half = 1.96 * spread / math.sqrt(count)
        return {"mean": values.mean(axis=0).tolist(), "ci95": half.tolist()}
