"""A commit's numbers by hand, and sums bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.items import ItemKind, Token, WorkItem
from dmaml.common.layout import Layout, TensorSpec
from dmaml.common.outer import OuterSection
from dmaml.server.aggregation import base
from dmaml.server.aggregation.base import weighted_sum
from dmaml.server.aggregation.krum import Krum
from dmaml.server.aggregation.mean import Mean as MeanRule
from dmaml.server.aggregation.sum import Sum
from dmaml.server.combine import (
    combine,
    entropy_ratio,
    evaluation_metrics,
    norm_of,
    train_metrics,
)
from dmaml.server.core.actions import Head
from dmaml.server.parameters import Parameters
from dmaml.server.weights.mean import Mean
from dmaml.server.weights.per_pipeline import PerPipeline, section_of
from tests.unit.driven_core import config_of


class ByLoss:
    """Weights in proportion to the losses; remembers what it was asked."""

    def weights(self, losses, slots, staleness):
        self.asked = (losses.tolist(), slots.tolist(), staleness.tolist())
        return losses / losses.sum()


def head(slot: int, part: int = 0, loss: float = 1.0, num_tasks: int = 2, **metrics) -> Head:
    item = WorkItem(5, ItemKind.TRAIN, 0, slot, part, 4, 4)
    return Head("1-1", item, Token(1, 1), loss=loss, num_tasks=num_tasks, metrics=metrics)


def combined(heads, gradients, voids=(), generator=None, staleness=None, rule=None, **algorithm):
    flats = {h.item: np.array(g, dtype="<f4") for h, g in zip(heads, gradients, strict=True)}
    slots = 1 + max(h.item.slot for h in heads)
    config = config_of(algorithm=algorithm, topology={"slots": slots})
    ages = staleness or dict.fromkeys(flats, 0)
    return combine(
        config, heads, frozenset(voids), ages, flats, generator or Mean(), rule or MeanRule()
    )


def test_weights_times_gradients_by_hand():
    heads = [head(0, loss=1.0), head(1, loss=3.0)]

    found = combined(heads, [[4.0, 0.0], [0.0, 8.0]], generator=ByLoss())

    assert found.gradient.tolist() == [1.0, 6.0]
    assert found.weights == [0.25, 0.75]
    assert found.losses == [1.0, 3.0]
    assert found.norm == pytest.approx(np.sqrt(37.0))


def test_krum_counts_a_void_slot_among_the_byzantine_ones():
    heads = [head(slot) for slot in range(5)]
    rule = Krum(num_byzantine=1)

    # of 0, 1, 5, 7 with f 0: two neighbours each, scores 26, 17, 20, 40
    found = combined(heads, [[0.0], [1.0], [np.nan], [5.0], [7.0]], [heads[2].item], rule=rule)

    assert found.gradient.tolist() == [1.0]


class Fixed:
    """Gives what it was told to, or raises it."""

    def __init__(self, given):
        self.given = given

    def weights(self, losses, slots, staleness):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.array([np.nan, 1.0]), "2 finite weights >= 0 of sum 1: one of them is nan"),
        (np.array([np.inf, 1.0]), "one of them is inf"),
        (np.array([-0.5, 1.5]), "one of them is -0.5"),
        (np.array([0.5, 0.6]), r"their sum is 1\.1"),
        (np.array([1.0]), r"they have shape \[1\]"),
        (np.array([[0.5, 0.5]]), r"they have shape \[1, 2\]"),
        (["a", "b"], "'mean' failed: could not convert"),
        (ZeroDivisionError("float division by zero"), "'mean' failed: float division by zero"),
    ],
)
def test_weights_that_break_the_contract_are_refused_and_their_generator_named(given, words):
    heads = [head(0), head(1)]

    with pytest.raises(RunFailedError, match=words) as caught:
        combined(heads, [[1.0], [2.0]], generator=Fixed(given))

    assert "weight generator 'mean'" in str(caught.value)
    assert not isinstance(caught.value, DivergedError)


def test_weights_may_be_a_list_of_python_numbers():
    found = combined([head(0), head(1)], [[1.0], [2.0]], generator=Fixed([0.5, 0.5]))

    assert found.gradient.tolist() == [1.5]


def test_a_combined_gradient_that_overflows_is_blamed_on_its_rule():
    heads = [head(0), head(1)]

    with pytest.raises(DivergedError, match=r"gradient of pipeline 0 .* left the range of float32"):
        combined(heads, [[3e38], [3e38]], rule=Sum())


def test_a_step_that_leaves_float32_is_blamed_on_the_optimiser_and_not_staged():
    parameters = Parameters(OuterSection(name="sgd", lr=1.0))
    parameters.start(Layout((TensorSpec("w", (1,)),)), {0: np.zeros(1, dtype="<f4")})
    before = parameters.staged

    with pytest.raises(DivergedError, match=r"pipeline 0 .* 'sgd' at rate 1e\+30 .* norm 1e\+30"):
        parameters.step(0, np.array([1e30], dtype="<f4"), 1e30)

    assert parameters.staged is before


def test_parts_are_averaged_by_their_tasks():
    heads = [head(0, 0, loss=1.0, num_tasks=1), head(0, 1, loss=5.0, num_tasks=3)]

    found = combined(heads, [[4.0], [8.0]], task_reduction="mean")

    assert found.gradient.tolist() == [7.0]
    assert found.losses == [4.0]


def test_parts_are_added_where_tasks_are_summed():
    heads = [head(0, 0, loss=1.0, num_tasks=1), head(0, 1, loss=5.0, num_tasks=3)]

    found = combined(heads, [[4.0], [8.0]], task_reduction="sum")

    assert found.gradient.tolist() == [12.0]
    assert found.losses == [4.0]


def test_void_part_voids_its_slot_and_weights_are_those_of_the_others():
    heads = [head(s, p, loss=1.0 + s) for s in range(3) for p in range(2)]
    gradients = [[1.0], [3.0], [np.nan], [9.0], [5.0], [7.0]]
    generator = ByLoss()

    found = combined(heads, gradients, voids=[heads[2].item], generator=generator)

    assert generator.asked == ([1.0, 3.0], [0, 2], [0, 0])
    assert found.gradient.tolist() == [0.25 * 2.0 + 0.75 * 6.0]
    assert found.losses == [1.0, None, 3.0]
    assert found.weights == [0.25, 0.0, 0.75]


def plain_sum(vectors, weights):
    """Return the sum as the design states it: float32, multiply, then add, in order."""
    total = np.float32(weights[0]) * vectors[0]
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        total = total + np.float32(weight) * vector
    return total


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
@pytest.mark.parametrize("block", [1, 8, 1 << 16])
def test_sum_has_the_bits_of_a_plain_loop_whatever_the_block(size, block, monkeypatch):
    monkeypatch.setattr(base, "BLOCK", block)
    rng = np.random.default_rng(size)
    vectors = [(rng.standard_normal(size) * 10.0**n).astype("<f4") for n in (0, 3, -3, 6)]
    weights = [0.1, 0.7, 0.15, 0.05]

    found = weighted_sum(vectors, weights)

    assert found.dtype == np.dtype("<f4")
    assert found.tobytes() == plain_sum(vectors, weights).tobytes()


def test_sum_of_large_vectors_has_the_bits_of_a_plain_loop():
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(base.BLOCK * 2 + 17).astype("<f4") for _ in range(5)]
    weights = rng.dirichlet(np.ones(5)).tolist()

    assert weighted_sum(vectors, weights).tobytes() == plain_sum(vectors, weights).tobytes()


def test_sum_leaves_its_arguments_and_takes_read_only_ones():
    vectors = [np.ones(3, dtype="<f4"), np.frombuffer(np.ones(3, dtype="<f4").tobytes(), "<f4")]

    found = weighted_sum(vectors, [2.0, 3.0])

    assert found.tolist() == [5.0] * 3
    assert vectors[0].tolist() == [1.0] * 3
    assert weighted_sum(vectors[:1], [1.0]) is not vectors[0]


def test_norm_is_in_float64():
    assert norm_of(np.array([3e30, 4e30], dtype="<f4")) == pytest.approx(5e30)
    assert norm_of(np.array([3e-30, 4e-30], dtype="<f4")) == pytest.approx(5e-30)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_norm_of_what_is_not_finite_is_not_finite(bad):
    assert not np.isfinite(norm_of(np.array([1.0, bad], dtype="<f4")))


def test_round_metrics_are_means_over_the_tasks_that_are_not_void():
    heads = (
        head(0, loss=1.0, num_tasks=1, accuracy=0.2),
        head(1, loss=3.0, num_tasks=3, accuracy=0.6),
        head(2, loss=np.nan, num_tasks=4, accuracy=np.nan),
    )

    found = train_metrics(heads, frozenset({heads[2].item}))

    assert found == {"loss": 2.5, "accuracy": pytest.approx(0.5)}


def test_evaluation_gives_mean_and_interval_by_step():
    tables = [
        {"accuracy": np.array([[0.0, 1.0], [1.0, 1.0]])},
        {"accuracy": np.array([[0.5, 1.0]])},
    ]

    found = evaluation_metrics(tables)

    assert found["accuracy"]["mean"] == [0.5, 1.0]
    assert found["accuracy"]["ci95"] == pytest.approx([1.96 * 0.5 / np.sqrt(3), 0.0])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0], 1.0),  # alone it is spread as evenly as can be
        ([0.25] * 4, 1.0),
        ([1.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.0, 0.0], 0.5),  # ln 2 / ln 4
        ([0.75, 0.25], 2 - 0.75 * np.log2(3)),
    ],
)
def test_entropy_of_weights_in_closed_form(weights, expected):
    assert entropy_ratio(weights) == pytest.approx(expected, abs=1e-12)


def test_entropy_is_that_of_the_slots_that_count():
    heads = [head(s, loss=loss) for s, loss in enumerate([1.0, 3.0, 9.0])]
    gradients = [[1.0], [1.0], [np.nan]]

    mean = combined(heads, gradients, voids=[heads[2].item])
    by_loss = combined(heads, gradients, voids=[heads[2].item], generator=ByLoss())

    assert mean.weight_entropy == pytest.approx(1.0)
    assert by_loss.weight_entropy == pytest.approx(2 - 0.75 * np.log2(3))


def test_staleness_reaches_the_generator_and_a_late_slot_adds_to_its_own():
    late = head(1, loss=3.0)._replace(item=WorkItem(4, ItemKind.TRAIN, 0, 1, 0, 3, 3))
    heads = [head(0, loss=1.0), late, head(1, loss=2.0)]
    generator = ByLoss()
    ages = {heads[0].item: 0, late.item: 1, heads[2].item: 0}

    found = combined(heads, [[6.0], [18.0], [12.0]], generator=generator, staleness=ages)

    assert generator.asked == ([1.0, 3.0, 2.0], [0, 1, 1], [0, 1, 0])
    assert found.gradient.tolist() == [1.0 + 4.0 + 9.0]
    assert found.weights == pytest.approx([1 / 6, 5 / 6])
    assert found.losses == [1.0, 2.0]


def test_void_part_of_an_earlier_round_leaves_this_round_alone():
    late = head(0, loss=9.0)._replace(item=WorkItem(4, ItemKind.TRAIN, 0, 0, 0, 3, 3))
    heads = [head(0, loss=1.0), late]

    found = combined(heads, [[2.0], [8.0]], voids=[late.item])

    assert found.gradient.tolist() == [2.0]


def test_pipelines_share_no_history():
    config = config_of(weights={"name": "loss_moving_average"})
    generators = PerPipeline(config)
    slots, fresh = np.arange(2), np.zeros(2, dtype=np.int64)
    generators.of(0).weights(np.array([9.0, 1.0]), slots, fresh)

    own = generators.of(1).weights(np.array([1.0, 1.0]), slots, fresh)
    again = PerPipeline(config)
    again.load(generators.state())

    assert own.tolist() == [0.5, 0.5]
    assert again.state() == generators.state()
    assert set(again.state()) == {"0", "1"}


def test_merged_answers_are_discounted_and_others_are_not():
    config = config_of(
        topology={"slots": 2},
        sync={"mode": "quorum", "quorum": 1, "late": "merge", "late_discount": 1.0},
    )
    losses, slots = np.ones(3), np.array([0, 1, 1])

    found = PerPipeline(config).of(0).weights(losses, slots, np.array([0, 0, 1]))

    assert found == pytest.approx(np.array([2, 2, 1]) / 5)
    assert section_of(config_of()).name == "mean"
