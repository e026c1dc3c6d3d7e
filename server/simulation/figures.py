"""What a simulated run is judged by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final


@final
@dataclass(frozen=True)
class Staleness:
    """Staleness of the applied answers, in versions.

    Attributes:
        counts: staleness -> answers.
    """

    mean: float
    p95: int
    max: int
    counts: dict[int, int]


@final
@dataclass(frozen=True)
class Figures:
    """One run; times are of the virtual clock, from the end of INIT to the end of the run.

    Attributes:
        duration_s: of the run.
        rounds_per_s, tasks_per_s: TRAIN rounds closed, and tasks of applied answers.
        utilisation: share of the actors' life spent on answers that were taken.
        wasted: why an answer was not taken -> share of the actors' life spent on such answers.
            `died`: the actor died over it; `unfinished`: in hand at the end; else the outcome.
        straggler_cost: 1 − answers applied ÷ those that actors of this speed could have given in
            their life if none had ever waited, repeated work or thrown it away. An EVALUATE
            answer counts by its number of tasks.
        tail: mean share of a TRAIN round between its median answer and its close; None in async
            mode, whose rounds overlap.
        staleness: of the applied TRAIN answers.
        rounds, versions: TRAIN rounds and TRAIN commits.
        applied: TRAIN answers applied.
        refused: outcome -> answers refused.
        sessions_joined, sessions_left, sessions_lost, leases_expired: how often.
        second_leases: given by speculation.
        checkpoints: written.
        deaths: of actors.
    """

    mode: str
    duration_s: float
    rounds_per_s: float
    tasks_per_s: float
    utilisation: float
    wasted: dict[str, float]
    straggler_cost: float
    tail: float | None
    staleness: Staleness
    rounds: int
    versions: int
    applied: int
    refused: dict[str, int]
    sessions_joined: int
    sessions_left: int
    sessions_lost: int
    leases_expired: int
    second_leases: int
    checkpoints: int
    deaths: int

    def plain(self) -> dict[str, Any]:
        """Return them as plain values, for JSON."""
        return asdict(self)


@dataclass
class Tally:
    """Counts of a run in progress.

    Attributes:
        life_s, capacity_s: of actors that are gone: seconds, and seconds ÷ factor.
        useful_s: computed for answers that were taken.
        wasted_s: reason -> computed for others.
        units: answers applied, each by its share of a TRAIN item's time.
        tails: shares of rounds.
    """

    started_at: float = 0.0
    life_s: float = 0.0
    capacity_s: float = 0.0
    useful_s: float = 0.0
    wasted_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    units: float = 0.0
    tails: list[float] = field(default_factory=list)
    staleness: Counter[int] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0
    deaths: int = 0

    def live(self, since: float, until: float, factor: float) -> None:
        """Add the life of an actor."""
        lived = max(0.0, until - max(since, self.started_at))
        self.life_s += lived
        self.capacity_s += lived / factor


def staleness_of(counts: Mapping[int, int]) -> Staleness:
    """Return the statistics of a histogram."""
    total = sum(counts.values())
    if not total:
        return Staleness(0.0, 0, 0, {})
    mean = sum(value * count for value, count in counts.items()) / total
    p95, seen = 0, 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= 0.95 * total:
            p95 = value
            break
    return Staleness(mean, p95, max(counts), {value: counts[value] for value in sorted(counts)})


def figures_of(
    mode: str, tally: Tally, now: float, mean_s: float, progress: tuple[int, int, int], applied: int
) -> Figures:
    """Return the figures of a finished run.

    Args:
        mean_s: mean time of a TRAIN item on an actor of factor 1.
        progress: rounds, versions and tasks.
        applied: TRAIN answers.
    """
    rounds, versions, tasks = progress
    duration = now - tally.started_at
    possible = tally.capacity_s / mean_s

    def per_s(count: float) -> float:
        return count / duration if duration > 0 else 0.0

    def share(part: float, whole: float) -> float:
        return part / whole if whole > 0 else 0.0

    events = tally.events
    return Figures(
        mode=mode,
        duration_s=duration,
        rounds_per_s=per_s(rounds),
        tasks_per_s=per_s(tasks),
        utilisation=share(tally.useful_s, tally.life_s),
        wasted={
            why: share(seconds, tally.life_s) for why, seconds in sorted(tally.wasted_s.items())
        },
        straggler_cost=1.0 - share(tally.units, possible),
        tail=sum(tally.tails) / len(tally.tails) if tally.tails else None,
        staleness=staleness_of(tally.staleness),
        rounds=rounds,
        versions=versions,
        applied=applied,
        refused=dict(sorted(tally.refused.items())),
        sessions_joined=events["joined"],
        sessions_left=events["left"],
        sessions_lost=events["lost"],
        leases_expired=events["lease_expired"],
        second_leases=events["speculated"],
        checkpoints=tally.checkpoints,
        deaths=tally.deaths,
    )
