"""What processes tell their node arrives, and nothing that goes wrong on the way disturbs them."""

from __future__ import annotations

import json
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmaml.common.notices import (
    MAX_BYTES,
    MAX_TEXT,
    SOCKET_VARIABLE,
    STATES,
    WORKING,
    Listener,
    Notice,
    Notifier,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dmaml-") as name:
        yield Path(name)


@pytest.fixture
def listener(folder: Path) -> Iterator[Listener]:
    found = Listener(folder / "notices")
    yield found
    found.close()


@pytest.fixture
def notifier(folder: Path, listener: Listener) -> Iterator[Notifier]:
    found = Notifier("actor 0", str(folder / "notices"))
    yield found
    found.close()


@pytest.fixture
def send(folder: Path, listener: Listener) -> Iterator[Callable[[bytes], None]]:
    """Send bytes as they are."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as raw:
        yield lambda data: raw.sendto(data, str(folder / "notices")) and None


@pytest.mark.parametrize("state", ["", *STATES])
def test_a_notice_arrives_as_it_was_told(
    notifier: Notifier, listener: Listener, state: str
) -> None:
    notifier.tell('joined: "ä"\n\ttwo lines', state)

    assert listener.receive(1.0) == Notice("actor 0", 'joined: "ä"\n\ttwo lines', state)


def test_notices_arrive_in_their_order(notifier: Notifier, listener: Listener) -> None:
    for text in ("one", "two", "three"):
        notifier.tell(text)

    assert [listener.receive(1.0) for _ in range(3)] == [
        Notice("actor 0", text) for text in ("one", "two", "three")
    ]


@pytest.mark.parametrize("timeout_s", [0.0, 0.01])
def test_silence_is_nothing(listener: Listener, timeout_s: float) -> None:
    assert listener.receive(timeout_s) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b'{"name": "actor 0", "text": "no state"}',
        b'{"name": "actor 0", "text": "cut sho',
        b'{"name": "actor 0", "text": "?", "state": "asleep"}',
        b"[" * 20_000,
    ],
)
def test_a_malformed_datagram_is_passed_over(
    send: Callable[[bytes], None], notifier: Notifier, listener: Listener, data: bytes
) -> None:
    send(data)
    notifier.tell("the next one")

    assert listener.receive(1.0) is None
    assert listener.receive(1.0) == Notice("actor 0", "the next one")


def test_an_unknown_state_is_no_notice(notifier: Notifier, listener: Listener) -> None:
    notifier.tell("zzz", "asleep")

    assert listener.receive(1.0) is None


@pytest.mark.parametrize("character", ["x", "\n", "ä", "\x00", "😀"])
def test_a_long_text_is_cut_and_arrives(
    notifier: Notifier, listener: Listener, character: str
) -> None:
    notifier.tell(character * 5 * MAX_TEXT, WORKING)

    assert listener.receive(1.0) == Notice("actor 0", character * MAX_TEXT, WORKING)


def test_the_longest_notice_fits_a_datagram() -> None:
    longest = {"name": "actor 0", "text": "😀" * MAX_TEXT, "state": WORKING}

    assert len(json.dumps(longest)) < MAX_BYTES


def test_a_node_that_is_gone_is_not_waited_for(notifier: Notifier, listener: Listener) -> None:
    listener.close()

    notifier.tell("is anybody there?")  # neither raises nor waits


def test_a_node_that_does_not_listen_is_not_waited_for(
    notifier: Notifier, listener: Listener
) -> None:
    for number in range(5000):  # more than the system keeps for one socket
        notifier.tell(str(number))

    assert listener.receive(1.0) == Notice("actor 0", "0")


def test_a_restarted_node_is_heard_by_the_same_process(
    folder: Path, notifier: Notifier, listener: Listener
) -> None:
    listener.close()
    second = Listener(folder / "notices")

    notifier.tell("still here")
    found = second.receive(1.0)
    second.close()

    assert found == Notice("actor 0", "still here")


def test_a_socket_that_is_left_over_is_replaced(folder: Path) -> None:
    (folder / "notices").write_text("left over by a node that was killed")

    Listener(folder / "notices").close()

    assert not (folder / "notices").exists()


def test_the_socket_is_the_one_of_the_environment(
    folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SOCKET_VARIABLE, str(folder / "notices"))
    notifier = Notifier("supervisor")

    notifier.tell("2 actors", WORKING)
    notifier.close()

    assert listener.receive(1.0) == Notice("supervisor", "2 actors", WORKING)


def test_without_a_node_nothing_is_sent(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    notifier = Notifier("actor 0")

    notifier.tell("to whom?")
    notifier.close()

    assert listener.receive(0.0) is None


# -- the log --------------------------------------------------------------------------------


@pytest.fixture
def log(notifier: Notifier) -> logging.Logger:
    found = logging.Logger("a logger of its own")
    found.addHandler(notifier.handler())
    return found


def test_every_line_of_the_log_is_told(log: logging.Logger, listener: Listener) -> None:
    log.warning("the server at %s is away", "server:50051")

    assert listener.receive(1.0) == Notice("actor 0", "WARNING the server at server:50051 is away")


def test_a_traceback_is_part_of_its_line(log: logging.Logger, listener: Listener) -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        log.exception("an actor failed")

    found = listener.receive(1.0)

    assert found is not None
    assert found.text.startswith("ERROR an actor failed\nTraceback")
    assert found.text.endswith("ValueError: a bug")


def test_a_line_that_cannot_be_formatted_does_not_end_the_work(
    log: logging.Logger, listener: Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    log.warning("%d rounds", "many")
    log.warning("the next line")

    assert listener.receive(1.0) == Notice("actor 0", "WARNING the next line")
    assert "Logging error" in capsys.readouterr().err
