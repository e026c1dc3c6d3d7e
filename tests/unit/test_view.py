"""What `dmaml watch` shows: curves, actors and events, from statuses or from the record."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dmaml.common.items import RunState
from dmaml.deploy.view import BLOCKS, EVENTS, View, screen, sparkline, with_rows, with_status
from dmaml.deploy.watch import is_address


def status(version: int, loss: float = 1.0, workers: tuple[str, ...] = (), **changes: Any) -> Any:
    values: dict[str, Any] = {
        "name": "waves", "state": int(RunState.RUNNING), "message": "", "version": version,
        "trained": version, "rounds": 10, "tasks_per_s": 4.0, "query_loss": loss,
        "metrics": {"accuracy": 0.1 * version}, "validation": {"accuracy": 0.5},
        "workers": [
            SimpleNamespace(worker_id=w, host="h", leases=1, contributions=2, idle_s=0.1)
            for w in workers
        ],
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def shown(view: View) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(screen(view))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block() -> None:
    assert sparkline([0.0, 1.0]) == BLOCKS[0] + BLOCKS[-1]
    assert sparkline([3.0, 3.0]) == BLOCKS[0] * 2
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)), width=40)) == 40


def test_a_status_adds_a_point_for_each_new_version() -> None:
    view = with_status(View(), status(1, 0.9), now=0.0)
    view = with_status(view, status(1, 0.9), now=0.5)
    view = with_status(view, status(3, 0.7), now=1.0)

    assert view.loss == ((1, 0.9), (3, 0.7))
    assert view.metric == "accuracy"
    assert view.validation == ((1, 0.5),)  # it has not changed since


def test_actors_that_come_and_go_are_events() -> None:
    view = with_status(View(), status(1, workers=("a", "b")), now=1.0)
    view = with_status(view, status(2, workers=("b",)), now=2.0)

    words = [words for _, words in view.events]
    assert words == ["actor a came", "actor b came", "actor a is gone"]


def test_events_and_table_are_bounded() -> None:
    many = tuple(f"w{i:03d}" for i in range(100))

    view = with_status(View(), status(1, workers=many), now=1.0)

    assert len(view.events) == EVENTS
    assert "and 88 more" in shown(view)


def test_rows_of_the_record_are_the_curves() -> None:
    rounds = [{"version": v, "loss": 1.0 / v, "metrics": {"accuracy": 0.2 * v}} for v in (1, 2, 4)]
    tests = [{"version": 4, "metrics": {"accuracy": {"mean": [0.2, 0.75], "ci95": [0.0, 0.0]}}}]
    events = [{"at": 5.0, "message": "worker x joined"}]

    view = with_rows(View(name="waves", rounds=8), rounds, tests, events)

    assert view.loss == ((1, 1.0), (2, 0.5), (4, 0.25))
    assert view.validation == ((4, 0.75),)
    text = shown(view)
    assert "1.000 → 0.250" in text
    assert "0.200 → 0.800" in text
    assert "worker x joined" in text
    assert "round 4/8" in text


def test_nothing_is_cut_on_a_terminal_of_80_columns() -> None:
    points = tuple((version, 1 / version) for version in range(1, 100))
    view = View(
        name="waves", rounds=100, metric="accuracy", loss=points, score=points, validation=points
    )

    text = shown(view)

    assert "…" not in text
    assert "validation accuracy  1.000 → 0.010" in text
    assert len(text.splitlines()) == 5  # head, rounds, three curves


def test_a_failed_run_says_why() -> None:
    view = with_status(View(), status(2, state=int(RunState.FAILED), message="disk full"), now=1.0)

    assert view.is_over
    assert "failed" in shown(view)
    assert "disk full" in shown(view)


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "server:1", "[::1]:80"])
def test_host_and_port_are_an_address(target: str) -> None:
    assert is_address(target)


@pytest.mark.parametrize("target", ["runs/glyphs", "glyphs", "host:", ":50051", "/"])
def test_anything_else_is_a_directory(target: str) -> None:
    assert not is_address(target)
