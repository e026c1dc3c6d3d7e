"""The strategy `gamma` as a pure function: phases, iterations, masks, resuming, who separates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig, from_mapping
from dmaml.common.errors import ConfigError
from dmaml.common.gamma import columns_of
from dmaml.common.probes import Probe, ProbeKind
from dmaml.server import clustering
from dmaml.server.clustering import param_loss
from dmaml.server.clustering.base import Clustering, Observations, State
from dmaml.server.clustering.param_loss import Reading
from dmaml.server.core.progress import Progress

NUM_UNITS = 50
TRAINED = np.arange(0, NUM_UNITS, 5) + np.arange(10) % 5  # ten of them
SMALL = {"meta_train_iterations": 3, "update_iterations": 5, "tasks": 4}
CONFIGS = Path(__file__).parents[2] / "configs"


def config_of(pipelines: int = 2, rounds: int = 100, seed: int = 1, **options: Any) -> RunConfig:
    section = {"name": "gamma", "pipelines": pipelines, "options": SMALL | options}
    return from_mapping({"run": {"rounds": rounds, "seed": seed}, "clustering": section})


def made(pipelines: int = 2, **options: Any) -> Clustering:
    return clustering.build(config_of(pipelines, **options))


def answer(state: State, strategy: Clustering, probe: Probe, values: Any = None) -> Observations:
    """Return the answer to a probe: two samples of two units for each task, of random losses."""
    pipelines = strategy.route(state).pipelines
    if probe.kind is ProbeKind.UNITS:
        return Observations(probe, 0, pipelines, NUM_UNITS, TRAINED, np.empty((0, 0), np.float32))
    random = np.random.default_rng(state.values["version"])
    units = np.repeat(random.choice(TRAINED, 2 * probe.tasks), 2)
    if values is None:
        values = random.uniform(size=(len(units), len(pipelines)))
    return Observations(probe, 3, pipelines, NUM_UNITS, units, np.asarray(values, dtype=np.float32))


def begun(strategy: Clustering) -> State:
    """Return the state that knows the units."""
    state = strategy.initial()
    probe = strategy.plan(state, Progress())
    assert probe is not None
    return strategy.observe(state, answer(state, strategy, probe))


def history(strategy: Clustering, rounds: int) -> tuple[list[str], list[State]]:
    """Return what was planned, a word a round, and every state."""
    state, words, states, progress = strategy.initial(), [], [], Progress()
    while progress.trained < rounds:
        probe = strategy.plan(state, progress)
        if probe is None:
            words.append("TRAIN")
            progress = progress._replace(trained=progress.trained + 1)
            continue
        words.append(f"{probe.kind.name} {probe.tasks}")
        state = strategy.observe(state, answer(state, strategy, probe))
        states.append(state)
    return words, states


def test_a_cycle_is_training_and_then_updates_and_training_goes_on_after_the_last() -> None:
    words, states = history(made(cycles=2), 8)

    cycle = ["TRAIN"] * 3 + ["LOSSES 4"] * 5
    assert words == ["UNITS 0", *cycle, *cycle, "TRAIN", "TRAIN"]
    assert [state.values["iteration"] for state in states] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    assert states[-1].values["cycle"] == 2


def test_a_probe_round_can_bring_several_iterations_and_the_last_the_rest_of_them() -> None:
    words, _ = history(made(iterations_per_round=2), 4)

    assert words == ["UNITS 0", *["TRAIN"] * 3, "LOSSES 8", "LOSSES 8", "LOSSES 4", "TRAIN"]


def test_the_meta_batch_is_that_of_training_where_none_is_given() -> None:
    config = from_mapping(
        {
            "algorithm": {"tasks": 3},
            "topology": {"slots": 5},
            "clustering": {"name": "gamma", "pipelines": 2},
        }
    )
    strategy = clustering.build(config)

    probe = strategy.plan(begun(strategy), Progress(trained=200))

    assert probe == Probe(ProbeKind.LOSSES, tasks=15)


def test_phases_are_named() -> None:
    strategy = made()
    _, states = history(strategy, 4)

    phases = [strategy.route(state).phase for state in states]

    assert phases == ["meta-train, cycle 1 of 1", *["update, cycle 1 of 1"] * 4, "train"]


def test_units_begin_above_or_below_one_half_and_those_not_trained_on_at_it() -> None:
    strategy = made(offset=0.2)

    gamma = strategy.route(begun(strategy)).matrix

    others = np.setdiff1d(np.arange(NUM_UNITS), TRAINED)
    assert sorted(set(gamma[TRAINED, 0].round(6).tolist())) == pytest.approx([0.3, 0.7])
    assert (gamma[others] == 0.5).all()


def test_the_bias_is_met_on_many_units() -> None:
    shares = []
    for seed in range(40):
        strategy = clustering.build(config_of(seed=seed, bias=0.8))
        shares.append((strategy.route(begun(strategy)).matrix[TRAINED, 0] > 0.5).mean())

    assert np.mean(shares) == pytest.approx(0.8, abs=0.06)  # three standard deviations of 400


def test_masks_are_gamma_above_one_half() -> None:
    strategy = made()
    for state in history(strategy, 4)[1]:
        gamma = strategy.route(state)

        assert set(gamma.route(TRAINED, 0)) == set(TRAINED[gamma.matrix[TRAINED, 0] > 0.5])
        assert set(gamma.route(TRAINED, 1)) == set(TRAINED[gamma.matrix[TRAINED, 1] > 0.5])


def test_an_iteration_is_the_gradient_step_that_the_equations_say() -> None:
    strategy = made(meta_update_rate=0.7)
    state = begun(strategy)
    probe = Probe(ProbeKind.LOSSES, tasks=4)
    seen = answer(state, strategy, probe)

    after = strategy.observe(state, seen)

    found = param_loss.evidence(seen.values, seen.units, Reading())
    before = state.arrays["gamma"][found.units]
    expected = (before - 0.7 * param_loss.gradient(found))[:, 0].clip(0, 1)
    assert after.arrays["gamma"][found.units, 0] == pytest.approx(expected)
    assert after.values["param_loss"] == pytest.approx(param_loss.param_loss(before, found))


def test_a_unit_that_was_not_seen_keeps_its_gamma() -> None:
    strategy = made()
    state = begun(strategy)
    seen = answer(state, strategy, Probe(ProbeKind.LOSSES, tasks=1))

    after = strategy.observe(state, seen)

    others = np.setdiff1d(np.arange(NUM_UNITS), seen.units)
    assert np.array_equal(after.arrays["gamma"][others], state.arrays["gamma"][others])


@pytest.mark.parametrize("bound", ["iteration", "phase"])
@pytest.mark.parametrize("pipelines", [2, 3])
def test_gamma_is_a_distribution_after_every_round(pipelines: int, bound: str) -> None:
    strategy = made(pipelines, bound=bound, cycles=3)

    for state in history(strategy, 12)[1]:
        gamma = strategy.route(state).matrix
        assert gamma.min() >= 0
        assert gamma.max() <= 1
        assert np.allclose(gamma.sum(axis=1), 1.0, atol=1e-6)


def test_bounds_after_each_iteration_forget_and_those_of_the_phase_add_up() -> None:
    unit = TRAINED[:2]
    losses = [[0, 9], [9, 0]] * 4 + [[1, 0], [0, 1]]  # four times for pipeline 0, once against it

    def told(bound: str) -> float:
        strategy = made(bound=bound, update_iterations=5, iterations_per_round=5, tasks=2)
        values = np.array(losses, dtype=np.float32)
        probe = Probe(ProbeKind.LOSSES, tasks=10)
        units = np.tile(unit, 5)
        seen = Observations(probe, 3, (0, 1), NUM_UNITS, units, values)
        return float(strategy.observe(begun(strategy), seen).arrays["gamma"][unit[0], 0])

    assert told("iteration") == 0.0
    assert told("phase") == 1.0


def test_several_iterations_of_a_round_are_those_of_several_rounds() -> None:
    one, many = made(update_iterations=3), made(update_iterations=3, iterations_per_round=3)
    state = begun(one)
    seen = answer(state, one, Probe(ProbeKind.LOSSES, tasks=12))
    rows = len(seen.units) // 3

    for i in range(3):
        own = slice(rows * i, rows * (i + 1))
        probe = Probe(ProbeKind.LOSSES, tasks=4)
        part = Observations(probe, 3, (0, 1), NUM_UNITS, seen.units[own], seen.values[own])
        state = one.observe(state, part)

    assert np.array_equal(state.arrays["gamma"], many.observe(begun(many), seen).arrays["gamma"])


def test_gamma_that_nothing_moves_keeps_its_version() -> None:
    strategy = made()
    state = begun(strategy)
    probe = Probe(ProbeKind.LOSSES, tasks=4)
    alike = answer(state, strategy, probe, np.ones((16, 2)))

    after = strategy.observe(state, alike)

    assert after.values["version"] == state.values["version"]
    assert after.values["iteration"] == 1


@pytest.mark.parametrize(
    ("diff", "complement", "moves"),
    [
        ("signed", "first", True),
        ("absolute", "first", False),
        ("signed", "second", False),
        ("absolute", "second", True),  # by how much pipelines differ, not by which is better
    ],
)
def test_of_the_readings_two_never_move_gamma(diff: str, complement: str, moves: bool) -> None:
    strategy = made(diff=diff, complement=complement, meta_update_rate=1.0)
    states = history(strategy, 4)[1]

    change = np.abs(states[-1].arrays["gamma"] - states[0].arrays["gamma"]).max()

    assert (change > 1e-3) == moves


def test_pipelines_begin_with_their_own_theta_or_all_with_that_of_the_first() -> None:
    own, shared = made(3), made(3, theta="shared")

    assert own.route(own.initial()).pipelines == (0, 1, 2)
    assert shared.route(shared.initial()).pipelines == (0,)
    gamma = shared.route(begun(shared))
    assert gamma.pipelines == (0, 1, 2)
    assert [node.parent for node in gamma.nodes] == [-1, 0, 0]


@pytest.mark.parametrize("pipelines", [2, 3])
@pytest.mark.parametrize("bound", ["iteration", "phase"])
def test_a_state_that_went_through_json_goes_on_with_the_same_bits(
    pipelines: int, bound: str
) -> None:
    strategy = made(pipelines, cycles=2, bound=bound, robust="clip", theta="shared")
    _, whole = history(strategy, 7)

    state, progress, states = strategy.initial(), Progress(), []
    while progress.trained < 7:
        again = clustering.build(
            config_of(pipelines, cycles=2, bound=bound, robust="clip", theta="shared")
        )
        values = json.loads(json.dumps(dict(state.values)))
        arrays = {n: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)
                  for n, a in state.arrays.items()}  # fmt: skip
        state = State(values, arrays)
        probe = again.plan(state, progress)
        if probe is None:
            progress = progress._replace(trained=progress.trained + 1)
            continue
        state = again.observe(state, answer(state, again, probe))
        states.append(state)

    assert len(states) == len(whole)
    for one, other in zip(states, whole, strict=True):
        assert dict(one.values) == dict(other.values)
        assert one.arrays["gamma"].tobytes() == other.arrays["gamma"].tobytes()


class Population:
    """Units of several origins, whose pipelines get better at what they are trained on.

    The loss of a unit under a pipeline falls with the share of the unit's origin among the units
    of the pipeline. Tasks come from each origin with the same probability, as from `mixed`.
    """

    def __init__(self, sizes: list[int], noise: float, seed: int) -> None:
        self.random, self.noise = np.random.default_rng(seed), noise
        self.origin = self.random.permutation(np.repeat(np.arange(len(sizes)), sizes))
        self.units = np.arange(len(self.origin))

    def skill(self, matrix: Any) -> Any:
        """Return how good each pipeline is at each origin, `[origins, K]`."""
        columns = columns_of(matrix)
        table = np.zeros((self.origin.max() + 1, matrix.shape[1]))
        np.add.at(table, (self.origin, columns), 1.0)
        table /= np.bincount(self.origin)[:, None]  # tasks: each origin as often
        return table / np.maximum(table.sum(axis=0), 1e-9)

    def run(self, strategy: Clustering, rounds: int) -> Any:
        """Return the columns of the units in the end."""
        state, progress = strategy.initial(), Progress()
        skill = np.zeros((self.origin.max() + 1, len(strategy.route(state).pipelines)))
        while progress.trained < rounds:
            probe = strategy.plan(state, progress)
            if probe is None:
                skill = self.skill(strategy.route(state).matrix)
                progress = progress._replace(trained=progress.trained + 1)
                continue
            state = strategy.observe(state, self.answer(probe, skill))
        return columns_of(strategy.route(state).matrix)

    def answer(self, probe: Probe, skill: Any) -> Observations:
        pipelines, num_units = tuple(range(skill.shape[1])), len(self.units)
        if probe.kind is ProbeKind.UNITS:
            nothing = np.empty((0, 0), np.float32)
            return Observations(probe, 0, pipelines, num_units, self.units, nothing)
        origins = self.random.integers(self.origin.max() + 1, size=probe.tasks)
        parts = [self.random.choice(self.units[self.origin == o], 2) for o in origins]
        units = np.concatenate(parts)
        losses = 1.0 - skill[self.origin[units]]
        losses += self.random.normal(scale=self.noise, size=losses.shape)
        return Observations(probe, 0, pipelines, num_units, units, losses.astype(np.float32))


def separated(columns: Any, origin: Any) -> float:
    """Return the least share of an origin that its commonest pipeline has, of different ones."""
    table = np.zeros((origin.max() + 1, columns.max() + 1))
    np.add.at(table, (origin, columns), 1.0)
    if len(set(table.argmax(axis=1))) < len(table):
        return 0.0
    return float((table.max(axis=1) / table.sum(axis=1)).min())


@pytest.mark.parametrize(
    ("sizes", "pipelines"), [([60, 60], 2), ([80, 20], 2), ([30, 30, 30], 3)], ids=str
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_clean_signal_separates_the_origins(sizes: list[int], pipelines: int, seed: int) -> None:
    world = Population(sizes, noise=1e-4, seed=seed)
    options = {"update_iterations": 80, "iterations_per_round": 40, "tasks": 8, "cycles": 3}
    strategy = clustering.build(config_of(pipelines, seed=seed, **options))

    columns = world.run(strategy, 10)

    assert separated(columns, world.origin) >= 0.9


def test_noise_is_overcome_by_what_adds_up_and_not_by_the_last_word() -> None:
    def mean(bound: str) -> float:
        found = []
        for seed in (1, 2):
            world = Population([30, 30], noise=0.4, seed=seed)
            options = {"update_iterations": 100, "iterations_per_round": 100, "tasks": 8}
            strategy = clustering.build(config_of(seed=seed, cycles=4, bound=bound, **options))
            found.append(separated(world.run(strategy, 13), world.origin))
        return float(np.mean(found))

    assert mean("phase") > 0.95
    assert mean("iteration") < 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": 1.0}, "bias = 1.0: required a finite number > 0 and < 1"),
        ({"offset": 0}, "offset = 0"),
        ({"cycles": 0}, "cycles = 0: required a whole number >= 1"),
        ({"meta_update_rate": 0}, "meta_update_rate = 0"),
        ({"tasks": 1.5}, "tasks = 1.5"),
        ({"width": -1}, "width = -1"),
        ({"diff": "sined"}, "diff 'sined'. Did you mean 'signed'"),
        ({"pipelines": 1}, "clustering.pipelines must be 2 or more"),
        ({"rounds": 3}, "run.rounds 3 end before the last update of γ, which comes after 3"),
        ({"rounds": 6, "cycles": 2}, "Set run.rounds to 7 or more"),
    ],
    ids=str,
)
def test_what_does_not_suit_is_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**options)


def test_table_5_is_what_the_strategy_takes_by_default() -> None:
    config = configuration.load(CONFIGS / "gamma_paper.yaml")
    bare = configuration.from_mapping(
        {"run": {"rounds": 201}, "clustering": {"name": "gamma", "pipelines": 2}}
    )
    paper, usual = clustering.build(config), clustering.build(bare)

    told = {"_tasks", "_per_round", "_seed"}
    a, b = ({k: v for k, v in vars(one).items() if k not in told} for one in (paper, usual))
    assert a == b
    probe = paper.plan(begun(paper), Progress(trained=200))
    assert probe is not None
    assert probe.tasks == 8 * 20
