"""Pictures as data, and their drawing: one quiet style, readable for the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from dmaml.report.bands import Band

# Okabe and Ito's palette without its yellow, which is faint on white; with the line styles and
# markers below it is told apart in grey as well
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Final[Any] = {
    "font.size": 9, "axes.titlesize": 9, "axes.grid": True, "grid.alpha": 0.25,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "legend.fontsize": 8, "lines.linewidth": 1.4, "svg.hashsalt": "dmaml", "savefig.dpi": 130,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One curve with its 95 % band; `is_reference` draws it thin and grey."""

    label: str
    band: Band
    is_reference: bool = False


@dataclass(frozen=True)
class Lines:
    """A panel of curves.

    Attributes:
        x_label, y_label: with units.
        x_limit: where x ends; None: at the last point.
        is_log: the x axis is logarithmic, base 2.
        has_points: a marker at each x: for few, measured places.
        marks: x where something happened; thin lines from top to bottom.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    y_limits: tuple[float, float] | None = None
    x_limit: float | None = None
    is_log: bool = False
    has_points: bool = False
    marks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """A panel of numbers, row by row; None: nothing was measured.

    Attributes:
        limits: values of the lightest and the darkest cell; what lies beyond looks the same.
        bold_from: numbers of at least so much are bold; None: none are.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    limits: tuple[float, float]
    digits: int = 1
    bold_from: float | None = None


@dataclass(frozen=True)
class Node:
    """A node of a tree: its text, and the place of its parent, None of a root."""

    text: str
    parent: int | None = None


@dataclass(frozen=True)
class Tree:
    """A panel of a tree, the root at the left, a line for each leaf.

    Attributes:
        nodes: parents before their children.
    """

    title: str
    nodes: tuple[Node, ...]


Panel = Lines | Matrix | Tree


@dataclass(frozen=True)
class Picture:
    """Panels side by side; `name` is the file's."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    columns: int = 3


def draw(picture: Picture, folder: Path) -> list[Path]:
    """Write a picture as PNG and SVG and return both paths. The same data give the same SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(picture.columns, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    width = sum(_width(panel) for panel in picture.panels[:columns])
    height = sum(
        max(_height(panel) for panel in picture.panels[row * columns : (row + 1) * columns])
        for row in range(rows)
    )
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(max(width, 4.5), height + 0.4), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axis, panel in zip(axes.flat, picture.panels, strict=False):
            if isinstance(panel, Tree):
                _draw_tree(axis, panel)
            else:
                _draw_lines(axis, panel) if isinstance(panel, Lines) else _draw_matrix(axis, panel)
        for axis in axes.flat[len(picture.panels) :]:
            axis.set_visible(False)
        figure.suptitle(picture.title, fontsize=10)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{picture.name}.{kind}" for kind in ("png", "svg")]
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"Date": None})
        pyplot.close(figure)
    return paths


def _width(panel: Panel) -> float:
    if isinstance(panel, Tree):
        return 8.0
    return 4.2 if isinstance(panel, Lines) else 1.9 + 0.78 * len(panel.columns)


def _height(panel: Panel) -> float:
    if isinstance(panel, Tree):
        lines = sum(panel.nodes[n].text.count("\n") + 1 for n, _, _ in places(panel.nodes))
        return 0.6 + 0.2 * lines
    return 3.3 if isinstance(panel, Lines) else 0.85 + 0.3 * len(panel.rows)


def _draw_lines(axis: Any, panel: Lines) -> None:
    number = 0
    for line in panel.lines:
        style: dict[str, Any] = {"color": "#888888", "linestyle": "-", "linewidth": 3, "alpha": 0.5}
        if not line.is_reference:
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": DASHES[number % len(DASHES)],
            }
            if panel.has_points:
                style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            number += 1
        one = line.band
        axis.plot(one.x, one.mean, label=line.label, **style)
        if one.count > 1:
            low, high = one.mean - one.half, one.mean + one.half
            axis.fill_between(one.x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for mark in panel.marks:
        axis.axvline(mark, color="#888888", linewidth=0.8, linestyle=":")
    if panel.is_log:
        _log_axis(axis, panel.lines)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    if panel.y_limits is not None:
        axis.set_ylim(*panel.y_limits)
    if panel.x_limit is not None:
        axis.set_xlim(0, panel.x_limit)
    if len(panel.lines) > 1:
        axis.legend()


def _log_axis(axis: Any, lines: Sequence[Line]) -> None:
    axis.set_xscale("log", base=2)
    places = sorted({float(x) for line in lines for x in line.band.x})
    if len(places) <= 8:
        axis.set_xticks(places, [f"{place:g}" for place in places])
        axis.minorticks_off()


def _draw_matrix(axis: Any, panel: Matrix) -> None:
    low, high = panel.limits
    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.values]
    )
    span = max(high - low, 1e-9)
    axis.imshow(values, cmap="Blues", vmin=low, vmax=low + 1.4 * span)
    axis.set_xticks(range(len(panel.columns)), [name.replace("_", "\n") for name in panel.columns])
    axis.set_yticks(range(len(panel.rows)), panel.rows)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set_aspect("auto")
    axis.set_title(panel.title)
    for (row, column), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.{panel.digits}f}"
        is_bold = panel.bold_from is not None and value >= panel.bold_from
        axis.text(
            column, row, text, ha="center", va="center", fontsize=8,
            color="white" if value > low + 0.8 * span else "black",
            fontweight="bold" if is_bold else "normal",
        )  # fmt: skip


def places(nodes: Sequence[Node]) -> list[tuple[int, int, float]]:
    """Return (number, depth, row) of each node; leaves take rows in turn, others the middle.

    Args:
        nodes: parents before their children.
    """
    children: dict[int | None, list[int]] = {}
    for number, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(number)
    found: dict[int, tuple[int, float]] = {}
    num_leaves = 0

    def place(number: int, depth: int) -> float:
        nonlocal num_leaves
        rows = [place(child, depth + 1) for child in children.get(number, [])]
        if not rows:
            rows, num_leaves = [float(num_leaves)], num_leaves + 1
        found[number] = (depth, sum(rows) / len(rows))
        return found[number][1]

    for root in children.get(None, []):
        place(root, 0)
    return [(number, *found[number]) for number in sorted(found)]


def _draw_tree(axis: Any, panel: Tree) -> None:
    where = {number: (depth, -row) for number, depth, row in places(panel.nodes)}
    for number, node in enumerate(panel.nodes):
        x, y = where[number]
        if node.parent is not None:
            from_x, from_y = where[node.parent]
            axis.plot([from_x, from_x, x], [from_y, y, y], color="#888888", linewidth=1)
        axis.plot([x], [y], "o", color=COLOURS[0], markersize=4)
        is_leaf = all(other.parent != number for other in panel.nodes)
        axis.annotate(
            node.text, (x, y), xytext=(6, 0 if is_leaf else 7), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    axis.set_axis_off()
    axis.margins(x=0.05, y=0.15)
    deepest = max((x for x, _ in where.values()), default=0)
    axis.set_xlim(-0.2, deepest + 2.5)  # room for the leaves' words
    axis.set_title(panel.title)
