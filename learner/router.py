"""Which pipeline of a run a task is for that it never saw, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.checkpoint import CLUSTERING, GAMMA, Checkpoint, layout_of, thetas_of
from dmaml.common.config import RunConfig
from dmaml.common.seeds import Int64
from dmaml.worker.discriminant import Discriminant, discriminant_of
from dmaml.worker.probes.features import flattened
from dmaml.worker.probes.projection import narrowed
from dmaml.worker.routing import Float64, posterior
from dmaml.worker.tasks.base import TaskSource, Units

Float32 = NDArray[np.float32]
SEVERAL: Final = "several"  # a task whose classes are of more than one origin


@dataclass(frozen=True)
class Routes:
    """Where T tasks go.

    Attributes:
        pipelines: ids of the P active pipelines, ascending: the columns.
        chosen: the column of each task, int64 `[T]`.
        posterior: P(pipeline | support set), float64 `[T, P]`, rows sum to 1.
    """

    pipelines: tuple[int, ...]
    chosen: Int64
    posterior: Float64

    def first(self) -> tuple[int, dict[int, float]]:
        """Return the pipeline of the first task, and its posterior by pipeline."""
        row = self.posterior[0].tolist()
        return self.pipelines[int(self.chosen[0])], dict(zip(self.pipelines, row, strict=True))


@final
class Router:
    """Routes tasks to the pipelines of a run; looks at support sets alone.

    Where the clustering state of the run has centres of pixels (`kmeans`), a support example
    belongs to the nearest centre, and the task goes to the pipeline with most of them, of equal
    ones to that whose centre is nearer on the whole; the posterior is the share of each.

    Elsewhere a support set of pictures goes where it is the likeliest by its features
    (`Discriminant`, at the θ of the first pipeline that is finite), learned from the tasks of
    training units that γ routes to each pipeline.

    Where there are no such features (regression; algorithms whose parameters are no model with a
    head) or no γ yet, it goes to the pipeline with the least loss on the support set after
    adaptation to it, `worker.routing.posterior`.

    The prior of the posterior is the share of training units, the mean of γ over them; it has no
    part in the choice. A pipeline that no training unit belongs to, or whose θ is not finite, is
    not chosen. (Centres have no prior, and are not asked for θ.)

    Args:
        config: the run's.
        checkpoint: γ and the clustering state; without γ all shares are the same.
        source: the run's tasks.

    Attributes:
        pipelines: ids of the active ones, ascending.
        by: `centres`, `features` or `support_loss`.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint, source: TaskSource) -> None:
        self._thetas = thetas_of(checkpoint)
        self.pipelines = tuple(sorted(self._thetas))
        self._config, self._layout = config, layout_of(checkpoint)
        self._source, self._seed = source, config.run.seed
        self._gamma = _gamma(checkpoint, len(self.pipelines), source)
        self._priors = _priors(self._gamma, len(self.pipelines), source)
        space: dict[str, Any] = checkpoint.meta.get("clustering", {})
        centres = checkpoint.tensors.get(f"{CLUSTERING}centres")
        is_known = space.get("features") == "pixels" and centres is not None
        self._centres = centres if is_known else None
        self._dims = int(space.get("dims", 0))

    @property
    def by(self) -> str:
        """What decides: `centres`, `features` or `support_loss`."""
        if self._centres is not None:
            return "centres"
        return "features" if self._discriminant is not None else "support_loss"

    @cached_property
    def _discriminant(self) -> Discriminant | None:
        """None: support losses decide. Tasks are drawn, so not before a task is routed."""
        thetas = [self._thetas[pipeline] for pipeline in self.pipelines]
        return discriminant_of(self._config, self._source, self._gamma, self._layout, thetas)

    def route(self, x: Float32, y: NDArray[Any], losses: Callable[[], Float64]) -> Routes:
        """Return where tasks go.

        Args:
            x, y: their support sets, float32 `[T, S, *input_shape]`, and labels int64 `[T, S]` or
                targets float32 `[T, S, outputs]`.
            losses: gives the mean loss on each support set after adaptation to it, float64
                `[T, P]`; called where it decides.
        """
        if len(self.pipelines) == 1:
            return Routes(self.pipelines, np.zeros(len(x), dtype=np.int64), np.ones((len(x), 1)))
        if self._centres is not None:
            return self._by_centres(x, y, self._centres)
        if self._discriminant is not None:
            return self._by_likelihood(self._discriminant(x))
        found = losses()
        is_possible = np.isfinite(found) & (self._priors > 0)
        chosen = np.where(is_possible, found, np.inf).argmin(axis=1)
        return Routes(self.pipelines, chosen, posterior(found, x.shape[1], self._priors))

    def _by_likelihood(self, likelihoods: Float64) -> Routes:
        with np.errstate(divide="ignore"):
            logs = likelihoods + np.log(self._priors)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        return Routes(self.pipelines, likelihoods.argmax(axis=1), shares)

    def _by_centres(self, x: Float32, y: NDArray[Any], centres: Float32) -> Routes:
        tasks, examples = x.shape[:2]
        flat = flattened(self._source, *(part.reshape(-1, *part.shape[2:]) for part in (x, y)))
        rows = narrowed(flat, self._seed, self._dims)
        away = np.square(rows[:, None].astype(np.float64) - centres).sum(axis=2)
        is_nearest = np.eye(len(centres))[away.argmin(axis=1)]
        shares, sums = (
            part.reshape(tasks, examples, -1).mean(axis=1) for part in (is_nearest, away)
        )
        chosen = np.lexsort((sums, -shares), axis=-1)[:, 0]
        return Routes(self.pipelines, chosen, shares)


def _gamma(checkpoint: Checkpoint, num_pipelines: int, source: TaskSource) -> Float32 | None:
    """Return γ, float32 `[num_units, P]`; None: it is not known yet, or of other units."""
    gamma = checkpoint.tensors.get(GAMMA)
    is_known = gamma is not None and gamma.shape == (source.num_units, num_pipelines)
    return gamma if is_known else None


def _priors(gamma: Float32 | None, num_pipelines: int, source: TaskSource) -> Float64:
    """Return the mean γ of the units that are trained on, float64 `[P]`."""
    if gamma is None:
        return np.full(num_pipelines, 1.0 / num_pipelines)
    priors: Float64 = gamma[source.split("train")].mean(axis=0, dtype=np.float64)
    return priors


def joined(parts: list[Routes]) -> Routes:
    """Return the tasks of several, one after another."""
    return Routes(
        parts[0].pipelines,
        np.concatenate([one.chosen for one in parts]),
        np.concatenate([one.posterior for one in parts]),
    )


def origins_of(source: TaskSource, units: Units) -> list[str] | None:
    """Return the name of each task's true origin, for reports alone; None: it is not known.

    Args:
        units: int64 `[T, n_way]`.
    """
    if source.origin is None:
        return None
    names = getattr(source, "origin_names", None)
    found = [sorted(set(row)) for row in source.origin[units].tolist()]
    return [SEVERAL if len(one) > 1 else names[one[0]] if names else str(one[0]) for one in found]


def summary(routes: Routes, origins: list[str] | None) -> dict[str, Any]:
    """Return the share of tasks that went to each pipeline and the mean posterior, by pipeline.

    Args:
        origins: of each task, or None.

    Returns:
        `pipelines`, `tasks`, `shares`, `posterior` (lists by pipeline), and where origins are
        known `origins`: the same of each, with `origin`.
    """

    def told(rows: NDArray[np.bool_]) -> dict[str, Any]:
        tasks = int(rows.sum())
        counts = np.bincount(routes.chosen[rows], minlength=len(routes.pipelines))
        means = routes.posterior[rows].mean(axis=0)
        return {"tasks": tasks, "shares": (counts / tasks).tolist(), "posterior": means.tolist()}

    every = np.ones(len(routes.chosen), dtype=np.bool_)
    out = {"pipelines": list(routes.pipelines), **told(every)}
    if origins is None:
        return out
    of = np.array(origins)
    return out | {"origins": [{"origin": one, **told(of == one)} for one in sorted(set(origins))]}
