"""The hardest and the easiest test tasks, and a few tasks step by step, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dmaml.report.probe import Episode
from dmaml.report.section import (
    RIGHT,
    WRONG,
    Section,
    Shown,
    axes,
    bare,
    is_picture,
    show_image,
)

EXTREMES: Final = 3  # tasks at either end
MOST_CLASSES: Final = 8  # of a task that are shown
MOST_QUERIES: Final = 2  # of a class that are shown
CELL: Final = 0.62  # inches
ROW: Final = 1.36  # of a picture and the words below it, in heights of a picture
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
Cell = tuple[Any, str, str | None]  # a picture, words below it, the colour of its frame
Rows = list[list[Cell]]


def hardest(episodes: Sequence[Episode]) -> Section | None:
    """Return the tasks with the lowest and the highest accuracy; None where they are no pictures.

    Of equal accuracy, the one with the higher loss is the harder.
    """
    if not is_picture(episodes[0].support_x.shape[1:]):
        return None
    order = sorted(episodes, key=lambda one: (one.accuracy(one.last), -one.loss(one.last)))
    few = min(EXTREMES, max(1, len(order) // 2))
    shown = [
        Shown(
            f"{word}_tasks",
            f"The {few} {word} of {len(order)} test tasks. Each column is a class: a support "
            "picture in the first row, then queries, wrong ones first, with the class that was "
            "predicted and its probability. Blue, solid frame: right; "
            "orange, dashed: wrong.",
            _figure([_task_rows(one) for one in chosen], [_heading(one) for one in chosen]),
            is_vector=False,
        )
        for word, chosen in (("hardest", order[:few]), ("easiest", order[::-1][:few]))
    ]
    return Section("Hardest and easiest tasks", (), tuple(shown))


def examples(episodes: Sequence[Episode], tasks: int = 3) -> Section | None:
    """Return support, queries and what was predicted before and after adaptation.

    None where examples are no pictures.
    """
    if not is_picture(episodes[0].support_x.shape[1:]):
        return None
    chosen = episodes[:tasks]
    has_steps = len(chosen[0].answers) > 1
    figure = _figure(
        [_task_rows(one, with_before=has_steps) for one in chosen],
        [_heading(one) for one in chosen],
        gap=0.65 if has_steps else 0.3,
    )
    words = "before → after adaptation" if has_steps else "by the support set"
    caption = (
        f"The first {len(chosen)} test tasks. Each column is a class: a support picture in "
        f"the first row, then queries, wrong ones first, with the class that was predicted {words} "
        "and the probability of the last. Blue, solid frame: right; orange, dashed: wrong."
    )
    return Section(
        "Adaptation examples", (), (Shown("adaptation", caption, figure, is_vector=False),)
    )


def _heading(one: Episode) -> str:
    before = f"{one.accuracy(0):.2f} → " if len(one.answers) > 1 else ""
    return (
        f"task {one.number}: accuracy {before}{one.accuracy(one.last):.2f}, "
        f"loss {one.loss(one.last):.2f}"
    )


def letter(label: int) -> str:
    """Return a letter for a class of a task; a number beyond Z."""
    return LETTERS[label] if label < len(LETTERS) else str(label)


def _task_rows(one: Episode, with_before: bool = False) -> Rows:
    """Return rows of (picture, words below it, frame's colour), a column per class."""
    classes = range(min(len(one.names), MOST_CLASSES))
    rows: Rows = [[(one.support_x[_rows(one.support_y, c)[0]], letter(c), None) for c in classes]]
    last = one.answers[one.last]
    num_queries = min(MOST_QUERIES, *(len(_rows(one.query_y, c)) for c in classes))
    for number in range(num_queries):
        row: list[Cell] = []
        for label in classes:
            at = _wrong_first(one, label)[number]
            now = int(last[at].argmax())
            words = f"{letter(now)} {last[at, now]:.2f}"
            if with_before:
                words = f"{letter(int(one.answers[0][at].argmax()))} → {words}"
            row.append((one.query_x[at], words, RIGHT if now == label else WRONG))
        rows.append(row)
    return rows


def _rows(labels: Any, label: int) -> list[int]:
    return [int(i) for i in np.flatnonzero(labels == label)]


def _wrong_first(one: Episode, label: int) -> list[int]:
    """Return the queries of a class, those that were named wrongly before the others."""
    wrong = one.answers[one.last].argmax(axis=1) != one.query_y
    return sorted(_rows(one.query_y, label), key=lambda at: (not wrong[at], at))


def _figure(tasks: Sequence[Rows], headings: Sequence[str], gap: float = 0.3) -> Figure:
    """Return tasks one below the other, each an axis with rows of pictures.

    Args:
        gap: between two columns, in widths of a picture.
    """
    columns = max(len(row) for rows in tasks for row in rows)
    heights = [len(rows) * CELL * ROW + 0.4 for rows in tasks]
    figure, found = axes(
        len(tasks), 1, columns * CELL * (1 + gap) + 0.3, sum(heights), height_ratios=heights
    )
    for axis, rows, heading in zip(found[:, 0], tasks, headings, strict=True):
        bare(axis)
        axis.set_title(heading, loc="left", fontsize=8.5)
        for number, row in enumerate(rows):
            for column, cell in enumerate(row):
                _draw(axis, cell, column * (1 + gap), number * ROW)
        axis.set_xlim(-0.1, columns * (1 + gap) - gap + 0.1)
        axis.set_ylim(len(rows) * ROW, -0.1)
        axis.set_aspect("equal")
    return figure


def _draw(axis: Any, cell: Cell, left: float, top: float) -> None:
    image, words, colour = cell
    show_image(axis, image, (left, left + 1, top + 1, top))
    axis.text(
        left + 0.5, top + 1.06, words, ha="center", va="top", fontsize=7,
        fontweight="bold" if colour is None else "normal",
    )  # fmt: skip
    if colour is not None:
        axis.add_patch(
            Rectangle(
                (left, top), 1, 1, fill=False, edgecolor=colour, linewidth=2.0,
                linestyle="-" if colour == RIGHT else (0, (2, 1)),
            )
        )  # fmt: skip
