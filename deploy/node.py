"""`dmaml node`: one node of a Ray cluster, and the main process of its container.

The head holds the supervisor; every other node offers actors. Either starts Ray as a child, shows
what its actors say, writes its health into a file, and lets the actors leave before Ray ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, final

from dmaml.common.errors import HostError, RunFailedError, ServerUnreachableError
from dmaml.common.notices import (
    ENDED,
    FAILED,
    LEAVE_VARIABLE,
    SOCKET_VARIABLE,
    WORKING,
    Listener,
    Notice,
)
from dmaml.deploy.host import MIB, memory_bytes, require_memory, shared_memory_bytes
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator

RAY_MIB: Final = 500  # Ray's own processes on a node, measured (docs/cluster.md)
ACTOR_MIB: Final = 500  # one actor with a small model, measured (docs/cluster.md)
SUPERVISOR: Final = "supervisor"
SILENT_S: Final = 15.0  # a supervisor that says nothing for so long is not well
POLL_S: Final = 0.5


@dataclass(frozen=True)
class NodeOptions:
    """How a node is started.

    Attributes:
        join: `host:port` of the head, or "" to be the head.
        actors: that this node offers; 0 on the head.
        object_store_bytes: shared memory for Ray's objects; dmaml itself uses none.
        ray_port: of the head.
        metrics_port: of Ray's own metrics.
        dashboard: `host:port` of Ray's dashboard, or "" for none.
        folder: for the socket, the health file and Ray's session.
        drain_s: how long actors may take to leave.
        token_file: guards Ray as well, where given.
        data_dir: where data files are looked for first.
    """

    join: str = ""
    actors: int = 1
    object_store_bytes: int = 80 * MIB
    ray_port: int = 6379
    metrics_port: int = 8080
    dashboard: str = ""
    folder: Path = Path("/tmp/dmaml")
    drain_s: float = 20.0
    token_file: Path | None = None
    data_dir: Path | None = None

    @property
    def is_head(self) -> bool:
        """Whether this node begins a cluster."""
        return not self.join


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
    """Ray as a child, the supervisor on the head, the actors' notices, the health file."""

    def __init__(self, address: Address, options: NodeOptions) -> None:
        self._address = address
        self._options = options
        self._health = options.folder / "health"
        self._leaving = options.folder / "leaving"
        self._listener = Listener(options.folder / "notices")
        self._leaving.unlink(missing_ok=True)
        self._ray: subprocess.Popen[bytes] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._states: dict[str, Notice] = {}
        self._heard_at: dict[str, float] = {}
        self._supervised_at = 0.0
        os.environ[SOCKET_VARIABLE] = str(options.folder / "notices")
        os.environ[LEAVE_VARIABLE] = str(self._leaving)
        if options.token_file is not None:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(options.token_file)

    def check(self) -> None:
        """Raise unless this container can be a node of the server's cluster.

        Raises:
            HostError: too little memory, or another version than the server's.
        """
        options = self._options
        require_memory(
            shared_memory_bytes(), options.object_store_bytes + 8 * MIB,
            "Ray's object store in /dev/shm",
            "Raise shm_size (docker run --shm-size), or lower --object-store.",
        )  # fmt: skip
        actors = 0 if options.is_head else options.actors
        require_memory(
            memory_bytes(), (RAY_MIB + actors * ACTOR_MIB) * MIB,
            f"Ray with {actors} actors", "Raise the memory limit, or offer fewer --actors.",
        )  # fmt: skip
        theirs = self._servers_version()
        if theirs != version("dmaml"):
            raise HostError(
                f"this node has dmaml {version('dmaml')}, the server {theirs or 'before 0.1'}: "
                "results would differ. Build the images again from one checkout and start both."
            )

    def start(self) -> None:
        """Start Ray, and the supervisor on the head."""
        if not self._options.is_head:
            self._wait_for_head()
        self._say("starting Ray")
        with (self._options.folder / "ray.log").open("ab") as log:
            self._ray = subprocess.Popen(
                self._ray_command(), stdout=log, stderr=log, start_new_session=True
            )

    def turn(self) -> None:
        """Hear the next notice, look after the children, write the health.

        Raises:
            RunFailedError: Ray ended by itself.
        """
        self._hear(POLL_S)
        assert self._ray is not None
        if self._ray.poll() is not None:
            raise RunFailedError(
                f"Ray ended with status {self._ray.returncode}: {self._last_of_ray()} "
                "The head is gone, or refused this node."
            )
        if self._options.is_head:
            self._keep_supervisor()
        self._say(self._verdict())

    def leave(self) -> None:
        """Let the actors leave, then end the children."""
        _print("leaving: actors end after the item in hand")
        self._leaving.touch()
        _end(self._supervisor, self._options.drain_s)
        until = time.monotonic() + self._options.drain_s
        while self._at_work() and time.monotonic() < until:
            self._hear(POLL_S)
        _end(self._ray, 10.0)

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
        if notice is None:
            return
        self._heard_at[notice.name] = time.monotonic()
        is_news = not notice.state or self._states.get(notice.name) != notice
        if notice.state:
            self._states[notice.name] = notice
        if is_news:
            _print(f"{notice.name}: {notice.text}")

    def _verdict(self) -> str:
        """Return `ok ...`, or what is not well."""
        if self._options.is_head:
            silence = time.monotonic() - self._heard_at.get(SUPERVISOR, 0.0)
            if silence > SILENT_S:
                return "the supervisor has not spoken yet, or is gone"
            return f"ok: {self._states[SUPERVISOR].text}"
        actors = [notice for name, notice in self._states.items() if name != SUPERVISOR]
        for notice in actors:
            if notice.state == FAILED:
                return f"{notice.name}: {notice.text}"
        num_well = sum(notice.state in (WORKING, ENDED) for notice in actors)
        if num_well < self._options.actors:
            return f"{num_well} of {self._options.actors} actors have joined the server"
        return f"ok: {self._at_work()} actors at work"

    def _at_work(self) -> int:
        return sum(
            notice.state not in (ENDED, FAILED)
            for name, notice in self._states.items()
            if name != SUPERVISOR
        )

    def _say(self, text: str) -> None:
        new = self._health.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self._health)

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
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=2.0).close()
                return
            except OSError:
                time.sleep(POLL_S)

    def _keep_supervisor(self) -> None:
        """Start the supervisor once Ray answers, and again when it ended."""
        now = time.monotonic()
        if self._supervisor is not None and self._supervisor.poll() is None:
            return
        if now - self._supervised_at < 2.0 or not self._ray_answers():
            return
        if self._supervisor is not None:
            _print(f"the supervisor ended with status {self._supervisor.returncode}: again")
        self._supervised_at = now
        self._supervisor = subprocess.Popen(self._supervisor_command(), start_new_session=True)

    def _ray_answers(self) -> bool:
        try:
            socket.create_connection((self._ip(), self._options.ray_port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _ray_command(self) -> list[str]:
        options = self._options
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block",
            f"--node-ip-address={self._ip()}", "--num-gpus=0",
            f"--object-store-memory={options.object_store_bytes}",
            f"--metrics-export-port={options.metrics_port}",
            "--include-log-monitor=false",  # our actors' lines come as notices
        ]  # fmt: skip
        if not options.is_head:
            slots = json.dumps({"meta_worker": options.actors})
            return [
                *command, f"--address={options.join}", f"--num-cpus={options.actors}",
                f"--resources={slots}",
            ]  # fmt: skip
        command += ["--head", f"--port={options.ray_port}", "--num-cpus=0"]
        command += ["--disable-usage-stats", "--no-monitor"]
        if not options.dashboard:
            return [*command, "--include-dashboard=false"]
        host, _, port = options.dashboard.rpartition(":")
        return [*command, f"--dashboard-host={host}", f"--dashboard-port={port}"]

    def _supervisor_command(self) -> list[str]:
        options = self._options
        command = [
            sys.executable, "-m", "dmaml.deploy.cli", "workers", "--stay", "--count", "auto",
            "--server", self._address.target,
            "--ray-address", f"{self._ip()}:{options.ray_port}",
        ]  # fmt: skip
        if options.token_file is not None:
            command += ["--token-file", str(options.token_file)]
        if options.data_dir is not None:
            command += ["--data-dir", str(options.data_dir)]
        return command

    def _ip(self) -> str:
        """Return this node's address on the way to the server."""
        host = self._address.target.rsplit(":", 1)[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            return str(probe.getsockname()[0])

    def _last_of_ray(self) -> str:
        lines = (self._options.folder / "ray.log").read_text(errors="replace").splitlines()
        spoken = [line.strip() for line in lines if line.strip(" -")]
        return " ".join(spoken[-3:])


def _end(child: subprocess.Popen[bytes] | None, patience_s: float) -> None:
    if child is None or child.poll() is not None:
        return
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
