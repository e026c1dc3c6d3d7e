"""The run directory as its one writer sees it: lock, epoch, checkpoints, record."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunDirectoryError
from dmaml.common.rundir import ADDRESS, CONFIG, EPOCH, LOCK, LOGS, TENSORBOARD
from dmaml.server.record import Record
from dmaml.server.scalars import Scalars

_OURS: Final = (LOCK, LOGS, f"{CONFIG}.tmp")  # a start that was killed leaves these


def check_directory(folder: Path, config: RunConfig, resume: bool = True) -> RunConfig | None:
    """Return the configuration of the run in a directory, or None where there is none.

    Reads only. Raises:
        RunDirectoryError: a file in the way, a foreign folder, another run, or a run although
            `resume` is False.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise RunDirectoryError(f"run directory {str(folder)!r} is a file. Give another --run-dir.")
    path = folder / CONFIG
    if not path.exists():
        strangers = sorted(p.name for p in folder.iterdir() if p.name not in _OURS)
        if strangers:
            raise RunDirectoryError(
                f"run directory {str(folder)!r} holds other files ({', '.join(strangers[:3])}) "
                "and no run. Give an empty or a new --run-dir."
            )
        return None
    theirs = configuration.resolve(configuration.load(path))  # keys may be newer than the run
    keys = configuration.differing(configuration.resolve(config), theirs)
    if keys:
        raise RunDirectoryError(
            f"run directory {str(folder)!r} holds another run: {'; '.join(keys)}. "
            "Give another --run-dir or run.name, or these values."
        )
    if not resume:
        raise RunDirectoryError(
            f"run directory {str(folder)!r} holds a run already. "
            "Leave --no-resume away to go on with it, or give another --run-dir."
        )
    return theirs


class Storage:
    """A locked run directory; checkpoints and records are written from one thread."""

    def __init__(self, folder: Path, config: RunConfig, resume: bool = True) -> None:
        check_directory(folder, config, resume)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / LOCK).open("a+")
        except OSError as error:
            raise RunDirectoryError(
                f"run directory {str(folder)!r} cannot be written: {error.strerror}. "
                "Give another --run-dir, or another run.name."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RunDirectoryError(
                f"run directory {str(folder)!r} is in use by another server. "
                "Stop it, or give another --run-dir."
            ) from None
        self.folder = folder
        self.config = configuration.resolve(config)
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> None:
        self.latest, self.damaged = checkpoints.load_latest(self.folder)
        self._check_rounds()
        _write_atomic(self.folder / CONFIG, configuration.to_text(self.config))
        self.epoch = self._raise_epoch()
        self.record = Record(self.folder)
        latest = self.latest
        records = latest.meta["records"] if latest else []
        self.record.replay(latest.round if latest else 0, records)
        self._scalars: Scalars | None = None
        if self.config.server.tensorboard:
            version = int(latest.meta["progress"]["version"]) if latest else 0
            self._scalars = Scalars(self.folder / TENSORBOARD, self.epoch, version, records)
        self._next = self._other_generation()

    def save(self, checkpoint: Checkpoint, is_best: bool) -> int:
        """Write a checkpoint over the older generation, then its records; return its bytes."""
        size = checkpoints.write(self.folder / self._next, checkpoint)
        self._next = next(n for n in checkpoints.GENERATIONS if n != self._next)
        if is_best:
            checkpoints.write(self.folder / checkpoints.BEST, checkpoint)
        self.record.add(checkpoint.meta["records"])
        if self._scalars is not None:
            self._scalars.add(checkpoint.meta["records"])
        return size

    def began(self, at: float, facts: dict[str, str]) -> None:
        """Write by which code and on what the server started at a Unix time."""
        self.record.start(at, self.epoch, facts)

    def events(self, rows: list[tuple[float, str, str, str]]) -> None:
        """Write worker events: (Unix time, worker id, event, message)."""
        for at, worker_id, event, message in rows:
            self.record.event(at, self.epoch, worker_id, event, message)

    def announce(self, addresses: dict[str, Any]) -> None:
        """Write where the server listens."""
        _write_atomic(self.folder / ADDRESS, json.dumps(addresses))

    def close(self) -> None:
        """Release the directory."""
        (self.folder / ADDRESS).unlink(missing_ok=True)
        self.record.close()
        if self._scalars is not None:
            self._scalars.close()
        self._lock.close()

    def _check_rounds(self) -> None:
        latest = self.latest
        if latest is None:
            return
        trained = int(latest.meta["progress"]["trained"])
        if self.config.run.rounds < trained:
            raise RunDirectoryError(
                f"run directory {str(self.folder)!r} has {trained} rounds, run.rounds is "
                f"{self.config.run.rounds}. Raise run.rounds, or give another --run-dir."
            )

    def _raise_epoch(self) -> int:
        path = self.folder / EPOCH
        try:
            before = int(path.read_text()) if path.exists() else 0
        except ValueError:
            raise RunDirectoryError(
                f"{str(path)!r} holds {path.read_text()[:20]!r}, required a number. "
                "Write a number above every epoch in the log into it."
            ) from None
        _write_atomic(path, str(before + 1))
        return before + 1

    def _other_generation(self) -> str:
        """Return the generation to write next: not the one that was loaded."""
        first, second = checkpoints.GENERATIONS
        if self.latest is None:
            return first
        try:
            is_first = checkpoints.read(self.folder / first).round == self.latest.round
        except RunDirectoryError:
            is_first = False
        return second if is_first else first


def _write_atomic(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    checkpoints.sync_folder(path.parent)
