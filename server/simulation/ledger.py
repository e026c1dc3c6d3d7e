"""What must hold in every run: each acknowledged item applied once, versions without a gap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.common.items import WorkItem

_OPEN: Final = 0
_TAKEN: Final = 1
_APPLIED: Final = 2


@final
class Ledger:
    """One byte for every TRAIN item of a run: open, acknowledged or applied.

    Every method raises RunFailedError when the core breaks its word.
    """

    def __init__(self, config: RunConfig) -> None:
        self._parts = config.topology.parts
        self._slots = config.topology.slots
        self._pipelines = config.clustering.pipelines
        self._states = bytearray(config.run.rounds * self._pipelines * self._slots * self._parts)
        self._version = 0

    def _place(self, item: WorkItem) -> int:
        row = item.index * self._pipelines + item.pipeline
        return (row * self._slots + item.slot) * self._parts + item.part

    def take(self, item: WorkItem, last: WorkItem | None) -> None:
        """Note that an answer was acknowledged.

        Args:
            last: the answer of the same actor that was acknowledged before; it may be repeated.
        """
        place = self._place(item)
        if self._states[place] == _OPEN:
            self._states[place] = _TAKEN
        elif item != last:
            raise RunFailedError(f"simulation: two answers to {item} were acknowledged.")

    def apply(self, items: Iterable[WorkItem]) -> None:
        """Note that answers are combined."""
        for item in items:
            place = self._place(item)
            if self._states[place] != _TAKEN:
                how = "twice" if self._states[place] == _APPLIED else "without an answer"
                raise RunFailedError(f"simulation: {item} was applied {how}.")
            self._states[place] = _APPLIED

    def publish(self, version: int) -> None:
        """Note the version after a TRAIN commit."""
        if version != self._version + 1:
            raise RunFailedError(f"simulation: version {version} follows version {self._version}.")
        self._version = version

    def close(self, must_be_whole: bool, may_wait: int = 0) -> int:
        """Return how many items were applied, at the end of the run.

        Args:
            must_be_whole: the mode may leave no item out.
            may_wait: late answers that may be left for a commit that does not come any more.
        """
        num_lost = self._states.count(_TAKEN)
        if num_lost > may_wait:
            raise RunFailedError(f"simulation: {num_lost} acknowledged answers were never applied.")
        num_applied = self._states.count(_APPLIED)
        if must_be_whole and num_applied != len(self._states):
            raise RunFailedError(
                f"simulation: {num_applied} of {len(self._states)} items were applied."
            )
        return num_applied

    def states(self) -> bytes:
        """Return the state of every item, in round, pipeline, slot, part order."""
        return bytes(self._states)
