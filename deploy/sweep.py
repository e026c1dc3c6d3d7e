"""Many runs, each a real one, several at a time on one Ray cluster that is started once.

A *cell* is one run with its own directory. A *lane* does one cell after another: it has a server
process and Ray actors of its own, which stay from cell to cell. What is finished is not done again,
so that the same command goes on after Ctrl-C, a failure or a crash.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DivergedError, DmamlError, RunDirectoryError
from dmaml.common.rundir import LOGS, Row, read_rows, training_seconds
from dmaml.deploy.crew import Cluster
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.deploy.lanes import Lane
from dmaml.deploy.local import until_done
from dmaml.deploy.progress import Watcher
from dmaml.deploy.supervisor import Supervisor
from dmaml.deploy.warm_server import WarmServer
from dmaml.server.storage import check_directory
from dmaml.worker.connection import Address

log = logging.getLogger("dmaml.deploy")

RESULT: Final = "result.json"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its directory; letters, digits, `-`, `_` and `.`.
        config: resolved; `evaluation.test_tasks` says whether and how it is tested at its end.
        actors: Ray actors that work on it. In mode sync θ does not depend on them.
    """

    name: str
    config: RunConfig
    actors: int = 1


@dataclass(frozen=True)
class Finished:
    """What a finished cell came to; the file `result.json` of its directory.

    Attributes:
        rounds: `run.rounds` of its configuration.
        evaluation: its section of the configuration: how `test` was measured.
        version, tasks_seen, theta_sha256: of its last state.
        test: what `Learner.evaluate` gave, or None without test tasks.
        stopped: why it ended before its time, "" otherwise: a run whose gradients are not finite
            any more is paused, and no retry would change that. `test` is then of the last state.
        train_s, test_s: seconds of wall time; of the former see `training_seconds`.
        clusters: what `deploy.cluster.summary` gave, or None without clustering.
    """

    rounds: int
    evaluation: dict[str, Any]
    version: int
    tasks_seen: int
    theta_sha256: str
    test: dict[str, Any] | None
    stopped: str
    train_s: float
    test_s: float
    clusters: dict[str, Any] | None = None


@dataclass(frozen=True)
class Measured:
    """A finished cell with its record.

    Attributes:
        folder: its run directory.
        rounds, evaluations: rows of `run.sqlite`, oldest first.
    """

    cell: Cell
    folder: Path
    finished: Finished
    rounds: list[Row]
    evaluations: list[Row]


@dataclass(frozen=True)
class Progress:
    """A cell has ended.

    Attributes:
        cell: which.
        finished: its result, or None where it failed.
        failure: the sentence, "" where it did not.
        wall_s: that it took, everything included.
        done, total: cells that have ended, and all of them.
    """

    cell: Cell
    finished: Finished | None
    failure: str
    wall_s: float
    done: int
    total: int


Notify = Callable[[Progress], None]


def sweep(
    cells: Sequence[Cell],
    out: Path,
    num_lanes: int,
    data_dir: Path | None,
    notify: Notify = lambda progress: None,
) -> dict[str, str]:
    """Do every cell that is not finished; whatever happens, no process stays behind.

    Args:
        out: the cells' directories are made in it.
        num_lanes: cells at a time.
        data_dir: where data files are looked for first.
        notify: told of each cell that ends; called from the lanes' threads, one at a time.

    Returns:
        The sentences of the cells that failed, by name.

    Raises:
        ConfigError: two cells of one name.
        RunDirectoryError: `out` cannot be written.
        KeyboardInterrupt: after everything was stopped; the same call goes on.
    """
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        raise ConfigError(f"two cells of one name among {sorted(names)}. Names must differ.")
    require_writable(out)
    open_cells = [cell for cell in cells if read_finished(cell, out) is None]
    if not open_cells:
        return {}
    work = _Work(open_cells, out, data_dir, notify)
    num_lanes = min(num_lanes, len(open_cells))
    num_cpus = num_lanes * max(cell.actors for cell in open_cells)
    ended = [threading.Event() for _ in range(num_lanes)]
    lanes = [
        threading.Thread(target=work.do_all, args=(number, event), name=f"lane-{number}")
        for number, event in enumerate(ended)
    ]
    cluster = Cluster("local", num_cpus, out / LOGS)
    try:
        interrupt_on_sigterm()  # Ray puts a handler of its own, which aborts, in its place
        for lane in lanes:
            lane.start()
        work.begin()
        for event in ended:  # no `join`: interrupted, it takes a thread for ended (CPython 90882)
            event.wait()
    finally:
        with undisturbed():
            work.stop()
            for lane in lanes:
                if lane.ident is not None:
                    lane.join()
            cluster.close()
    if work.error is not None:
        raise work.error
    return work.failures


def read_finished(cell: Cell, out: Path) -> Finished | None:
    """Return what a cell came to, or None where it is not finished or was another run."""
    folder = out / cell.name
    try:
        found = Finished(**json.loads((folder / RESULT).read_text()))
        check_directory(folder, cell.config)
    except (OSError, ValueError, TypeError, RunDirectoryError):
        return None
    config = cell.config
    is_same = (found.rounds, found.evaluation) == (config.run.rounds, _evaluation_of(config))
    return found if is_same else None


def measured(cells: Iterable[Cell], out: Path) -> dict[str, Measured]:
    """Return the finished cells with their records, by name."""
    found = {}
    for cell in cells:
        finished = read_finished(cell, out)
        if finished is not None:
            folder = out / cell.name
            rounds, evaluations = read_rows(folder, "rounds"), read_rows(folder, "evaluations")
            found[cell.name] = Measured(cell, folder, finished, rounds, evaluations)
    return found


def require_writable(out: Path) -> None:
    """Make the directory, or raise.

    Raises:
        RunDirectoryError: it cannot be made or written.
    """
    try:
        (out / LOGS).mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(out, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise RunDirectoryError(
            f"the directory {str(out)!r} cannot be written: {reason}. Give another --out."
        )


@final
class _Work:
    """The cells that are left; shared by the lanes' threads."""

    def __init__(self, cells: list[Cell], out: Path, data_dir: Path | None, notify: Notify) -> None:
        self._left = list(reversed(cells))
        self._total = len(cells)
        self._done = 0
        self._out = out
        self._data_dir = data_dir
        self._notify = notify
        self._lock = threading.Lock()
        self._begun = threading.Event()
        self._stopped = threading.Event()
        self.failures: dict[str, str] = {}
        self.error: BaseException | None = None  # a lane's own, no cell's

    def begin(self) -> None:
        """Let the lanes begin: an interruption amid their start finds none of them at work."""
        self._begun.set()

    def stop(self) -> None:
        """Ask the lanes to end; the cells in hand write a checkpoint."""
        self._stopped.set()
        self._begun.set()

    def do_all(self, number: int, ended: threading.Event) -> None:
        """Do one cell after another, on a lane's own thread."""
        server = WarmServer(self._out / LOGS / f"lane-{number}.log", self._stopped.is_set)
        lane = Lane(self._data_dir, self._stopped.is_set)
        self._begun.wait()
        try:
            while (cell := self._next()) is not None:
                self._do(cell, server, lane)
        except KeyboardInterrupt:
            pass  # `stop`
        except BaseException as error:
            self.error = error
            self.stop()
        finally:
            server.stop()
            lane.close()
            ended.set()

    def _next(self) -> Cell | None:
        with self._lock:
            return self._left.pop() if self._left and not self._stopped.is_set() else None

    def _do(self, cell: Cell, server: WarmServer, lane: Lane) -> None:
        began = time.monotonic()
        finished, failure = None, ""
        try:
            finished = _run(cell, self._out / cell.name, server, lane)
        except DmamlError as error:
            failure = str(error)
            server.stop()
        except Exception as error:  # whatever it is, the other cells go on
            log.exception("cell %s", cell.name)
            failure = f"{type(error).__name__}: {error}"
            server.stop()
        with self._lock:
            self._done += 1
            if failure:
                self.failures[cell.name] = failure
            wall_s = time.monotonic() - began
            self._notify(Progress(cell, finished, failure, wall_s, self._done, self._total))


def _run(cell: Cell, folder: Path, server: WarmServer, lane: Lane) -> Finished:
    """Train one cell to its end, test it, and write what it came to."""
    stopped = _train(cell, folder, server, lane)
    began = time.monotonic()
    found = lane.evaluate(folder)
    rounds, events = read_rows(folder, "rounds"), read_rows(folder, "worker_events")
    finished = Finished(
        rounds=cell.config.run.rounds,
        evaluation=_evaluation_of(cell.config),
        stopped=stopped,
        train_s=round(training_seconds(rounds, events), 3),
        test_s=round(time.monotonic() - began, 3),
        **found,
    )
    temporary = folder / f"{RESULT}.tmp"
    temporary.write_text(json.dumps(asdict(finished)) + "\n", encoding="utf-8")
    temporary.replace(folder / RESULT)
    return finished


def _train(cell: Cell, folder: Path, server: WarmServer, lane: Lane) -> str:
    """Train; return why it stopped before its end, "" where it did not."""
    logs = folder / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    server.begin(cell.config, folder, logs / "server.log")
    address = Address(server.target)
    watcher = Watcher(address)
    lane.assign(cell.actors, address, logs)
    supervisor = Supervisor(lane)
    try:
        until_done(server, supervisor, watcher, lambda status: None)
    except KeyboardInterrupt:
        server.stop()
        raise
    except DivergedError as error:
        server.stop()
        return str(error)
    finally:
        watcher.stop()
        supervisor.stop()
    return ""


def _evaluation_of(config: RunConfig) -> dict[str, Any]:
    plain: dict[str, Any] = config.evaluation.model_dump(mode="json")
    return plain


def cell_of(name: str, text: str, settings: tuple[str, ...] = (), actors: int = 1) -> Cell:
    """Return the cell of a configuration in YAML with settings on top; see `config.load`."""
    settings = (f"run.name={name}", *settings)
    return Cell(name, configuration.resolve(configuration.from_text(text, name, settings)), actors)
