"""Whether a node is well, from what its processes tell it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from dmaml.common.notices import ENDED, FAILED, WORKING, Notice

SUPERVISOR: Final = "supervisor"  # its name in notices; every other name is an actor's
SILENT_S: Final = 15.0  # a supervisor that says nothing for so long is not well


@final
class Health:
    """The last state of every process of a node, and the sentence that follows.

    Args:
        num_actors: that must have joined the server before the node is well; None on the head,
            which is well while its supervisor speaks.
        clock: injected in tests.
    """

    def __init__(self, num_actors: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._num_actors = num_actors
        self._clock = clock
        self._actors: dict[str, Notice] = {}
        self._supervisor: Notice | None = None
        self._supervisor_at = 0.0

    @property
    def num_at_work(self) -> int:
        """Actors that started and have not said that they ended."""
        return sum(notice.state not in (ENDED, FAILED) for notice in self._actors.values())

    def hear(self, notice: Notice) -> bool:
        """Note a state; return True unless it was known already, or for a line of a log."""
        if not notice.state:
            return True
        if notice.name == SUPERVISOR:
            is_news = notice != self._supervisor
            self._supervisor, self._supervisor_at = notice, self._clock()
            return is_news
        is_news = notice != self._actors.get(notice.name)
        self._actors[notice.name] = notice
        return is_news

    def verdict(self) -> str:
        """Return `ok: ...`, or what is not well."""
        if self._num_actors is None:
            return self._verdict_of_head()
        actors = self._actors.values()
        for notice in actors:
            if notice.state == FAILED:
                return f"{notice.name}: {notice.text}"
        num_well = sum(notice.state in (WORKING, ENDED) for notice in actors)
        if num_well < self._num_actors:
            return f"{num_well} of {self._num_actors} actors have joined the server"
        return f"ok: {self.num_at_work} actors at work"

    def _verdict_of_head(self) -> str:
        if self._supervisor is None or self._clock() - self._supervisor_at > SILENT_S:
            return "the supervisor has not spoken yet, or is gone"
        return f"ok: {self._supervisor.text}"
