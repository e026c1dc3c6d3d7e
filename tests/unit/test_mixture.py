"""EM over pipelines in a simulated population: who is found, what is re-seeded, merged, tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.probes import Probe, ProbeKind
from dmaml.server import clustering
from dmaml.server.clustering.base import Observations
from dmaml.server.core.progress import Progress
from tests.unit.simulated_population import Story, World, live

SEEDS = range(1, 6)
ROUNDS = 700


def config_of(seed: int = 1, size: int = 2, n_way: int = 5, **options: Any) -> RunConfig:
    most = size + 1 if options.get("restarts", 1) > 1 else None
    options = {"warmup": 100, "every": 50, "cycles": 10, **options}
    section = {"name": "mixture", "pipelines": size, "max_pipelines": most, "options": options}
    task = {"source": "glyphs", "n_way": n_way, "k_query": 3}
    return resolve(from_mapping({"run": {"seed": seed}, "task": task, "clustering": section}))


def bits(story: Story) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in story.clusterer.tensors().items()}


@pytest.mark.parametrize(("sizes", "apart"), [((100, 100), 4.0), ((160, 40), 4.0)])
def test_both_origins_are_recovered_whatever_their_sizes(
    sizes: tuple[int, int], apart: float
) -> None:
    stories = [
        live(config_of(s), World(sizes[:: (-1) ** s], s, apart=apart), ROUNDS) for s in SEEDS
    ]

    splits = np.array([story.recoveries[0] for story in stories])
    ends = np.array([story.recoveries[-1] for story in stories])
    assert ends.min() >= 0.98
    assert (splits.min(axis=1) < 0.98).sum() >= 3  # features alone do not


def test_three_origins_are_recovered() -> None:
    for seed in range(1, 4):
        story = live(config_of(seed, 3), World((100, 60, 40), seed, apart=4.0), ROUNDS)

        assert min(story.recoveries[-1]) >= 0.98


def test_functions_are_split_by_their_gradients_and_refined_by_their_losses() -> None:
    for seed in range(1, 4):
        world = World((100, 60), seed, n_way=1, apart=5.0, by_source=False)

        story = live(config_of(seed, n_way=1, scale="raw"), world, ROUNDS)

        assert story.probes[:3] == [ProbeKind.UNITS, ProbeKind.SKETCHES, ProbeKind.LOSSES]
        assert min(story.recoveries[-1]) >= 0.98


def test_the_same_run_gives_the_same_bits_and_a_stored_state_goes_on_as_it_was() -> None:
    first, again, stored = (
        live(config_of(3), World((80, 30), 3), ROUNDS, is_stored=is_stored)
        for is_stored in (False, False, True)
    )

    assert bits(first) == bits(again) == bits(stored)
    assert first.clusterer.values() == again.clusterer.values() == stored.clusterer.values()
    assert first.recoveries == stored.recoveries


def test_what_origins_are_called_changes_nothing() -> None:
    one = live(config_of(), World((80, 30), 1), ROUNDS)
    other = live(config_of(), World((80, 30), 1, named=(1, 0)), ROUNDS)

    assert bits(one) == bits(other)
    assert one.recoveries[-1] == other.recoveries[-1][::-1]


def test_units_that_are_not_trained_on_belong_to_all_alike() -> None:
    world = World((80, 30), 1)

    gamma = live(config_of(), world, ROUNDS).clusterer.gamma

    others = np.setdiff1d(np.arange(world.num_units), world.trained)
    assert len(others) == 20
    assert (gamma.matrix[others] == 0.5).all()


def test_a_starved_pipeline_is_retired_and_another_is_split() -> None:
    def six_apart(origin: Any) -> Any:
        groups = np.zeros(len(origin), dtype=int)
        groups[np.flatnonzero(origin == 0)[:6]] = 1
        return groups

    world = World((160, 40), 1, apart=4.0, first_look=six_apart)

    story = live(config_of(), world, 900)

    nodes = [(n.number, n.parent, n.is_active) for n in story.clusterer.gamma.nodes]
    assert nodes == [(0, -1, True), (1, 0, False), (2, 0, True)]
    assert story.probes.count(ProbeKind.EMBEDDING) == 2
    assert story.clusterer.values()["reseeds"] == 1
    assert min(story.recoveries[-1]) >= 0.98


def test_re_seeding_ends_after_so_many_times() -> None:
    def six_apart(origin: Any) -> Any:
        return (np.cumsum(origin == 0) <= 6) & (origin == 0)

    world = World((160, 40), 1, apart=0.0, first_look=lambda o: six_apart(o).astype(int))

    story = live(config_of(reseeds=0), world, ROUNDS)

    assert len(story.clusterer.gamma.nodes) == 2


def test_a_move_merges_two_of_one_origin_and_splits_two_of_another() -> None:
    def misled(origin: Any) -> Any:  # 0 and 1 look alike, and 2 like two
        halves = np.cumsum(origin == 2) % 2
        return np.where(origin == 2, 1 + halves, 0)

    def story(moves: int) -> Story:
        world = World((60, 60, 120), 2, apart=5.0, first_look=misled)
        return live(config_of(2, 3, moves=moves), world, 1200)

    stuck, moved = story(0), story(1)

    assert min(stuck.recoveries[-1]) < 0.6
    assert min(moved.recoveries[-1]) >= 0.98
    assert moved.clusterer.values()["moves"] == 1


def test_the_try_with_the_best_held_out_gain_is_gone_on_with() -> None:
    options: dict[str, Any] = {"restarts": 3, "first": ["random", "embedding", "random"]}
    world = World((100, 100), 1, apart=5.0, unrest=0.0)

    story = live(config_of(**options), world, 1200)

    gains = story.clusterer.values()["gains"]
    nodes = [(n.number, n.parent, n.is_active) for n in story.clusterer.gamma.nodes]
    assert len(gains) == 3
    assert max(gains) == gains[1] > 0
    assert nodes == [(0, -1, False), *((n, 0, n > 6) for n in range(1, 9))]
    assert min(story.recoveries[-1]) >= 0.98


def test_a_last_try_that_is_the_best_goes_on_as_it_is() -> None:
    world = World((100, 100), 1, apart=5.0, unrest=0.0)

    story = live(config_of(restarts=2, first=["random", "embedding"]), world, 1200)

    nodes = [(n.number, n.is_active) for n in story.clusterer.gamma.nodes]
    assert nodes == [(0, False), (1, False), (2, False), (3, True), (4, True)]
    assert min(story.recoveries[-1]) >= 0.98


def test_what_is_asked_for_and_when() -> None:
    strategy = clustering.build(config_of(warmup=7, samples=3, dims=9, split_visits=2.0))
    state, units = strategy.initial(), np.arange(12)
    unasked = strategy.plan(state, Progress(trained=6))
    asked = strategy.plan(state, Progress(trained=7))

    assert unasked is None
    assert asked == Probe(ProbeKind.UNITS)
    seen = Observations(asked, 7, (0,), 20, units, np.empty((0, 0), dtype=np.float32))
    state = strategy.observe(state, seen)
    asked = strategy.plan(state, Progress(trained=7))
    assert asked == Probe(ProbeKind.EMBEDDING, samples=3, dims=9)
    assert strategy.route(state).phase == "split"
    assert strategy.route(state).pipelines == (0,)


@pytest.mark.parametrize(
    ("covariance", "is_found"), [(None, True), ("full", True), ("tied", False)]
)
def test_families_of_one_mean_are_split_by_a_covariance_of_each(
    covariance: str | None, is_found: bool
) -> None:
    random, units = np.random.default_rng(1), np.arange(300)
    kinds = random.permutation(300) % 2
    sketches = np.zeros((300, 6))
    sketches[:, :2] = 0.3 * random.normal(size=(300, 2))
    sketches[kinds == 1, :2] *= 10.0  # one direction of both, told apart by lengths alone
    strategy = clustering.build(config_of(warmup=0, n_way=1, covariance=covariance))
    nothing = np.empty((0, 0), dtype=np.float32)
    first = Observations(Probe(ProbeKind.UNITS), 0, (0,), 300, units, nothing)
    state = strategy.observe(strategy.initial(), first)
    asked = strategy.plan(state, Progress(trained=0))
    assert asked is not None
    rows, each = sketches.astype(np.float32), np.repeat(units, 4)
    noise = 0.01 * random.normal(size=(1200, 6)).astype(np.float32)

    after = strategy.observe(
        state, Observations(asked, 0, (0,), 300, each, np.repeat(rows, 4, axis=0) + noise)
    )

    same = (strategy.route(after).matrix.argmax(axis=1) == kinds).mean()
    assert (max(same, 1 - same) > 0.85) == is_found


@pytest.mark.parametrize(("n_way", "visits"), [(1, 16), (5, 4)])
def test_a_function_is_met_sixteen_times_before_a_split_and_a_class_four_times(
    n_way: int, visits: int
) -> None:
    strategy = clustering.build(config_of(warmup=0, first="sketches", n_way=n_way))
    units = np.arange(50)
    asked = Probe(ProbeKind.UNITS)
    seen = Observations(asked, 0, (0,), 60, units, np.empty((0, 0), dtype=np.float32))

    state = strategy.observe(strategy.initial(), seen)
    split = strategy.plan(state, Progress(trained=0))

    assert split == Probe(ProbeKind.SKETCHES, tasks=50 * visits // n_way, dims=512)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"first": "embeding"}, "embedding"),
        ({"first": []}, "required one of"),
        ({"first": "sketches", "dims": 0}, "sketches need 1 or more"),
        ({"memory": 0.0}, "> 0 and <= 1"),
        ({"temperature": 0.5}, ">= 1"),
        ({"scale": "cube"}, "raw"),
        ({"covariance": "diag"}, "full"),
        ({"every": 0}, "every"),
        ({"visits": 0.0}, "visits"),
        ({"least": 1.0}, "least"),
    ],
)
def test_an_unsuitable_option_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        clustering.build(config_of(**options))


def test_restarts_need_room_for_the_pipeline_that_waits() -> None:
    section = {"name": "mixture", "pipelines": 2, "options": {"restarts": 2}}

    with pytest.raises(ConfigError, match="max_pipelines must be 3 or more"):
        clustering.build(resolve(from_mapping({"clustering": section})))


def test_one_pipeline_is_no_mixture() -> None:
    with pytest.raises(ConfigError, match="2 or more"):
        clustering.build(resolve(from_mapping({"clustering": {"name": "mixture"}})))


def test_a_unit_of_several_classes_is_visited_as_often_as_a_class() -> None:
    section = {"name": "mixture", "pipelines": 2, "options": {"warmup": 0, "visits": 2.0}}
    asked = {}
    for unit in ("class", "alphabet"):
        task = {"source": "glyphs", "unit": unit, "n_way": 5}
        strategy = clustering.build(resolve(from_mapping({"task": task, "clustering": section})))
        units = np.arange(40)
        nothing = np.empty((0, 0), np.float32)
        probe = Probe(ProbeKind.UNITS)
        state = strategy.observe(
            strategy.initial(), Observations(probe, 0, (0,), 40, units, nothing)
        )
        rows = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
        split = Probe(ProbeKind.EMBEDDING, 0, samples=20, dims=512)
        state = strategy.observe(state, Observations(split, 0, (0,), 40, units, rows))
        asked[unit] = strategy.plan(state, Progress(trained=50))

    assert asked["class"] == Probe(ProbeKind.LOSSES, tasks=16)
    assert asked["alphabet"] == Probe(ProbeKind.LOSSES, tasks=80)
