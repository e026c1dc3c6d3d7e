"""What a run remembers of its rounds, and what a checkpoint takes along."""

from __future__ import annotations

from typing import Any

import pytest

from dmaml.common.items import ItemKind
from dmaml.server.history import History


def evaluation(version: int, **means: float) -> dict[str, Any]:
    metrics = {name: {"mean": [0.0, mean], "ci95": [0.0, 0.0]} for name, mean in means.items()}
    return {"version": version, "split": "validation", "num_tasks": 4, "metrics": metrics, "at": 0}


def test_rows_are_taken_once():
    history = History()
    history.add(ItemKind.TRAIN, {"round": 1})
    history.add(ItemKind.TRAIN, {"round": 2})

    assert history.take()[0]["records"] == [{"round": 1}, {"round": 2}]
    assert history.take()[0]["records"] == []
    assert history.last_round == {"round": 2}


@pytest.mark.parametrize(
    ("first", "worse", "better"),
    [
        ({"accuracy": 0.5, "loss": 1.0}, {"accuracy": 0.4, "loss": 0.1}, {"accuracy": 0.6}),
        ({"mse": 2.0}, {"mse": 3.0}, {"mse": 1.0}),
        ({"loss": 2.0}, {"loss": 3.0}, {"loss": 1.0}),
    ],
)
def test_best_is_the_highest_accuracy_else_the_lowest_loss(first, worse, better):
    history = History()
    found = []

    for version, means in enumerate([first, worse, first, better]):
        history.add(ItemKind.EVALUATE, evaluation(version, **means))
        found.append(history.take()[1])

    assert found == [True, False, False, True]
    assert history.last_evaluation["version"] == 3


def test_a_resumed_run_keeps_its_best():
    history = History()
    history.add(ItemKind.EVALUATE, evaluation(0, accuracy=0.9))
    meta, _ = history.take()

    resumed = History(meta)
    resumed.add(ItemKind.EVALUATE, evaluation(1, accuracy=0.8))

    assert resumed.take()[1] is False
    assert History(meta).last_evaluation["version"] == 0


def test_speed_is_tasks_over_seconds():
    history = History()
    assert history.tasks_per_s() == 0.0

    history.clock(10.0, 100)
    assert history.tasks_per_s() == 0.0
    history.clock(12.0, 150)

    assert history.tasks_per_s() == 25.0
