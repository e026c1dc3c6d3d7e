"""ParamLoss of γ: the equations of the strategy `gamma`, as pure functions in float64.

An iteration observes S query samples, each of one unit, under K pipelines. With ℓ(s, p) the loss
of sample s after adaptation under pipeline p, u a unit of n(u) of the samples:

    DIFF(s, p)          = ℓ(s, p) - mean over q ≠ p of ℓ(s, q)
    minDIFF(p)          = min over s of DIFF(s, p)
    minSampleMean(p)    = mean over s of [DIFF(s, p) - minDIFF(p)]
    LossDIFF(u, p)      = mean over the samples s of u of [DIFF(s, p) - minDIFF(p)]
                          - minSampleMean(p)
    ParamLoss(γ)        = Σ_u n(u)/S Σ_p p(θ_p | γ_u) LossDIFF(u, p)
    γ_u                 <- γ_u - metaUpdateRate ∇ParamLoss(γ_u), brought back to [0, 1]

p(θ_p | γ_u) = γ(u, p). With K = 2, p(θ₂ | γ) = 1 - p(θ₁ | γ), DIFF(s, 1) = ℓ(s, 1) - ℓ(s, 2) is the
paper's and DIFF(s, 2) the same from the other side.

References:
    "Clustering Mixed Task Distributions using Meta-Learners", Algorithm 1, for K = 2. The names are
    the paper's; what it leaves open, or contradicts, is a field of `Reading` (docs/clustering/
    gamma.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64


@dataclass(frozen=True)
class Reading:
    """How the paper's text is understood.

    Attributes:
        diff: signed (as printed), or absolute (as described).
        complement: whose probability the second term's 1 - p(θ | γ) takes away: first (as meant),
            or second (as printed).
        centre: what is taken from DIFF: mean (minDIFF, then minSampleMean), min (minDIFF alone),
            none.
        robust: none; median (of samples, for both means); clip (DIFF within `width` median
            absolute deviations of its median).
        width: of clip, above 0.
    """

    diff: str = "signed"
    complement: str = "first"
    centre: str = "mean"
    robust: str = "none"
    width: float = 3.0


class Evidence(NamedTuple):
    """What one iteration says about the units that it saw.

    Attributes:
        units: int64 `[U]`, ascending, each once.
        share: n(u)/S, float64 `[U]`, sums to 1.
        loss_diff: LossDIFF, float64 `[U, K]`; below 0: the pipeline suits the unit.
    """

    units: Int64
    share: Float64
    loss_diff: Float64


def differences(losses: NDArray[np.floating], kind: str = "signed") -> Float64:
    """Return DIFF, float64 `[S, K]`: how much worse each pipeline is than the others' mean.

    Args:
        losses: `[S, K]`, K >= 2.
        kind: signed or absolute.
    """
    exact = losses.astype(np.float64)
    diff: Float64 = exact - (exact.sum(axis=1, keepdims=True) - exact) / (exact.shape[1] - 1)
    return np.abs(diff) if kind == "absolute" else diff


def evidence(losses: NDArray[np.floating], units: Int64, reading: Reading) -> Evidence:
    """Return LossDIFF of every unit that an iteration saw.

    Args:
        losses: of its samples, `[S, K]`, S >= 1.
        units: of each sample, int64 `[S]`.
    """
    diff = differences(losses, reading.diff)
    if reading.robust == "clip":
        diff = clipped(diff, reading.width)
    if reading.centre != "none":
        diff = diff - diff.min(axis=0)
    seen, place, counts = np.unique(units, return_inverse=True, return_counts=True)
    is_median = reading.robust == "median"
    if is_median:
        loss_diff = medians_by(place, diff, counts)
    else:
        loss_diff = np.zeros((len(seen), diff.shape[1]))
        np.add.at(loss_diff, place, diff)
        loss_diff /= counts[:, None]
    if reading.centre == "mean":
        loss_diff -= np.median(diff, axis=0) if is_median else diff.mean(axis=0)
    return Evidence(seen, counts / len(units), loss_diff)


def medians_by(groups: Int64, rows: Float64, counts: Int64) -> Float64:
    """Return the median of each column in each group, float64 `[groups, columns]`.

    Args:
        groups: of each row, int64 `[S]`, 0 to len(counts) - 1.
        rows: `[S, columns]`.
        counts: rows of each group, 1 or more.
    """
    starts = np.cumsum(counts) - counts
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    found = np.empty((len(counts), rows.shape[1]))
    for number, column in enumerate(rows.T):
        ordered = column[np.lexsort((column, groups))]
        found[:, number] = (ordered[low] + ordered[high]) / 2
    return found


def clipped(diff: Float64, width: float) -> Float64:
    """Return each column within `width` median absolute deviations of its median."""
    middle = np.median(diff, axis=0)
    reach = width * np.median(np.abs(diff - middle), axis=0)
    return np.clip(diff, middle - reach, middle + reach)


def param_loss(gamma: Float64, found: Evidence, complement: str = "first") -> float:
    """Return ParamLoss at a γ.

    Args:
        gamma: of the units of `found`, float64 `[U, K]`.
        complement: see `Reading`.
    """
    weights = gamma.copy()
    if complement == "second":
        weights[:, 1:] = 1.0 - weights[:, 1:]
    return float((found.share * (weights * found.loss_diff).sum(axis=1)).sum())


def gradient(found: Evidence, complement: str = "first") -> Float64:
    """Return ∂ParamLoss/∂γ(u, p), the other γ of the unit giving way alike, float64 `[U, K]`.

    Rows sum to 0, so γ stays a distribution. With K = 2 the first column is the derivative with
    respect to γ = p(θ₁ | γ) while p(θ₂ | γ) = 1 - γ.
    """
    partial = found.share[:, None] * found.loss_diff
    if complement == "second":
        partial[:, 1:] *= -1.0
    return differences(partial)


def bounded(gamma: Float64) -> Float64:
    """Return the nearest distributions, float64 `[U, K]`; with K = 2: γ clipped to [0, 1].

    References:
        Duchi, Shalev-Shwartz, Singer, Chandra, "Efficient projections onto the l1-ball for
        learning in high dimensions" (2008), figure 1.
    """
    shifted = gamma - gamma.max(axis=1, keepdims=True)  # it changes nothing but the rounding
    ordered = -np.sort(-shifted, axis=1)
    over = np.cumsum(ordered, axis=1) - 1.0
    size = np.arange(1, gamma.shape[1] + 1)
    count = (ordered * size > over).sum(axis=1)
    level = over[np.arange(len(gamma)), count - 1] / count
    nearest: Float64 = np.maximum(shifted - level[:, None], 0.0)
    return nearest


def initial(draws: Float64, num_pipelines: int, bias: float, offset: float) -> Float64:
    """Return the γ that a run begins with, float64 `[U, K]`.

    A unit begins in pipeline 0 with probability `bias`, in each other with the same share of what
    is left. There it has 1/2 + offset; the others have equal parts of 1/2 - offset.

    Args:
        draws: uniform on [0, 1), float64 `[U]`.
        num_pipelines: K.
        bias: b, in (0, 1).
        offset: in (0, 1/2].
    """
    others = num_pipelines - 1
    place = np.floor((draws - bias) / (1.0 - bias) * others).astype(np.int64) + 1
    chosen = np.where(draws < bias, 0, np.clip(place, 1, others))
    gamma = np.full((len(draws), num_pipelines), (0.5 - offset) / others)
    gamma[np.arange(len(draws)), chosen] = 0.5 + offset
    return gamma
