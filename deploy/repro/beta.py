"""Figures 6.5 to 6.10: the search for β with 1 and with 10 workers, as a sweep over Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
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
from dmaml.report.bands import Band, mean_and_half
from dmaml.report.charts import Line, Lines, Picture

WORKERS: Final = (1, 10)
READING: Final = (
    "We read figures 6.5 to 6.10 as one each for 1 and for 10 workers on Omniglot (6.5, 6.6), "
    "miniImageNet (6.7, 6.8, for which 10 validation steps are known) and sine waves (6.9, 6.10). "
    "The values of β that were searched are not known to us."
)


def _experiment(
    data: str,
    title: str,
    shows: str,
    text: str,
    betas: Sequence[float],
    quick: tuple[str, ...],
    metric: str,
    about: str,
) -> Experiment:
    name = f"beta_{data}"
    config = thesis.named(name, text)
    grid = {
        (workers, beta): Variant(
            f"{workers} workers, beta {beta:g}", (f"topology.slots={workers}", f"outer.lr={beta:g}")
        )
        for workers in WORKERS
        for beta in betas
    }

    def cells(form: Form) -> tuple[Cell, ...]:
        return cells_of(config, tuple(grid.values()), form, quick if form.quick else ())

    def outcome(form: Form, results: Results) -> Outcome:
        scale = 100.0 if metric == "accuracy" else 1.0
        by_workers = {w: _by_beta(grid, results, form, metric, w, scale) for w in WORKERS}
        rows = [
            (f"{beta:g}", *(figure(by_workers[w].get(beta, []), 2) for w in WORKERS))
            for beta in betas
        ]
        best = {w: beta for w, found in by_workers.items() if (beta := _best(found, metric))}
        unit = "test accuracy, %" if metric == "accuracy" else "test mean squared error"
        columns = ("β", *(f"{w} worker{'s' * (w > 1)}: {unit}" for w in WORKERS))
        lines = tuple(
            Line(f"{w} worker{'s' * (w > 1)}", _band(found)) for w, found in by_workers.items()
        )
        by_round = tuple(
            thesis.curves(
                results, [grid[w, beta] for beta in betas], form, "rounds",
                f"{w} worker{'s' * (w > 1)}", metric, lambda v: v.label.partition(", ")[2],
            )
            for w in WORKERS
        )  # fmt: skip
        last = Lines("final test", "β", unit, lines, is_log=True, has_points=True)
        return Outcome(
            (Table("final test by β", columns, tuple(rows)),),
            (Picture(name, f"{title}, n = {form.seeds}", (*by_round, last)),),
            facts={
                "best_beta": {str(w): beta for w, beta in best.items()},
                "test": thesis.scores_of(results, [*grid.values()], form, metric),
            },
            notes=tuple(f"best measured β with {w} worker(s): {b:g}" for w, b in best.items()),
        )

    return Experiment(name, title, shows, f"{about} {READING}", config, cells, outcome)


def _by_beta(
    grid: dict[tuple[int, float], Variant], results: Results, form: Form, metric: str, workers: int,
    scale: float,
) -> dict[float, list[float]]:  # fmt: skip
    """Return β -> final test figure of each seed."""
    found = {
        beta: [scale * v for v in final_scores(results.of(variant, form.seeds), metric)]
        for (w, beta), variant in grid.items()
        if w == workers
    }
    return {beta: values for beta, values in found.items() if values}


def _best(found: dict[float, list[float]], metric: str) -> float | None:
    """Return the β with the best mean among those that were measured and did not diverge."""
    means = {beta: mean_and_half(values)[0] for beta, values in found.items()}
    finite = {beta: mean for beta, mean in means.items() if math.isfinite(mean)}
    choose = max if metric == "accuracy" else min
    return choose(finite, key=lambda beta: finite[beta]) if finite else None


def _band(found: dict[float, list[float]]) -> Band:
    kept = {beta: values for beta, values in found.items() if all(map(math.isfinite, values))}
    means = [mean_and_half(values) for values in kept.values()]
    count = min((len(values) for values in kept.values()), default=0)
    return Band(
        np.array(list(kept)),
        np.array([m for m, _ in means]),
        np.array([h for _, h in means]),
        count,
    )


EXPERIMENTS: Final = (
    _experiment(
        "omniglot",
        "Search for β on Omniglot",
        "figures 6.5, 6.6",
        thesis.OMNIGLOT.replace("lr: 0.01}", "lr: 0.001}"),
        (0.001, 0.003, 0.01, 0.03, 0.1),
        (
            "model.width=16", "engine.chunk=32", "run.rounds=30", "evaluation.every=5",
            "evaluation.tasks=100", "evaluation.test_tasks=600",
        ),
        "accuracy",
        f"{thesis.READING} The quick form has 16 filters and 30 rounds.",
    ),
    _experiment(
        "miniimagenet",
        "Search for β on miniImageNet at 28×28",
        "figures 6.7, 6.8; 10 validation steps",
        thesis.MINIIMAGENET.replace("lr: 0.01}", "lr: 0.001}").replace("steps: 5", "steps: 10"),
        (0.001, 0.003, 0.01, 0.03, 0.1),
        (
            "model.width=16", "engine.chunk=32", "run.rounds=30", "evaluation.every=6",
            "evaluation.tasks=100", "evaluation.test_tasks=600",
        ),
        "accuracy",
        f"{thesis.READING} For miniImageNet: α 0.1. The quick form has 16 filters and 30 rounds.",
    ),
    _experiment(
        "sinusoid",
        "Search for β on sine waves",
        "figures 6.9, 6.10",
        thesis.SINUSOID.replace("lr: 0.001}", "lr: 0.0001}").replace("20000", "5000"),
        (0.0001, 0.0003, 0.001, 0.003, 0.01),
        ("run.rounds=500", "evaluation.every=50", "evaluation.test_tasks=600"),
        "mse",
        "Settings of `implementation_sinusoid`; 5,000 rounds, in the quick form 500.",
    ),
)  # fmt: skip
