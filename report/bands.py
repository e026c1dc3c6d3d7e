"""Curves of several seeds as a mean with a 95 % band, and smoothing; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Curve = tuple[Sequence[float], Sequence[float]]  # x, rising, and y

# 0.975 quantiles of Student's t with 1, 2, ... degrees of freedom
_T: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
_NORMAL: Final = 1.96


@dataclass(frozen=True)
class Band:
    """A mean and its 95 % interval along x; float64 `[n]` each.

    Attributes:
        half: half-width of the interval; 0 where there is one seed only.
        count: seeds.
    """

    x: Float64
    mean: Float64
    half: Float64
    count: int


def t_quantile(count: int) -> float:
    """Return the 0.975 quantile of Student's t for the mean of `count` values, count >= 2."""
    return _T[count - 2] if count - 2 < len(_T) else _NORMAL


def mean_and_half(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of n >= 1 values and the half-width of its 95 % interval.

    t σ/√n with σ by n − 1 and Student's t: n is 3 in most experiments, where 1.96 would give
    intervals less than half as wide as they must be. 0 for a single value.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, 0.0
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, t_quantile(count) * math.sqrt(variance / count)


def band(curves: Sequence[Curve], num_points: int = 200) -> Band:
    """Return the mean of the seeds' curves and its band, where all of them have values.

    Curves of unlike x (such as seconds) are interpolated linearly; those of the same x are taken
    as they are. Curves that have no part of x in common meet in one point.

    Args:
        curves: at least one, of at least one point each.
        num_points: of the common x where they differ.
    """
    xs = [np.asarray(x, dtype=np.float64) for x, _ in curves]
    ys = [np.asarray(y, dtype=np.float64) for _, y in curves]
    if all(x.shape == xs[0].shape and (x == xs[0]).all() for x in xs):
        common = xs[0]
    else:
        first, last = max(x[0] for x in xs), min(x[-1] for x in xs)
        common = np.linspace(first, last, num_points) if last > first else np.array([first])
    values = np.stack([np.interp(common, x, y) for x, y in zip(xs, ys, strict=True)])
    count = len(values)
    half = np.zeros(len(common))
    if count > 1:
        half = t_quantile(count) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return Band(common, values.mean(axis=0), half, count)


def smoothed(one: Band, degree: int = 10) -> Band:
    """Return the band with its mean replaced by a polynomial fitted to it by least squares.

    The thesis draws its curves so (degree 10). A polynomial of degree d needs more than d points:
    with n of them the degree is at most n − 1, and so the curve then goes through every point.
    """
    order = min(degree, len(one.x) - 1)
    if order < 1:
        return one
    fitted = np.polynomial.Polynomial.fit(one.x, one.mean, order)
    return replace(one, mean=np.asarray(fitted(one.x)))
