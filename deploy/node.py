"""`dmaml node`: one node of a Ray cluster, and the main process of its container.

The head holds the supervisor; every other node offers actors. Either starts Ray as a child, shows
what its actors say, writes its health into a file, and lets the actors leave before Ray ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final, final

from dmaml.common.errors import RunFailedError, ServerUnreachableError
from dmaml.common.notices import LEAVE_VARIABLE, SOCKET_VARIABLE, Listener
from dmaml.deploy.health import Health
from dmaml.deploy.host import (
    is_listening,
    memory_bytes,
    own_address,
    require_room,
    require_version,
    shared_memory_bytes,
)
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.deploy.node_options import NodeOptions, ray_command, supervisor_command
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator

__all__ = ["Node", "NodeOptions", "run_node"]

_DECORATION: Final = re.compile(r"\x1b\[[0-9;]*m|^.*scripts\.py:\d+ -- ")  # of Ray's lines
START_S: Final = 30.0  # what Ray says within so long is about its start
RAY_END_S: Final = 5.0  # without a head Ray does not end by itself
POLL_S: Final = 0.5
SUPERVISOR_PAUSE_S: Final = 2.0  # between two starts of the supervisor


def run_node(address: Address, options: NodeOptions) -> None:
    """Be a node until SIGTERM.

    Raises:
        HostError: too little memory, or another version than the server's.
        RunFailedError: Ray ended by itself.
    """
    interrupt_on_sigterm()
    node = Node(address, options)
    try:
        node.check()
        node.start()
        while True:
            node.turn()
    except KeyboardInterrupt:
        with undisturbed():
            node.leave()
    finally:
        with undisturbed():
            node.close()


@final
class Node:
    """Ray as a child, the supervisor on the head, the actors' notices, the health file.

    Args:
        clock: injected in tests.
    """

    def __init__(
        self,
        address: Address,
        options: NodeOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._options = options
        self._clock = clock
        self._health = Health(None if options.is_head else options.actors, clock)
        self._health_file = options.folder / "health"
        self._leaving = options.folder / "leaving"
        self._listener = Listener(options.folder / "notices")
        self._leaving.unlink(missing_ok=True)
        self._ray: subprocess.Popen[bytes] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._supervised_at = float("-inf")
        self._started_at = 0.0
        self._ip = ""

    def check(self) -> None:
        """Raise unless this container can be a node of the server's cluster; wait for the server.

        Raises:
            HostError: too little memory, or another version than the server's.
        """
        options = self._options
        actors = 0 if options.is_head else options.actors
        require_room(memory_bytes(), shared_memory_bytes(), options.object_store_bytes, actors)
        require_version(version("dmaml"), self._servers_version())

    def start(self) -> None:
        """Start Ray, as soon as there is a head."""
        self._ip = own_address(self._address.target)  # now, while the server's name resolves
        if not self._options.is_head:
            self._wait_for_head()
        self._say("starting Ray")
        self._started_at = self._clock()
        command = ray_command(self._options, self._ip)
        with (self._options.folder / "ray.log").open("ab") as log:
            self._ray = self._child(command, stdout=log, stderr=log)

    def turn(self) -> None:
        """Hear the next notice, look after the children, write the health.

        Raises:
            RunFailedError: Ray ended by itself.
        """
        self._hear(POLL_S)
        assert self._ray is not None
        if self._ray.poll() is not None:
            raise RunFailedError(self._obituary(self._ray.returncode))
        if self._options.is_head:
            self._keep_supervisor()
        self._say(self._health.verdict())

    def leave(self) -> None:
        """Let the actors leave, then end the children."""
        _print("leaving: actors end after the item in hand")
        self._leaving.touch()
        _end(self._supervisor, self._options.drain_s)
        until = self._clock() + self._options.drain_s
        while self._health.num_at_work and self._clock() < until:
            self._hear(POLL_S)
        _end(self._ray, RAY_END_S)

    def close(self) -> None:
        """End what is left."""
        for child in (self._supervisor, self._ray):
            if child is not None and child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        self._listener.close()

    def _hear(self, timeout_s: float) -> None:
        """Take the next notice, if one comes in time; print it unless it says nothing new."""
        notice = self._listener.receive(timeout_s)
        if notice is not None and self._health.hear(notice):
            _print(f"{notice.name}: {notice.text}")

    def _say(self, text: str) -> None:
        new = self._health_file.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self._health_file)

    def _child(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            SOCKET_VARIABLE: str(self._options.folder / "notices"),
            LEAVE_VARIABLE: str(self._leaving),
        }
        if self._options.token_file is not None:
            environment["RAY_AUTH_MODE"] = "token"
            environment["RAY_AUTH_TOKEN_PATH"] = str(self._options.token_file)
        return subprocess.Popen(command, env=environment, start_new_session=True, **options)

    def _servers_version(self) -> str:
        operator = Operator(self._address, Retry(5.0))
        try:
            while True:
                self._say(f"waiting for the server at {self._address.target}")
                try:
                    return str(operator.status().software_version)
                except ServerUnreachableError as error:
                    _print(f"waiting: {error}")
        finally:
            operator.close()

    def _wait_for_head(self) -> None:
        host, _, port = self._options.join.rpartition(":")
        _print(f"waiting for the Ray head at {self._options.join}")
        self._say(f"waiting for the Ray head at {self._options.join}")
        while not is_listening(host, int(port)):
            time.sleep(POLL_S)

    def _keep_supervisor(self) -> None:
        """Start the supervisor once Ray answers, and again when it ended."""
        now, ip = self._clock(), self._ip
        if self._supervisor is not None and self._supervisor.poll() is None:
            return
        is_early = now - self._supervised_at < SUPERVISOR_PAUSE_S
        if is_early or not is_listening(ip, self._options.ray_port):
            return
        if self._supervisor is not None:
            _print(f"the supervisor ended with status {self._supervisor.returncode}: again")
        self._supervised_at = now
        command = supervisor_command(self._options, self._address.target, ip)
        self._supervisor = self._child(command)

    def _obituary(self, status: int) -> str:
        text = f"Ray ended with status {status}"
        if not self._options.is_head:
            text += ": the head is gone, or refused this node"
        if self._clock() - self._started_at > START_S:
            return f"{text}."  # its log then ends in stack frames
        return f"{text}. Ray's last words: {self._last_of_ray()}"

    def _last_of_ray(self) -> str:
        text = (self._options.folder / "ray.log").read_text(errors="replace")
        lines = [_DECORATION.sub("", line).strip() for line in text.splitlines()]
        spoken = [line for line in lines if line and not line.startswith(("-", "Remaining"))]
        return " ".join(spoken[-2:])


def _end(child: subprocess.Popen[bytes] | None, patience_s: float) -> None:
    if child is None or child.poll() is not None:
        return
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
