"""Workers against tasks: the same tasks in 16 slots or in one, and why the thesis saw a loss."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np

from dmaml.common import checkpoint as checkpoints
from dmaml.common.layout import Flat
from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    UNMEASURED,
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

# of ONE: 1/16 of the others' tasks a round, in 16 times their rounds
CONFIG: Final = (
    thesis.named("workers_vs_tasks", thesis.OMNIGLOT)
    .replace("rounds: 1000", "rounds: 3200")
    .replace("every: 40", "every: 160")
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
    common = (*thesis.short(form, rounds), f"run.rounds={rounds}", f"evaluation.every={every}")
    longer = (f"run.rounds={16 * rounds}", f"evaluation.every={16 * every}")
    one = Variant(ONE.label, longer)  # as many tasks in all
    return cells_of(CONFIG, (one, SPLIT_STEP, WHOLE_STEP, *SAME, THESIS), form, common)


def _outcome(form: Form, results: Results) -> Outcome:
    shown = (*SAME, THESIS, ONE)
    rounds = form.choose(30, 200)
    panels = tuple(
        _panel(results, form, by, title, limit)
        for by, title, limit in (
            ("rounds", "by round", rounds), ("tasks", "by task seen", 512 * rounds)
        )
    )  # fmt: skip
    step = _gradient_difference(results, form)
    curve = _curve_difference(results, form)
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
            "One round of 16 slots × 32 tasks and of 1 slot × 512: the largest difference of an "
            "element of the gradients is "
            + (UNMEASURED if step is None else f"{step:.1e}")
            + " (required: 1e-5).",
            "The largest distance between two of their validation curves (mean and mean; mean; "
            "sum; sum and sum) is "
            + (UNMEASURED if curve is None else f"{100 * curve:.2f} points")
            + ".",
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


def _gradient_difference(results: Results, form: Form) -> float | None:
    """Return the largest difference of an element of two gradients (β = 1, so of θ), or None."""
    pairs = results.pairs(SPLIT_STEP, WHOLE_STEP, form.seeds)
    return max((float(np.abs(_theta(a) - _theta(b)).max()) for a, b in pairs), default=None)


def _curve_difference(results: Results, form: Form) -> float | None:
    """Return the largest distance of two of the equal curves at one point of a seed.

    None unless every two of them are both there, in one seed or more, and all over the same rounds.
    """
    found: list[float] = []
    for one, other in combinations(SAME, 2):
        pairs = results.pairs(one, other, form.seeds)
        distances = [_distance(a, b) for a, b in pairs]
        if not pairs or None in distances:
            return None
        found += [distance for distance in distances if distance is not None]
    return max(found)


def _distance(one: Measured, other: Measured) -> float | None:
    (xa, ya), (xb, yb) = (validation(run, "rounds") for run in (one, other))
    return float(np.abs(np.array(ya) - np.array(yb)).max()) if xa and xa == xb else None


EXPERIMENTS: Final = (
    Experiment(
        "workers_vs_tasks",
        "16 slots × 32 tasks against one slot × 512 tasks",
        "why workers cost accuracy per task in the thesis (6.4, 6.11, 6.17)",
        f"{thesis.READING} Means take β = 512 × 0.01, so that their steps are those of the sums. "
        f"The quick form has 16 filters and 30 rounds. {CROWDED}",
        CONFIG,
        _cells,
        _outcome,
    ),
)
