"""Evidence of losses: what query samples say about which pipeline a unit belongs to.

One PROBE round r brings, for every episode e (a unit u in one task), the mean loss ℓ_ep of its
query samples after adaptation under each of P pipelines. Whatever makes a task hard for all of
them cancels in

    d_ep = ℓ_ep − (1/P) Σ_q ℓ_eq                                                     (differences)

and whatever makes a pipeline better at everything in the middle between the pipelines' own units,
which, unlike the mean of all units, does not depend on how many units each has:

    c_rk = Σ_e γ_uk d_e / Σ_e γ_uk,   c_r = (1/P) Σ_k c_rk
    s_r² = median_e |d_e − c_rk(u)|² / median χ²_{P−1},   k(u) = argmax_k γ_uk
    z_e  = (d_e − c_r) / s_r                                                        (standardised)

s_r is the deviation of an episode within its pipeline, so rounds of young and of ripe pipelines
can be summed, with forgetting 0 < λ <= 1 (1: nothing is forgotten; R rounds so far):

    N_u = Σ λ^{R−r},  m_u = Σ λ^{R−r} z_e / N_u,  n_u = N_u² / Σ λ^{2(R−r)}             (Evidence)
    σ² = Σ_u Σ_e λ^{R−r} |z_e − m_u|² / ((P − 1) Σ_u (N_u − N_u / n_u))

σ / √n_u is the standard error of a unit's mean. Units of pipeline k scatter about μ_k, all alike.
What was seen of unit u before any loss, the features of a split, has a likelihood a_uk of its own:

    m_u | k ~ Normal(μ_k, V_u I),  V_u = τ² + σ² / n_u,   P(k) = π_k
    E:  γ_uk ∝ π_k a_uk exp(−|m_u − μ_k|² / 2 V_u T)                                      (fitted)
    M:  μ_k = Σ_u γ_uk m_u / V_u / Σ_u γ_uk / V_u,   π_k = (Σ_u γ_uk + 1) / (U + P)
        τ² = Σ_uk γ_uk (|m_u − μ_k|² / (P − 1) − σ² / n_u) / V_u² / Σ_uk γ_uk / V_u²

With P = 2 the log-odds are log π_0/π_1 plus the distance from the middle of μ_0 and μ_1, times
|μ_0 − μ_1| / V_u: T = 1 is Bayes' rule, whatever the unit of the loss, and T > 1 trusts it less.

References:
    Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm" (1977).
    Ueda, Nakano, "Deterministic annealing EM algorithm" (1998). Theirs is a power of the whole
    joint density; here T weakens the losses alone, which say little of pipelines that are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64

MOST_STEPS: Final = 50  # of EM in one PROBE round
_SETTLED: Final = 1e-4  # the largest change of γ that ends them
_LEAST_SPREAD: Final = 1e-3  # τ², in units of an episode's variance
_TINY: Final = 1e-12


def episodes(units: Int64, values: NDArray[np.float32]) -> tuple[Int64, Float64]:
    """Return the mean losses of every unit in every task: units `[E]`, losses `[E, P]`.

    Query samples of a task share its support set, so they are one observation of their unit: rows
    of one unit that follow each other.

    Args:
        units: of each row, int64 `[rows]`.
        values: losses, float32 `[rows, P]`.
    """
    starts = np.flatnonzero(np.diff(units, prepend=-1))
    episode = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(units)))
    return units[starts], means_by(episode, values, len(starts))


def means_by(groups: Int64, rows: NDArray[Any], count: int) -> Float64:
    """Return the mean row of each group, float64 `[count, columns]`; of an empty one zeros."""
    from scipy.sparse import csr_array

    sizes = np.bincount(groups, minlength=count)
    where = (groups, np.arange(len(groups)))
    pick = csr_array((1.0 / np.maximum(sizes, 1)[groups], where), shape=(count, len(groups)))
    found: Float64 = pick @ rows.astype(np.float64)
    return found


def standardised(losses: Float64, gamma: Float64, clip: float) -> Float64:
    """Return z, float64 `[E, P]`; zeros where the pipelines do not differ at all.

    Args:
        losses: of each episode, float64 `[E, P]`.
        gamma: of the episode's unit, float64 `[E, P]`.
        clip: an episode is moved towards the middle to at most so many deviations.
    """
    found = losses - losses.mean(axis=1, keepdims=True)
    found = shortened(found, np.median(found, axis=0), clip)
    mass = gamma.sum(axis=0)
    centres = np.einsum("ek,ep->kp", gamma, found) / np.maximum(mass, _TINY)[:, None]
    has_own = mass > _TINY
    own = centres[gamma.argmax(axis=1)]
    scale = deviation(found - own)
    if scale <= _TINY:
        return np.zeros_like(found)
    out: Float64 = (found - centres[has_own].mean(axis=0)) / scale
    return out


def shortened(rows: Float64, centre: Float64, clip: float) -> Float64:
    """Return the rows, none farther from `centre` than `clip` robust deviations."""
    apart: Float64 = rows - centre
    length = np.sqrt(np.einsum("ud,ud->u", apart, apart))
    most = clip * float(np.median(length))
    if most <= 0:
        return rows
    apart *= np.minimum(1.0, most / np.maximum(length, _TINY))[:, None]
    apart += centre
    return apart


def deviation(rows: Float64) -> float:
    """Return s of rows about 0 that lie in P − 1 dimensions: by their median length."""
    from scipy.special import gammaincinv

    dims = rows.shape[1] - 1
    squares = np.square(rows).sum(axis=1)
    middle = float(np.median(squares)) / float(2.0 * gammaincinv(dims / 2.0, 0.5))  # of χ²
    return float(np.sqrt(middle if middle > _TINY else squares.mean() / dims))


@final
@dataclass(frozen=True)
class Evidence:
    """Sums over all PROBE rounds, by unit.

    Attributes:
        count: N_u, float64 `[U]`.
        square: Σ λ^{2(R−r)}, float64 `[U]`.
        total: Σ λ^{R−r} |z|², float64 `[U]`.
        sums: Σ λ^{R−r} z, float64 `[U, P]`.
    """

    count: Float64
    square: Float64
    total: Float64
    sums: Float64

    @classmethod
    def empty(cls, num_units: int, num_pipelines: int) -> Evidence:
        """Return what is known before the first round."""
        nothing = np.zeros(num_units)
        return cls(nothing, nothing, nothing, np.zeros((num_units, num_pipelines)))

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Evidence:
        """Return what a state's arrays hold."""
        return cls(*(arrays[f"evidence_{name}"] for name in ("count", "square", "total", "sums")))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return it as arrays of a state."""
        return {f"evidence_{name}": value for name, value in vars(self).items()}

    def added(self, units: Int64, z: Float64, memory: float) -> Evidence:
        """Return the sums with one more round.

        Args:
            units: of each episode, int64 `[E]`.
            z: float64 `[E, P]`.
            memory: λ.
        """
        size = len(self.count)
        seen = np.bincount(units, minlength=size).astype(np.float64)
        lengths = np.square(z).sum(axis=1)
        return Evidence(
            self.count * memory + seen,
            self.square * memory**2 + seen,
            self.total * memory + np.bincount(units, lengths, minlength=size),
            self.sums * memory + means_by(units, z, size) * seen[:, None],
        )

    @property
    def means(self) -> Float64:
        """m_u, float64 `[U, P]`; zeros of units that were not seen."""
        out: Float64 = self.sums / np.maximum(self.count, _TINY)[:, None]
        return out

    @property
    def errors(self) -> Float64:
        """σ² / n_u, float64 `[U]`, of units that were seen; σ² is 1 until a unit was seen twice."""
        count = np.maximum(self.count, _TINY)
        effective = np.square(count) / np.maximum(self.square, _TINY)
        freedom = float((self.count - self.square / count).sum()) * (self.sums.shape[1] - 1)
        inside = self.total - count * np.square(self.means).sum(axis=1)
        noise = max(float(inside.sum()), 0.0) / freedom if freedom > 1 else 1.0
        out: Float64 = noise / np.maximum(effective, _TINY)
        return out


@final
@dataclass(frozen=True)
class Fit:
    """The mixture of units.

    Attributes:
        gamma: float64 `[S, P]`, rows sum to 1.
        priors: π, float64 `[P]`.
        means: μ, float64 `[P, columns]`, a row for each pipeline's units.
        spread: τ².
    """

    gamma: Float64
    priors: Float64
    means: Float64
    spread: float


def fitted(
    means: Float64,
    errors: Float64,
    gamma: Float64,
    anchor: Float64,
    temperature: float,
    dims: int | None = None,
) -> Fit:
    """Return the mixture that EM comes to from `gamma`, in at most 50 steps.

    Args:
        means: m, float64 `[S, columns]`.
        errors: σ² / n, float64 `[S]`.
        gamma: to begin with, float64 `[S, P]`.
        anchor: a, > 0, float64 `[S, P]`.
        temperature: T.
        dims: in which the means lie; None: P − 1.
    """
    count, size = gamma.shape
    dims = dims or size - 1
    spread = max(float(np.square(means - means.mean(axis=0)).sum() / (count * dims)), _LEAST_SPREAD)
    centres = np.zeros((size, means.shape[1]))
    for _ in range(MOST_STEPS):
        priors = (gamma.sum(axis=0) + 1.0) / (count + size)
        weights = gamma / (spread + errors)[:, None]
        mass = weights.sum(axis=0)[:, None]
        sums = np.einsum("uk,up->kp", weights, means)
        centres = np.where(mass > _TINY, sums / np.maximum(mass, _TINY), centres)
        squares = distances(means, centres)
        weights = gamma / np.square(spread + errors)[:, None]
        excess = (weights * (squares / dims - errors[:, None])).sum() / weights.sum()
        spread = max(float(excess), _LEAST_SPREAD)
        before, gamma = (
            gamma,
            posterior(
                np.log(priors * anchor) - squares / (2.0 * temperature * (spread + errors)[:, None])
            ),
        )
        if np.abs(gamma - before).max() < _SETTLED:
            break
    return Fit(gamma, priors, centres, spread)


def distances(rows: Float64, centres: Float64) -> Float64:
    """Return the squared distances `[rows, centres]`."""
    both = np.einsum("up,kp->uk", rows, centres)
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    out: Float64 = np.maximum(lengths - 2.0 * both, 0.0)
    return out


def posterior(logs: Float64) -> Float64:
    """Return the softmax of each row."""
    found = np.exp(logs - logs.max(axis=1, keepdims=True))
    out: Float64 = found / found.sum(axis=1, keepdims=True)
    return out


def held_out_gain(gamma: Float64, units: Int64, losses: Float64) -> float:
    """Return how much better the mixture does than the pipeline that waits, mean over units.

    Args:
        gamma: made without these losses, float64 `[U, P]`.
        units: of each episode, int64 `[E]`.
        losses: float64 `[E, 1 + P]`, that of the waiting pipeline first.
    """
    gains = losses[:, 0] - (gamma[units] * losses[:, 1:]).sum(axis=1)
    _, inverse = np.unique(units, return_inverse=True)
    return float((np.bincount(inverse, gains) / np.bincount(inverse)).mean())
