"""What `dmaml watch` knows of a run, and how it looks on a terminal. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from dmaml.common.intervals import main_metric
from dmaml.common.items import RunState
from dmaml.common.rundir import Row

BLOCKS: Final = "▁▂▃▄▅▆▇█"
WIDTH: Final = 40  # characters of a sparkline: a terminal has 80 and more
KEPT: Final = 20_000  # points of a curve
EVENTS: Final = 6
ACTORS: Final = 12  # lines of the table
OVER: Final = ("finished", "failed")
Points = tuple[tuple[int, float], ...]  # (version, value), by version


@dataclass(frozen=True)
class Actor:
    """One line of the table of actors; `idle_s` is how long it has been silent."""

    name: str
    host: str
    leases: int
    answers: int
    idle_s: float


@dataclass(frozen=True)
class View:
    """A run as its watcher sees it.

    Attributes:
        state: a run state in lower case, or `without a server`.
        loss, score, validation: curves; `metric` says of what the last two are.
        gamma: γ in words; "" without clustering.
        events: (Unix time, words), oldest first.
    """

    name: str = ""
    state: str = "waiting"
    message: str = ""
    trained: int = 0
    rounds: int = 0
    tasks_per_s: float = 0.0
    metric: str = ""
    loss: Points = ()
    score: Points = ()
    validation: Points = ()
    gamma: str = ""
    actors: tuple[Actor, ...] = ()
    events: tuple[tuple[float, str], ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the run is finished or failed."""
        return self.state in OVER


def with_status(view: View, status: Any, now: float) -> View:
    """Return the view after the server's status at a Unix time.

    Args:
        status: a `StatusReply`.
    """
    metrics, tests = dict(status.metrics), dict(status.validation)
    version = int(status.version)
    metric = _metric(view.metric, metrics, tests)
    state = RunState(status.state).name.lower()
    actors = tuple(
        Actor(w.worker_id, w.host, w.leases, w.contributions, w.idle_s) for w in status.workers
    )
    loss, score, validation = view.loss, view.score, view.validation
    if version:
        loss = _grown(loss, version, status.query_loss)
        score = _grown(score, version, metrics.get(metric))
        value = tests.get(metric)
        if value is not None and (not validation or validation[-1][1] != value):
            validation = _grown(validation, version, value)
    return replace(
        view, name=status.name, state=state, message=status.message, trained=int(status.trained),
        rounds=int(status.rounds), tasks_per_s=status.tasks_per_s, metric=metric, loss=loss,
        score=score, validation=validation, actors=actors,
        events=(view.events + _changes(view, state, actors, now))[-EVENTS:],
    )  # fmt: skip


def with_rows(
    view: View, rounds: Sequence[Row], evaluations: Sequence[Row], events: Sequence[Row]
) -> View:
    """Return the view after rows of the run's record, which are new."""
    metric = view.metric
    loss, score, validation = list(view.loss), list(view.score), list(view.validation)
    for row in evaluations:
        metric = _metric(metric, {}, row["metrics"])
        if metric in row["metrics"]:
            validation.append((row["version"], row["metrics"][metric]["mean"][-1]))
    for row in rounds:
        metric = _metric(metric, row["metrics"], {})
        if row["loss"] is not None:
            loss.append((row["version"], row["loss"]))
        if metric in row["metrics"]:
            score.append((row["version"], row["metrics"][metric]))
    lines = tuple((row["at"], row["message"]) for row in events)
    return replace(
        view, metric=metric, loss=tuple(loss[-KEPT:]), score=tuple(score[-KEPT:]),
        validation=tuple(validation[-KEPT:]), events=(view.events + lines)[-EVENTS:],
        trained=max([view.trained, *(row["version"] for row in rounds)]),
    )  # fmt: skip


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return a curve as blocks, each the mean of neighbouring values; flat where they are equal."""
    if not values:
        return ""
    bins = min(width, len(values))
    edges = [i * len(values) // bins for i in range(bins + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if not high > low:
        return BLOCKS[0] * bins
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((mean - low) / (high - low) * top)] for mean in means)


def screen(view: View) -> RenderableType:
    """Return the view as rich draws it."""
    speed = f"  {view.tasks_per_s:.1f} tasks/s" if view.tasks_per_s else ""
    head = Text.assemble(
        ("run ", "dim"), (view.name, "bold"), "  ", (view.state, _STYLES.get(view.state, "")),
        f"  round {view.trained}/{view.rounds}{speed}",
    )  # fmt: skip
    parts: list[RenderableType] = [head]
    if view.message:
        parts.append(Text(view.message, style="yellow"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    if view.rounds:
        bar = ProgressBar(total=view.rounds, completed=view.trained, width=WIDTH)
        grid.add_row(Text("rounds", style="dim"), f"{view.trained / view.rounds:.0%}", bar)
    for name, points in _curves(view):
        values = [value for _, value in points]
        words = f"{values[0]:.3f} → {values[-1]:.3f}"
        grid.add_row(Text(name, style="dim"), words, sparkline(values))
    parts.append(grid)
    if view.gamma:
        parts.append(Text.assemble(("γ  ", "dim"), view.gamma))
    if view.actors:
        parts.append(_actor_table(view.actors))
    for at, words in view.events:
        parts.append(Text.assemble((time.strftime("%H:%M:%S ", time.localtime(at)), "dim"), words))
    return Group(*parts)


_STYLES: Final = {"running": "green", "finished": "green", "failed": "red", "paused": "yellow"}


def _curves(view: View) -> list[tuple[str, Points]]:
    found = [
        ("loss", view.loss),
        (view.metric, view.score),
        (f"validation {view.metric}", view.validation),
    ]
    return [(name, points) for name, points in found if points]


def _actor_table(actors: Sequence[Actor]) -> Table:
    table = Table(
        Column("actor", no_wrap=True), Column("host"), Column("leases", justify="right"),
        Column("answers", justify="right"), Column("silent s", justify="right"), box=None,
        padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    for one in actors[:ACTORS]:
        table.add_row(one.name, one.host, str(one.leases), str(one.answers), f"{one.idle_s:.1f}")
    if len(actors) > ACTORS:
        table.add_row(f"and {len(actors) - ACTORS} more", "", "", "", "")
    return table


def _metric(known: str, metrics: dict[str, Any], tests: dict[str, Any]) -> str:
    """Return the figure that stands for the method; a regression names it when it validates."""
    if known or tests:
        return known or main_metric(tests)
    name = main_metric(metrics)
    return "" if name == "loss" else name


def _grown(points: Points, version: int, value: float | None) -> Points:
    if value is None or (points and points[-1][0] >= version):
        return points
    return (*points, (version, value))[-KEPT:]


def _changes(
    view: View, state: str, actors: Sequence[Actor], now: float
) -> tuple[tuple[float, str], ...]:
    """Return what a status says that the one before did not."""
    before, after = ({a.name for a in group} for group in (view.actors, actors))
    words = [f"actor {name} came" for name in sorted(after - before)]
    words += [f"actor {name} is gone" for name in sorted(before - after)]
    if view.state not in ("waiting", state):
        words.append(f"the run is {state}")
    return tuple((now, one) for one in words)
