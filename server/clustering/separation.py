"""Are these directions two clouds, or one that was cut? A test of 2-means by held-out units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64, Stream

RING_SHARE: Final = 8 / math.pi**2  # of a ring's variance in a plane that a cut through it takes
NUM_FOLDS: Final = 4
MOST_FITTED: Final = 1000  # units; more would cost time and change no verdict
_MAX_SEED: Final = 2**32
_NO_LENGTH: Final = 1e-12


@dataclass(frozen=True)
class Separation:
    """Two clusters of directions, and what held-out units say of them.

    Attributes:
        labels: the cluster of each direction, 0 or 1, int64 `[units]`; 0 is the larger.
        share: E below, of held-out units.
        error: its standard error.
        p_value: P(a share as large | E = 8/π²), one-sided.
    """

    labels: Int64
    share: float
    error: float
    p_value: float


def lengths_of(rows: NDArray[np.floating]) -> Float64:
    """Return the length of each row, float64; 0 for what is too short to have a direction."""
    exact = rows.astype(np.float64, copy=False)
    lengths: Float64 = np.sqrt(np.einsum("ud,ud->u", exact, exact))
    lengths[lengths <= _NO_LENGTH] = 0.0
    return lengths


def normalised(rows: NDArray[np.floating]) -> Float64:
    """Return the rows with length 1, float64; those of no length are 0."""
    lengths = lengths_of(rows)
    lengths[lengths == 0.0] = np.inf
    unit: Float64 = rows / lengths[:, None]
    return unit


def separate(directions: Float64, random: Stream, restarts: int) -> Separation:
    """Cut directions into two by 2-means, and test the cut on units that had no part in it.

    2-means cuts anything, and what it was fitted to always looks cut. So each of four folds of
    the units is projected on the line between the centres that the other three give, its middle
    being 0, and of these z

        E = 1 - Σ_i (z_i - mean of the z on the side of z_i)² / Σ_i (z_i - mean)²

    is the share of the variance that the cut explains. Where z is symmetric with a single mode it
    is at most the 3/4 of a uniform; of a normal 2/π = .64, less with heavier tails. Two clouds go
    to 1. The null is the .81 of a ring, which has two modes on a line and yet is one set, so that
    any one cloud of units which differ from each other is left whole: (E - 8/π²) / error is
    compared with Student's t, the error that of the influence function.

    Args:
        directions: `[units, dims]`, of length 1 (then 2-means goes by the cosine), 8 or more.
        random: for the folds and the centres.
        restarts: of 2-means from other centres; the best is taken.

    References:
        Liu, Hayes, Nobel, Marron, "Statistical significance of clustering for high-dimension,
        low-sample size data" (2008) tests 2-means against one normal cloud. We differ: held-out
        units and a bound in place of a simulated null, which needs a model of the covariance.
        Hartigans' dip test of the same z has less power at 4 : 1.
    """
    from threadpoolctl import threadpool_limits

    seed = int(random.integers(1, _MAX_SEED)[0])
    order = random.permutation(len(directions))
    with threadpool_limits(1):  # centres depend on the number of threads
        fitted = order[:MOST_FITTED]
        labels = _two_means(directions[fitted], seed, restarts).predict(directions)
        z = _held_out(directions[fitted], labels[fitted], seed, restarts)
    if (labels == 1).sum() * 2 > len(labels):
        labels = 1 - labels
    share, error = explained(z)
    return Separation(labels.astype(np.int64), share, error, _p_value(share, error, len(z)))


def explained(z: Float64) -> tuple[float, float]:
    """Return the share of the variance of `z` that its sign explains, and its standard error."""
    is_above = z > 0
    spread = np.square(z - z.mean())
    if is_above.all() or not is_above.any() or spread.mean() <= _NO_LENGTH**2:
        return 0.0, 0.0
    means = np.where(is_above, z[is_above].mean(), z[~is_above].mean())
    within = np.square(z - means)
    ratio = float(within.mean() / spread.mean())
    influence = (within - ratio * spread) / spread.mean()
    return 1.0 - ratio, float(influence.std() / math.sqrt(len(z)))


def _p_value(share: float, error: float, count: int) -> float:
    from scipy import stats

    if error == 0.0:
        return float(share <= RING_SHARE)
    return float(stats.t.sf((share - RING_SHARE) / error, count - 1))


def _held_out(rows: Float64, labels: Int64, seed: int, restarts: int) -> Float64:
    """Return each row's place on the line that other rows give, those of label 1 above 0."""
    fold = np.arange(len(rows)) % NUM_FOLDS
    z = np.empty(len(rows))
    for number in range(NUM_FOLDS):
        is_out = fold == number
        made = _two_means(rows[~is_out], seed, restarts)
        centres = made.cluster_centers_
        line = centres[1] - centres[0]
        is_turned = 2 * int((made.labels_ == labels[~is_out]).sum()) < len(made.labels_)
        line = (-line if is_turned else line) / max(float(np.sqrt(line @ line)), _NO_LENGTH)
        z[is_out] = ((rows[is_out] - centres.mean(axis=0)) * line).sum(axis=1)
    return z


def _two_means(rows: Float64, seed: int, restarts: int) -> Any:
    from sklearn import cluster

    return cluster.KMeans(2, n_init=restarts, random_state=seed).fit(rows)
