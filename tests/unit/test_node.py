"""A node of a cluster, with programs of the test in the place of Ray and of the supervisor."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmaml.common.errors import HostError, RunFailedError, ServerUnreachableError
from dmaml.common.notices import (
    ENDED,
    LEAVE_VARIABLE,
    SOCKET_VARIABLE,
    STARTING,
    WORKING,
    Notifier,
)
from dmaml.deploy.health import SUPERVISOR
from dmaml.deploy.host import MIB
from dmaml.deploy.node import SUPERVISOR_PAUSE_S, Node, NodeOptions
from dmaml.worker.connection import Address

SERVER = Address("127.0.0.1:50051")
DEADLINE_S = 20.0
# Programs: each notes how it was called beside itself.
LIVES = '#!/bin/sh\necho "$@" >> "$0.calls"\nenv > "$0.env"\nexec sleep 300\n'
ENDS = '#!/bin/sh\necho "$@" >> "$0.calls"\necho ------\necho "  wrong port  "\nexit 3\n'


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dmaml-") as name:
        yield Path(name)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put programs in the place of `ray` and `python`, return their folder."""

    def install(ray: str = LIVES, python: str = LIVES) -> Path:
        for name, text in (("ray", ray), ("python", python)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr("dmaml.deploy.node.POLL_S", 0.01)
        return tmp_path

    return install


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., Node]]:
    """Make nodes, and end what is left of them."""
    nodes = []

    def make(clock: Callable[[], float] = time.monotonic, **fields: Any) -> Node:
        nodes.append(Node(SERVER, NodeOptions(folder=folder, **fields), clock))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def tell(folder: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Say something to the node as one of its processes."""
    notifiers: dict[str, Notifier] = {}

    def tell(name: str, text: str, state: str = "") -> None:
        if name not in notifiers:
            notifiers[name] = Notifier(name, str(folder / "notices"))
        notifiers[name].tell(text, state)

    yield tell
    for notifier in notifiers.values():
        notifier.close()


@pytest.fixture
def head() -> Iterator[int]:
    """Listen as Ray's head does; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def health(folder: Path) -> str:
    return (folder / "health").read_text().removesuffix("\n")


def turn_until(node: Node, condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until, f"not within {DEADLINE_S:g} s: {what}"
        node.turn()


def calls(program: Path) -> list[str]:
    """Return how a program was called, each time."""
    file = program.with_name(program.name + ".calls")
    return file.read_text().splitlines() if file.exists() else []


# -- what it needs ----------------------------------------------------------------------------


class FakeOperator:
    """Stands for the server: gives each answer once, raises those that are errors."""

    answers: tuple[str | ServerUnreachableError, ...] = ()
    seen: tuple[str, ...] = ()  # the health before each answer
    folder = Path()

    def __init__(self, *_: object) -> None:
        pass

    def status(self) -> SimpleNamespace:
        cls = type(self)
        cls.seen += (health(cls.folder),)
        answer, *rest = cls.answers
        cls.answers = tuple(rest)
        if isinstance(answer, ServerUnreachableError):
            raise answer
        return SimpleNamespace(software_version=answer)

    def close(self) -> None:
        pass


@pytest.fixture
def surroundings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., type]:
    """Say what the machine has and what the server answers."""

    def surround(
        *answers: str | ServerUnreachableError, memory: int = 8000, shared: int = 256
    ) -> type[FakeOperator]:
        server = type("Server", (FakeOperator,), {"answers": answers, "folder": folder})
        monkeypatch.setattr("dmaml.deploy.node.Operator", server)
        monkeypatch.setattr("dmaml.deploy.node.memory_bytes", lambda: memory * MIB)
        monkeypatch.setattr("dmaml.deploy.node.shared_memory_bytes", lambda: shared * MIB)
        return server

    return surround


def test_a_node_with_room_and_the_servers_version_is_welcome(
    make: Callable[..., Node], surroundings: Callable[..., type]
) -> None:
    surroundings(version("dmaml"))

    make(join="head:6379").check()


def test_too_little_shared_memory_is_refused(
    make: Callable[..., Node], surroundings: Callable[..., type]
) -> None:
    surroundings(shared=64)

    with pytest.raises(HostError, match=r"/dev/shm needs 88 MiB, there are 64 MiB.*shm_size"):
        make().check()


def test_memory_is_needed_for_each_actor_and_for_none_on_the_head(
    make: Callable[..., Node], surroundings: Callable[..., type]
) -> None:
    surroundings(version("dmaml"), memory=1999)

    make(actors=3).check()
    with pytest.raises(HostError, match=r"3 actors needs 2000 MiB, there are 1999 MiB"):
        make(join="head:6379", actors=3).check()


def test_another_version_than_the_servers_is_refused(
    make: Callable[..., Node], surroundings: Callable[..., type]
) -> None:
    surroundings("0.0.7")

    with pytest.raises(HostError, match=r"the server 0\.0\.7: results would differ"):
        make().check()


def test_a_server_that_is_away_is_waited_for(
    make: Callable[..., Node], surroundings: Callable[..., type], capsys: pytest.CaptureFixture[str]
) -> None:
    away = ServerUnreachableError("status: no answer")
    server = surroundings(away, away, version("dmaml"))

    make().check()

    assert server.seen == ("waiting for the server at 127.0.0.1:50051",) * 3
    assert capsys.readouterr().err == "waiting: status: no answer\n" * 2


# -- what it starts ---------------------------------------------------------------------------


def test_children_know_where_to_tell_when_to_leave_and_the_token(
    make: Callable[..., Node], programs: Callable[..., Path], folder: Path
) -> None:
    bin_folder = programs()
    node = make(token_file=Path("/run/secrets/token"))
    node.start()

    turn_until(node, (bin_folder / "ray.env").exists, "Ray runs")
    turn_until(node, lambda: "PATH=" in (bin_folder / "ray.env").read_text(), "env is written")

    lines = (bin_folder / "ray.env").read_text().splitlines()
    assert {
        f"{SOCKET_VARIABLE}={folder / 'notices'}",
        f"{LEAVE_VARIABLE}={folder / 'leaving'}",
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/run/secrets/token",
    } <= set(lines)
    assert SOCKET_VARIABLE not in os.environ  # a node leaves its own environment alone


def test_a_worker_waits_for_the_head(
    make: Callable[..., Node], programs: Callable[..., Path], folder: Path
) -> None:
    bin_folder = programs()
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))  # taken, and refusing as yet
        address = f"127.0.0.1:{head.getsockname()[1]}"
        node = make(join=address)
        starting = threading.Thread(target=node.start)
        starting.start()
        until = time.monotonic() + DEADLINE_S
        while not (folder / "health").exists() and time.monotonic() < until:
            starting.join(0.01)
        while_waiting = health(folder), calls(bin_folder / "ray"), starting.is_alive()

        head.listen()
        starting.join(DEADLINE_S)

    assert while_waiting == (f"waiting for the Ray head at {address}", [], True)
    assert not starting.is_alive()
    assert health(folder) == "starting Ray"


# -- what it does -----------------------------------------------------------------------------


def test_what_actors_tell_is_shown_and_makes_the_health(
    make: Callable[..., Node],
    programs: Callable[..., Path],
    folder: Path,
    head: int,
    tell: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    programs()
    node = make(join=f"127.0.0.1:{head}", actors=1)
    node.start()
    capsys.readouterr()

    found = []
    for text, state in (("starts", STARTING), ("INFO a line", ""), ("joined", WORKING)):
        tell("actor 0", text, state)
        node.turn()
        found.append(health(folder))

    shown = "actor 0: starts\nactor 0: INFO a line\nactor 0: joined\n"
    assert capsys.readouterr().err == shown
    assert found == [
        "0 of 1 actors have joined the server",
        "0 of 1 actors have joined the server",
        "ok: 1 actors at work",
    ]


def test_the_health_file_is_written_anew_in_every_turn(
    make: Callable[..., Node], programs: Callable[..., Path], folder: Path
) -> None:
    programs()
    node = make()
    node.start()
    node.turn()
    os.utime(folder / "health", (0, 0))

    node.turn()

    assert (folder / "health").stat().st_mtime > 0
    assert not (folder / "health.new").exists()


@pytest.mark.parametrize("is_head", [True, False])
def test_the_end_of_ray_ends_the_node_with_rays_last_words(
    make: Callable[..., Node], programs: Callable[..., Path], head: int, is_head: bool
) -> None:
    programs(ray=ENDS)
    node = make(join="" if is_head else f"127.0.0.1:{head}")
    node.start()

    with pytest.raises(RunFailedError) as caught:
        turn_until(node, lambda: False, "Ray ends")

    hint = "" if is_head else ": the head is gone, or refused this node"
    assert str(caught.value) == f"Ray ended with status 3{hint}. Ray's last words: wrong port"


def test_the_supervisor_starts_once_ray_answers_and_only_once(
    make: Callable[..., Node], programs: Callable[..., Path], closed_port: int, head: int
) -> None:
    bin_folder = programs()
    early, node = make(ray_port=closed_port), make(ray_port=head)
    early.start()
    for _ in range(3):
        early.turn()
    before = calls(bin_folder / "python")

    node.start()
    turn_until(node, lambda: calls(bin_folder / "python"), "the supervisor runs")
    for _ in range(3):
        node.turn()

    assert before == []
    [call] = calls(bin_folder / "python")
    assert call.startswith("-m dmaml.deploy.cli workers --stay")
    assert call.endswith(f"--ray-address 127.0.0.1:{head}")


def test_a_supervisor_that_ended_is_started_again_after_a_pause(
    make: Callable[..., Node],
    programs: Callable[..., Path],
    head: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bin_folder, clock = programs(python=ENDS), Clock()
    node = make(clock, ray_port=head)
    node.start()
    turn_until(node, lambda: calls(bin_folder / "python"), "the supervisor runs")
    for _ in range(20):
        node.turn()
    num_in_the_pause = len(calls(bin_folder / "python"))

    clock.now += SUPERVISOR_PAUSE_S
    turn_until(node, lambda: len(calls(bin_folder / "python")) > 1, "it runs again")

    assert num_in_the_pause == 1
    assert "the supervisor ended with status 3: again\n" in capsys.readouterr().err


def test_the_head_is_well_while_its_supervisor_speaks(
    make: Callable[..., Node],
    programs: Callable[..., Path],
    folder: Path,
    tell: Callable[..., None],
) -> None:
    programs()
    clock = Clock()
    node = make(clock)
    node.start()

    tell(SUPERVISOR, "3 actors", WORKING)
    node.turn()
    speaking = health(folder)
    clock.now += 16.0
    node.turn()

    assert speaking == "ok: 3 actors"
    assert health(folder) == "the supervisor has not spoken yet, or is gone"


def test_a_leaving_node_waits_for_its_actors_then_ends_ray(
    make: Callable[..., Node],
    programs: Callable[..., Path],
    folder: Path,
    head: int,
    tell: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    programs(ray='#!/bin/sh\ntrap "echo asked; exit" TERM\necho up\nwhile :; do sleep 0.01; done\n')
    node = make(join=f"127.0.0.1:{head}", drain_s=DEADLINE_S)
    node.start()
    tell("actor 0", "joined", WORKING)
    node.turn()
    turn_until(node, lambda: "up" in (folder / "ray.log").read_text(), "Ray runs")

    def actor() -> None:
        until = time.monotonic() + DEADLINE_S
        while not (folder / "leaving").exists() and time.monotonic() < until:
            gone.wait(0.01)
        tell("actor 0", "left", ENDED)

    gone = threading.Event()
    leaving = threading.Thread(target=actor)
    leaving.start()
    node.leave()
    leaving.join(DEADLINE_S)

    assert capsys.readouterr().err.endswith(
        "leaving: actors end after the item in hand\nactor 0: left\n"
    )
    assert "asked" in (folder / "ray.log").read_text()
    with pytest.raises(RunFailedError, match="Ray ended"):
        node.turn()


def test_a_leaving_node_waits_no_longer_than_it_may(
    make: Callable[..., Node],
    programs: Callable[..., Path],
    folder: Path,
    head: int,
    tell: Callable[..., None],
) -> None:
    programs()
    node = make(join=f"127.0.0.1:{head}", drain_s=0.05)
    node.start()
    tell("actor 0", "joined", WORKING)
    node.turn()

    node.leave()  # the actor never says that it left

    with pytest.raises(RunFailedError, match="Ray ended with status -15"):
        node.turn()


def test_a_node_that_starts_anew_does_not_send_its_actors_away(
    make: Callable[..., Node], folder: Path
) -> None:
    (folder / "leaving").touch()  # of its last life

    make()

    assert not (folder / "leaving").exists()


def test_close_ends_what_is_left_and_removes_the_socket(
    make: Callable[..., Node], programs: Callable[..., Path], folder: Path
) -> None:
    programs(ray='#!/bin/sh\ntrap "" TERM\necho $$\nwhile :; do sleep 0.01; done\n')
    node = make()
    node.start()
    turn_until(node, lambda: "\n" in (folder / "ray.log").read_text(), "Ray runs")
    ray = int((folder / "ray.log").read_text())

    node.close()

    assert not (folder / "notices").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(ray, 0)
