"""A binary tree of meta-models: one whose units pull it in two directions is split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig, most_pipelines, units_of_task
from dmaml.common.gamma import ROOT, Gamma
from dmaml.common.options import count, number
from dmaml.common.probes import Probe, ProbeKind
from dmaml.common.seeds import Float64, Int64, Kind, stream
from dmaml.server.clustering import tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.separation import Separation, lengths_of, normalised, separate
from dmaml.server.core.progress import Progress

PAGE: Final = "docs/clustering/gradient_tree.md"
FEWEST: Final = 8  # units to try a split with: two in each fold of the test
PATIENCE: Final = 2  # PROBE rounds of a series, in those it would take with evenly drawn units


@final
class GradientTree:
    """Split a pipeline whose units' gradient directions form two clouds; see `separate`.

        d_u = Σ_r g_ur / |g_ur|,    u -> one of two children by 2-means of d_u / |d_u|

    with g_ur the sketches of unit u's adaptation gradients. Each pipeline is tried once in
    `every` TRAIN rounds of its own: a series of PROBE rounds goes on until each of its units has
    `rows` sketches, or for twice as many rounds as that should take. It is split if the test of
    the two clusters passes; then it is retired, and two children begin with its parameters and
    their own units, the larger cluster first. Units that are trained on and brought no row go
    with the larger one. Those that are not trained on get the children's shares of units.

    Args:
        config: `clustering.max_pipelines` bounds the leaves.
        every: TRAIN rounds of a pipeline before it is tried, and between trials.
        rows: sketches that make a unit's direction.
        dims: columns of a sketch.
        tasks: most tasks of a PROBE round.
        alpha: of the test; 1: split always, as in the paper.
        least: units of a child; null: n_way where a unit is a class, else 1.
        depth: splits between the root and a leaf, at most.
        restarts: of 2-means.

    Raises:
        ValueError: an unsuitable option.

    References:
        "Learning Task Similarity via Meta Learning and Model Splitting": a model is split after
        500 rounds, the tree is the similarity of tasks. We differ: there is a test, without which
        a homogeneous set is cut, too.
    """

    def __init__(
        self,
        config: RunConfig,
        every: int = 500,
        rows: int = 10,
        dims: int = 512,
        tasks: int = 100,
        alpha: float = 0.01,
        least: int | None = None,
        depth: int = 8,
        restarts: int = 4,
    ) -> None:
        section, task = config.clustering, config.task
        self._most = most_pipelines(config)
        if section.pipelines != 1 or self._most < 2:
            raise ValueError(
                f"clustering.pipelines = {section.pipelines}, max_pipelines = {self._most}: "
                f"required 1 pipeline at the start and 2 or more at most. Set max_pipelines. "
                f"See {PAGE}."
            )
        self._every = count("every", every, least=1, page=PAGE)
        self._rows = count("rows", rows, least=1, page=PAGE)
        self._dims = count("dims", dims, least=2, page=PAGE)
        self._tasks = count("tasks", tasks, least=1, page=PAGE)
        self._alpha = number("alpha", alpha, "> 0, <= 1", lambda a: 0 < a <= 1, page=PAGE)
        fewest = units_of_task(config)
        self._least = fewest if least is None else count("least", least, least=fewest, page=PAGE)
        self._depth = count("depth", depth, least=1, page=PAGE)
        self._restarts = count("restarts", restarts, least=1, page=PAGE)
        self._n_way, self._seed = task.n_way, config.run.seed

    def initial(self) -> State:
        """Return one pipeline that everything belongs to."""
        values = {
            "version": 0,
            "tree": tree.roots(1),
            "units": [],  # of each pipeline when it was opened; empty: not asked yet
            "tried": [0],  # TRAIN rounds before each pipeline was opened or last tried
            "probes": 0,  # PROBE rounds of the series under way
            "missing": 0,  # rows that its neediest unit still wants
            "trials": [],
        }
        return State(values)

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Ask for units once, then for sketches of the pipeline that is due; the oldest first."""
        values = state.values
        if not values["units"]:
            is_due = progress.trained >= self._every
            return Probe(ProbeKind.UNITS) if is_due else None
        due = self._due(values, progress.trained)
        if due is None:
            return None
        missing = values["missing"] if values["probes"] else self._rows
        tasks = min(self._tasks, -(-missing * values["units"][due] // self._n_way))
        return Probe(ProbeKind.SKETCHES, pipeline=due, tasks=tasks, dims=self._dims)

    def observe(self, state: State, observations: Observations) -> State:
        """Add sketches to the series; at its end, try to split."""
        if observations.probe.kind is ProbeKind.UNITS:
            units = np.unique(observations.units)
            return State(dict(state.values) | {"units": [len(units)]}, {"trained": units})
        pipeline = observations.probe.pipeline
        own = self._own(state, pipeline)
        sums, counts = self._added(state, observations)
        probes = state.values["probes"] + 1
        missing = max(0, self._rows - int(counts[own].min()))
        if missing and probes < PATIENCE * -(-self._rows * len(own) // self._per_round):
            values = dict(state.values) | {"probes": probes, "missing": missing}
            return State(values, {**state.arrays, "sums": sums, "counts": counts})
        seen = own[counts[own] > 0]
        kept = {name: state.arrays[name] for name in ("trained", "gamma") if name in state.arrays}
        return self._tried(State(state.values, kept), observations, own, seen, sums[seen])

    def route(self, state: State) -> Gamma:
        """Return γ: a leaf for each unit."""
        values = state.values
        return Gamma(
            values["version"],
            tree.active(values["tree"]),
            state.arrays.get("gamma", np.zeros((0, 1), dtype=np.float32)),
            tree.pipelines_of(values["tree"]),
            "probe" if values["probes"] else "train",
        )

    @property
    def _per_round(self) -> int:
        """Rows of a PROBE round that asks for as many tasks as it may."""
        return self._tasks * self._n_way

    def _due(self, values: Mapping[str, Any], trained: int) -> int | None:
        nodes = values["tree"]
        if len(tree.active(nodes)) >= self._most:
            return None
        fewest = max(2 * self._least, FEWEST)
        for pipeline in tree.active(nodes):
            is_due = trained - values["tried"][pipeline] >= self._every
            is_large = values["units"][pipeline] >= fewest
            if is_due and is_large and depth_of(nodes, pipeline) < self._depth:
                return pipeline
        return None

    def _own(self, state: State, pipeline: int) -> Int64:
        return self.route(state).route(state.arrays["trained"], pipeline)

    def _added(self, state: State, observations: Observations) -> tuple[Float64, Int64]:
        """Return Σ g / |g| and the number of rows of each unit, with the new ones."""
        from scipy import sparse

        lengths = lengths_of(observations.values)
        rows = np.flatnonzero(lengths > 0)
        units, size = observations.units[rows], observations.num_units
        places = (1 / lengths[rows], (units, rows))
        pick = sparse.csr_array(places, shape=(size, len(lengths)))  # sums run in order of rows
        sums = pick @ observations.values.astype(np.float64)
        counts = np.bincount(units, minlength=size).astype(np.int64)
        if state.values["probes"]:
            sums += state.arrays["sums"]
            counts += state.arrays["counts"]
        return sums, counts

    def _tried(
        self, state: State, observations: Observations, own: Int64, seen: Int64, sums: Float64
    ) -> State:
        """Return the state after a series, split or not."""
        pipeline, trained = observations.probe.pipeline, observations.trained
        values = dict(state.values) | {"probes": 0, "missing": 0}
        values["tried"] = list(values["tried"])
        values["tried"][pipeline] = trained
        trial: dict[str, Any] = {"pipeline": pipeline, "trained": trained, "units": len(seen)}
        found, is_split = None, False
        if len(seen) >= max(2 * self._least, FEWEST):
            random = stream(self._seed, Kind.SERVER, trained, pipeline)
            found = separate(normalised(sums), random, self._restarts)
            sizes = np.bincount(found.labels, minlength=2).tolist()
            trial |= {"share": found.share, "error": found.error, "p_value": found.p_value}
            trial |= {"sizes": sizes}
            is_split = min(sizes) >= self._least and (
                self._alpha == 1.0 or found.p_value < self._alpha
            )
        values["trials"] = [*values["trials"], trial | {"split": is_split}]
        if found is None or not is_split:
            return State(values, state.arrays)
        return self._split(State(values, state.arrays), observations, own, seen, found)

    def _split(
        self,
        state: State,
        observations: Observations,
        own: Int64,
        seen: Int64,
        found: Separation,
    ) -> State:
        pipeline, trained = observations.probe.pipeline, observations.trained
        values = dict(state.values)
        before = self.route(state)
        matrix = before.matrix
        if not len(matrix):
            matrix = np.ones((observations.num_units, 1), dtype=np.float32)
        second = np.zeros(observations.num_units, dtype=bool)
        second[seen[found.labels == 1]] = True
        sizes = [int((~second[own]).sum()), int(second[own].sum())]
        gamma = divided(matrix, before.pipelines.index(pipeline), own, second, sizes)
        nodes = tree.opened(values["tree"], pipeline, 2, trained)
        values["tree"] = tree.retired(nodes, [pipeline])
        values["units"] = values["units"] + sizes
        values["tried"] = [*values["tried"], trained, trained]
        values["version"] += 1
        return State(values, {**state.arrays, "gamma": gamma})


def divided(
    matrix: NDArray[np.float32],
    column: int,
    own: Int64,
    second: NDArray[np.bool_],
    sizes: list[int],
) -> NDArray[np.float32]:
    """Return γ with a column replaced by two at the end, float32 `[num_units, pipelines + 1]`.

    Args:
        own: units of that column that are trained on; they go to one child as a whole.
        second: whether it is the second one, bool `[num_units]`.
        sizes: units of the children; all other units are shared out so.
    """
    shares = np.tile(np.array(sizes) / sum(sizes), (len(matrix), 1))
    shares[own] = np.stack([~second[own], second[own]], axis=1)
    children = matrix[:, column : column + 1].astype(np.float64) * shares
    rest = np.delete(matrix, column, axis=1)
    return np.concatenate([rest, children.astype(np.float32)], axis=1)


def depth_of(nodes: list[list[Any]], pipeline: int) -> int:
    """Return how many splits lie above a pipeline."""
    depth = 0
    while nodes[pipeline][1] != ROOT:
        depth, pipeline = depth + 1, nodes[pipeline][1]
    return depth
