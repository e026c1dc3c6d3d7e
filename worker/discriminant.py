"""Which pipeline a support set looks like, learned from tasks of the units that each has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, TooFewUnitsError
from dmaml.common.gamma import columns_of
from dmaml.common.layout import Flat, Layout
from dmaml.common.seeds import Float64, Kind, stream
from dmaml.worker.models.base import Params, params_of
from dmaml.worker.probes.features import Embedding
from dmaml.worker.tasks.base import TaskSource

TASKS: Final = 48  # of each pipeline


@final
class Discriminant:
    """Linear discriminant analysis of support sets.

    A support set is the mean of its examples' features φ: the model without its head at the θ of
    one pipeline, batch norm with the statistics of 128 training examples (`Embedding`). 48 tasks
    of the training units of each pipeline give the means μ_p, and a covariance Σ that they share,
    the mean of each one's, shrunk after Ledoit and Wolf:

        ln p(φ | p) = -(φ - μ_p)ᵀ Σ⁻¹ (φ - μ_p) / 2 + const

    Σ is that of support sets as large as in training: of smaller ones the likelihoods are too
    sure, of larger ones not sure enough. Which is the largest does not depend on it.

    Args:
        config: the run's; support sets are as large as in training.
        source: the run's tasks.
        gamma: γ, float32 `[num_units, P]`.
        columns: of the pipelines that may be chosen.
        theta: whose features.

    Raises:
        ConfigError: the algorithm's parameters are no model with a head, or the tasks are of
            regression, whose features do not see the targets.
        TooFewUnitsError: none of them has units enough for a task.

    References:
        Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
        (2004).
    """

    def __init__(
        self,
        config: RunConfig,
        source: TaskSource,
        gamma: NDArray[np.float32],
        columns: Sequence[int],
        theta: Params,
    ) -> None:
        self._embed = Embedding(config, source, 0, theta)
        self._size = gamma.shape[1]
        units, task = source.split("train"), config.task
        own = columns_of(gamma[units])
        rows: list[Float64] = []
        labels: list[int] = []
        missing: TooFewUnitsError | None = None
        for column in columns:
            streams = [stream(config.run.seed, Kind.CALIBRATE, 1, column, j) for j in range(TASKS)]
            try:
                batch = source.sample(streams, units[own == column], task.n_way, task.k_shot, 1)
            except TooFewUnitsError as error:
                missing = error
                continue  # it sits out
            rows.append(self._described(batch.support_x))
            labels += [column] * TASKS
        if not rows and missing is not None:
            raise missing
        self._known = sorted(set(labels))
        self._model: Any = None
        if len(self._known) > 1:
            self._model = _fitted(np.concatenate(rows), np.array(labels))

    def __call__(self, x: NDArray[np.float32]) -> Float64:
        """Return ln p(support set | pipeline) but for a constant of each set, float64 `[T, P]`.

        A pipeline that may not be chosen, or of whose units no task can be drawn, has -inf.

        Args:
            x: examples, float32 `[T, S, *input_shape]`.
        """
        found = np.full((len(x), self._size), -np.inf)
        found[:, self._known] = 0.0
        if self._model is not None:
            found[:, self._known] = _log_likelihoods(self._model, self._described(x))
        return found

    def _described(self, x: NDArray[np.float32]) -> Float64:
        flat = self._embed([x.reshape(-1, *x.shape[2:])])
        flat = np.nan_to_num(flat, posinf=0.0, neginf=0.0)  # of a θ that is about to diverge
        means: Float64 = flat.reshape(*x.shape[:2], -1).mean(axis=1, dtype=np.float64)
        return means


def discriminant_of(
    config: RunConfig,
    source: TaskSource,
    gamma: NDArray[np.float32] | None,
    layout: Layout,
    thetas: Sequence[Flat],
) -> Discriminant | None:
    """Return that of a run's pipelines, by the features of the first whose θ is finite.

    None where there is none, so that support losses must decide: no γ yet, regression, parameters
    that are no model with a head, no finite θ, too few units everywhere.

    Args:
        gamma: float32 `[num_units, P]`; None or without rows: not known yet.
        thetas: of the P active pipelines, by their ids; one that is not finite is not chosen.
    """
    finite = [column for column, theta in enumerate(thetas) if np.isfinite(theta).all()]
    if gamma is None or not len(gamma) or source.kind != "classification" or not finite:
        return None
    theta = params_of(layout, thetas[finite[0]])
    try:
        return Discriminant(config, source, gamma, finite, theta)
    except (ConfigError, TooFewUnitsError):
        return None


def _fitted(rows: Float64, labels: NDArray[np.int64]) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        size = len(np.unique(labels))
        even = np.full(size, 1.0 / size)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
        return model.fit(rows, labels)


def _log_likelihoods(model: Any, rows: Float64) -> Float64:
    """Return scikit-learn's log posteriors with even priors."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        scores = model.decision_function(rows)
    if scores.ndim == 1:  # of two classes it gives the difference
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    found: Float64 = scores
    return found
