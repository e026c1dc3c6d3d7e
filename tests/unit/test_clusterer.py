"""γ, the tree, and what becomes of strategies that break their contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping, resolve
from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.gamma import Gamma, Pipeline, digest_of_all, entropies
from dmaml.common.layout import Layout, TensorSpec
from dmaml.common.outer import OuterSection
from dmaml.common.probes import Observation, Probe, ProbeKind
from dmaml.server.clustering import tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.clustering.probing import gamma_row, gathered
from dmaml.server.parameters import Parameters
from dmaml.server.weights.per_pipeline import PerPipeline

ASKED = Observations(
    Probe(ProbeKind.UNITS), 0, (0,), 2, np.arange(2), np.empty((0, 0), dtype=np.float32)
)
FIRST = Gamma(0, (0, 1), np.array([[1, 0], [0, 1]], dtype=np.float32))


class Scripted:
    """Gives the γ of a script, one after another."""

    script: list[Any]

    def __init__(self, config: Any) -> None:
        pass

    def initial(self) -> State:
        return State({"place": 0})

    def plan(self, state: State, progress: Any) -> None:
        return None

    def observe(self, state: State, observations: Observations) -> State:
        return State({"place": state.values["place"] + 1})

    def route(self, state: State) -> Gamma:
        found = self.script[state.values["place"]]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Gamma)
        return found


def scripted(*script: Any, most: int = 3) -> Clusterer:
    Scripted.script = list(script)
    section = {"name": f"{__name__}:Scripted", "pipelines": 2, "max_pipelines": most}
    return Clusterer(resolve(from_mapping({"clustering": section})))


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_units_go_where_gamma_is_largest_and_of_equal_ones_to_the_first() -> None:
    gamma = Gamma(1, (3, 7), rows([0.2, 0.8], [0.5, 0.5], [0.9, 0.1]))

    assert gamma.route(np.array([2, 1, 0]), 3).tolist() == [2, 1]
    assert gamma.route(np.array([2, 1, 0]), 7).tolist() == [0]
    assert Gamma(0, (0, 1), rows().reshape(0, 2)).route(np.array([5]), 1).tolist() == [5]


def test_entropy_is_in_nats_and_never_negative() -> None:
    assert entropies(rows([0.5, 0.5], [1.0, 0.0])).tolist() == [pytest.approx(math.log(2)), 0.0]


def test_the_digest_of_one_pipeline_is_its_own() -> None:
    assert digest_of_all({0: "a"}) == "a"
    assert digest_of_all({0: "a", 1: "b"}) == digest_of_all({1: "b", 0: "a"})
    assert digest_of_all({0: "a", 1: "b"}) != digest_of_all({0: "b", 1: "a"})


def test_a_split_retires_one_and_opens_two() -> None:
    nodes = tree.retired(tree.opened(tree.roots(2), 1, 2, 500), [1])

    assert tree.active(nodes) == (0, 2, 3)
    assert tree.pipelines_of(nodes)[2] == Pipeline(2, parent=1, opened_round=500)


def test_what_was_observed_is_in_force_once_it_is_adopted() -> None:
    second = Gamma(1, (0, 1), rows([0, 1], [1, 0]))
    clusterer = scripted(FIRST, second)

    assert clusterer.observe(ASKED) is second
    assert clusterer.gamma is FIRST
    assert clusterer.adopt() is second
    assert clusterer.values() == {"place": 1}


BREACHES = [
    (Gamma(1, (0, 1), rows([1, 0.5], [0, 1])), "a row of γ is negative or does not sum to 1"),
    (Gamma(1, (0, 1), rows([2, -1], [0, 1])), "a row of γ is negative"),
    (Gamma(1, (0, 1), rows([np.nan, 1], [0, 1])), "a row of γ is negative"),
    (Gamma(1, (0, 1), rows([1], [1])), r"float32 \[2, 1\] for 2 pipelines"),
    (Gamma(1, (0, 1), np.eye(2)), "float64"),
    (Gamma(1, (1, 0), rows([1, 0], [0, 1])), "not ascending"),
    (Gamma(1, (), rows([], [])), "0 active pipelines, required 1 to 3"),
    (Gamma(1, (0, 1, 2, 3), np.full((2, 4), 0.25, "f4")), "4 active pipelines, required 1 to 3"),
    (Gamma(0, (0, 1), rows([0, 1], [0, 1])), "γ version 0 after 0, though γ changed"),
    (Gamma(1, (0, 1), FIRST.matrix), "γ version 1 after 0, though γ is the same"),
    (Gamma(1, (0, 2), FIRST.matrix, (Pipeline(0), Pipeline(2, 0))), r"\[1\] left the tree"),
    (Gamma(1, (0, 1, 2), np.full((2, 3), 1 / 3, "f4"), tree.pipelines_of(tree.roots(3))),
     "pipeline 2 has parent -1, which is not active"),
    (Gamma(1, (0, 1), rows([0, 1], [1, 0]), (Pipeline(0), Pipeline(1, is_active=False))),
     "are not the active ones of its tree"),
    (ValueError("no idea"), "failed: no idea"),
]  # fmt: skip


@pytest.mark.parametrize(("second", "words"), BREACHES)
def test_a_breach_of_the_contract_names_the_strategy(second: Any, words: str) -> None:
    clusterer = scripted(FIRST, second)

    with pytest.raises(RunFailedError, match=words) as caught:
        clusterer.observe(ASKED)

    assert f"clustering '{__name__}:Scripted'" in str(caught.value)
    assert clusterer.adopt() is FIRST


def test_an_id_is_never_used_again() -> None:
    nodes = tree.retired(tree.opened(tree.roots(2), 0, 1, 1), [2])
    gone = Gamma(2, (0, 1), FIRST.matrix, tree.pipelines_of(nodes))
    opened = Gamma(
        1, (0, 1, 2), np.full((2, 3), 1 / 3, "f4"),
        tree.pipelines_of(tree.opened(tree.roots(2), 0, 1, 1)),
    )  # fmt: skip
    back = Gamma(3, (0, 1, 2), opened.matrix, opened.tree)
    clusterer = scripted(FIRST, opened, gone, back)
    for _ in range(2):
        clusterer.observe(ASKED)
        clusterer.adopt()

    with pytest.raises(RunFailedError, match="pipeline 2 was there before"):
        clusterer.observe(ASKED)


# -- rounds ----------------------------------------------------------------------------------


def observation(units: list[int], values: Any, num_units: int = 9) -> Observation:
    return Observation(num_units, np.array(units, dtype=np.int64), np.asarray(values, "f4"))


def test_answers_of_a_round_become_rows_with_their_units() -> None:
    first = observation([4, 2], [[1], [2], [3], [4]])
    empty = observation([], np.empty((0, 0)))

    found = gathered([first, empty, observation([7], [[5], [6]])], Probe(ProbeKind.PIXELS), (0,), 3)

    assert found.units.tolist() == [4, 4, 2, 2, 7, 7]
    assert found.values.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert (found.trained, found.num_units) == (3, 9)


@pytest.mark.parametrize(
    ("kind", "second", "error"),
    [
        (ProbeKind.PIXELS, observation([1], [[1, 2]]), RunFailedError),
        (ProbeKind.PIXELS, observation([1], [[1]], num_units=8), RunFailedError),
        (ProbeKind.LOSSES, observation([1], [[1]]), RunFailedError),
        (ProbeKind.PIXELS, observation([1], [[np.inf]]), DivergedError),
    ],
)
def test_answers_that_do_not_go_together_fail_the_run(
    kind: ProbeKind, second: Observation, error: type[Exception]
) -> None:
    with pytest.raises(error):
        gathered([observation([1], [[1]]), second], Probe(kind), (0, 1), 0)


def test_the_record_keeps_sizes_the_tree_and_gamma_of_trained_units() -> None:
    gamma = Gamma(4, (0, 1), rows([1, 0], [0.5, 0.5], [0.5, 0.5], [0.25, 0.75]))

    row = gamma_row(gamma, np.array([0, 2, 3]))

    assert (row["table"], row["version"]) == ("gamma", 4)
    assert row["state"]["expected_units"] == [1.75, 1.25]
    assert row["state"]["routed_units"] == [2, 1]
    assert row["state"]["tree"] == [[0, -1, 0, True], [1, -1, 0, True]]
    assert row["state"]["units"] == [0, 2, 3]
    assert row["state"]["matrix"] == [[1, 0], [0.5, 0.5], [0.25, 0.75]]
    assert row["state"]["uncertain"] == [[2, [0.5, 0.5]], [3, [0.25, 0.75]]]
    first, second = np.array(row["state"]["histogram"])
    assert np.flatnonzero(first).tolist() == [5, 10, 19]
    assert np.flatnonzero(second).tolist() == [0, 10, 15]


def test_the_record_keeps_gamma_of_a_hundred_units_of_many() -> None:
    share = np.linspace(0, 1, 1001, dtype=np.float32)

    row = gamma_row(Gamma(1, (0, 1), np.stack([share, 1 - share], axis=1)), np.empty(0, int))

    units = row["state"]["units"]
    assert (len(units), units[0], units[-1]) == (100, 0, 1000)
    assert row["state"]["matrix"][-1] == [1, 0]
    assert row["state"]["uncertain"][0] == [500, [0.5, 0.5]]
    assert [sum(counts) for counts in row["state"]["histogram"]] == [1001, 1001]


def test_a_child_begins_as_its_parent_is_and_then_goes_its_own_way() -> None:
    parameters = Parameters(OuterSection())
    parameters.start(Layout((TensorSpec("w", (2,)),)), {0: np.ones(2, dtype="<f4")})
    parameters.step(0, np.array([1.0, -2.0], dtype="<f4"), 0.1)
    nodes = tree.opened(tree.roots(1), 0, 1, 1)

    parameters.follow(Gamma(1, (0, 1), rows([1, 0]), tree.pipelines_of(nodes)))
    before = parameters.tensors()
    parameters.step(1, np.array([1.0, 1.0], dtype="<f4"), 0.1)
    after = parameters.tensors()

    for name in ("theta", "outer"):
        own = {n.replace(".1", ".0", 1): v for n, v in before.items() if n.startswith(f"{name}.1")}
        assert own
        assert all(np.array_equal(v, before[n]) for n, v in own.items())
    assert np.array_equal(before["theta.0"], after["theta.0"])
    assert not np.array_equal(after["theta.0"], after["theta.1"])


def test_a_retired_pipeline_is_forgotten() -> None:
    parameters = Parameters(OuterSection())
    parameters.start(Layout((TensorSpec("w", (1,)),)), {0: np.ones(1, dtype="<f4")})
    nodes = tree.retired(tree.opened(tree.roots(1), 0, 2, 1), [0])

    parameters.follow(Gamma(1, (1, 2), rows([1, 0]), tree.pipelines_of(nodes)))
    parameters.stage(0)

    assert sorted(parameters.staged) == [1, 2]


def test_weight_generators_follow_the_tree() -> None:
    config = resolve(from_mapping({"weights": {"name": "loss_moving_average"}}))
    generators = PerPipeline(config)
    generators.of(0).weights(np.array([1.0, 2.0]), np.array([0, 1]), np.array([0, 0]))
    nodes = tree.retired(tree.opened(tree.roots(1), 0, 2, 1), [0])

    generators.follow(Gamma(1, (1, 2), rows([1, 0]), tree.pipelines_of(nodes)))

    before = generators.state()
    assert sorted(before) == ["1", "2"]
    assert before["1"] == before["2"] != PerPipeline(config).of(0).state()
    generators.of(1).weights(np.array([5.0, 2.0]), np.array([0, 1]), np.array([0, 0]))
    assert generators.state()["2"] == before["2"]
