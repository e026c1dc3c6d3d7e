"""A virtual actor: when it asks, computes, answers, leaves and dies."""

from __future__ import annotations

import enum
import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from dmaml.common.items import WorkItem
from dmaml.common.seeds import Kind, stream
from dmaml.server.simulation.distributions import Distribution
from dmaml.server.simulation.scenario import Scenario

MAX_HELD: Final = 64  # answers that an actor keeps, as worker/loop.py


class Purpose(enum.IntEnum):
    """What a random stream of the simulation is for; the number is part of its place."""

    COMPUTE = 0
    LATENCY = 1
    LIFE = 2
    REPAIR = 3
    OUTAGE = 4
    OUTAGE_FOR = 5
    STAY = 6
    ARRIVAL = 7
    SERVICE = 8
    COMMIT = 9
    CHECKPOINT = 10
    COMBINE = 11


def draws(
    scenario: Scenario, value: Distribution, purpose: Purpose, machine: int = 0, generation: int = 0
) -> Iterator[float]:
    """Return the draws for one purpose: the same in every mode and whatever happens elsewhere."""
    return value.values(
        lambda: stream(scenario.seed, Kind.SIMULATION, machine, int(purpose), generation)
    )


@final
class Outages:
    """When the network of a machine is gone."""

    def __init__(self, between: Iterator[float], lasting: Iterator[float], since: float) -> None:
        self._between, self._lasting = between, lasting
        self._starts: list[float] = []
        self._ends: list[float] = [since]

    def reach(self, at: float) -> float:
        """Return when a message gets through that would without them at `at`."""
        while self._ends[-1] <= at:
            start = self._ends[-1] + next(self._between)
            self._starts.append(start)
            self._ends.append(start + next(self._lasting))
        number = bisect_right(self._starts, at)  # outages that began; ends has one in front
        return max(at, self._ends[number])


class Plan(NamedTuple):
    """What an actor does with a lease; seconds of the virtual clock.

    Attributes:
        asks_at: when its next Lease call reaches the server.
        start, end: of its computation.
        answers_at: when its answer reaches the server; None: it dies before it is sent.
        seconds: that the answer cost, now or when it was first computed.
        share: of the time of a TRAIN item that this one takes.
    """

    asks_at: float
    start: float
    end: float
    answers_at: float | None
    seconds: float
    share: float


@final
class Actor:
    """One actor on one machine, as `worker/loop.py` has it behave.

    It asks for the next item before it computes the one in hand, computes one at a time, and sends
    an answer once the outcome of the one before is known. A dead one never speaks again.

    Args:
        generation: actors that died on this machine before it.
        born_at: when it was started.
    """

    def __init__(self, scenario: Scenario, machine: int, generation: int, born_at: float) -> None:
        def drawn(value: Distribution, purpose: Purpose) -> Iterator[float]:
            return draws(scenario, value, purpose, machine, generation)

        self.machine, self.generation, self.since = machine, generation, born_at
        self.factor = scenario.factor(machine)
        self.compute = drawn(scenario.compute, Purpose.COMPUTE)
        self.latency = drawn(scenario.latency, Purpose.LATENCY)
        self.outages: Outages | None = None
        if scenario.outage is not None:
            between = drawn(scenario.outage, Purpose.OUTAGE)
            lasting = drawn(scenario.outage_for, Purpose.OUTAGE_FOR)
            self.outages = Outages(between, lasting, born_at)
        self.dies_at = self.leaves_at = self.ended_at = math.inf
        if scenario.mtbf is not None:
            self.dies_at = born_at + next(drawn(scenario.mtbf, Purpose.LIFE))
        if scenario.leave is not None:
            self.leaves_at = born_at + next(drawn(scenario.leave, Purpose.STAY))
        self.worker_id = ""
        self.request = 0
        self.busy_until = self.settled_at = born_at
        self.doomed_from: float | None = None  # start of a computation that its death ends
        self.held: dict[WorkItem, tuple[str, float]] = {}  # base digest, seconds
        self.refused: dict[WorkItem, str] = {}  # answers in `held` that were not taken, and why
        self.last_taken: WorkItem | None = None
        self.durable = 0

    @property
    def incarnation(self) -> str:
        """Its name for the core."""
        return f"{self.machine}.{self.generation}"

    def arrival(self, at: float) -> float:
        """Return when a message sent at `at` arrives, in either direction."""
        at += next(self.latency)
        return at if self.outages is None else self.outages.reach(at)

    def is_cut_off(self, now: float) -> bool:
        """Tell whether its network is gone."""
        return self.outages is not None and self.outages.reach(now) > now

    def begin(self, now: float, item: WorkItem, base_digest: str, share: float) -> Plan | None:
        """Take a lease that was granted at `now`, or let it lie when gone by then; see `Plan`."""
        start = max(self.arrival(now), self.busy_until)
        if start >= self.dies_at or start >= self.leaves_at:
            return None
        asks_at = self.arrival(start)
        known = self.held.get(item) if self.held else None
        if known is not None and known[0] == base_digest:
            end, seconds = start, known[1]
        else:
            seconds = next(self.compute) * self.factor * share
            end = start + seconds
        sent_at = max(end, self.settled_at)
        if sent_at >= self.dies_at:
            self.doomed_from = start
            self.busy_until = math.inf
            return Plan(asks_at, start, end, None, seconds, share)
        answers_at = self.arrival(sent_at)
        self.busy_until = sent_at
        self.settled_at = self.arrival(answers_at)
        return Plan(asks_at, start, end, answers_at, seconds, share)

    def hold(self, item: WorkItem, base_digest: str, seconds: float) -> None:
        """Keep an answer that was sent until it is durable."""
        self.held[item] = (base_digest, seconds)
        while len(self.held) > MAX_HELD:
            oldest = next(iter(self.held))
            del self.held[oldest]
            self.refused.pop(oldest, None)

    def forget(self, durable_round: int) -> None:
        """Drop the answers that are durable."""
        if durable_round == self.durable:
            return
        self.durable = durable_round
        while self.held:
            oldest = next(iter(self.held))
            if oldest.round >= durable_round:
                return
            del self.held[oldest]
            self.refused.pop(oldest, None)
