"""The same laws for every clustering strategy, on units of two kinds."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig, from_mapping, most_pipelines, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.gamma import columns_of
from dmaml.common.probes import Probe, ProbeKind
from dmaml.server import clustering
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.core.progress import Progress

NUM_UNITS, NUM_TRAINED, ROUNDS, MOST_PROBES = 60, 40, 30, 2000
START = Progress()


@dataclass(frozen=True)
class Case:
    """A strategy as the laws try it.

    Attributes:
        section: of the configuration, beside the name.
        recovers: whether the world's two kinds must end in pipelines of their own.
    """

    section: dict[str, Any]
    recovers: bool = True


CASES = {
    "gradient_tree": Case({"max_pipelines": 4, "options": {"every": 10, "dims": 8, "tasks": 70}}),
    "none": Case({}, recovers=False),
    "kmeans": Case({"pipelines": 2}),
    "kmeans, adapted": Case(
        {"pipelines": 2, "options": {"features": "adapted", "samples": 40, "warmup": 4, "dims": 6}}
    ),
    "gamma": Case(
        {
            "pipelines": 2,
            "options": {
                "meta_train_iterations": 5,
                "update_iterations": 60,
                "cycles": 5,
                "bound": "phase",
                "iterations_per_round": 7,
            },
        }
    ),
    "mixture": Case({"pipelines": 2, "options": {"warmup": 4, "every": 3, "cycles": 6}}),
}
NAMES = sorted(CASES)


def config_of(name: str, seed: int = 1, **options: Any) -> RunConfig:
    section = {"name": name.partition(",")[0], **CASES[name].section}
    section["options"] = section.get("options", {}) | options
    return resolve(from_mapping({"run": {"seed": seed}, "clustering": section}))


class World:
    """Units of two kinds: other features, other losses, other gradients. Numbers are its own."""

    def __init__(self, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        self.kinds = random.permutation(NUM_UNITS) % 2
        self.trained = np.sort(random.permutation(NUM_UNITS)[:NUM_TRAINED])
        self._taste: dict[int, float] = {}  # pipeline -> which kind it is good at, 0 to 1

    def answer(self, probe: Probe, clusterer: Clusterer, progress: Progress) -> Observations:
        """Return what actors would say, made from the kinds and from whom pipelines learn."""
        gamma = clusterer.gamma
        random = np.random.default_rng([progress.probes, probe.kind])
        units, columns = self.trained, 0
        if probe.kind in (ProbeKind.PIXELS, ProbeKind.EMBEDDING):
            units, columns = np.repeat(units, probe.samples), 6
        elif probe.kind is ProbeKind.LOSSES:
            units, columns = random.choice(units, 2 * probe.tasks), len(gamma.pipelines)
        elif probe.kind is ProbeKind.SKETCHES:
            units, columns = gamma.route(units, probe.pipeline), probe.dims
            units = random.choice(units, 2 * probe.tasks) if len(units) else units
        sign = 2.0 * self.kinds[units] - 1.0
        values = random.normal(scale=0.3, size=(len(units), columns))
        if probe.kind is ProbeKind.LOSSES:
            values += 1.0 - sign[:, None] * np.array([self._of(p) for p in gamma.pipelines])
        elif columns:
            values[:, 0] += sign
        return Observations(
            probe, progress.trained, gamma.pipelines, NUM_UNITS, units, values.astype(np.float32)
        )

    def train(self, clusterer: Clusterer) -> None:
        """Let each pipeline learn from its units."""
        gamma = clusterer.gamma
        for pipeline in gamma.pipelines:
            own = gamma.route(self.trained, pipeline)
            if len(own):
                target = float((2.0 * self.kinds[own] - 1.0).mean())
                self._taste[pipeline] = 0.5 * self._of(pipeline) + 0.5 * target

    def _of(self, pipeline: int) -> float:
        return self._taste.get(pipeline, 0.0)


def drive(
    clusterer: Clusterer, world: World, progress: Progress = START, rounds: int = ROUNDS
) -> Progress:
    """Train for so many rounds, with a PROBE round whenever one is asked for."""
    while progress.trained < rounds:
        probe = clusterer.plan(progress)
        if probe is None:
            world.train(clusterer)
            progress = progress._replace(trained=progress.trained + 1, version=progress.version + 1)
            continue
        clusterer.observe(world.answer(probe, clusterer, progress))
        clusterer.adopt()
        progress = progress._replace(probes=progress.probes + 1)
        assert progress.probes < MOST_PROBES, "it never trains"
    return progress


def saved(clusterer: Clusterer, path: Path) -> Checkpoint:
    """Return a checkpoint of a strategy's state, written and read."""
    checkpoints.write(path, Checkpoint(1, clusterer.tensors(), {"clustering": clusterer.values()}))
    return checkpoints.read(path)


def same(one: Clusterer, other: Clusterer) -> bool:
    """Tell whether two are in the same state, bit for bit."""
    a, b = one.tensors(), other.tensors()
    is_same = a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)
    return is_same and one.values() == other.values() and one.gamma.version == other.gamma.version


def test_every_strategy_of_the_table_is_tried() -> None:
    assert set(clustering.STRATEGIES) == {name.partition(",")[0] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_gamma_is_a_probability_of_at_most_so_many_pipelines(name: str) -> None:
    config = config_of(name)
    clusterer = Clusterer(config)

    drive(clusterer, World())  # `Clusterer` looks at every γ on the way

    gamma = clusterer.gamma
    assert 1 <= len(gamma.pipelines) <= most_pipelines(config)
    assert np.allclose(gamma.matrix.sum(axis=1), 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_observations_give_the_same_bits(name: str) -> None:
    one, other = Clusterer(config_of(name)), Clusterer(config_of(name))

    drive(one, World())
    drive(other, World())

    assert same(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_was_saved_anywhere_goes_on_with_the_same_bits(
    name: str, tmp_path: Path
) -> None:
    whole, world = Clusterer(config_of(name)), World()
    drive(whole, world)

    broken, progress, again = Clusterer(config_of(name)), Progress(), World()
    for rounds in range(1, ROUNDS + 1):
        progress = drive(broken, again, progress, rounds)
        broken = Clusterer(config_of(name), saved(broken, tmp_path / "c.safetensors"))

    assert same(whole, broken)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_never_changed_in_place(name: str) -> None:
    strategy = clustering.build(config_of(name))
    clusterer, world, progress = Clusterer(config_of(name)), World(), Progress()
    state = strategy.initial()
    for _ in range(20):
        probe = strategy.plan(state, progress)
        if probe is None:
            break
        before = State(copy.deepcopy(dict(state.values)), copy.deepcopy(dict(state.arrays)))
        observations = world.answer(probe, clusterer, progress)
        after = strategy.observe(state, observations)
        clusterer.observe(observations)
        clusterer.adopt()
        assert dict(before.values) == dict(state.values)
        assert all(np.array_equal(before.arrays[n], state.arrays[n]) for n in before.arrays)
        state, progress = after, progress._replace(probes=progress.probes + 1)


@pytest.mark.parametrize("name", NAMES)
def test_validation_changes_no_plan(name: str) -> None:
    clusterer, world = Clusterer(config_of(name)), World()
    for rounds in range(3):
        progress = drive(clusterer, world, Progress(trained=rounds), rounds)
        validated = progress._replace(round=99, evaluated=rounds, commits=77, tasks_seen=5)

        assert clusterer.plan(validated) == clusterer.plan(progress)


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].recovers])
@pytest.mark.parametrize("seed", [1, 2])
def test_two_kinds_of_units_end_in_pipelines_of_their_own(name: str, seed: int) -> None:
    clusterer, world = Clusterer(config_of(name, seed)), World(seed)

    drive(clusterer, world)

    columns = columns_of(clusterer.gamma.matrix)[world.trained]
    kinds = world.kinds[world.trained]
    assert len(set(zip(columns.tolist(), kinds.tolist(), strict=True))) == len(set(columns))
    assert len(set(columns)) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match="'smaples'"):
        clustering.build(config_of(name, smaples=3))


@pytest.mark.parametrize(("name", "first"), [("kmeans", 4), ("mixture", 4), ("gradient_tree", 10)])
def test_a_run_that_ends_before_anything_is_asked_is_told_of(name: str, first: int) -> None:
    clusterer = Clusterer(config_of(name, **({"warmup": 4} if name == "kmeans" else {})))

    sentence = clusterer.never_asks(START, first)  # after so many TRAIN rounds it would ask

    assert f"{name!r} asks for nothing before run.rounds {first} are over" in sentence
    assert clusterer.never_asks(START, first + 1) == ""
    drive(clusterer, World(), rounds=first + 1)
    assert clusterer.never_asks(START, first) == ""  # γ is known
    assert Clusterer(config_of("none")).never_asks(START, first) == ""
