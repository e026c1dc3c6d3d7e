"""Where the time of rounds goes, from the rows of a run's record. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean, median
from typing import Any

Row = Mapping[str, Any]


def durations(rounds: Sequence[Row]) -> list[float]:
    """Return the seconds from each commit to the next."""
    return [now["at"] - before["at"] for before, now in pairwise(rounds)]


def spread_of(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return median, mean and maximum."""
    figures = {"median": median(values), "mean": mean(values), "max": max(values)}
    return {name: round(value, digits) for name, value in figures.items()}


def phases(before: Row, now: Row) -> dict[str, float]:
    """Return what a synchronous round's time went to, seconds; the parts add up to it.

    It is measured from the end of the last computation of the round before to that of this one:

        turnaround: until the first actor begins: the last answer travels, the round is committed,
            the first lease travels;
        hand_out: until the actor begins that will end last;
        compute: what that actor computes, its sampling included.

    Every item is taken for the first of its actor in the round.
    """
    was_over = max(item["computed_at"] for item in before["items"])
    last = max(now["items"], key=lambda item: item["computed_at"])
    first_start = min(_start(item) for item in now["items"])
    return {
        "turnaround": first_start - was_over,
        "hand_out": _start(last) - first_start,
        "compute": last["computed_at"] - _start(last),
    }


def median_phases(rounds: Sequence[Row]) -> dict[str, float]:
    """Return the median of each phase and of the commit, milliseconds."""
    found: dict[str, list[float]] = {}
    for before, now in pairwise(rounds):
        parts = phases(before, now) | {"commit": now["timings"]["commit_s"]}
        for name, seconds in parts.items():
            found.setdefault(name, []).append(1000 * seconds)
    return {name: round(median(values), 2) for name, values in found.items()}


def tasks_per_s(rounds: Sequence[Row]) -> float:
    """Return the tasks that were applied per second, from the first of the rounds to the last."""
    first, last = rounds[0], rounds[-1]
    seen: int = last["tasks_seen"] - first["tasks_seen"]
    return seen / float(last["at"] - first["at"])


def relative_percent(seconds: Mapping[int, float]) -> dict[str, float]:
    """Return each duration in percent of that of the smallest key."""
    base = seconds[min(seconds)]
    return {str(key): round(100 * seconds[key] / base, 1) for key in sorted(seconds)}


def _start(item: Row) -> float:
    return float(item["computed_at"] - item["compute_s"] - item["sample_s"])
