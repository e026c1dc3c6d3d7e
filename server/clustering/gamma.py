"""γ by gradient steps: Algorithm 1 of "Clustering Mixed Task Distributions using Meta-Learners"."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma
from dmaml.common.options import choice, count, number
from dmaml.common.probes import Probe, ProbeKind
from dmaml.common.seeds import Float64, Int64, Kind, stream
from dmaml.server.clustering import param_loss, tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.param_loss import Reading
from dmaml.server.core.progress import Progress

PAGE: Final = "docs/clustering/gamma.md"
_DRAWS: Final = 1  # index of the stream that places the units
_UNITS: Final = Probe(ProbeKind.UNITS)


@final
class GammaSteps:
    """Train pipelines on what γ gives them, then move γ by their losses on everything; in cycles.

    A cycle is `meta_train_iterations` TRAIN rounds, in which each unit is trained on by the
    pipeline that has γ > 1/2 (of more than two: the largest), and `update_iterations`
    parameter-update iterations, in which θ stays and tasks of all training units are adapted to
    and judged under every pipeline: each is one gradient step of γ on ParamLoss, whose equations
    are in `param_loss`. After the last cycle training goes on with the γ that was found.

    Args:
        config: `clustering.pipelines` is K, 2 in the paper; `run.rounds` must exceed cycles times
            `meta_train_iterations`, or γ would not be moved.
        bias: b: a unit begins in pipeline 0 with this probability, above 0 and below 1.
        offset: what an initial γ has above or below 1/2, above 0, up to 1/2.
        meta_train_iterations: TRAIN rounds of a cycle.
        update_iterations: parameter-update iterations of a cycle.
        cycles: of both.
        meta_update_rate: step size of γ, above 0.
        tasks: meta batch of an update iteration; None: as many as a TRAIN round has.
        iterations_per_round: update iterations whose tasks one PROBE round brings. θ does not
            move between them, so that it saves rounds and changes nothing but the draw of tasks.
        theta: own (each pipeline begins with parameters of its own) or shared (all with those of
            pipeline 0).
        bound: when γ is brought back to [0, 1]: after every iteration or phase (its end).
        diff, complement, centre, robust, width: see `param_loss.Reading`.

    Raises:
        ValueError: an unsuitable option.

    References:
        Algorithm 1, tables 4 and 5, for two pipelines. docs/clustering/gamma.md says how we read
        it, and where it cannot be meant as it is printed.
    """

    def __init__(
        self,
        config: RunConfig,
        bias: float = 0.65,
        offset: float = 0.1,
        meta_train_iterations: int = 200,
        update_iterations: int = 600,
        cycles: int = 1,
        meta_update_rate: float = 1e6,
        tasks: int | None = None,
        iterations_per_round: int = 1,
        theta: str = "own",
        bound: str = "iteration",
        diff: str = "signed",
        complement: str = "first",
        centre: str = "mean",
        robust: str = "none",
        width: float = 3.0,
    ) -> None:
        def whole(name: str, value: object) -> int:
            return count(name, value, least=1, page=PAGE)

        self._num_pipelines = config.clustering.pipelines
        if self._num_pipelines < 2:
            raise ValueError("clustering.pipelines must be 2 or more. Set it to 2.")
        self._seed = config.run.seed
        self._bias = number("bias", bias, "> 0 and < 1", lambda x: 0 < x < 1, page=PAGE)
        self._offset = number("offset", offset, "> 0 and <= 0.5", lambda x: 0 < x <= 0.5, page=PAGE)
        self._meta_train = whole("meta_train_iterations", meta_train_iterations)
        self._updates = whole("update_iterations", update_iterations)
        self._cycles = whole("cycles", cycles)
        self._rate = number("meta_update_rate", meta_update_rate, "> 0", lambda x: x > 0, page=PAGE)
        usual = config.algorithm.tasks * config.topology.slots
        self._tasks = usual if tasks is None else whole("tasks", tasks)
        self._per_round = whole("iterations_per_round", iterations_per_round)
        self._is_shared = choice("theta", theta, ("own", "shared")) == "shared"
        self._bounds_each = choice("bound", bound, ("iteration", "phase")) == "iteration"
        self._reading = Reading(
            choice("diff", diff, ("signed", "absolute")),
            choice("complement", complement, ("first", "second")),
            choice("centre", centre, ("mean", "min", "none")),
            choice("robust", robust, ("none", "median", "clip")),
            number("width", width, "> 0", lambda x: x > 0, page=PAGE),
        )
        self._require_rounds(config.run.rounds)

    def initial(self) -> State:
        """Return K pipelines (`theta: shared`: the first of them) and no γ yet."""
        nodes = tree.roots(1 if self._is_shared else self._num_pipelines)
        return State({"version": 0, "tree": nodes, "cycle": 0, "iteration": 0})

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Ask which units there are, and for losses when a cycle's training is done."""
        if "gamma" not in state.arrays:
            return _UNITS
        cycle = state.values["cycle"]
        if cycle == self._cycles or progress.trained < (cycle + 1) * self._meta_train:
            return None
        iterations = min(self._per_round, self._updates - state.values["iteration"])
        return Probe(ProbeKind.LOSSES, tasks=self._tasks * iterations)

    def observe(self, state: State, observations: Observations) -> State:
        """Draw γ for the units, or move it by what their losses say."""
        if observations.probe.kind is ProbeKind.UNITS:
            return self._drawn(state, observations)
        gamma, last = state.arrays["gamma"].copy(), 0.0
        iterations = observations.probe.tasks // self._tasks
        rows = len(observations.units)
        for i in range(iterations):
            own = slice(rows * i // iterations, rows * (i + 1) // iterations)
            last = self._step(gamma, observations.values[own], observations.units[own])
        cycle, iteration = state.values["cycle"], state.values["iteration"] + iterations
        if iteration >= self._updates:
            cycle, iteration, gamma = cycle + 1, 0, param_loss.bounded(gamma)
        before = as_probabilities(state.arrays["gamma"])
        has_moved = not np.array_equal(before, as_probabilities(gamma))
        moved = {
            "version": state.values["version"] + has_moved,
            "cycle": cycle,
            "iteration": iteration,
            "param_loss": last,
        }
        return State({**state.values, **moved}, {"gamma": gamma})

    def route(self, state: State) -> Gamma:
        """Return γ as it is now; pipelines train on it once the cycle's updates are done."""
        nodes = state.values["tree"]
        matrix = np.zeros((0, len(nodes)), dtype=np.float32)
        if "gamma" in state.arrays:
            matrix = as_probabilities(state.arrays["gamma"])
        return Gamma(
            state.values["version"],
            tree.active(nodes),
            matrix,
            tree.pipelines_of(nodes),
            self._phase(state.values),
        )

    def _drawn(self, state: State, observations: Observations) -> State:
        """Return the state with an initial γ; 1 / K for units that are not trained on."""
        draws = stream(self._seed, Kind.SERVER, _DRAWS).uniform(observations.num_units)
        drawn = param_loss.initial(draws, self._num_pipelines, self._bias, self._offset)
        gamma = np.full(drawn.shape, 1.0 / self._num_pipelines)
        gamma[observations.units] = drawn[observations.units]
        nodes = state.values["tree"]
        if self._is_shared:
            nodes = tree.opened(nodes, 0, self._num_pipelines - 1, observations.trained)
        return State({**state.values, "version": 1, "tree": nodes}, {"gamma": gamma})

    def _step(self, gamma: Float64, losses: NDArray[np.float32], units: Int64) -> float:
        """Move the rows of γ that an iteration saw, in place; return ParamLoss before it."""
        reading = self._reading
        found = param_loss.evidence(losses, units, reading)
        before = gamma[found.units]
        after = before - self._rate * param_loss.gradient(found, reading.complement)
        gamma[found.units] = param_loss.bounded(after) if self._bounds_each else after
        return param_loss.param_loss(before, found, reading.complement)

    def _phase(self, values: Any) -> str:
        if values["cycle"] == self._cycles:
            return "train"
        kind = "update" if values["iteration"] else "meta-train"
        return f"{kind}, cycle {values['cycle'] + 1} of {self._cycles}"

    def _require_rounds(self, rounds: int) -> None:
        needed = self._cycles * self._meta_train
        if rounds <= needed:
            raise ValueError(
                f"run.rounds {rounds} end before the last update of γ, which comes after "
                f"{needed} (cycles times meta_train_iterations). Set run.rounds to {needed + 1} "
                "or more"
            )


def as_probabilities(gamma: Float64) -> NDArray[np.float32]:
    """Return γ as pipelines are routed by it, float32 `[units, pipelines]`, rows sum to 1."""
    return param_loss.bounded(gamma).astype(np.float32)
