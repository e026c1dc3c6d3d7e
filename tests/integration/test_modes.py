"""Quorum, async and second leases with a real server: nothing is lost, nothing counts twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.rundir import read_rows
from tests.integration import harness
from tests.integration.harness import (
    CountingAnswerer,
    LiveServer,
    Worker,
    digest_of,
    killable,
    latest,
    tiny,
    train,
    versions_of,
)

ROUNDS, SLOTS = 12, 4
TOPOLOGY = {"slots": SLOTS}
ASYNC = {"mode": "async", "window": 2}


def config_of(sync: dict[str, Any], **sections: dict[str, Any]) -> RunConfig:
    """Return a run of 12 rounds and 4 slots with a task each, validated after every 5 rounds."""
    values: dict[str, dict[str, Any]] = {
        "run": {"rounds": ROUNDS},
        "topology": TOPOLOGY,
        "algorithm": {"tasks": 1},
        "evaluation": {"every": 5},
        "sync": sync,
    }
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    return tiny(**values)


def items_of(run: Path) -> list[tuple[int, int]]:
    """Return (version before its commit, slot) of every answer that is applied."""
    rows = read_rows(run, "rounds")
    return [(row["version"] - 1, item["slot"]) for row in rows for item in row["items"]]


@pytest.mark.parametrize("spool_bytes", [8, 1 << 28])
def test_async_run_applies_every_item_once(spool_bytes: int, tmp_path: Path) -> None:
    config = config_of(ASYNC, server={"max_inflight_bytes": spool_bytes})

    train(config, tmp_path / "run", workers=3)

    run = tmp_path / "run"
    progress = latest(run).meta["progress"]
    assert versions_of(run) == list(range(1, ROUNDS * SLOTS + 1))
    assert progress["tasks_seen"] == ROUNDS * SLOTS
    assert (progress["trained"], progress["evaluated"]) == (ROUNDS, ROUNDS)
    assert sorted(slot for _, slot in items_of(run)) == sorted(list(range(SLOTS)) * ROUNDS)
    versions = [row["version"] for row in read_rows(run, "evaluations")]
    assert versions == [5 * SLOTS, 10 * SLOTS, 12 * SLOTS]
    assert latest(run).meta["applied"] == []


@pytest.mark.e2e
def test_async_server_that_is_killed_in_an_open_round_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    config = config_of(ASYNC)
    run = tmp_path / "run"
    is_killed = threading.Event()

    with killable(config, run) as server:

        def kill(number: int, item: WorkItem) -> None:
            if item.kind is ItemKind.TRAIN and item.index >= 6 and not is_killed.is_set():
                is_killed.set()
                server.kill()
                server.restart()

        crew = [
            Worker(config, server.target, CountingAnswerer(config, kill)),
            Worker(config, server.target, CountingAnswerer(config)),
        ]
        for worker in crew:
            worker.join()
        assert server.terminate() == 0

    assert is_killed.is_set()
    assert versions_of(run) == list(range(1, ROUNDS * SLOTS + 1))
    assert latest(run).meta["progress"]["tasks_seen"] == ROUNDS * SLOTS
    assert sorted(slot for _, slot in items_of(run)) == sorted(list(range(SLOTS)) * ROUNDS)


@pytest.mark.parametrize("late", ["refuse", "merge"])
def test_quorum_goes_on_without_an_actor_that_hangs(late: str, tmp_path: Path) -> None:
    config = config_of({"mode": "quorum", "quorum": 3, "grace_s": 0.05, "late": late})
    run = tmp_path / "run"
    hung: list[WorkItem] = []
    is_far, is_late = threading.Event(), threading.Event()

    def hang(number: int, item: WorkItem) -> None:
        if item.kind is ItemKind.TRAIN and item.index >= 2 and not hung:
            hung.append(item)
            assert is_far.wait(harness.DEADLINE_S)
            is_late.set()

    def watch(number: int, item: WorkItem) -> None:
        if item.kind is ItemKind.TRAIN and hung and item.index >= hung[0].index + 2:
            is_far.set()
            assert is_late.wait(harness.DEADLINE_S)

    with LiveServer(config, run) as server:
        slow = Worker(config, server.target, CountingAnswerer(config, hang))
        crew = [Worker(config, server.target, CountingAnswerer(config, watch)) for _ in range(2)]
        for worker in (slow, *crew):
            worker.join()

    rows = read_rows(run, "rounds")
    assert versions_of(run) == list(range(1, ROUNDS + 1))
    assert all(len(row["items"]) >= 3 for row in rows)
    assert latest(run).meta["progress"]["tasks_seen"] == sum(len(row["items"]) for row in rows)
    in_time = [item["slot"] for item in rows[hung[0].index]["items"] if not item["staleness"]]
    assert len(in_time) == 3
    assert hung[0].slot not in in_time


def test_second_leases_change_no_bit(tmp_path: Path) -> None:
    plain = train(config_of({}), tmp_path / "plain")
    config = config_of({}, server={"speculation": True})
    run = tmp_path / "run"
    is_doubled = threading.Event()

    with LiveServer(config, run) as server:

        def hang(number: int, item: WorkItem) -> None:
            if item.kind is ItemKind.TRAIN and item.index == 6 and not is_doubled.is_set():
                assert is_doubled.wait(harness.DEADLINE_S)

        def watch(number: int, item: WorkItem) -> None:
            if item.kind is ItemKind.TRAIN and item.index == 7:
                is_doubled.set()

        slow = Worker(config, server.target, CountingAnswerer(config, hang))
        quick = Worker(config, server.target, CountingAnswerer(config, watch))
        slow.join()
        quick.join()

    assert is_doubled.is_set()
    assert digest_of(run) == plain
