"""Which pipeline a validation task is for: by its features, or whose adaptation fits it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Int64
from dmaml.worker.algorithms.base import Algorithm, Evaluation
from dmaml.worker.discriminant import Discriminant
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

Float64 = NDArray[np.float64]


def evaluate(
    algorithm: Algorithm,
    thetas: Sequence[Params],
    batch: TaskBatch,
    steps: int,
    discriminant: Discriminant | None = None,
) -> Evaluation:
    """Return every task's figures under the pipeline that it is routed to; see `Algorithm`.

    That is the likeliest by the support set's features, or without a discriminant the one with the
    least support loss after `steps` steps, of equal ones the first; one whose θ (by the loss: whose
    loss) is not finite is not taken. The query set is not looked at.

    Args:
        thetas: parameters of the active pipelines, in the order of their ids; with one, it is
            its evaluation.
    """
    if len(thetas) == 1:
        return algorithm.evaluate(thetas[0], batch, steps)
    if discriminant is not None:
        chosen = discriminant(batch.support_x).argmax(axis=1)
        return evaluate_under(algorithm, thetas, batch, steps, chosen)
    found = support_losses(algorithm, thetas, batch, steps)
    chosen = np.where(np.isfinite(found), found, np.inf).argmin(axis=1)
    return evaluate_under(algorithm, thetas, batch, steps, chosen)


def evaluate_under(
    algorithm: Algorithm, thetas: Sequence[Params], batch: TaskBatch, steps: int, chosen: Int64
) -> Evaluation:
    """Return every task's figures under a pipeline of its own; no other is adapted to it here.

    Args:
        batch: at least one task.
        chosen: the place in `thetas` of each task's, int64 `[tasks]`.
    """
    found: dict[str, Float64] = {}
    for place in np.unique(chosen):
        own = np.flatnonzero(chosen == place)
        for name, rows in algorithm.evaluate(
            thetas[place], batch.select(own), steps
        ).metrics.items():
            found.setdefault(name, np.empty((batch.num_tasks, *rows.shape[1:])))[own] = rows
    return Evaluation(found)


def support_losses(
    algorithm: Algorithm, thetas: Sequence[Params], batch: TaskBatch, steps: int
) -> Float64:
    """Return the mean loss on each support set after `steps` steps on it, `[tasks, pipelines]`.

    The query set is not looked at.
    """
    known = replace(batch, query_x=batch.support_x, query_y=batch.support_y)
    losses = []
    for params in thetas:
        metrics = algorithm.evaluate(params, known, steps).metrics
        losses.append(metrics["loss" if "loss" in metrics else "mse"][:, -1])
    return np.stack(losses, axis=1)


def posterior(losses: Float64, num_examples: int, priors: Float64) -> Float64:
    """Return P(pipeline | support set), `[tasks, pipelines]`, rows sum to 1.

        P(p | S) = π_p exp(-Σ_{i in S} ℓ_p(i)) / Σ_q π_q exp(-Σ_{i in S} ℓ_q(i))

    where ℓ_p(i) is the loss of a support example after adaptation to all of S: cross-entropy,
    which is -ln of a probability, or squared error (mean over outputs), that of a Gaussian of
    variance 1/2 but for a constant.

    Args:
        losses: mean over the support set, ℓ̄_p, `[tasks, pipelines]`; not finite: impossible.
        num_examples: |S|.
        priors: π, the share of units of each pipeline, `[pipelines]`.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(priors)
    scores = logs - num_examples * losses
    scores = np.where(np.isfinite(losses) & (priors > 0), scores, -np.inf)
    scores = np.where(np.isfinite(scores).any(axis=1, keepdims=True), scores, logs)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Float64 = weights / weights.sum(axis=1, keepdims=True)
    return shares
