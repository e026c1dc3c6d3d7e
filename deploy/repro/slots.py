"""Workers against tasks: the same tasks in 16 slots or in one, and why the thesis saw a loss."""

from __future__ import annotations

from typing import Final

import numpy as np

from dmaml.common import checkpoint as checkpoints
from dmaml.common.layout import Flat
from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Variant,
    cells_of,
    figure,
    percent,
    points_between,
    validation,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.charts import Line, Lines, Picture

CONFIG: Final = thesis.named("workers_vs_tasks", thesis.OMNIGLOT).replace(
    "rounds: 1000", "rounds: 200"
)
_MEANS: Final = ("algorithm.task_reduction=mean", "outer.lr=5.12")  # 512 × 0.01
_SPLIT: Final = ("topology.slots=16", "algorithm.tasks=32")
_WHOLE: Final = ("topology.slots=1", "algorithm.tasks=512")
SPLIT_MEAN: Final = Variant("16 slots × 32 tasks, mean and mean", (*_SPLIT, *_MEANS))
WHOLE_MEAN: Final = Variant("1 slot × 512 tasks, mean", (*_WHOLE, *_MEANS))
WHOLE_SUM: Final = Variant("1 slot × 512 tasks, sum", _WHOLE)
SPLIT_SUM: Final = Variant("16 slots × 32 tasks, sum and sum", (*_SPLIT, "aggregation.name=sum"))
THESIS: Final = Variant("16 slots × 32 tasks, sum over tasks, mean over slots", _SPLIT)
ONE: Final = Variant("1 slot × 32 tasks, sum")
# one round with β = 1 moves θ by the gradient itself. Chunks of 8: with a slot's 32 tasks in one
# chunk both would add the same numbers in the same order, and be equal to the bit
_GRADIENT: Final = (
    "engine.chunk=8", "algorithm.task_reduction=mean", "outer.lr=1.0", "run.rounds=1",
    "evaluation.every=0", "evaluation.test_tasks=0",
)  # fmt: skip
SPLIT_STEP: Final = Variant("one step of 16 slots × 32 tasks", (*_SPLIT, *_GRADIENT))
WHOLE_STEP: Final = Variant("one step of 1 slot × 512 tasks", (*_WHOLE, *_GRADIENT))
SAME: Final = (SPLIT_MEAN, WHOLE_MEAN, SPLIT_SUM, WHOLE_SUM)


def _cells(form: Form) -> tuple[Cell, ...]:
    rounds, every = form.choose(30, 200), form.choose(2, 10)
    common = (*thesis.short(form, rounds), f"evaluation.every={every}")
    longer = (f"run.rounds={16 * rounds}", f"evaluation.every={16 * every}")
    one = Variant(ONE.label, longer)  # as many tasks in all
    return cells_of(CONFIG, (SPLIT_STEP, WHOLE_STEP, *SAME, THESIS, one), form, common)


def _outcome(form: Form, results: Results) -> Outcome:
    shown = (*SAME, THESIS, ONE)
    rounds = form.choose(30, 200)
    panels = tuple(
        _panel(results, form, by, title, limit)
        for by, title, limit in (
            ("rounds", "by round", rounds), ("tasks", "by task seen", 512 * rounds)
        )
    )  # fmt: skip
    step = _largest(results, SPLIT_STEP, WHOLE_STEP, form)
    curve = max(
        (_curve_distance(results, a, b, form) for a in SAME for b in SAME), default=float("nan")
    )
    less = points_between(results, THESIS, SPLIT_MEAN, form)
    scores = {v.label: percent(results.of(v, form.seeds)) for v in shown}
    return Outcome(
        (thesis.final_table(results, shown, form, "slots × tasks, reductions", base=WHOLE_MEAN),),
        (Picture("workers_vs_tasks", f"512 tasks a round, n = {form.seeds}", panels, columns=2),),
        (
            Published(
                "accuracy per seen task with 16 workers",
                "lower than with one",
                f"{scores[THESIS.label]} % with the thesis's sum and mean, "
                f"{scores[SPLIT_MEAN.label]} % with means, after as many tasks "
                f"({figure(less, 1)} points, seed by seed)",
            ),
        ),
        {
            "gradient_difference": step,
            "largest_validation_difference": curve,
            "points_of_the_thesis_from_means": less,
            "test": thesis.scores_of(results, shown, form),
        },
        (
            f"One round of 16 slots × 32 tasks and of 1 slot × 512: the gradients differ by at "
            f"most {step:.1e} in any element (required: 1e-5).",
            f"Their validation curves (mean and mean; sum; sum and sum) differ by at most "
            f"{100 * curve:.2f} points.",
            "Why the thesis saw a loss: the sum over a worker's tasks with the mean over workers "
            "makes a step of β/16 Σ over all 512 tasks, as long as that of one worker with 32 "
            "tasks. Sixteen times the tasks buy a less noisy direction and no longer step.",
        ),
    )


def _panel(results: Results, form: Form, by: str, title: str, limit: float) -> Lines:
    """Return the equal ones as one wide grey line and one dashed, and the thesis's two."""
    labels = {
        SPLIT_MEAN.label: "16 slots × 32 tasks: means, or sums",
        WHOLE_MEAN.label: "1 slot × 512 tasks: mean, or sum",
        THESIS.label: "16 × 32: sum over tasks, mean over slots (thesis)",
        ONE.label: "1 slot × 32 tasks: sum (thesis)",
    }
    chosen = (SPLIT_MEAN, WHOLE_MEAN, THESIS, ONE)
    whole = thesis.curves(
        results, chosen, form, by, title, label=lambda variant: labels[variant.label]
    )
    lines = tuple(
        Line(line.label, line.band, is_reference=line.label == labels[SPLIT_MEAN.label])
        for line in whole.lines
    )
    return Lines(title, whole.x_label, whole.y_label, lines, whole.y_limits, x_limit=limit)


def _theta(run: Measured) -> Flat:
    latest, _ = checkpoints.load_latest(run.folder)
    assert latest is not None
    return checkpoints.thetas_of(latest)[0]


def _largest(results: Results, one: Variant, other: Variant, form: Form) -> float:
    """Return the largest difference of an element of two gradients (β = 1, so of θ)."""
    found = 0.0
    for a, b in results.pairs(one, other, form.seeds):
        found = max(found, float(np.abs(_theta(a) - _theta(b)).max()))
    return found


def _curve_distance(results: Results, one: Variant, other: Variant, form: Form) -> float:
    pairs = results.pairs(one, other, form.seeds)
    return max((_distance(a, b) for a, b in pairs), default=0.0)


def _distance(one: Measured, other: Measured) -> float:
    ya, yb = (np.array(validation(run, "rounds")[1]) for run in (one, other))
    return float(np.abs(ya - yb).max()) if len(ya) == len(yb) and len(ya) else 0.0


EXPERIMENTS: Final = (
    Experiment(
        "workers_vs_tasks",
        "16 slots × 32 tasks against one slot × 512 tasks",
        "why workers cost accuracy per task in the thesis (6.4, 6.11, 6.17)",
        f"{thesis.READING} Means take β = 512 × 0.01, so that their steps are those of the sums. "
        "The quick form has 16 filters and 30 rounds.",
        CONFIG,
        _cells,
        _outcome,
    ),
)
