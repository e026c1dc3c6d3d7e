"""How much adaptation changes each layer: CKA before against after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmaml.common.intervals import interval
from dmaml.report.charts import MARKERS
from dmaml.report.features.subject import Similarity, Subject
from dmaml.report.section import Section, Shown, Table, axes, figure_words, line_style

Found = Sequence[tuple[Subject, Similarity]]


def alignment(found: Found) -> Section:
    """Return CKA of each layer with itself and with the others, and its figures."""
    figure, made = axes(
        1, 1 + len(found), 3.4 + 3.3 * len(found), 3.2, width_ratios=[1.15] + [1.0] * len(found)
    )
    _lines(made[0][0], found)
    for axis, (subject, one) in zip(made[0][1:], found, strict=True):
        _matrix(axis, subject, one)
    tasks = len(found[0][1].tables)
    caption = (
        "Similarity (linear CKA, unbiased) between what the layers give for a task's queries "
        "before and after adaptation: 1 where adaptation left a layer's features as they were, 0 "
        f"where nothing of them is left. Means over {tasks} test tasks, left with 95 % intervals "
        "of each layer with itself. A layer stands for all that follows it up to the next; the "
        "last gives the scores (–: the same for every picture before adaptation)."
    )
    return Section(
        "What adaptation changes", (), (Shown("cka", caption, figure),), (_table(found),)
    )


def _lines(axis: Any, found: Found) -> None:
    for number, (subject, one) in enumerate(found):
        kept = np.diagonal(one.tables, axis1=1, axis2=2)
        good = np.isfinite(kept).all(axis=0)
        figures = interval(kept)
        places = np.flatnonzero(good)
        mean, half = (np.array(figures[name])[good] for name in ("mean", "ci95"))
        axis.errorbar(
            places, mean, yerr=[half, np.clip(1 - mean, 0, half)],  # CKA is at most 1
            marker=MARKERS[number], markersize=4, capsize=2,
            label=f"{subject.name}, {_steps(subject)}", **line_style(number),
        )  # fmt: skip
    names = found[0][1].names
    axis.set_xticks(range(len(names)), _ticks(names))
    axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.05)
    axis.set_ylabel("CKA, before with after")
    axis.set_xlabel("layer")
    axis.legend(loc="lower left")


def _matrix(axis: Any, subject: Subject, one: Similarity) -> None:
    values = one.tables.mean(axis=0)
    axis.imshow(values, cmap="Blues", vmin=0.0, vmax=1.35)
    ticks = _ticks(one.names)
    axis.set_xticks(range(len(ticks)), ticks)
    axis.set_yticks(range(len(ticks)), ticks)
    axis.set_xlabel("after adaptation")
    axis.set_ylabel("before adaptation")
    axis.set_title(subject.name)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values):
        axis.text(
            column, row, figure_words(value, digits=2), ha="center", va="center", fontsize=8,
            color="white" if value > 0.85 else "black",
        )  # fmt: skip


def _table(found: Found) -> Table:
    rows = []
    for subject, one in found:
        cells = [subject.name, str(subject.steps)]
        for figures in (interval(one.accuracies), interval(one.separations)):
            cells += [
                figure_words(mean, half)
                for mean, half in zip(figures["mean"], figures["ci95"], strict=True)
            ]
        rows.append(tuple(cells))
    columns = (
        "network", "steps", "accuracy before", "accuracy after", "silhouette before",
        "silhouette after",
    )  # fmt: skip
    title = (
        f"Means over {len(found[0][1].tables)} test tasks ± 95 %; the silhouette is that of the "
        "classes in the last layer's input (1: tight and far apart, 0: they overlap)"
    )
    return Table(title, columns, tuple(rows))


def _ticks(names: Sequence[str]) -> list[str]:
    """Return the layers' names, the last as what it is."""
    return [*names[:-1], "scores"]


def _steps(subject: Subject) -> str:
    return f"{subject.steps} step{'s' * (subject.steps != 1)}"
