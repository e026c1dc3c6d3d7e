"""The server's two threads in virtual time: one combines, one writes checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, final

AUTO_CHECKPOINT_SHARE: Final = 0.05  # as server/writer.py, which a test compares


@final
class Machinery:
    """When commits and checkpoints are done, by the rules of `server/runner.py` and `writer.py`.

    Args:
        commits, combines, saves: seconds of a commit, of each answer in it, of a checkpoint.
        every: `server.checkpoint_every`.
    """

    def __init__(
        self,
        commits: Iterator[float],
        combines: Iterator[float],
        saves: Iterator[float],
        every: Literal["auto"] | int,
    ) -> None:
        self._commits, self._combines = commits, combines
        self._saves, self._every = saves, every
        self._numeric_free_at = self._disk_free_at = 0.0
        self._last_save = (0.0, 0.0)  # when it began, how long it took
        self._captured = 0

    def commit(self, now: float, num_answers: int) -> float:
        """Return when a commit that is asked for now is done."""
        start = max(now, self._numeric_free_at)
        if self._every != "auto":
            start = max(start, self._disk_free_at)
        self._numeric_free_at = start + next(self._commits) + num_answers * next(self._combines)
        return self._numeric_free_at

    def is_due(self, now: float, number: int, must: bool) -> bool:
        """Return whether the state after so many commits shall be written."""
        if must:
            return True
        if self._every == "auto":
            began, took = self._last_save
            return took <= AUTO_CHECKPOINT_SHARE * (now - began) and now >= self._disk_free_at
        return number - self._captured >= self._every

    def save(self, now: float, number: int) -> float:
        """Return when a checkpoint that is begun now is durable."""
        self._captured = number
        start = max(now, self._disk_free_at)
        took = next(self._saves)
        self._last_save = (start, took)
        self._disk_free_at = start + took
        return self._disk_free_at
