"""Groups of units by what was seen of each: the first guess of a mixture. Pure functions.

Which of the directions in which units differ tells their origins is not known: the largest may be
how much ink there is. So K-means and a mixture with class priors are tried in several spaces, the
first 2 to 32 principal components as they are and each brought to variance 1, and the space is
taken whose mixture says most about units that it was not made from:

    gain = mean_u ln Σ_k π_k Normal(a_u; μ_k, τ² I) − ln Normal(a_u; 0, I)

with a_u the place of unit u along the K − 1 lines through the groups' centres, brought to mean 0
and variance 1: how much more they look like K groups than like one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64, Stream
from dmaml.server.clustering.evidence import Fit, distances, fitted, means_by, shortened
from dmaml.server.clustering.kmeans import by_size

SPACES: Final = tuple((dims, white) for dims in (2, 4, 8, 16, 32) for white in (False, True))
_CLIP: Final = 3.0  # no unit is farther from the middle than so many median distances
_RESTARTS: Final = 10  # of K-means
_TRIED: Final = 1000  # units at most, for the choice of a space
_TURNS: Final = 3  # the lines are drawn anew
_LEAST_HALF: Final = 4  # units of a half for each group, or there is nothing to judge by
_MAX_SEED: Final = 2**32


class Groups(NamedTuple):
    """What a set of units falls into.

    Attributes:
        units: those that have rows, ascending int64 `[S]`.
        gamma: of each in the groups, float64 `[S, parts]`, the first for the largest of K-means.
        gain: of all units together, nats; 0 of too few to judge by.
    """

    units: Int64
    gamma: Float64
    gain: float


def grouped(
    units: Int64, rows: NDArray[np.float32], parts: int, is_direction: bool, own: Stream
) -> Groups:
    """Cluster units by the mean of their rows.

    A mean far from all others is moved towards the middle first, for else a single odd unit is a
    group. K-means cuts half-way between two centres, however large the groups are; so along the
    lines between the centres a mixture with class priors is fitted to the units
    (`evidence.fitted`), which also says how sure each is.

    Args:
        units: of each row, int64 `[rows]`.
        rows: features, sketches or losses, float32 `[rows, columns]`.
        parts: K.
        is_direction: means are brought to length 1, so that their cosines are compared.
        own: where its random numbers come from.

    Raises:
        ValueError: fewer units than groups.
    """
    known, inverse = np.unique(units, return_inverse=True)
    if len(known) < parts:
        raise ValueError(
            f"{len(known)} units seen, to be divided into {parts}. Raise the option split_visits, "
            "or lower clustering.pipelines"
        )
    means = means_by(inverse, rows, len(known))
    if is_direction:
        lengths = np.sqrt(np.einsum("ud,ud->u", means, means))
        means /= np.maximum(lengths, 1e-12)[:, None]
    means = shortened(means, np.median(means, axis=0), _CLIP)
    return Groups(known, *_clustered(means, parts, own))


def _clustered(means: Float64, parts: int, own: Stream) -> tuple[Float64, float]:
    """Return γ in the space with the largest gain, and that of all units."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    seed = int(own.integers(1, _MAX_SEED)[0])
    order = own.permutation(len(means))[:_TRIED]
    halves = (order[::2], order[1::2])
    most = min(SPACES[-1][0], *means.shape)
    with threadpool_limits(1):  # results depend on the number of threads
        rows = PCA(most, random_state=seed).fit_transform(means)
        several = [space for space in SPACES if parts <= space[0] + 1 and space[0] <= most]
        spaces = [_space(rows, *space) for space in several] or [rows]
        gains = [0.0]
        if len(halves[1]) >= _LEAST_HALF * parts:
            gains = [_gain(space, halves, parts, seed) for space in spaces]
        made = Lines.through(spaces[int(np.argmax(gains))], parts, seed, _RESTARTS)
    return made.fit.gamma, max(gains) * len(means)


def _space(rows: Float64, dims: int, is_white: bool) -> Float64:
    found = rows[:, :dims]
    return found / np.maximum(found.std(axis=0), 1e-12) if is_white else found


def _gain(space: Float64, halves: tuple[Int64, Int64], parts: int, seed: int) -> float:
    """Return the mean of the gains of each half by the other's mixture."""
    one, other = halves
    forth = Lines.through(space[one], parts, seed, 1).gain(space[other])
    return (forth + Lines.through(space[other], parts, seed, 1).gain(space[one])) / 2


@final
@dataclass(frozen=True)
class Lines:
    """A mixture of units, of tied variance along the lines through their groups' centres.

    Attributes:
        lines: float64 `[parts - 1, columns]`, of length 1 and at right angles.
        middle: mean of the units along them.
        scale: their deviation along them.
        fit: the mixture.
    """

    lines: Float64
    middle: Float64
    scale: float
    fit: Fit

    @classmethod
    def through(cls, rows: Float64, parts: int, seed: int, restarts: int) -> Lines:
        """Return the mixture of rows, float64 `[S, columns]`, that begins with K-means."""
        from sklearn.cluster import KMeans

        made = KMeans(parts, n_init=restarts, random_state=seed).fit(rows)
        gamma = np.eye(parts)[by_size(made.labels_.astype(np.int64))]
        for _ in range(_TURNS):
            centres = np.einsum("uk,ud->kd", gamma, rows) / gamma.sum(axis=0)[:, None]
            apart = centres - centres.mean(axis=0)
            lines = np.linalg.svd(apart, full_matrices=False)[2][: parts - 1]
            along = np.einsum("ud,ld->ul", rows, lines)
            middle, scale = along.mean(axis=0), max(float(along.std()), 1e-12)
            errors, anchor = np.zeros(len(rows)), np.ones_like(gamma)
            fit = fitted((along - middle) / scale, errors, gamma, anchor, 1.0, along.shape[1])
            gamma = fit.gamma
        return cls(lines, middle, scale, fit)

    def gain(self, rows: Float64) -> float:
        """Return how much more other rows look like the groups than like one, nats a row."""
        along = (np.einsum("ud,ld->ul", rows, self.lines) - self.middle) / self.scale
        logs = np.log(self.fit.priors) - distances(along, self.fit.means) / (2 * self.fit.spread)
        most = logs.max(axis=1)
        mixed = most + np.log(np.exp(logs - most[:, None]).sum(axis=1))
        mixed -= along.shape[1] / 2 * np.log(self.fit.spread)
        return float((mixed + np.square(along).sum(axis=1) / 2).mean())


def faint(labels: Int64, parts: int, strength: float) -> Float64:
    """Return γ, float64 `[S, parts]`: `strength` for the label, the rest shared by all."""
    return strength * np.eye(parts)[labels] + (1.0 - strength) / parts
