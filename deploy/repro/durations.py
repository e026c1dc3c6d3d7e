"""Figures 6.25 and 6.26, tables 6.2 and 6.4: how long a round takes when something is raised."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import numpy as np

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    figure,
    round_seconds,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.bands import Band, mean_and_half
from dmaml.report.charts import Line, Lines, Picture

PUBLISHED_PERCENT: Final = 143  # of the time of one worker, with 16 of them
ROUNDS: Final = 60
CONFIG: Final = (
    thesis.named("durations", thesis.OMNIGLOT)
    .replace("rounds: 1000", f"rounds: {ROUNDS}")
    .replace("every: 40", "every: 0")
    .replace("test_tasks: 1000", "test_tasks: 0")
)
SLEEPING: Final = (
    "task.source=dmaml.bench.simulated:Blank", "task.splits=default", "task.rotations=false",
    "algorithm.name=dmaml.bench.simulated:Sleeping", "algorithm.options.task_ms=20",
)  # fmt: skip
ONE: Final = Variant("none raised")
RAISED: Final = {
    "workers": "topology.slots={}",
    "epochs": "algorithm.local_steps={}",
    "tasks": "algorithm.tasks={}",
}


def _variants(what: str, is_simulated: bool) -> tuple[Variant, ...]:
    """Return a variant for each factor; with workers, actors grow together with slots."""
    found = [] if is_simulated else [ONE]
    for factor in thesis.FACTORS[len(found) :]:
        value = 32 * factor if what == "tasks" else factor
        settings: tuple[str, ...] = (RAISED[what].format(value),)
        if is_simulated:
            settings = (*SLEEPING, *settings)
        label = f"{what} × {factor}" + (", simulated" if is_simulated else "")
        found.append(Variant(label, settings, factor if what == "workers" else 1))
    return tuple(found)


REAL: Final = {what: _variants(what, is_simulated=False) for what in RAISED}
SIMULATED: Final = _variants("workers", is_simulated=True)


def _cells(form: Form) -> tuple[Cell, ...]:
    variants = [ONE, *(v for group in REAL.values() for v in group[1:]), *SIMULATED]
    small = ("model.width=16", "engine.chunk=32", "run.rounds=10") if form.quick else ()
    return cells_of(CONFIG, variants, form, small)


def _outcome(form: Form, results: Results) -> Outcome:
    groups = {**REAL, "workers, 20 ms a task simulated": SIMULATED}
    means = {what: _means(results, group, form) for what, group in groups.items()}
    rows = []
    for what, group in groups.items():
        for factor, variant in zip(thesis.FACTORS, group, strict=True):
            runs = results.of(variant, form.seeds)
            seconds = means[what].get(factor, [])
            rows.append((
                what, str(factor), _seen(runs), figure([1000 * s for s in seconds], 0),
                _relative(means[what], factor), figure([1000 * s / 60 for s in seconds], 1),
            ))  # fmt: skip
    columns = (
        "raised", "factor", "seen tasks per run", "time of a run, ms ± 95 %",
        "relative duration, %", "1,000 runs, minutes",
    )  # fmt: skip
    simulated = means["workers, 20 ms a task simulated"]
    panels = (
        _panel("mean wall time of a run (6.25)", "time of a run, seconds", means, 1.0),
        _panel("estimated time for 1,000 runs (6.26)", "time, minutes", means, 1000 / 60),
    )
    cores = len(os.sched_getaffinity(0))
    return Outcome(
        (Table("tables 6.2 and 6.4", columns, tuple(rows)),),
        (Picture("durations", f"Wall time by factor on {cores} cores, n = {form.seeds}", panels),),
        (
            Published(
                "time of 16 workers, of one worker's", f"{PUBLISHED_PERCENT} %",
                f"{_relative(simulated, 16)} % (simulated compute, 16 slots and actors)",
            ),
            Published(
                "seen tasks per run", "32 … 512",
                " … ".join(_seen(results.of(v, form.seeds)) for v in (SIMULATED[0], SIMULATED[-1])),
            ),
        ),
        {"round_s": means, "cores": cores},
        (
            f"Slots and actors grow together; {cores} cores share the real computation, so beyond "
            f"{cores} workers it takes longer in proportion. Simulated compute sleeps 20 ms a task "
            "and shows what server, transport and commit add.",
            "The mean is over all rounds but the first three of each run.",
        ),
    )  # fmt: skip


def _means(results: Results, variants: Sequence[Variant], form: Form) -> dict[int, list[float]]:
    """Return factor -> mean seconds of a round, for each seed."""
    found = {}
    for factor, variant in zip(thesis.FACTORS, variants, strict=True):
        runs = results.of(variant, form.seeds)
        if runs:
            found[factor] = [float(np.mean(round_seconds(run))) for run in runs]
    return found


def _seen(runs: Sequence[Measured]) -> str:
    if not runs:
        return "–"
    return f"{runs[0].finished.tasks_seen // runs[0].finished.version:,}"


def _relative(means: dict[int, list[float]], factor: int) -> str:
    if factor not in means or 1 not in means:
        return "–"
    return f"{100 * mean_and_half(means[factor])[0] / mean_and_half(means[1])[0]:.0f}"


def _panel(title: str, label: str, means: dict[str, dict[int, list[float]]], scale: float) -> Lines:
    lines = []
    for what, found in means.items():
        if found:
            pairs = [mean_and_half([scale * s for s in values]) for values in found.values()]
            middle, half = (np.array(column) for column in zip(*pairs, strict=True))
            count = min(len(values) for values in found.values())
            lines.append(Line(what, Band(np.array(list(found), dtype=float), middle, half, count)))
    return Lines(title, "factor", label, tuple(lines), is_log=True, has_points=True)


EXPERIMENTS: Final = (
    Experiment(
        "durations",
        "Wall time of a run by factor of workers, epochs and tasks",
        "figures 6.25, 6.26; tables 6.2, 6.4",
        f"{thesis.READING} Workers are slots and actors together. One run at a time. The quick "
        "form has 16 filters and 10 rounds.",
        CONFIG,
        _cells,
        _outcome,
        is_timed=True,
    ),
)
