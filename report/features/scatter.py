"""The last layer's input in the plane, coloured by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dmaml.report.features.findings import Points
from dmaml.report.features.words import Marks
from dmaml.report.section import Section, Shown, axes

# Tol's muted palette without its palest, and black; letters tell the classes apart as well
PALETTE: Final = (
    "#332288", "#CC6677", "#117733", "#AA4499", "#0077BB", "#999933", "#882255", "#44AA99",
    "#B8860B", "#000000",
)  # fmt: skip
SIZE: Final = 7.5  # of the names, points
_LETTER: Final = 0.6 * SIZE / 72  # width of a letter, inches
_MARK: Final = 0.6  # of the mark and the space around it


def scatter(found: Sequence[Points], labels: NDArray[np.int64], marks: Marks) -> Section:
    """Return principal components and t-SNE, before and after adaptation, of each network.

    Args:
        found: a column each.
        labels: of the points.
        marks: a letter for each class.
    """
    figure, made = axes(2, len(found), 2.45 * len(found), 5.3)
    for column, one in enumerate(found):
        top, bottom = made[:, column]
        _draw(top, one.principal, labels, marks)
        _draw(bottom, one.neighbours, labels, marks)
        when = "after" if one.is_adapted else "before"
        top.set_title(f"{one.name},\n{when} adaptation")
        for axis, share, set_label in (
            (0, one.shares[0], top.set_xlabel), (1, one.shares[1], top.set_ylabel),
        ):  # fmt: skip
            set_label(f"PC {axis + 1} ({100 * share:.0f} % of variance)", fontsize=8)
        bottom.set_xlabel("t-SNE 1", fontsize=8)
        bottom.set_ylabel("t-SNE 2", fontsize=8)
    handles = [
        Line2D([], [], linestyle="", marker=f"${marks.letters[c]}$", color=_colour(marks, c),
               markersize=6, label=marks.names[c])
        for c in marks.order
    ]  # fmt: skip
    if not marks.are_names:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=_columns(marks, figure),
            fontsize=SIZE,
        )
    caption = (
        f"The input of the last layer for the {len(labels)} queries of the first test task, each "
        "drawn as the letter or digit of its class. Above the first two principal components, "
        "below t-SNE, whose axes have no unit: near points were near."
    )
    return Section("The last layer's input", (), (Shown("features", caption, figure, False),))


def _draw(axis: Any, points: NDArray[np.float64], labels: NDArray[np.int64], marks: Marks) -> None:
    for label in marks.order:
        own = points[labels == label]
        axis.scatter(
            own[:, 0], own[:, 1], s=16, marker=f"${marks.letters[label]}$",
            color=_colour(marks, label), linewidths=0.2,
        )  # fmt: skip
    axis.set_xticks([])
    axis.set_yticks([])
    axis.margins(0.06)


def _columns(marks: Marks, figure: Figure) -> int:
    """Return how many names fit beside each other below the figure, at most 3."""
    longest = max(len(name) for name in marks.names)
    return max(1, min(3, int(figure.get_figwidth() / (_MARK + longest * _LETTER))))


def _colour(marks: Marks, label: int) -> str:
    return PALETTE[marks.order.index(label) % len(PALETTE)]
