"""`dmaml train`, whole: server, Ray and actors, an actor killed, Ctrl-C, and going on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common.rundir import read_rows
from dmaml.deploy.cli import run_cli
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import (
    DEADLINE_S,
    DMAML,
    MARK,
    digest_of,
    gone,
    marked,
    tiny,
    train,
    versions_of,
    wait_for,
)

ROUNDS = 120
CONFIG = tiny(run={"rounds": ROUNDS}, evaluation={"every": 50, "test_tasks": 20})


@dataclass(frozen=True)
class Story:
    """What happened: first a run with a killed actor and Ctrl-C, then the same command again."""

    run_dir: Path
    killed: list[int]
    interrupted_status: int
    interrupted_err: str
    left_after_interrupt: list[str]
    version_at_interrupt: int
    finished_status: int
    finished_out: str
    finished_err: str
    left_at_the_end: list[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell the story once: Ray takes seconds to start."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "config.yaml").write_text(configuration.to_text(CONFIG))
    run_dir, mark = folder / "run", uuid.uuid4().hex

    first = _start(folder, mark)
    try:
        operator = _paused(run_dir, at_least=2)
        actors = wait_for(lambda: _actors(mark, 2), "two actors are at work")
        os.kill(actors[0], signal.SIGKILL)
        # paused meanwhile: the other actor alone would be done before a new one starts
        wait_for(lambda: _joined(run_dir) >= 3, "another actor took its place")
        operator.do("resume")
        operator.close()
        operator = _paused(run_dir, at_least=3)
        version = operator.status().version
        operator.close()
        first.send_signal(signal.SIGINT)
        _, first_err = first.communicate(timeout=DEADLINE_S)
        left = gone(mark)
    finally:
        first.kill()
    second = _start(folder, mark)
    try:
        out, err = second.communicate(timeout=2 * DEADLINE_S)
    finally:
        second.kill()
    return Story(
        run_dir, [actors[0]], first.returncode, first_err, left, version,
        second.returncode, out, err, gone(mark),
    )  # fmt: skip


def _start(folder: Path, mark: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DMAML, "train", "config.yaml", "--run-dir", "run", "--workers", "2", "--json"],
        cwd=folder, env={**os.environ, MARK: mark}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _paused(run_dir: Path, at_least: int) -> Operator:
    """Pause the run at some version and return its operator."""
    address = wait_for(lambda: _address(run_dir), "the server serves")
    operator = Operator(Address(address), Retry(5.0))
    wait_for(lambda: operator.status().version >= at_least, "some rounds are done")
    operator.do("pause")
    wait_for(lambda: all(w.leases == 0 for w in operator.status().workers), "nothing is under way")
    return operator


def _address(run_dir: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((run_dir / "server.json").read_text())["grpc"])
    return None


def _joined(run_dir: Path) -> int:
    return sum(row["event"] == "joined" for row in read_rows(run_dir, "worker_events"))


def _actors(mark: str, number: int) -> list[int] | None:
    pids = [pid for pid, command in marked(mark).items() if command.startswith("ray::MetaWorker")]
    return pids if len(pids) == number else None


@pytest.fixture(scope="module")
def report(story: Story) -> dict[str, Any]:
    """The JSON object that the finished command printed."""
    found: dict[str, Any] = json.loads(story.finished_out)
    return found


def test_ctrl_c_ends_everything_and_says_so(story: Story) -> None:
    assert story.interrupted_status == 130
    assert "interrupted: nothing committed is lost" in story.interrupted_err
    assert "Traceback" not in story.interrupted_err
    assert story.left_after_interrupt == []


def test_the_same_command_finishes_the_run_and_leaves_no_process(story: Story) -> None:
    assert story.finished_status == 0, story.finished_err
    assert "Traceback" not in story.finished_err
    assert story.left_at_the_end == []
    assert 0 < story.version_at_interrupt < ROUNDS
    assert not (story.run_dir / "server.json").exists()


def test_nothing_of_the_story_changed_a_bit(
    story: Story, report: dict[str, Any], tmp_path: Path
) -> None:
    undisturbed = train(CONFIG, tmp_path / "run")

    assert report["theta_sha256"] == digest_of(story.run_dir) == undisturbed
    assert versions_of(story.run_dir) == list(range(1, ROUNDS + 1))


def test_the_killed_actor_was_replaced(story: Story) -> None:
    events = [row["event"] for row in read_rows(story.run_dir, "worker_events")]

    assert events.count("joined") >= 3 + 2
    assert (story.run_dir / "logs" / "actor-0.log").exists()
    assert (story.run_dir / "logs" / "server.log").exists()


def test_the_json_of_train_has_what_the_manual_promises(
    story: Story, report: dict[str, Any]
) -> None:
    assert story.finished_out.count("\n") == 1
    assert report["rounds"] == ROUNDS
    assert report["tasks_seen"] == ROUNDS * 4
    assert report["tasks_per_s"] > 0
    assert report["wall_s"] > 0
    assert report["run_dir"] == "run"
    assert len(report["test"]["mse"]) == len(report["test"]["ci95"]) == 2
    assert (story.run_dir.parent / report["curve"]).stat().st_size > 1000


def test_evaluate_gives_the_figures_of_train(
    story: Story, report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tasks", "20", "--steps", "1", "--json"]

    assert run_cli(["evaluate", str(story.run_dir), *options]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["test"] == report["test"]
    assert found["theta_sha256"] == report["theta_sha256"]
