"""Keeps one actor at every place of a cluster: starts, replaces, waits, gives up. Knows no Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol, final

from dmaml.common.errors import CapacityError, DmamlError
from dmaml.worker.actor import End

log = logging.getLogger("dmaml.deploy")

MAX_DEATHS: Final = 5  # of one place, one soon after the other, before an impatient one gives up
LONG_LIFE_S: Final = 60.0  # an actor that lived so long did not die of its start
FIRST_PAUSE_S: Final = 0.5  # before the second new start of a place; doubled each time
LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, order=True)
class Place:
    """Where one actor lives.

    Attributes:
        node: Ray's id of the node, or "" where Ray may choose.
        index: among the node's actors, from 0.
        host: the node's address, for people.
    """

    node: str
    index: int
    host: str = ""

    def __str__(self) -> str:
        return f"actor {self.index}" + (f" on {self.host or self.node[:8]}" if self.node else "")


@dataclass(frozen=True)
class Ended:
    """An actor that is no more: by itself, or because its process died (`end` is None)."""

    place: Place
    end: End | None


class Actors(Protocol):
    """The hands: what a supervisor asks of Ray."""

    def places(self) -> Collection[Place]:
        """Return where there should be an actor now."""

    def start(self, place: Place) -> bool:
        """Start an actor, or adopt the one that lives there; tell whether it was adopted."""

    def ended(self, timeout_s: float) -> list[Ended]:
        """Wait until an actor ends, at most `timeout_s`; return those that did."""

    def stop(self) -> None:
        """Ask every actor to leave, give it a moment, then end it."""


@dataclass
class _History:
    deaths: int = 0  # one soon after the other
    started_at: float = 0.0
    not_before: float = 0.0


@final
class Supervisor:
    """Keeps an actor at every place until the run is done.

    Args:
        actors: the hands.
        is_patient: go on after errors and deaths, with growing pauses, since a cluster mends itself
            and one bad node must not end the others; otherwise raise them.
    """

    def __init__(
        self,
        actors: Actors,
        is_patient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._actors = actors
        self._is_patient = is_patient
        self._clock = clock
        self._alive: set[Place] = set()
        self._left: set[Place] = set()  # asked to leave: their node goes
        self._done: set[Place] = set()
        self._histories: dict[Place, _History] = {}
        self._is_done = False

    @property
    def size(self) -> int:
        """Actors that are at work."""
        return len(self._alive)

    @property
    def is_done(self) -> bool:
        """An actor heard that the run is done."""
        return self._is_done

    @property
    def is_over(self) -> bool:
        """The run is done and every actor has ended."""
        return self._is_done and not self._alive

    def watch(self, timeout_s: float) -> bool:
        """Start what is missing, note what ended; return True once the run is done and all ended.

        Raises:
            DmamlError: what an actor ended with, unless patient.
            CapacityError: one place died `MAX_DEATHS` times, unless patient.
        """
        wanted = set(self._actors.places())
        self._forget(wanted)
        for place in sorted(wanted - self._alive - self._left - self._done):
            if self._clock() >= self._history(place).not_before:
                self._start(place)
        for ended in self._actors.ended(timeout_s):
            self._alive.discard(ended.place)
            self._note(ended)
        return self.is_over

    def again(self) -> None:
        """Forget that the run was done: there is another."""
        self._done.clear()
        self._is_done = False

    def stop(self) -> None:
        """End every actor."""
        self._actors.stop()
        self._alive.clear()

    def _forget(self, wanted: set[Place]) -> None:
        """Forget places whose node is gone; an actor there ends by itself and says so."""
        known = set(self._histories) | self._left | self._done
        for place in known - wanted - self._alive:
            self._histories.pop(place, None)
            self._left.discard(place)
            self._done.discard(place)

    def _history(self, place: Place) -> _History:
        return self._histories.setdefault(place, _History())

    def _start(self, place: Place) -> None:
        self._history(place).started_at = self._clock()
        is_adopted = self._actors.start(place)
        self._alive.add(place)
        what = "is adopted" if is_adopted else "starts"
        log.info("%s %s: %d in all", place, what, self.size)

    def _note(self, ended: Ended) -> None:
        end, place = ended.end, ended.place
        if end is None:
            self._retry(place, "died", None)
        elif end.error is not None:
            self._retry(place, f"ended: {end.error}", end.error)
        else:
            (self._done if end.is_done else self._left).add(place)
            self._is_done = self._is_done or end.is_done
            log.info("%s: %s", place, "the run is done" if end.is_done else "left")

    def _retry(self, place: Place, what: str, error: DmamlError | None) -> None:
        history, now = self._history(place), self._clock()
        has_lived = now - history.started_at >= LONG_LIFE_S
        history.deaths = 1 if has_lived else history.deaths + 1
        if not self._is_patient and error is not None:
            raise error
        if not self._is_patient and history.deaths >= MAX_DEATHS:
            raise CapacityError(f"{place} died {MAX_DEATHS} times. Is there enough memory?")
        doublings = min(max(history.deaths - 2, 0), 10)  # more would overflow one day
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**doublings)
        pause_s = pause_s if history.deaths > 1 or error is not None else 0.0
        history.not_before = now + pause_s
        log.warning("%s %s A new one starts in %.0f s.", place, what.rstrip(".") + ".", pause_s)
