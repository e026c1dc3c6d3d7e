"""The actor, as a plain object, against a real server: how its work ends and what it tells."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.errors import ServerUnreachableError
from dmaml.common.notices import (
    ENDED,
    FAILED,
    LEAVE_VARIABLE,
    SOCKET_VARIABLE,
    STARTING,
    WORKING,
    Listener,
    Notice,
)
from dmaml.worker.actor import MetaWorker
from dmaml.worker.connection import Address
from tests.integration.harness import DEADLINE_S, LiveServer, tiny, wait_for

ENDLESS = tiny(run={"rounds": 10**6})
Start = Callable[..., MetaWorker]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dmaml-") as name:
        yield Path(name)


@pytest.fixture
def listener(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Be the node of the actors that are started afterwards."""
    monkeypatch.setenv(SOCKET_VARIABLE, str(folder / "notices"))
    monkeypatch.setenv(LEAVE_VARIABLE, str(folder / "leaving"))
    found = Listener(folder / "notices")
    yield found
    found.close()


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note that an actor ends its process, which is this one, instead of ending it."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


@pytest.fixture
def start(listener: Listener, exits: list[int]) -> Iterator[Start]:
    """Start actors; at the end, see that each has ended and was heard."""
    started: list[MetaWorker] = []
    logger = logging.getLogger("dmaml")
    handlers, level = logger.handlers, logger.level

    def start(target: str, orphan_s: float = DEADLINE_S) -> MetaWorker:
        started.append(MetaWorker(Address(target), orphan_s, None, None, "actor 0"))
        return started[-1]

    yield start
    for worker in started:
        worker.stop()
        assert worker.wait(DEADLINE_S) is not None
        worker._notifier.close()
    logger.handlers = handlers
    logger.setLevel(level)


def states(listener: Listener, last: str) -> list[Notice]:
    """Return the states that an actor told, up to the one that is awaited."""
    found: list[Notice] = []

    def is_told() -> bool:
        notice = listener.receive(0.1)
        if notice is not None and notice.state:
            found.append(notice)
        return bool(found) and found[-1].state == last

    wait_for(is_told, f"an actor told {last!r}; it told {found}")
    return found


def test_an_actor_works_until_the_run_is_done(
    tmp_path: Path, start: Start, listener: Listener, exits: list[int]
) -> None:
    with LiveServer(tiny(), tmp_path / "run") as server:
        worker = start(server.target)

        end = worker.wait(DEADLINE_S)

        assert end is not None
        assert (end.is_done, end.error) == (True, None)
        assert end.num_answers > 0
        told = states(listener, ENDED)
    assert [notice.state for notice in told] == [STARTING, WORKING, ENDED]
    assert told[1].text.startswith("joined as worker ")
    assert told[-1] == Notice("actor 0", "the run is done", ENDED)
    assert exits == []


def test_waiting_for_an_actor_at_work_returns_nothing_and_stop_lets_it_leave(
    tmp_path: Path, start: Start, listener: Listener
) -> None:
    with LiveServer(ENDLESS, tmp_path / "run") as server:
        worker = start(server.target)
        states(listener, WORKING)

        while_working = worker.wait(0.05)
        again = states(listener, WORKING)
        worker.stop()
        end = worker.wait(DEADLINE_S)

    assert while_working is None
    assert again[-1].state == WORKING  # told at each wait: a busy node may have missed it
    assert end is not None
    assert (end.is_done, end.error) == (False, None)
    assert states(listener, ENDED) == [Notice("actor 0", "left", ENDED)]


def test_the_end_may_be_asked_for_again(tmp_path: Path, start: Start) -> None:
    with LiveServer(tiny(), tmp_path / "run") as server:
        worker = start(server.target)

        first, second = worker.wait(DEADLINE_S), worker.wait(0.0)

    assert first is not None
    assert first == second


def test_the_leave_file_makes_an_actor_leave(
    tmp_path: Path, folder: Path, start: Start, listener: Listener
) -> None:
    with LiveServer(ENDLESS, tmp_path / "run") as server:
        worker = start(server.target)
        states(listener, WORKING)

        (folder / "leaving").touch()
        end = worker.wait(DEADLINE_S)

    assert end is not None
    assert (end.is_done, end.error) == (False, None)
    assert states(listener, ENDED)[-1].text == "left"


def test_an_actor_without_a_server_ends_with_the_error(
    closed_port: str, start: Start, listener: Listener
) -> None:
    end = start(closed_port, orphan_s=0.3).wait(DEADLINE_S)

    assert end is not None
    assert isinstance(end.error, ServerUnreachableError)
    assert (end.is_done, end.num_answers) == (False, 0)
    told = states(listener, FAILED)
    assert [notice.state for notice in told] == [STARTING, FAILED]
    assert told[-1].text == str(end.error)


def test_an_actor_whose_end_nobody_asks_for_ends_its_process(
    closed_port: str, start: Start, listener: Listener, exits: list[int]
) -> None:
    start(closed_port, orphan_s=0.1)

    wait_for(lambda: exits, "the process ends")

    assert exits == [0]


def test_an_actor_whose_end_was_asked_for_leaves_its_process_to_the_supervisor(
    closed_port: str, start: Start, exits: list[int]
) -> None:
    start(closed_port, orphan_s=1.0).wait(DEADLINE_S)

    wait_for(lambda: "work" not in [thread.name for thread in threading.enumerate()], "it ends")

    assert exits == []


def test_an_error_that_nobody_foresaw_is_told_by_its_name(
    tmp_path: Path, start: Start, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("dmaml.worker.answers.Answerer.__init__", fail)
    with LiveServer(ENDLESS, tmp_path / "run") as server:
        end = start(server.target).wait(DEADLINE_S)

    assert end is not None
    assert not end.is_done
    assert str(end.error) == "an actor failed with ZeroDivisionError: a bug"
    assert states(listener, FAILED)[-1].text == str(end.error)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address that is taken and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"
