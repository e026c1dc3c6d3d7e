"""K-means on features of the training data: who trains on what is settled before training."""

from __future__ import annotations

import math
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig, most_pipelines, units_of_task
from dmaml.common.gamma import Gamma
from dmaml.common.options import choice, count
from dmaml.common.probes import Probe, ProbeKind
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.server.clustering import PAGE, tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.evidence import means_by
from dmaml.server.clustering.grouping import whitening
from dmaml.server.core.progress import Progress

FEATURES: Final = {
    "pixels": ProbeKind.PIXELS,
    "embedding": ProbeKind.EMBEDDING,
    "adapted": ProbeKind.SKETCHES,
}
_SAMPLES: Final = {"pixels": 50, "embedding": 50, "adapted": 10}
_SILHOUETTE_ROWS: Final = 4096  # the silhouette needs the distances of all pairs
_MAX_SEED: Final = 2**32


@final
class KMeans:
    """Cluster samples of every training unit; a unit belongs where most of its samples do.

        γ[u, p] = share of the samples of unit u in cluster p

    and u is routed to the largest. Clusters are numbered by size, the largest first. All units
    begin in pipeline 0; after the PROBE round the other pipelines are opened as its children, so
    that every one starts from the same θ. Units that are not trained on (those of validation and
    test) get 1 / K for each.

    With `features: adapted` a sample is where a first step of adaptation takes the body's weights,
    φ − θ = −α g with one α for all layers, by a random projection of g (`worker.probes.sketches`:
    the gradient of a unit's own support samples in one task, as label 0). Functions have it, too.
    A unit that no task drew is where all γ are equal: in the first pipeline.

    Args:
        config: `clustering.pipelines` is K; with `choose: silhouette` K is the number from 2 to
            `clustering.max_pipelines` with the best mean silhouette (up to 4,096 samples).
        features: pixels (as they are), embedding (the model's last hidden layer at θ), or adapted
            (weights after a step).
        samples: of each unit, of adapted on the average (of tasks, where a unit is an alphabet);
            None: 50, of adapted 10.
        dims: features of more columns are projected to so many at random; 0: never, but of adapted.
        warmup: TRAIN rounds on everything before it, which features at θ that say something need.
        restarts: of k-means from other centres; the best is taken.
        choose: given or silhouette.
        whiten: none, or noise: features are seen in units of noise, so that the
            covariance of samples about the mean of their unit is the identity
            (`grouping.whitening`). New tasks then go as those of other strategies do.

    Raises:
        ValueError: an unsuitable option.

    References:
        "Clustering Mixed Task Distributions using Meta-Learners": K-means of all samples before
        meta-training, the majority of a class decides.
        Zhou, Zou, Yuan, Feng, Xiong, Hoi, "Task similarity aware meta learning: theory-inspired
        improvement on MAML" (2021, TSA-MAML): K-means of adapted weights. We differ: theirs are
        all weights of a task after all its steps, ours those of a unit after one, without learned
        rates and without the head, whose rows are permuted with the labels; their groups begin at
        the centres, ours at θ.
    """

    def __init__(
        self,
        config: RunConfig,
        features: str = "pixels",
        samples: int | None = None,
        dims: int = 512,
        warmup: int = 0,
        restarts: int = 10,
        choose: str = "given",
        whiten: str = "none",
    ) -> None:
        self._kind = FEATURES[choice("features", features, FEATURES)]
        self._is_drawn = self._kind is ProbeKind.SKETCHES
        given = _SAMPLES[features] if samples is None else samples
        self._samples = count("samples", given, least=1, page=PAGE)
        self._dims = count("dims", dims, least=1 if self._is_drawn else 0, page=PAGE)
        self._is_white = choice("whiten", whiten, ("none", "noise")) == "noise"
        if self._is_white and self._samples < 2:
            raise ValueError(
                f"samples = {samples!r} with whiten 'noise': required 2 or more, for noise is how "
                f"samples of one unit differ. See {PAGE}."
            )
        space = f"{features}, whitened" if self._is_white else features
        self._space = {"features": space, "dims": dims}  # of the centres, for new tasks
        self._warmup = count("warmup", warmup, least=0, page=PAGE)
        self._restarts = count("restarts", restarts, least=1, page=PAGE)
        is_given = choice("choose", choose, ("given", "silhouette")) == "given"
        most = most_pipelines(config)
        key = "pipelines" if is_given else "max_pipelines"
        if (config.clustering.pipelines if is_given else most) < 2:
            raise ValueError(f"clustering.{key} must be 2 or more with choose {choose!r}. Set it.")
        first = config.clustering.pipelines if is_given else 2
        self._sizes = (first,) if is_given else tuple(range(2, most + 1))
        self._units_a_task = units_of_task(config)
        self._seed = int(stream(config.run.seed, Kind.SERVER).integers(1, _MAX_SEED)[0])

    def initial(self) -> State:
        """Return one pipeline that everything belongs to."""
        return State({"version": 0, "tree": tree.roots(1)})

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Ask for features once, after the warm-up; of adapted weights for the units before."""
        if state.values["version"] or progress.trained < self._warmup:
            return None
        if not self._is_drawn:
            return Probe(self._kind, samples=self._samples, dims=self._dims)
        if "units" not in state.values:
            return Probe(ProbeKind.UNITS)
        # so many that each unit is drawn `samples` times on the average
        tasks = math.ceil(self._samples * state.values["units"] / self._units_a_task)
        return Probe(self._kind, tasks=tasks, dims=self._dims)

    def observe(self, state: State, observations: Observations) -> State:
        """Cluster the samples, and open a pipeline for each cluster but the first."""
        if observations.probe.kind is ProbeKind.UNITS:
            number = len(np.unique(observations.units))
            return State({**state.values, "units": number}, state.arrays)
        rows = observations.values
        if self._is_white and len(rows):
            rows = whitened(observations.units, rows)
        labels, silhouettes = self._cluster(rows)
        gamma = shares(observations.units, labels, observations.num_units)
        nodes = tree.opened(state.values["tree"], 0, gamma.shape[1] - 1, observations.trained)
        values = {"version": 1, "tree": nodes, "silhouettes": silhouettes, **self._space}
        return State(values, {"gamma": gamma, "centres": centres_of(rows, labels)})

    def route(self, state: State) -> Gamma:
        """Return γ: shares of samples once they are known."""
        nodes = state.values["tree"]
        matrix = state.arrays.get("gamma", np.zeros((0, 1), dtype=np.float32))
        return Gamma(
            state.values["version"],
            tree.active(nodes),
            matrix,
            tree.pipelines_of(nodes),
            "train" if state.values["version"] else "warmup" if self._warmup else "probe",
        )

    def _cluster(self, rows: NDArray[np.float32]) -> tuple[Int64, dict[str, float]]:
        """Return the cluster of each row, and the silhouette of each K that was tried."""
        if len(rows) < max(self._sizes):
            raise ValueError(
                f"{len(rows)} samples for {max(self._sizes)} clusters. Raise samples, or lower "
                "clustering.pipelines"
            )
        tried = {k: self._fit(rows, k) for k in self._sizes}
        if len(tried) == 1:
            return next(iter(tried.values())), {}
        silhouettes = {k: self._silhouette(rows, labels) for k, labels in tried.items()}
        best = max(silhouettes, key=lambda k: silhouettes[k])
        return tried[best], {str(k): value for k, value in silhouettes.items()}

    def _fit(self, rows: NDArray[np.float32], k: int) -> Int64:
        from sklearn import cluster
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # centres depend on the number of threads
            made = cluster.KMeans(k, n_init=self._restarts, random_state=self._seed).fit(rows)
        return by_size(made.labels_.astype(np.int64))

    def _silhouette(self, rows: NDArray[np.float32], labels: Int64) -> float:
        from sklearn.metrics import silhouette_score
        from threadpoolctl import threadpool_limits

        size = min(len(rows), _SILHOUETTE_ROWS)
        with threadpool_limits(1):
            found: Any = silhouette_score(rows, labels, sample_size=size, random_state=self._seed)
        return float(found)


def whitened(units: Int64, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return samples in units of their noise about their unit's mean, float32."""
    from threadpoolctl import threadpool_limits

    known, inverse = np.unique(units, return_inverse=True)
    with threadpool_limits(1):
        found = whitening(rows, inverse, means_by(inverse, rows, len(known)))
        white: NDArray[np.float32] = rows @ found.astype(np.float32)
    return white


def by_size(labels: Int64) -> Int64:
    """Return the clusters numbered anew: the largest is 0, of equal ones the earlier row's."""
    old, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    new = np.empty(labels.max() + 1, dtype=np.int64)
    new[old[np.lexsort((first, -sizes))]] = np.arange(len(old))
    return new[labels]


def centres_of(rows: NDArray[np.float32], labels: Int64) -> NDArray[np.float32]:
    """Return the mean of each cluster's rows, float32 `[K, columns]`; every cluster has a row."""
    means = [rows[labels == k].mean(axis=0, dtype=np.float64) for k in range(labels.max() + 1)]
    return np.stack(means).astype(np.float32)


def shares(units: Int64, labels: Int64, num_units: int) -> NDArray[np.float32]:
    """Return γ: the share of each unit's rows in each cluster, float32 `[num_units, K]`.

    Args:
        units, labels: of each row, int64 `[rows]`; every cluster has a row.
        num_units: a unit without rows gets 1 / K for each.
    """
    counts = np.zeros((num_units, int(labels.max()) + 1))
    np.add.at(counts, (units, labels), 1.0)
    counts[counts.sum(axis=1) == 0] = 1.0
    gamma: NDArray[np.float32] = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return gamma
