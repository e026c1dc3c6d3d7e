"""The contract of a published experiment: which runs it needs, and what they come to. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, final

from dmaml.common.rundir import Row, read_rows, training_seconds
from dmaml.deploy.sweep import Cell, Measured, cell_of
from dmaml.report.bands import mean_and_half
from dmaml.report.charts import Picture

THESIS: Final = "Soulier 2020"
UNMEASURED: Final = "not measured"
_INDUCTIVE: Final = "_inductive"
CROWDED: Final = "Seconds are those of runs that share the cores with each other (--lanes)."


@dataclass(frozen=True)
class Form:
    """How an experiment is run.

    Attributes:
        quick: a smaller model and fewer rounds, meant to take at most ten minutes on two cores.
        seeds: experiments; run.seed is 1 .. seeds.
        smooth: curves are smoothed by a polynomial of degree 10.
    """

    quick: bool
    seeds: int
    smooth: bool = False

    def choose(self, quick: Any, full: Any) -> Any:
        """Return what this form takes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Variant:
    """One setting of an experiment, done once per seed.

    Attributes:
        label: for people; the name of its directories is made from it.
        settings: `section.key=value`, on top of the experiment's configuration.
        actors: Ray actors that work on each of its runs.
    """

    label: str
    settings: tuple[str, ...] = ()
    actors: int = 1

    def cell_name(self, seed: int) -> str:
        """Return the name of the directory of one seed's run."""
        return f"{re.sub(r'[^a-z0-9.]+', '-', self.label.lower()).strip('-')}-s{seed}"


@final
class Results:
    """The finished cells of an experiment."""

    def __init__(self, cells: Mapping[str, Measured]) -> None:
        self._cells = dict(cells)

    def of(self, variant: Variant, seeds: int) -> list[Measured]:
        """Return a variant's finished runs, by seed; those that failed are not among them."""
        names = (variant.cell_name(seed) for seed in range(1, seeds + 1))
        return [self._cells[name] for name in names if name in self._cells]

    def pairs(self, one: Variant, other: Variant, seeds: int) -> list[tuple[Measured, Measured]]:
        """Return two variants' runs of a seed, for each seed of which both are finished."""
        names = ((one.cell_name(seed), other.cell_name(seed)) for seed in range(1, seeds + 1))
        found = ((self._cells.get(a), self._cells.get(b)) for a, b in names)
        return [(a, b) for a, b in found if a is not None and b is not None]

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._cells.values())


@dataclass(frozen=True)
class Table:
    """Words and figures; the first row's cells are headings."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Published:
    """A published statement beside what was measured here."""

    what: str
    published: str
    measured: str
    source: str = THESIS
    verdict: str = ""


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to.

    Attributes:
        facts: figures for the JSON object, by name.
        notes: sentences about how to read them.
        headline: figures that stand at the top of the JSON object.
    """

    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    published: tuple[Published, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    headline: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Attributes:
        name: what `dmaml repro NAME` takes.
        title: one line.
        shows: which figures and tables of the thesis, or which claim, it is about.
        about: settings that the thesis's text leaves open and what was taken; one paragraph.
        config: YAML, the full form's; `configs/NAME.yaml` holds it.
        cells: the runs of a form.
        outcome: what they come to.
        is_timed: wall times matter: cells are done one at a time, whatever --lanes says.
        quick_seeds, full_seeds: experiments of a form where --seeds is not given.
    """

    name: str
    title: str
    shows: str
    about: str
    config: str
    cells: Callable[[Form], tuple[Cell, ...]]
    outcome: Callable[[Form, Results], Outcome]
    is_timed: bool = False
    quick_seeds: int = 3
    full_seeds: int = 3


def total_rounds(total: int, pipelines: int, warmup: int = 0) -> int:
    """Return the rounds after which so many tasks were seen as one pipeline sees in `total`.

    Args:
        pipelines: that train after the warm-up, each on as many tasks a round as a single one.
        warmup: rounds of a single pipeline before.
    """
    return warmup + (total - warmup) // pipelines


def cells_of(
    config: str, variants: Sequence[Variant], form: Form, common: tuple[str, ...] = ()
) -> tuple[Cell, ...]:
    """Return a cell for each seed and variant: first all variants of seed 1, then those of 2, ...

    Args:
        config: YAML.
        common: settings of all of them, below the variants' own.
    """
    return tuple(
        cell_of(
            variant.cell_name(seed), config, (*common, *variant.settings, f"run.seed={seed}"),
            variant.actors,
        )
        for seed in range(1, form.seeds + 1)
        for variant in variants
    )  # fmt: skip


# -- figures of finished runs ----------------------------------------------------------------------


def final_scores(runs: Sequence[Measured], metric: str = "accuracy", step: int = -1) -> list[float]:
    """Return each run's mean over its test tasks, after `step` adaptation steps (-1: the last)."""
    return [float(curve[step]) for curve in _curves(runs, metric, metric)]


def final_half(runs: Sequence[Measured], metric: str, step: int = -1) -> list[float]:
    """Return the half-width of each run's 95 % interval over its test tasks."""
    return [float(curve[step]) for curve in _curves(runs, metric, "ci95")]


def _curves(runs: Sequence[Measured], metric: str, what: str) -> list[Sequence[float]]:
    """Return each run's figures by step; a metric may end with `_inductive`."""
    tests = [run.finished.test for run in runs if run.finished.test is not None]
    if metric.endswith(_INDUCTIVE):
        tests = [test["inductive"] for test in tests if "inductive" in test]
    return [test[what.removesuffix(_INDUCTIVE)] for test in tests]


def points_between(
    results: Results, one: Variant, other: Variant, form: Form, metric: str = "accuracy"
) -> list[float]:
    """Return the final test figure of `one` less that of `other`, ×100, seed by seed.

    Runs of one seed start from the same θ, see the same tasks and are tested on the same ones. So
    the differences spread less than the figures, and their interval is what says whether the
    variants differ.
    """
    pairs = results.pairs(one, other, form.seeds)
    scores = [(final_scores([a], metric), final_scores([b], metric)) for a, b in pairs]
    return [100 * (a[0] - b[0]) for a, b in scores if a and b]


def percent(runs: Sequence[Measured], step: int = -1) -> str:
    """Return mean and 95 % interval of the final test accuracy in words, %."""
    return figure([100 * score for score in final_scores(runs, step=step)])


def figure(values: Sequence[float], digits: int = 1) -> str:
    """Return mean ± half-width over seeds in words; `–` where there is nothing."""
    if not values:
        return "–"
    mean, half = mean_and_half(values)
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def median_words(values: Sequence[float], worst: Any = min, digits: int = 1) -> str:
    """Return the median and the worst in brackets, or `–`."""
    if not values:
        return "–"
    return f"{median(values):.{digits}f} ({worst(values):.{digits}f})"


def validation(run: Measured, by: str, metric: str = "accuracy", step: int = -1) -> Any:
    """Return a run's validation curve as (x, y).

    Args:
        by: `rounds`, `tasks` (seen in training) or `seconds` (of training; validation left out).
        step: adaptation steps after which it is measured, -1: the last.
    """
    rounds = {row["version"]: row for row in run.rounds}
    points = [row for row in run.evaluations if metric in row["metrics"]]
    points = [row for row in points if row["version"] in rounds]
    place = _place_of(run, by)
    xs = [place(rounds[row["version"]]) for row in points]
    ys = [row["metrics"][metric]["mean"][step] for row in points]
    return xs, ys


def _place_of(run: Measured, by: str) -> Callable[[Row], float]:
    """Return what tells the x of a commit."""
    config = run.cell.config
    per_round = config.topology.slots * config.algorithm.tasks * config.algorithm.local_steps
    if by == "seconds":
        events = read_rows(run.folder, "worker_events")
        return lambda row: training_seconds(run.rounds, events, until=row["at"])
    if by == "tasks":
        return lambda row: row["tasks_seen"]
    if config.sync.mode == "sync":  # elsewhere a version is a commit, not a round
        return lambda row: row["version"]
    return lambda row: row["tasks_seen"] / per_round


def round_seconds(run: Measured, skipped: int = 3) -> list[float]:
    """Return the wall time of each training round but the first few, seconds."""
    rows = run.rounds[skipped:] if len(run.rounds) > 2 * skipped else run.rounds
    return [row["duration_s"] for row in rows]
