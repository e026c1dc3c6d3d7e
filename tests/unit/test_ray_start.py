"""Ray's start on this machine: it fails, is tried again, is interrupted; `ray.init` is a fake."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.errors import RunFailedError
from dmaml.deploy import crew, leftovers
from dmaml.deploy.crew import MAX_STARTS, Cluster
from dmaml.deploy.leftovers import end_leftovers, marked

TOO_SLOW = Exception("The current node timed out during startup.")  # Ray raises no other class
SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


class Ray:
    """A `ray.init` that leaves a process and fails as often as told.

    Attributes:
        folders: the temporary folder of each start.
        processes: what each start left behind.
    """

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.folders: list[Path] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def init(self, _temp_dir: str, **_: Any) -> None:
        """Start, or fail."""
        self.folders.append(Path(_temp_dir))
        self.processes.append(subprocess.Popen([*SLEEPER, f"--session-dir={_temp_dir}/session_1"]))
        (self.folders[-1] / "session_2" / "logs").mkdir(parents=True)
        (self.folders[-1] / "session_2" / "logs" / "raylet.out").write_text("why")
        if self._errors:
            raise self._errors.pop(0)

    def shutdown(self) -> None:
        """Know nothing of a start that was not complete."""

    def close(self) -> list[int | None]:
        """End what is left and return how each process ended before, None where it lives."""
        codes = []
        for process in self.processes:
            try:
                codes.append(process.wait(0.0 if process is self.processes[-1] else 5.0))
            except subprocess.TimeoutExpired:
                codes.append(None)
                process.kill()
                process.wait()
        return codes


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that puts a fake in Ray's place."""

    def give(*errors: BaseException) -> Ray:
        fake = Ray(*errors)
        monkeypatch.setattr(crew, "ray", fake)
        return fake

    return give


def test_start_that_takes_too_long_is_tried_again_and_its_processes_are_ended(given, tmp_path):
    fake = given(TOO_SLOW, TOO_SLOW)

    cluster = Cluster("local", 1, tmp_path)

    alive = [folder.exists() for folder in fake.folders]
    codes = fake.close()
    cluster.close()
    assert alive == [False, False, True]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, None]
    assert not fake.folders[-1].exists()


def test_last_failure_is_a_sentence_and_nothing_stays_but_rays_logs(given, tmp_path):
    fake = given(*[TOO_SLOW] * MAX_STARTS)

    with pytest.raises(RunFailedError, match=r"3 times in a row: The current node timed out"):
        Cluster("local", 1, tmp_path)

    assert [process.wait(5.0) for process in fake.processes] == [-signal.SIGKILL] * MAX_STARTS
    assert not any(folder.exists() for folder in fake.folders)
    assert (tmp_path / "ray" / "raylet.out").read_text() == "why"


@pytest.mark.parametrize("signalled", [KeyboardInterrupt(), SystemExit(15)], ids=["INT", "TERM"])
def test_interrupted_start_is_not_tried_again_and_nothing_stays(signalled, given, tmp_path):
    fake = given(signalled)

    with pytest.raises(KeyboardInterrupt):
        Cluster("local", 1, tmp_path)

    assert [process.wait(5.0) for process in fake.processes] == [-signal.SIGKILL]
    assert not any(folder.exists() for folder in fake.folders)


def test_only_processes_with_the_folders_mark_are_ended(tmp_path):
    with marked(tmp_path / "other"):
        others = [subprocess.Popen(SLEEPER)]
    with marked(tmp_path / "mine"):
        mine = subprocess.Popen(SLEEPER)
    others.append(subprocess.Popen([*SLEEPER, f"--session-dir={tmp_path / 'mine'}"]))
    try:
        ended = end_leftovers(tmp_path / "mine")
        codes = [process.poll() for process in others]
    finally:
        for process in (*others, mine):
            process.kill()
            process.wait()

    assert ended == [mine.pid]
    assert codes == [None, None]


def test_a_process_in_the_midst_of_exec_is_waited_for(tmp_path, monkeypatch):
    killed: list[int] = []
    looks = 0

    def process(pid: int, environment: bytes, command: bytes) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "environ").write_bytes(environment)
        (folder / "cmdline").write_bytes(command)
        (folder / "status").write_text("Name:\tx\nPPid:\t1\n")
        if not (folder / "exe").is_symlink():
            (folder / "exe").symlink_to("/bin/agent")

    def pause(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            process(78, b"A=1\0DMAML_CLUSTER=/a\0", b"agent.py\0")

    def kill(pid: int, _: int) -> None:
        killed.append(pid)
        shutil.rmtree(tmp_path / str(pid))

    process(77, b"DMAML_CLUSTER=/another\0", b"raylet\0")
    process(78, b"", b"")
    monkeypatch.setattr(leftovers, "PROC", tmp_path)
    monkeypatch.setattr(leftovers.time, "sleep", pause)
    monkeypatch.setattr(leftovers.os, "kill", kill)
    ended = end_leftovers(Path("/a"))

    assert (ended, killed, looks) == ([78], [78], 3)


def test_a_process_that_never_tells_is_not_waited_for_longer_than_patience(tmp_path, monkeypatch):
    (tmp_path / "78").mkdir()
    for name in ("environ", "cmdline", "status"):
        (tmp_path / "78" / name).write_text("")
    (tmp_path / "78" / "exe").symlink_to("/bin/agent")
    monkeypatch.setattr(leftovers, "PROC", tmp_path)

    assert end_leftovers(Path("/a"), patience_s=0.0) == []
