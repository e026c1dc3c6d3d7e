"""Figures 6.1 to 6.3: does it learn at all, on Omniglot, miniImageNet and sine waves?"""

from __future__ import annotations

from typing import Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    Experiment,
    Form,
    Outcome,
    Results,
    Table,
    Variant,
    cells_of,
    figure,
    final_scores,
)
from dmaml.deploy.sweep import Cell
from dmaml.report.charts import Picture

_ONE: Final = Variant("one worker")


def _experiment(
    name: str, title: str, shows: str, about: str, text: str, quick: tuple[str, ...], metric: str
) -> Experiment:
    config = thesis.named(name, text)

    def cells(form: Form) -> tuple[Cell, ...]:
        return cells_of(config, (_ONE,), form, quick if form.quick else ())

    def outcome(form: Form, results: Results) -> Outcome:
        runs = results.of(_ONE, form.seeds)
        steps = range(runs[0].cell.config.evaluation.steps + 1) if runs else range(0)
        scale = 100 if metric == "accuracy" else 1
        unit = "accuracy, %" if metric == "accuracy" else "mean squared error"
        rows = []
        for step in steps:
            values = [scale * value for value in final_scores(runs, metric, step)]
            rows.append((str(step), figure(values, 1 if scale == 100 else 3)))
        panels = tuple(
            thesis.curves(results, (_ONE,), form, by, metric=metric) for by in ("rounds", "seconds")
        )
        return Outcome(
            (Table("final test", ("adaptation steps", f"{unit} ± 95 %"), tuple(rows)),),
            (Picture(name, f"{title}, n = {form.seeds}", panels),),
            facts={"test": thesis.scores_of(results, (_ONE,), form, metric)},
        )

    return Experiment(name, title, shows, f"{about} {CROWDED}", config, cells, outcome)


OMNIGLOT: Final = _experiment(
    "implementation_omniglot",
    "Implementation test on Omniglot, 5-way 1-shot",
    "figure 6.1; 3 validation steps",
    f"{thesis.READING} The quick form has 32 filters and 300 rounds.",
    thesis.OMNIGLOT,
    (
        "model.width=32", "run.rounds=300", "evaluation.every=20", "evaluation.tasks=100",
        "evaluation.test_tasks=600",
    ),
    "accuracy",
)  # fmt: skip
MINIIMAGENET: Final = _experiment(
    "implementation_miniimagenet",
    "Implementation test on miniImageNet at 28×28, 5-way 1-shot",
    "figure 6.2; 5 validation steps",
    f"{thesis.READING} For miniImageNet: α 0.1, pictures of 28×28, 150 a class. The quick form has "
    "32 filters and 250 rounds.",
    thesis.MINIIMAGENET,
    (
        "model.width=32", "run.rounds=250", "evaluation.every=20", "evaluation.tasks=100",
        "evaluation.test_tasks=600",
    ),
    "accuracy",
)  # fmt: skip
SINUSOID: Final = _experiment(
    "implementation_sinusoid",
    "Implementation test on sine waves, 5 points",
    "figure 6.3; 1 validation step",
    "Sine waves and network of Finn et al. (2017), section 5.1: 5 support and 10 query points, two "
    "hidden layers of 40, α 0.01. Ours: 32 tasks, θ − β Σ∇ with β 0.001, 20,000 rounds (quick: "
    "2,500).",
    thesis.SINUSOID,
    ("run.rounds=2500", "evaluation.every=125", "evaluation.test_tasks=600"),
    "mse",
)
EXPERIMENTS: Final = (OMNIGLOT, MINIIMAGENET, SINUSOID)
