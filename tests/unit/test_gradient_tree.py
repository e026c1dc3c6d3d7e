"""A tree of pipelines by gradient directions: when it asks, when it splits, who goes where."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.gamma import columns_of
from dmaml.common.probes import Probe, ProbeKind
from dmaml.common.seeds import Int64
from dmaml.server import clustering
from dmaml.server.clustering.base import Clustering, Observations, State
from dmaml.server.clustering.gradient_tree import divided
from dmaml.server.core.progress import Progress

UNITS, DIMS, EVERY = 100, 32, 5  # 80 units are trained on
TRAINED = np.arange(80)


def built(most: int = 8, seed: int = 1, unit: str = "class", **options: Any) -> Clustering:
    options = {"every": EVERY, "rows": 4, "dims": DIMS, "tasks": 20, "restarts": 2} | options
    section = {"name": "gradient_tree", "max_pipelines": most, "options": options}
    values = {"run": {"seed": seed}, "task": {"unit": unit}, "clustering": section}
    return clustering.build(resolve(from_mapping(values)))


class Units:
    """Units with directions of their own around those of their origins."""

    def __init__(self, num_origins: int, seed: int = 1, apart: float = 6.0) -> None:
        random = np.random.default_rng(seed)
        self.origin = random.integers(num_origins, size=UNITS)
        means = random.normal(size=(num_origins, DIMS)) * apart / np.sqrt(DIMS)
        self._pull = 3 / np.sqrt(DIMS) + means[self.origin]
        self._pull += random.normal(size=(UNITS, DIMS)) / np.sqrt(DIMS)

    def answer(self, probe: Probe, own: Int64, trained: int, probes: int) -> Observations:
        """Return what actors would say; unit 0 is never drawn."""
        if probe.kind is ProbeKind.UNITS:
            return Observations(
                probe, trained, (0,), UNITS, TRAINED, np.empty((0, 0), dtype=np.float32)
            )
        random = np.random.default_rng([probes, probe.pipeline])
        units = random.choice(own[own > 0], 5 * probe.tasks)
        noise = random.normal(size=(len(units), DIMS)) / np.sqrt(DIMS)
        values = (self._pull[units] + noise) * random.uniform(0.1, 9, size=(len(units), 1))
        return Observations(probe, trained, (0,), UNITS, units, values.astype(np.float32))


def copied(state: State) -> State:
    """Return the state as a checkpoint gives it back."""
    arrays = {name: array.copy() for name, array in state.arrays.items()}
    return State(json.loads(json.dumps(dict(state.values))), arrays)


def grown(strategy: Clustering, units: Units, rounds: int, is_killed: bool = False) -> State:
    """Return the state after so many TRAIN rounds; killed and resumed before every step."""
    state, probes = strategy.initial(), 0
    for trained in range(rounds + 1):
        while (probe := strategy.plan(state, Progress(trained=trained))) is not None:
            state = copied(state) if is_killed else state
            own = strategy.route(state).route(TRAINED, probe.pipeline)
            state = strategy.observe(state, units.answer(probe, own, trained, probes))
            probes += 1
    return state


def leaves(strategy: Clustering, state: State) -> Int64:
    """Return the pipeline of each unit that is trained on."""
    gamma = strategy.route(state)
    return np.array(gamma.pipelines)[columns_of(gamma.matrix[TRAINED])]


def purities(strategy: Clustering, state: State, units: Units) -> list[float]:
    """Return the share of the commonest origin among the units of each leaf; unit 0 left out."""
    found, origin = leaves(strategy, state)[1:], units.origin[TRAINED][1:]
    groups = [origin[found == leaf] for leaf in np.unique(found)]
    return [float(np.bincount(group).max() / len(group)) for group in groups]


def test_it_asks_for_units_and_then_for_enough_sketches_once_it_is_due() -> None:
    strategy, units = built(), Units(1)
    early, due = Progress(trained=EVERY - 1), Progress(trained=EVERY)
    state = strategy.initial()

    first = strategy.plan(state, due)
    state = strategy.observe(state, units.answer(Probe(ProbeKind.UNITS), TRAINED, EVERY, 0))
    second = strategy.plan(state, due)

    assert strategy.plan(strategy.initial(), early) is None
    assert first == Probe(ProbeKind.UNITS)
    assert second == Probe(ProbeKind.SKETCHES, 0, tasks=20, dims=DIMS)  # of 4 * 80 / 5


def test_a_series_goes_on_until_units_have_their_rows_and_not_for_ever() -> None:
    strategy, units = built(), Units(1)

    state = grown(strategy, units, EVERY)

    assert state.values["trials"][0]["units"] == 79  # unit 0 brought no row
    assert state.values["probes"] == 0
    assert set(state.arrays) == {"trained"}  # sums are dropped


def test_one_origin_stays_whole_and_is_tried_again() -> None:
    strategy = built()

    state = grown(strategy, Units(1), 4 * EVERY)

    assert [trial["split"] for trial in state.values["trials"]] == [False] * 4
    assert [trial["trained"] for trial in state.values["trials"]] == [5, 10, 15, 20]
    assert strategy.route(state).pipelines == (0,)
    assert strategy.route(state).version == 0


def test_without_a_test_one_origin_is_cut() -> None:
    strategy = built(alpha=1.0)

    state = grown(strategy, Units(1), EVERY)

    assert strategy.route(state).pipelines == (1, 2)


def test_two_origins_become_two_children_of_a_retired_pipeline() -> None:
    strategy, units = built(), Units(2)

    gamma = strategy.route(grown(strategy, units, EVERY))

    assert gamma.pipelines == (1, 2)
    assert [(n.parent, n.opened_round, n.is_active) for n in gamma.nodes] == [
        (-1, 0, False), (0, EVERY, True), (0, EVERY, True),
    ]  # fmt: skip
    assert purities(strategy, grown(strategy, units, EVERY), units) == [1.0, 1.0]


def test_a_unit_without_rows_goes_with_the_larger_child_and_others_get_the_shares() -> None:
    strategy = built()

    gamma = strategy.route(grown(strategy, Units(2), EVERY))

    sizes = gamma.matrix[TRAINED].sum(axis=0)
    assert gamma.matrix[0].tolist() == [1.0, 0.0]
    assert sizes[0] >= sizes[1]
    assert np.allclose(gamma.matrix[80:], sizes / 80)


def test_four_origins_are_found_in_two_levels_or_three() -> None:
    strategy, units = built(), Units(4)

    state = grown(strategy, units, 6 * EVERY)

    assert len(strategy.route(state).pipelines) == 4
    assert purities(strategy, state, units) == [1.0] * 4


@pytest.mark.parametrize(
    ("options", "pipelines"),
    [({"most": 3}, 3), ({"depth": 1}, 2), ({"least": 41}, 1)],
)
def test_splits_stop_at_the_bounds(options: dict[str, int], pipelines: int) -> None:
    strategy = built(**options)

    state = grown(strategy, Units(4), 6 * EVERY)

    assert len(strategy.route(state).pipelines) == pipelines


def test_a_run_that_is_killed_before_every_step_ends_with_the_same_bits() -> None:
    one, other = (grown(built(), Units(4), 4 * EVERY, is_killed) for is_killed in (False, True))

    assert one.values == other.values
    assert {n: a.tobytes() for n, a in one.arrays.items()} == {
        n: a.tobytes() for n, a in other.arrays.items()
    }


def test_the_scale_of_a_gradient_says_nothing() -> None:
    strategy, units = built(), Units(2)
    state = strategy.observe(
        strategy.initial(), units.answer(Probe(ProbeKind.UNITS), TRAINED, EVERY, 0)
    )
    probe = strategy.plan(state, Progress(trained=EVERY))
    assert probe is not None
    seen = units.answer(probe, TRAINED, EVERY, 0)
    scale = np.float32(2.0) ** np.arange(len(seen.values))[:, None].astype(np.float32) % 7 + 1

    one = strategy.observe(state, seen)
    other = strategy.observe(state, replace(seen, values=seen.values * scale))

    assert np.allclose(one.arrays["sums"], other.arrays["sums"], atol=1e-5)


def test_a_column_is_divided_between_its_children() -> None:
    matrix = np.array([[1, 0], [0, 1], [0, 1], [0.5, 0.5]], dtype=np.float32)
    second = np.array([False, False, True, False])

    gamma = divided(matrix, 1, np.array([1, 2]), second, [3, 1])

    assert gamma.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.375, 0.125]]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"most": 1}, "max_pipelines"),
        ({"every": 0}, "every"),
        ({"alpha": 0.0}, "alpha"),
        ({"least": 4}, "least"),  # n_way is 5
        ({"dims": 1}, "dims"),
    ],
)
def test_an_unsuitable_option_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        built(**options)


def test_a_child_may_be_one_alphabet() -> None:
    assert built(unit="alphabet", least=1).plan is not None
