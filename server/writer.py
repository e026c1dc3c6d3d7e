"""Everything that goes to the disk: when a checkpoint is due, its capture, its writing; events."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, final

from dmaml.common.checkpoint import Checkpoint, Tensors
from dmaml.common.errors import RunFailedError
from dmaml.server.core.actions import Note, Save
from dmaml.server.parameters import Parameters
from dmaml.server.storage import Storage

LEASES_FIRST_S: Final = 0.01  # a checkpoint waits until the next round's leases are out
AUTO_CHECKPOINT_SHARE: Final = 0.05
Captured = asyncio.Future[tuple[Checkpoint, bool]]


@dataclass(frozen=True)
class Written:
    """A checkpoint on the disk."""

    round: int
    took_s: float
    num_bytes: int


@final
class Writer:
    """Writes a run's files on one thread, from the event loop.

    Args:
        numeric: the thread that changes the parameters; states are captured on it, between two
            commits.
        commits: of the state on the disk.
    """

    def __init__(
        self, storage: Storage, parameters: Parameters, numeric: Executor, commits: int
    ) -> None:
        self._storage = storage
        self._parameters = parameters
        self._numeric = numeric
        self._every = storage.config.server.checkpoint_every
        self._disk = ThreadPoolExecutor(1, "disk")
        self._last_save = (time.monotonic(), 0.0)  # when it began, how long it took
        self._captured = commits

    def is_due(self, save: Save, is_saving: bool) -> bool:
        """Return whether the state after a round shall be written."""
        if self._every == "auto":
            began, took = self._last_save
            is_cheap = took <= AUTO_CHECKPOINT_SHARE * (time.monotonic() - began)
            return save.must or (is_cheap and not is_saving)
        return save.must or save.progress.commits - self._captured >= self._every

    def capture(
        self, number: int, meta: dict[str, Any], arrays: Tensors, is_best: bool
    ) -> Captured:
        """Capture the state now: before the numeric thread begins the next commit.

        Args:
            number: commits of every kind done.
            meta: what it keeps beside the parameters, JSON values.
            arrays: the same, arrays that nobody changes.
        """
        self._captured = number

        def capture() -> tuple[Checkpoint, bool]:
            layout = {"layout": self._parameters.layout_json()}
            tensors = self._parameters.tensors() | arrays
            return Checkpoint(number, tensors, meta | layout), is_best

        return asyncio.get_running_loop().run_in_executor(self._numeric, capture)

    async def write(self, captured: Captured) -> Written:
        """Write a captured state; it is durable afterwards.

        Raises:
            RunFailedError: the disk is full or gone.
        """
        checkpoint, is_best = await captured
        await asyncio.sleep(LEASES_FIRST_S)
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            size = await loop.run_in_executor(self._disk, self._storage.save, checkpoint, is_best)
        except OSError as error:
            raise RunFailedError(
                f"checkpoint of round {checkpoint.round} cannot be written: {error.strerror}. "
                "Make room and start the server again: it goes on from the last checkpoint."
            ) from error
        took = time.monotonic() - began
        self._last_save = (began, took)
        return Written(checkpoint.round, took, size)

    def note(self, note: Note) -> None:
        """Write a line of the record's events; nobody waits for it."""
        row = (time.time(), note.worker_id, note.event, note.message)
        self._disk.submit(self._storage.events, [row])

    def close(self) -> None:
        """Write what is under way and release the directory."""
        self._disk.shutdown()
        self._storage.close()
