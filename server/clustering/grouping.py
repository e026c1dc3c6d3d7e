"""Groups of units by what was seen of each: the first guess of a mixture. Pure functions.

Which of the directions in which units differ tells their origins is not known; the largest may be
how much ink there is. Two covariances tell what counts. W is that of single rows about the mean of
their unit: noise, so the means a_u are seen in the space where W is the identity, in its first D
principal components. There

    a_u ~ Σ_k π_k Normal(μ_k, Σ),   one Σ for all groups                                  (tied)

which is fitted by EM. With one Σ the likelihood does not change with any linear map of the space:
groups are apart where they are far in units of their own spread, however little of all that differs
between units that is. EM ends in a local optimum, most often in one of the large directions. So it
begins 4 (D − K + 2) times with K-means, each time in a space of unit covariance stretched in K − 1
directions drawn at random, and the likeliest end is taken; of D = 1, 2, 4, 8 that of the largest
gain, by Bayes' information criterion.

Families of functions are not apart but spread: sines and lines are zero on the average. What tells
them is the directions that they differ in, so there each group has a covariance of its own,

    a_u ~ Σ_k π_k Normal(μ_k, Σ_k)                                                        (full)

with so few dimensions that a group has 5 units for each of its D (D + 3) / 2 numbers, and no end
is taken that has D units or fewer in a group, for their likelihood has no bound. Families that hold
one another (a quadratic with a small square is a line) overlap.

References:
    Friedman, Rubin, "On some invariant criteria for grouping data" (1967): the tied mixture.
    Prince, Elder, "Probabilistic linear discriminant analysis" (2007): W and means of units.
    Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004):
    how W is estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64, Stream
from dmaml.server.clustering.evidence import means_by, shortened

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

TIED: Final = "tied"  # scikit-learn's words
FULL: Final = "full"
SPACES: Final = (1, 2, 4, 8)  # D
_UNITS_OF_A_DIM: Final = 8  # D is at most a so-many-th of the units
_UNITS_OF_A_NUMBER: Final = 5  # of μ_k and Σ_k
_CLIP: Final = {TIED: 3.0, FULL: 30.0}  # most median distances of a unit from the middle
_STARTS: Final = 4
_STRETCH: Final = 10.0
_STEPS: Final = 1000  # of EM, at most
_FITTED: Final = 1000  # units at most that the mixture is fitted to
_NOISE: Final = 8_192  # rows at most that W is made of
_QUIET: Final = 1e-3  # of the largest deviation in W: what has less noise counts as having this
_LEAST_VARIANCE: Final = 1e-6
_MAX_SEED: Final = 2**31


class Groups(NamedTuple):
    """What a set of units falls into.

    Attributes:
        units: those that have rows, ascending int64 `[S]`.
        gamma: of each in the groups, float64 `[S, parts]`, the first for the largest.
        gain: how much better the mixture describes them than a single Gaussian: half the
            difference of Bayes' information criterion, nats of all units together.
    """

    units: Int64
    gamma: Float64
    gain: float


def grouped(
    units: Int64,
    rows: NDArray[np.float32],
    parts: int,
    is_direction: bool,
    own: Stream,
    covariance: str = TIED,
) -> Groups:
    """Cluster units by the mean of their rows.

    A mean far from all others is moved towards the middle first, for else a single odd unit is a
    group.

    Args:
        units: of each row, int64 `[rows]`.
        rows: features, sketches or losses, float32 `[rows, columns]`.
        parts: K.
        is_direction: rows are brought to length 1, so that their directions are compared.
        own: where its random numbers come from.
        covariance: one for all groups, or of each group its own.

    Raises:
        ValueError: fewer units than groups.
    """
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    known, inverse = np.unique(units, return_inverse=True)
    if len(known) < parts:
        raise ValueError(
            f"{len(known)} units seen, to be divided into {parts}. Set clustering.pipelines to "
            f"{len(known)} or fewer, or, of sketches and losses, raise the option split_visits"
        )
    seed = int(own.integers(1, _MAX_SEED)[0])
    with threadpool_limits(1):  # results depend on the number of threads
        if is_direction:
            lengths = np.sqrt(np.einsum("rc,rc->r", rows, rows))
            rows = rows / np.maximum(lengths, 1e-12)[:, None]
        means = means_by(inverse, rows, len(known))
        if len(rows) > len(known):
            means = means @ whitening(rows, inverse, means)
        means = shortened(means, np.median(means, axis=0), _CLIP[covariance])
        most = max(parts - 1, _most_dims(len(known), parts, covariance))
        places = PCA(min(most, *means.shape), random_state=seed).fit_transform(means)
        places /= np.maximum(places.std(axis=0), 1e-12)
        some = own.permutation(len(places))[:_FITTED]
        several = sorted({min(max(dims, parts - 1), places.shape[1]) for dims in SPACES})
        found = [mixed(places[:, :dims], some, parts, seed, covariance) for dims in several]
        return Groups(known, *max(found, key=lambda one: one[1]))


def _most_dims(units: int, parts: int, covariance: str) -> int:
    """Return the largest D that so many units allow, at most that of SPACES."""
    if covariance == TIED:
        return min(SPACES[-1], units // _UNITS_OF_A_DIM)
    most = min(units, _FITTED) / parts / _UNITS_OF_A_NUMBER
    return max((dims for dims in SPACES if dims * (dims + 3) / 2 <= most), default=1)


def whitening(rows: NDArray[np.float32], inverse: Int64, means: Float64) -> Float64:
    """Return the map after which rows of one unit differ by white noise; see `quieted`.

    Args:
        rows: `[rows, columns]`; evenly spaced ones are looked at, at most 8,192.
        inverse: the place of each row's unit in `means`, int64 `[rows]`.
        means: of each unit's rows, float64 `[S, columns]`.
    """
    every = slice(None, None, -(-len(rows) // _NOISE))
    return quieted(rows[every] - means[inverse[every]])


def quieted(noise: Float64) -> Float64:
    """Return the map after which the covariance of `noise` is the identity.

    Args:
        noise: what differs between rows of one unit, `[rows, columns]`; all zeros: nothing is
            known of it, and the map is the identity.

    Returns:
        float64 `[columns, columns]`, to be multiplied from the right.
    """
    from sklearn.covariance import ledoit_wolf

    scales = np.sqrt(np.square(noise).mean(axis=0))
    if not scales.any():
        return np.eye(noise.shape[1])
    scales = np.maximum(scales, _QUIET * scales.max())
    covariance, _ = ledoit_wolf(noise / scales, assume_centered=True)  # as correlations
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, np.square(_QUIET) * values[-1])
    found: Float64 = vectors / np.sqrt(values) / scales[:, None]
    return found


def mixed(
    places: Float64, some: Int64, parts: int, seed: int, covariance: str
) -> tuple[Float64, float]:
    """Return γ of the mixture of Gaussians and its gain, nats of all units.

    Args:
        places: of units, float64 `[S, D]`, each column of variance 1 and uncorrelated.
        some: the units that it is fitted to.
        covariance: one for all groups, or of each group its own.
    """
    from scipy.stats import ortho_group
    from sklearn.mixture import GaussianMixture

    dims = places.shape[1]
    scales = np.where(np.arange(dims) < parts - 1, _STRETCH, 1.0)
    starts = _STARTS * max(1, dims - parts + 2)  # the more, the more directions to choose from
    turns = ortho_group.rvs(dims, starts, random_state=seed) if dims > 1 else np.ones(starts)
    maps = np.reshape(turns, (starts, dims, dims)) * scales  # of one determinant

    def fitted(count: int, number: int) -> GaussianMixture:
        model = GaussianMixture(
            count, covariance_type=covariance, max_iter=_STEPS, random_state=seed + number,
            reg_covar=_LEAST_VARIANCE,
        )  # fmt: skip
        return model.fit(places[some] @ maps[number])

    ends = [fitted(parts, number) for number in range(starts)]
    likelihoods = [
        _likelihood(end, places[some] @ turn) for end, turn in zip(ends, maps, strict=True)
    ]
    best = int(np.argmax(likelihoods))
    gamma = ends[best].predict_proba(places @ maps[best])
    inside = places[some] @ maps[best]
    gain = (fitted(1, best).bic(inside) - ends[best].bic(inside)) / 2.0
    largest_first = np.argsort(-gamma.sum(axis=0), kind="stable")
    return gamma[:, largest_first], float(gain) * len(places) / len(some)


def _likelihood(end: GaussianMixture, places: Float64) -> float:
    """Return an end's likelihood; -inf where a group with a Σ of its own is too small for one."""
    if end.covariance_type == FULL:
        sizes = np.bincount(end.predict(places), minlength=end.n_components)
        if sizes.min() <= places.shape[1]:
            return -np.inf
    return float(end.lower_bound_)


def faint(labels: Int64, parts: int, strength: float) -> Float64:
    """Return γ, float64 `[S, parts]`: `strength` for the label, the rest shared by all."""
    return strength * np.eye(parts)[labels] + (1.0 - strength) / parts
