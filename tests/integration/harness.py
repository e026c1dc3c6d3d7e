"""A real server and real loops, small enough for a test: in threads, or as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.items import RunState, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.server.app import ServerOptions, run_server
from dmaml.worker.answers import Answer, Answerer
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry
from dmaml.worker.loop import Loop

DEADLINE_S = 60.0
# numpy reads headers by `ast`, which is not safe in threads up to CPython 3.11 (issue 106905)
_ONE_AT_A_TIME = threading.Lock()
DMAML = (sys.executable, "-m", "dmaml.deploy.cli")
MARK = "DMAML_TEST_MARK"  # in the environment of the processes that a test starts
_TINY: dict[str, dict[str, Any]] = {
    "run": {"name": "tiny", "seed": 1, "rounds": 6},
    "task": {"source": "sinusoid", "n_way": 1, "k_shot": 5, "k_query": 5},
    "model": {"name": "mlp", "hidden": [8]},
    "algorithm": {"name": "maml", "inner_lr": 0.01, "inner_steps": 1, "tasks": 2},
    "topology": {"slots": 2},
    "outer": {"name": "adam", "lr": 0.01},
    "evaluation": {"every": 3, "tasks": 4, "steps": 1, "k_query": 5, "test_tasks": 0},
}


def tiny(**sections: dict[str, Any]) -> RunConfig:
    """Return a configuration whose rounds take milliseconds, with sections changed."""
    values = {name: dict(section) for name, section in _TINY.items()}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return configuration.resolve(configuration.from_mapping(values))


def wait_for(
    condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S, pause_s: float = 0.01
) -> Any:
    """Return the condition's first true value; fail with `what` when the deadline passes."""
    until = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        pause.wait(pause_s)


class LiveServer:
    """`run_server` on a thread and loop of its own; leaving the context stops it."""

    def __init__(self, config: RunConfig, run_dir: Path, **options: Any) -> None:
        self.config = config
        self.run_dir = run_dir
        self.addresses: dict[str, Any] = {}
        self.state: RunState | None = None
        self.message = ""
        self.error: BaseException | None = None
        defaults = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0"}
        self._options = ServerOptions(**{**defaults, **options, "on_serving": self._serving})
        self._is_serving = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._thread.start()
        assert self._is_serving.wait(DEADLINE_S), "the server did not start"
        if self.error is not None:
            self._thread.join()
            raise self.error

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """The gRPC address."""
        return str(self.addresses["grpc"])

    @property
    def http(self) -> str:
        """The root of the HTTP pages."""
        return f"http://{self.addresses['http']}"

    def wait(self) -> LiveServer:
        """Return once it ended by itself (`exit_when_done`)."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not end"
        if self.error is not None:
            raise self.error
        return self

    def stop(self) -> None:
        """End it as SIGTERM would: a checkpoint is written."""
        if self._thread.is_alive() and self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it ended in this moment
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def _serving(self, addresses: dict[str, Any]) -> None:
        self.addresses = addresses
        self._is_serving.set()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error
        finally:
            self._is_serving.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(run_server(self.config, self.run_dir, self._options))
        with contextlib.suppress(asyncio.CancelledError):
            self.state, self.message = await self._task


class CountingAnswerer:
    """An `Answerer` that counts its answers and calls `before` (number, item) ahead of each."""

    def __init__(
        self, config: RunConfig, before: Callable[[int, WorkItem], None] | None = None
    ) -> None:
        self._inner = Answerer(config)
        self._before = before
        self.source = self._inner.source
        self.answered: Counter[WorkItem] = Counter()

    def draw(self, item: WorkItem, *arguments: Any) -> Any:
        """See `Answerer.draw`."""
        return self._inner.draw(item, *arguments)

    def answer(self, item: WorkItem, *arguments: Any) -> Answer:
        """See `Answerer.answer`."""
        if self._before is not None:
            self._before(self.answered.total(), item)
        self.answered[item] += 1
        return self._inner.answer(item, *arguments)


class Worker:
    """One loop on a thread of its own."""

    def __init__(
        self,
        config: RunConfig,
        address: Address | str,
        answerer: Any = None,
        orphan_s: float = 30.0,
    ) -> None:
        self._config = config
        self._address = Address(address) if isinstance(address, str) else address
        self._answerer = answerer
        self._orphan_s = orphan_s
        self._stopped = threading.Event()
        self.num_answers = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the loop to leave."""
        self._stopped.set()

    def join(self) -> Worker:
        """Return once the loop ended; raise what it ended with."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the loop did not end"
        if self.error is not None:
            raise self.error
        return self

    def _run(self) -> None:
        torch.set_num_threads(1)
        client = Client(self._address, Retry(self._orphan_s))
        try:
            with _ONE_AT_A_TIME:
                answerer = self._answerer or Answerer(self._config)
            loop = Loop(self._config, client, answerer, self._stopped.is_set)
            self.num_answers = loop.run()
        except BaseException as error:
            self.error = error
        finally:
            client.close()


def train(config: RunConfig, run_dir: Path, workers: int = 1) -> str:
    """Train a run to its end in threads and return its digest."""
    server = LiveServer(config, run_dir, exit_when_done=True)
    crew = [Worker(config, server.target) for _ in range(workers)]
    for worker in crew:
        worker.join()
    server.wait()
    assert server.state is RunState.FINISHED, server.message
    return digest_of(run_dir)


def digest_of(run_dir: Path) -> str:
    """Return the digest of the latest checkpoint's parameters."""
    return checkpoints.theta_sha256(checkpoints.thetas_of(latest(run_dir)))


def latest(run_dir: Path) -> checkpoints.Checkpoint:
    """Return the latest checkpoint."""
    found, damaged = checkpoints.load_latest(run_dir)
    assert found is not None
    assert damaged == []
    return found


def versions_of(run_dir: Path) -> list[int]:
    """Return the versions of the recorded TRAIN rounds, in their order."""
    return [row["version"] for row in read_rows(run_dir, "rounds")]


class Killable:
    """`dmaml server` as a process, which may be killed and started again on its port."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._config_file = run_dir.with_suffix(".yaml")
        self._config_file.write_text(configuration.to_text(config))
        self.target = "127.0.0.1:0"
        self.restart()

    def restart(self) -> None:
        """Start it, again on the same address, and return once it serves."""
        with self._run_dir.with_suffix(".log").open("a") as log:
            self._process = subprocess.Popen(
                [*DMAML, "server", str(self._config_file), "--run-dir", str(self._run_dir),
                 "--listen", self.target, "--http", "127.0.0.1:0"],
                stderr=log,
            )  # fmt: skip
        self.target = wait_for(self._address, "the server serves")

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self._process.terminate()
        return self._process.wait(DEADLINE_S)

    def _address(self) -> str | None:
        assert self._process.poll() is None, self._run_dir.with_suffix(".log").read_text()
        return address_of(self._run_dir, self._process.pid)


def address_of(run_dir: Path, pid: int | None) -> str | None:
    """Return where the server process of a run serves, or None: it does not yet."""
    with contextlib.suppress(OSError, ValueError):
        announced = json.loads((run_dir / "server.json").read_text())
        return str(announced["grpc"]) if announced["pid"] == pid else None
    return None


def write_archives(folder: Path) -> list[str]:
    """Write two archives of small noisy pictures, dark and light, and return them as sources."""
    rng = np.random.default_rng(1)
    for name, least in (("dark", 0), ("light", 150)):
        images = rng.integers(least, least + 100, (72, 6, 6)).astype(np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=np.repeat(np.arange(12), 6))
    return [f"npz:{folder / name}.npz" for name in ("dark", "light")]


@contextlib.contextmanager
def killable(config: RunConfig, run_dir: Path) -> Iterator[Killable]:
    """Run the real server process for a while."""
    server = Killable(config, run_dir)
    try:
        yield server
    finally:
        server.kill()


def dmaml(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    return subprocess.run(
        [*DMAML, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options,
    )  # fmt: skip


def marked(mark: str) -> dict[int, str]:
    """Return pid -> command line of the living processes that inherited the mark."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_marked = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
            if is_marked and "\nState:\tZ" not in (folder / "status").read_text():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = command
    return found


def gone(mark: str) -> list[str]:
    """Return the processes that are still there a moment after the command ended."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not marked(mark), "every process ended", deadline_s=5.0)
    return list(marked(mark).values())
