"""What the experiments of the thesis share: its settings, and pictures of its kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dmaml.deploy.repro.experiment import (
    Form,
    Results,
    Table,
    Variant,
    figure,
    final_scores,
    percent,
    points_between,
    validation,
)
from dmaml.report.bands import band, smoothed
from dmaml.report.charts import Line, Lines

OMNIGLOT: Final = """\
run:        {name: NAME, seed: 1, rounds: 1000}
task:       {source: omniglot, splits: vinyals, n_way: 5, k_shot: 1, k_query: 1, rotations: true}
model:      {name: conv4, width: 64}
algorithm:  {name: maml, order: second, inner_lr: 0.4, inner_steps: 1, inner_reduction: mean,
             tasks: 32, task_reduction: sum, local_steps: 1}
engine:     {chunk: 16}
topology:   {slots: 1}
weights:    {name: mean}
outer:      {name: sgd, lr: 0.01}
evaluation: {every: 40, tasks: 200, steps: 3, k_query: 1, split: validation, test_tasks: 1000}
"""
MINIIMAGENET: Final = """\
run:        {name: NAME, seed: 1, rounds: 1000}
task:       {source: "npz:miniimagenet28.npz", n_way: 5, k_shot: 1, k_query: 1}
model:      {name: conv4, width: 64}
algorithm:  {name: maml, order: second, inner_lr: 0.1, inner_steps: 1, inner_reduction: mean,
             tasks: 32, task_reduction: sum, local_steps: 1}
engine:     {chunk: 16}
topology:   {slots: 1}
weights:    {name: mean}
outer:      {name: sgd, lr: 0.01}
evaluation: {every: 40, tasks: 200, steps: 5, k_query: 1, split: validation, test_tasks: 1000}
"""
SINUSOID: Final = """\
run:        {name: NAME, seed: 1, rounds: 20000}
task:       {source: sinusoid, n_way: 1, k_shot: 5, k_query: 10}
model:      {name: mlp, hidden: [40, 40]}
algorithm:  {name: maml, order: second, inner_lr: 0.01, inner_steps: 1, inner_reduction: mean,
             tasks: 32, task_reduction: sum, local_steps: 1}
engine:     {chunk: 32}
topology:   {slots: 1}
weights:    {name: mean}
outer:      {name: sgd, lr: 0.001}
evaluation: {every: 800, tasks: 200, steps: 1, k_query: 10, split: validation, test_tasks: 600}
"""
READING: Final = (
    "Table 5.1 of the thesis gives k_support 1, k_query 1, α 0.4, β 0.01, 32 tasks, 1 epoch, "
    "1 gradient step, 3 validation steps. What our sources leave open is taken so: 5 ways, conv4 "
    "with 64 filters, 1,000 runs (a run of the thesis is a round), θ − β Σ∇ with the gradients "
    "summed over tasks and averaged over workers, validation every 40 rounds on 200 tasks rather "
    "than after every run on 10, a final test on 1,000 tasks."
)
CLOSE: Final = 0.8
FACTORS: Final = (1, 2, 4, 8, 16)
Y_LABEL: Final = {
    "accuracy": "validation accuracy",
    "mse": "validation mean squared error",
    "return": "validation return",
}
X_LABEL: Final = {
    "rounds": "rounds",
    "tasks": "training tasks seen",
    "seconds": "training time, seconds",
}


def named(name: str, text: str) -> str:
    """Return a configuration with its name."""
    return text.replace("NAME", name)


def short(form: Form, rounds: int, points: int = 12) -> tuple[str, ...]:
    """Return the settings of a quick form with so many rounds, or none for the full one."""
    quick = (
        "model.width=16", "engine.chunk=32", f"run.rounds={rounds}",
        f"evaluation.every={max(1, rounds // points)}", "evaluation.tasks=100",
        "evaluation.test_tasks=600",
    )  # fmt: skip
    return quick if form.quick else ()


def curves(
    results: Results,
    variants: Sequence[Variant],
    form: Form,
    by: str,
    title: str = "",
    metric: str = "accuracy",
    label: Callable[[Variant], str] = lambda variant: variant.label,
) -> Lines:
    """Return a panel with each variant's validation curve, mean and 95 % band over seeds.

    Accuracy is shown from 0 to 1, or only as far as it reaches where all of it lies above CLOSE.

    Args:
        by: `rounds`, `tasks` or `seconds`.
    """
    lines = []
    for variant in variants:
        runs = [validation(run, by, metric) for run in results.of(variant, form.seeds)]
        runs = [(x, y) for x, y in runs if x]
        if runs:
            one = band(runs)
            lines.append(Line(label(variant), smoothed(one) if form.smooth else one))
    close = all(line.band.mean.min() > CLOSE for line in lines)
    limits = (0.0, 1.0) if metric == "accuracy" and not (lines and close) else None
    return Lines(title or f"by {by}", X_LABEL[by], Y_LABEL[metric], tuple(lines), limits)


def final_table(
    results: Results,
    variants: Sequence[Variant],
    form: Form,
    heading: str,
    metric: str = "accuracy",
    base: Variant | None = None,
) -> Table:
    """Return the final test figures of each variant, with the tasks that it has seen.

    Args:
        base: a variant from which each one's distance is shown too, seed by seed; only accuracy.
    """
    rows: list[tuple[str, ...]] = []
    for variant in variants:
        runs = results.of(variant, form.seeds)
        values = final_scores(runs, metric)
        score = percent(runs) if metric == "accuracy" else figure(values, 3)
        seen = f"{runs[0].finished.tasks_seen:,}" if runs else "–"
        seconds = figure([run.finished.train_s for run in runs], 0)
        row = (variant.label, seen, score, seconds, str(len(runs)))
        rows.append(row if base is None else (*row, _from(results, variant, base, form)))
    unit = "test accuracy, %" if metric == "accuracy" else "test mean squared error"
    columns: tuple[str, ...] = (heading, "tasks seen", f"{unit} ± 95 %", "training, s", "seeds")
    if base is not None:
        columns = (*columns, f"less {base.label}, points ± 95 %")
    return Table("final test", columns, tuple(rows))


def _from(results: Results, variant: Variant, base: Variant, form: Form) -> str:
    return "" if variant == base else figure(points_between(results, variant, base, form), 2)


def scores_of(
    results: Results, variants: Sequence[Variant], form: Form, metric: str = "accuracy"
) -> dict[str, list[float]]:
    """Return label -> final test figure of each seed."""
    return {
        variant.label: final_scores(results.of(variant, form.seeds), metric) for variant in variants
    }
