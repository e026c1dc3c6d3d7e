"""Final accuracy of sync, quorum and async at equal tasks."""

from __future__ import annotations

from typing import Final

from dmaml.common.rundir import read_rows
from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    UNMEASURED,
    Experiment,
    Form,
    Outcome,
    Results,
    Table,
    Variant,
    cells_of,
    figure,
    final_scores,
    points_between,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.bands import mean_and_half
from dmaml.report.charts import Picture

ACTORS: Final = 5
CONFIG: Final = """\
run:        {name: modes, seed: 1, rounds: 500}
task:       {source: omniglot, splits: vinyals, n_way: 5, k_shot: 1, k_query: 1, rotations: true}
model:      {name: conv4, width: 32}
algorithm:  {name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 8}
engine:     {chunk: 8}
topology:   {slots: 5}
sync:       {mode: sync}
outer:      {name: adam, lr: 0.003, schedule: cosine}
evaluation: {every: 100, tasks: 100, steps: 3, k_query: 5, split: validation, test_tasks: 2000}
"""
SYNC: Final = Variant("sync", (), ACTORS)
# no grace: with five actors on fewer cores one answer of nearly every round is late
_QUORUM: Final = ("sync.mode=quorum", "sync.quorum=4", "sync.grace_s=0")
MERGE: Final = Variant("quorum 4 of 5, late merged", (*_QUORUM, "sync.late=merge"), ACTORS)
# as many answers in a commit as a round has slots: steps of the same size as in mode sync
ASYNC: Final = Variant(
    "async, window 3, batch 5", ("sync.mode=async", "sync.window=3", "sync.async_batch=5"), ACTORS
)
OTHERS: Final = (MERGE, ASYNC)


def _cells(form: Form) -> tuple[Cell, ...]:
    rounds = form.choose(150, 500)
    common = (*thesis.short(form, rounds), f"run.rounds={rounds}")
    return cells_of(CONFIG, (SYNC, *OTHERS), form, common)


def _outcome(form: Form, results: Results) -> Outcome:
    points = {v.label: points_between(results, v, SYNC, form) for v in OTHERS}
    rows = []
    for variant in (SYNC, *OTHERS):
        runs = results.of(variant, form.seeds)
        scores = [100 * score for score in final_scores(runs)]
        rows.append((
            variant.label, figure([run.finished.tasks_seen for run in runs], 0),
            figure([run.finished.version for run in runs], 0), figure(scores, 2),
            figure(points[variant.label], 2) if variant in OTHERS else "",
            figure([run.finished.train_s for run in runs], 0),
            figure([_late(run) for run in runs], 0),
        ))  # fmt: skip
    columns = (
        "mode", "tasks seen", "commits", "test accuracy, % ± 95 %", "less sync, points ± 95 %",
        "training, s", "answers late or stale",
    )  # fmt: skip
    found = {label: mean_and_half(values) for label, values in points.items() if values}
    panel = thesis.curves(results, (SYNC, *OTHERS), form, "tasks", "validation")
    worst = max(abs(mean) for mean, _ in found.values()) if len(found) == len(OTHERS) else None
    test_tasks = _cells(form)[0].config.evaluation.test_tasks
    seeds = min(len(values) for values in points.values())
    return Outcome(
        (Table("modes at equal tasks", columns, tuple(rows)),),
        (Picture("modes", f"Modes, 5 slots and 5 actors, n = {form.seeds}", (panel,)),),
        facts={
            "test": thesis.scores_of(results, (SYNC, *OTHERS), form),
            "points_from_sync": {
                label: {"mean": mean, "ci95": half} for label, (mean, half) in found.items()
            },
        },
        notes=(
            "The largest distance of a mode from sync is "
            + (UNMEASURED if worst is None else f"{worst:.2f} points")
            + f" (required: 1), on {test_tasks:,} test tasks × {seeds} "
            f"seed{'s' * (seeds != 1)}.",
            "Less sync, seed by seed: "
            + "; ".join(f"{label}: {figure(values, 2)}" for label, values in points.items())
            + " points (mean of the differences and its 95 % interval).",
        ),
    )


def _late(run: Measured) -> float:
    """Return how many answers came after their round, or were of older parameters."""
    stale = sum(item["staleness"] > 0 for row in run.rounds for item in row["items"])
    events = read_rows(run.folder, "worker_events")
    return float(stale + sum(row["event"] == "refused" for row in events))


EXPERIMENTS: Final = (
    Experiment(
        "modes",
        "Final accuracy of sync, quorum and async at equal tasks",
        "what asynchrony costs; the thesis is synchronous",
        "Omniglot 5-way 1-shot, 32 filters, 5 slots of 8 tasks, 5 actors, Adam at 0.003 "
        "that falls by a cosine, 500 rounds, 2,000 test tasks after 3 steps. Quorum closes at 4 "
        "of 5 without grace, so that there are late answers; they are merged with a discount. "
        "Async: window 3, commits of 5 answers (with a commit for each, 5 times as many steps at "
        "this rate lose accuracy), no limit of staleness. The quick form has 16 filters, 150 "
        f"rounds and 600 test tasks. {CROWDED}",
        CONFIG,
        _cells,
        _outcome,
    ),
)
