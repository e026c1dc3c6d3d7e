"""How far each adaptation step brings the model, at the first, a middle and the last validation."""

from __future__ import annotations

from dmaml.report.curves import LABELS
from dmaml.report.record import RunRecord
from dmaml.report.section import (
    Section,
    Shown,
    Table,
    axes,
    figure_words,
    line_style,
    whole_numbers,
)


def by_step(record: RunRecord) -> Section | None:
    """Return the main figure after 0, 1, ... steps; None of a method that takes no steps."""
    metric = record.metric
    rows = [row for row in record.evaluations if metric in row["metrics"]]
    if not record.num_steps:
        return None
    chosen = [rows[i] for i in sorted({0, (len(rows) - 1) // 2, len(rows) - 1})]
    inductive = f"{metric}_inductive"
    names = [n for n in (metric, inductive) if n in rows[-1]["metrics"]]
    figure, found = axes(1, len(names), 4.0 * len(names), 3.1, sharey=True)
    for axis, name in zip(found[0], names, strict=True):
        for number, row in enumerate(chosen):
            means, half = row["metrics"][name]["mean"], row["metrics"][name]["ci95"]
            axis.errorbar(
                range(len(means)), means, yerr=half, capsize=2, marker="os^"[number], markersize=4,
                label=f"{record.clock} {row['version']}", **line_style(number),
            )  # fmt: skip
        axis.set_xlabel("adaptation steps")
        axis.set_ylabel(LABELS.get(name, name))
        whole_numbers(axis)
    found[0][0].legend()
    caption = (
        f"The {metric} of {rows[-1]['num_tasks']} {rows[-1]['split']} tasks after each adaptation "
        "step, with 95 % intervals over tasks."
    )
    if inductive in names:
        caption += " Left: batch norm over the query set (transductive); right: inductive."
    last = rows[-1]["metrics"]
    steps = range(len(last[metric]["mean"]))
    table = Table(
        f"After {record.clock} {rows[-1]['version']}",
        ("steps", *(f"{n.replace('_', ', ')} ± 95 %" for n in names)),
        tuple(
            (str(s), *(figure_words(last[n]["mean"][s], last[n]["ci95"][s]) for n in names))
            for s in steps
        ),
    )
    return Section("By adaptation step", (), (Shown("by_step", caption, figure),), (table,))
