"""Learning curves: the query loss, the figure that counts, and the validations."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dmaml.report.binned import binned
from dmaml.report.record import RunRecord
from dmaml.report.section import (
    AFTER,
    BEFORE,
    VALIDATION,
    Section,
    Shown,
    Table,
    axes,
    figure_words,
    whole_numbers,
)

LABELS: Final = {
    "accuracy": "query accuracy (share of queries)",
    "accuracy_inductive": "inductive query accuracy (share of queries)",
    "loss": "query loss (nats)",
    "mse": "mean squared error",
    "return": "return (sum of rewards)",
    "adaptation_delta": "gain in return by adaptation",
}
WIDE: Final = 20.0
_OF_ROUNDS: Final = {"mse": "loss"}  # what a round calls it


def learning_curves(record: RunRecord) -> Section:
    """Return loss and main figure by round, before and after adaptation, with validations."""
    panels = ["loss", "accuracy"] if record.metric == "accuracy" else [record.metric]
    figure, found = axes(1, len(panels), 4.4 * len(panels), 3.2)
    for axis, metric in zip(found[0], panels, strict=True):
        _draw(axis, record, metric)
    found[0][-1].legend(loc="best")
    width = binned([row["version"] for row in record.rounds], [0.0] * len(record.rounds)).width
    spread = (
        f"Lines are means of {width} neighbouring {record.clock}s, the shade holds the middle 80 % "
        "of them."
        if width > 1
        else f"Every {record.clock} is a point of the lines."
    )
    caption = (
        f"Training and validation by {record.clock}. {spread} Points are validations on "
        f"{record.evaluations[-1]['num_tasks']} fixed tasks after the last adaptation step, with "
        "95 % intervals over tasks."
    )
    shown = Shown("learning_curves", caption, figure)
    return Section("Learning curves", (), (shown,), (_table(record),))


def _draw(axis: Any, record: RunRecord, metric: str) -> None:
    """Draw one figure of rounds and validations."""
    name = _OF_ROUNDS.get(metric, metric)
    versions = [row["version"] for row in record.rounds]
    has_steps = record.num_steps > 0 and _differ(record, name)
    lines = [(name, AFTER, "after adaptation" if has_steps else "training")]
    if has_steps:
        lines.insert(0, (f"{name}_before", BEFORE, "before adaptation"))
    for key, colour, label in lines:
        values = _values(record, key)
        if all(value is None for value in values):
            continue
        one = binned(versions, values)
        axis.plot(one.x, one.mean, color=colour, label=label)
        if one.width > 1:
            axis.fill_between(one.x, one.low, one.high, color=colour, alpha=0.18, linewidth=0)
    rows = [row for row in record.evaluations if metric in row["metrics"]]
    if metric in ("loss", "mse") and _is_wide(axis):
        axis.set_yscale("log")
    if rows:
        axis.errorbar(
            [row["version"] for row in rows],
            [row["metrics"][metric]["mean"][-1] for row in rows],
            yerr=[row["metrics"][metric]["ci95"][-1] for row in rows],
            color=VALIDATION, fmt="o", markersize=3.5, linewidth=1, capsize=2, label="validation",
            zorder=5,
        )  # fmt: skip
    axis.set_xlabel(record.clock)
    axis.set_ylabel(LABELS.get(metric, metric))
    whole_numbers(axis)
    if metric == "accuracy":
        axis.set_ylim(0.0, 1.02)


def _values(record: RunRecord, key: str) -> list[float | None]:
    """Return a figure of every round; None where a round has it not."""
    return [row["loss"] if key == "loss" else row["metrics"].get(key) for row in record.rounds]


def _differ(record: RunRecord, name: str) -> bool:
    """Tell whether training measures a figure before adaptation as well as after."""
    return _values(record, f"{name}_before") != _values(record, name)


def _is_wide(axis: Any) -> bool:
    """Tell whether the lines span more than a linear axis can show."""
    values = np.concatenate([line.get_ydata() for line in axis.lines])
    return bool(values.min() > 0 and values.max() > WIDE * values.min())


def _table(record: RunRecord) -> Table:
    """Return the validations as figures, the last ones where there are many."""
    metric = record.metric
    names = [n for n in (metric, f"{metric}_inductive") if n in record.evaluations[-1]["metrics"]]
    rows = [row for row in record.evaluations if all(n in row["metrics"] for n in names)]
    steps = record.num_steps
    columns = (record.clock, *(f"{n.replace('_', ', ')} ± 95 %" for n in names))
    cells = tuple(
        (
            str(row["version"]),
            *(
                figure_words(row["metrics"][n]["mean"][-1], row["metrics"][n]["ci95"][-1])
                for n in names
            ),
        )
        for row in rows[-8:]
    )
    which = "the last 8 of " if len(rows) > 8 else ""
    after = f" after {steps} step{'s' * (steps != 1)}" if steps else ""
    title = f"Validation{after} ({which}{len(rows)} validations)"
    return Table(title, columns, cells)
