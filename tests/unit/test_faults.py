"""Faulty slots: what is wrong with their answers, and that nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.seeds import Kind, stream
from dmaml.worker.answers import Answer, Answerer
from dmaml.worker.faults import with_shuffled_labels
from dmaml.worker.tasks.base import TaskBatch

BASE: dict[str, Any] = {
    "task": {"source": "glyphs", "n_way": 5, "k_shot": 2, "k_query": 3},
    "model": {"name": "mlp", "hidden": [4]},
    "algorithm": {"tasks": 4},
    "topology": {"slots": 3},
    "evaluation": {"tasks": 6, "k_query": 1},
}


def config(kind: str = "none", **others: Any) -> RunConfig:
    faults = {} if kind == "none" else {"kind": kind, "slots": [1], "scale": -10.0}
    return configuration.resolve(
        configuration.from_mapping({**BASE, "faults": faults, **others}, "test")
    )


def train_item(slot: int, part: int = 0, index: int = 3) -> WorkItem:
    return WorkItem(4, ItemKind.TRAIN, 0, slot, part, index, 0)


def answer(answerer: Answerer, item: WorkItem) -> Answer:
    start = answerer.answer(WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0), np.empty(0, "<f4"), None, [])
    return answerer.answer(item, start.flat, start.layout, answerer.draw(item))


@pytest.fixture(scope="module")
def clean() -> Answerer:
    return Answerer(config())


@pytest.fixture(scope="module")
def shuffling() -> Answerer:
    return Answerer(config("shuffled_labels"))


def test_only_the_labels_of_the_faulty_slot_differ(clean: Answerer, shuffling: Answerer) -> None:
    item = train_item(slot=1)

    right, wrong = clean.draw(item)[0], shuffling.draw(item)[0]

    assert (right.support_x == wrong.support_x).all()
    assert (right.query_x == wrong.query_x).all()
    assert (np.sort(right.support_y, axis=1) == np.sort(wrong.support_y, axis=1)).all()
    assert (np.sort(right.query_y, axis=1) == np.sort(wrong.query_y, axis=1)).all()
    assert (right.support_y != wrong.support_y).any()
    assert (right.query_y != wrong.query_y).any()


@pytest.mark.parametrize(
    "item",
    [train_item(slot=0), train_item(slot=2), WorkItem(4, ItemKind.EVALUATE, 0, 1, 0, 0, 0)],
    ids=str,
)
def test_other_slots_and_evaluations_are_as_ever(
    item: WorkItem, clean: Answerer, shuffling: Answerer
) -> None:
    right, wrong = clean.draw(item)[0], shuffling.draw(item)[0]

    assert (right.support_y == wrong.support_y).all()
    assert (right.query_y == wrong.query_y).all()


def test_shuffled_labels_are_the_same_for_any_actor_and_number_of_parts(
    shuffling: Answerer,
) -> None:
    whole = shuffling.draw(train_item(slot=1))[0]

    parts = Answerer(config("shuffled_labels", topology={"slots": 3, "parts": 2}))
    halves = [parts.draw(train_item(slot=1, part=part))[0] for part in (0, 1)]

    assert (whole.query_y == np.concatenate([half.query_y for half in halves])).all()
    assert (whole.support_y == np.concatenate([half.support_y for half in halves])).all()


def test_each_round_shuffles_anew() -> None:
    labels = np.tile(np.arange(5), (64, 1))
    batch = TaskBatch(np.zeros((64, 5, 1)), labels, np.zeros((64, 5, 1)), labels, labels)
    streams = [stream(1, Kind.FAULT, 0, 0, task) for task in range(64)]

    shuffled = with_shuffled_labels(batch, streams)

    # support and query are independent: a fifth of the places agree, not all of them
    agreeing = (shuffled.support_y == shuffled.query_y).mean()
    assert 0.1 < agreeing < 0.3
    assert len({tuple(row) for row in shuffled.support_y.tolist()}) > 32
    assert (batch.support_y == labels).all()


def test_a_scaled_gradient_is_scaled_and_nothing_else(clean: Answerer) -> None:
    scaling = Answerer(config("scaled_gradient"))

    right, wrong = answer(clean, train_item(slot=1)), answer(scaling, train_item(slot=1))

    assert np.abs(right.flat).max() > 0
    assert wrong.flat.dtype == np.float32
    np.testing.assert_array_equal(wrong.flat, np.float32(-10) * right.flat)
    assert (wrong.loss, wrong.metrics) == (right.loss, right.metrics)
    other = train_item(slot=2)
    np.testing.assert_array_equal(answer(scaling, other).flat, answer(clean, other).flat)


def test_the_order_of_faulty_slots_does_not_matter() -> None:
    kind = {"kind": "shuffled_labels"}

    one = configuration.from_mapping({**BASE, "faults": {**kind, "slots": [2, 0]}})
    other = configuration.from_mapping({**BASE, "faults": {**kind, "slots": [0, 2]}})

    assert one.faults.slots == (0, 2)
    assert configuration.identity(one) == configuration.identity(other)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"kind": "shuffled_labels"}, ["'shuffled_labels'", "faults.slots []", "both or neither"]),
        ({"slots": [1]}, ["'none'", "faults.slots [1]", "both or neither"]),
        ({"kind": "scaled_gradient", "slots": [3]}, ["[3]", "topology.slots 3", "0 to 2"]),
        ({"kind": "scaled_gradients", "slots": [0]}, ["faults.kind", "'scaled_gradients'"]),
        ({"kind": "scaled_gradient", "slots": [-1]}, ["faults.slots", "-1"]),
        ({"kind": "scaled_gradient", "slots": [1, 0, 1]}, ["faults.slots", "each slot once"]),
        (
            {"kind": "shuffled_labels", "slots": [0], "scale": 5},
            ["faults.scale 5.0", "'shuffled_labels'", "only scaled_gradient reads it"],
        ),
        ({"scale": 5}, ["faults.scale 5.0", "'none'"]),
    ],
)
def test_a_fault_that_cannot_be_is_refused(faults: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration.from_mapping({**BASE, "faults": faults}, "test")

    for word in words:
        assert word in str(caught.value)
