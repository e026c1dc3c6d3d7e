"""γ over the run: how many units each pipeline has, how sure that is, and the tree of pipelines.

Reads the rows of the table `gamma` alone. Their `state` holds `pipelines` (ids, the columns),
`tree` (`[number, parent, opened_round, is_active]` of every pipeline that ever was; -1: no parent),
`expected_units` and `routed_units` (by pipeline), `entropy` (mean over units) and, where the record
keeps them, `matrix` (`[units][pipelines]`) with the numbers of its `units` (without: 0, 1, ...),
`uncertain` (`[unit, γ]` of the least certain of all units, the first the least) and `histogram`
(`[pipelines][bins]`, units by γ from 0 to 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.rundir import Row
from dmaml.report.charts import COLOURS
from dmaml.report.record import RunRecord
from dmaml.report.section import (
    Section,
    Shown,
    Table,
    axes,
    line_style,
    whole_numbers,
)

ROOT = -1
MOST_LINES = 300  # units drawn one by one
UNSURE = 10


@dataclass(frozen=True)
class Node:
    """A pipeline of the tree."""

    number: int
    parent: int = ROOT
    opened_round: int = 0
    is_active: bool = True


@dataclass(frozen=True)
class Routing:
    """γ after a round.

    Attributes:
        expected, routed: units by pipeline: the sum of its column of γ, and how many are its own.
        entropy: mean over units, as the record has it.
        units: those whose γ the record keeps.
        matrix: γ of these, float64 `[units, pipelines]`.
        uncertain: the least certain units, each with its γ.
        histogram: units by γ from 0 to 1, int64 `[pipelines, bins]`; without bins where the record
            does not keep it.
    """

    round: int
    pipelines: tuple[int, ...]
    tree: tuple[Node, ...]
    expected: tuple[float, ...]
    routed: tuple[int, ...]
    entropy: float
    units: tuple[int, ...]
    matrix: NDArray[np.float64]
    uncertain: tuple[tuple[int, tuple[float, ...]], ...]
    histogram: NDArray[np.int64]


def routing(row: Row) -> Routing:
    """Return γ of a row of the table `gamma`."""
    state: dict[str, Any] = row["state"]
    pipelines = tuple(int(p) for p in state["pipelines"])
    nodes = tuple(
        Node(int(number), int(parent), int(opened), bool(is_active))
        for number, parent, opened, is_active in state.get("tree") or []
    )
    none = [0.0] * len(pipelines)
    matrix = np.array(state.get("matrix") or [], dtype=np.float64).reshape(-1, len(pipelines))
    units = tuple(int(unit) for unit in state.get("units") or range(len(matrix)))
    order: list[int] = []
    if len(matrix):
        order = np.argsort(matrix.max(axis=1), kind="stable")[:UNSURE].tolist()
    doubtful = state.get("uncertain", [[units[row], matrix[row].tolist()] for row in order])
    return Routing(
        int(row["round"]),
        pipelines,
        nodes or tuple(Node(p) for p in pipelines),
        tuple(float(n) for n in state.get("expected_units") or none),
        tuple(int(n) for n in state.get("routed_units") or none),
        float(state.get("entropy") or 0.0),
        units,
        matrix,
        tuple((int(unit), tuple(values)) for unit, values in doubtful),
        np.array(state.get("histogram") or [[]] * len(pipelines), dtype=np.int64),
    )


def clusters(record: RunRecord) -> Section | None:
    """Return what γ did; None of a run with one pipeline from beginning to end."""
    history = [routing(row) for row in record.gamma]
    if not history or max(len(one.tree) for one in history) < 2:
        return None
    last, end = history[-1], _end(record)
    has_units = bool(len(last.matrix)) and len(history) > 1
    has_bins = last.histogram.size > 0
    count = 2 + has_units + has_bins
    rows = 1 if count < 4 else 2
    figure, made = axes(rows, count // rows, 4.2 * (count // rows), 3.0 * rows + 0.3)
    panels = list(made.flat)
    _sizes(panels[0], history, end)
    _entropy(panels[1], history, end)
    if has_units:
        _units(panels[2], history, end)
    for axis in panels[: 2 + has_units]:
        axis.set_xlabel("round of any kind")
        axis.set_xlim(-0.02 * end, 1.02 * end)
        whole_numbers(axis)
    if has_bins:
        _bins(panels[-1], last)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    caption = (
        "The expected number of units of each pipeline, which is the sum of its column of γ, and "
        "how unsure γ is: the mean entropy over units, 0 where all are sure of their pipeline. "
        "Each point is a change of γ, which holds until the next."
    )
    if has_units:
        some = f" ({len(last.units)} of them)" if sum(last.routed) > len(last.units) else ""
        caption += (
            " Then each unit's probability of the pipeline that has it in the end, or of the one "
            f"that this was split from{some}."
        )
    if has_bins:
        caption += " Last, how many units have which γ in the end."
    shown = [Shown("gamma", caption, figure)]
    if any(node.parent != ROOT for node in last.tree):
        shown.append(_tree(last, record.rounds[-1]["version"], record.clock))
    tables = (_table(last), _unsure(last)) if last.uncertain else (_table(last),)
    return Section("Clustering", (), tuple(shown), tables)


def _end(record: RunRecord) -> int:
    """Return the number of rounds of any kind of the record."""
    rows = [*record.rounds, *record.evaluations, *record.gamma]
    return max(1, *(int(row["round"]) for row in rows))


def _held(
    axis: Any, rounds: Sequence[int], values: Sequence[float], end: int, **style: Any
) -> None:
    """Draw values that hold from their round to the next, the last to the end."""
    more = end > rounds[-1]
    axis.plot(
        [*rounds, end] if more else rounds, [*values, values[-1]] if more else values,
        drawstyle="steps-post", markevery=slice(len(rounds)), **style,
    )  # fmt: skip


def _sizes(axis: Any, history: Sequence[Routing], end: int) -> None:
    rounds = [one.round for one in history]
    for number, pipeline in enumerate(dict.fromkeys(p for h in history for p in h.pipelines)):
        sizes = [
            one.expected[one.pipelines.index(pipeline)] if pipeline in one.pipelines else np.nan
            for one in history
        ]
        _held(
            axis, rounds, sizes, end,
            label=f"pipeline {pipeline}", marker=".", **line_style(number),
        )  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.set_ylabel("expected units")


def _units(axis: Any, history: Sequence[Routing], end: int) -> None:
    last = history[-1]
    own = [last.pipelines[column] for column in last.matrix.argmax(axis=1)]
    chosen = np.linspace(0, len(own) - 1, min(len(own), MOST_LINES)).astype(int)
    places = {pipeline: number for number, pipeline in enumerate(last.pipelines)}
    lines = {pipeline: lineage(last.tree, pipeline) for pipeline in last.pipelines}
    rows = [{unit: row for row, unit in enumerate(one.units)} for one in history]
    for place in dict.fromkeys(chosen.tolist()):
        pipeline, unit = own[place], last.units[place]
        points = [
            (one.round, one.matrix[row[unit], one.pipelines.index(there[0])])
            for one, row in zip(history, rows, strict=True)
            if unit in row and (there := [p for p in lines[pipeline] if p in one.pipelines])
        ]
        _held(
            axis, [at for at, _ in points], [share for _, share in points], end,
            color=COLOURS[places[pipeline] % len(COLOURS)], linewidth=0.6, alpha=0.4,
        )  # fmt: skip
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("γ of the unit's own pipeline")


def lineage(tree: Sequence[Node], pipeline: int) -> list[int]:
    """Return a pipeline and those that it comes from."""
    parents = {node.number: node.parent for node in tree}
    found = [pipeline]
    while (parent := parents.get(found[-1], ROOT)) != ROOT and parent not in found:
        found.append(parent)
    return found


def _entropy(axis: Any, history: Sequence[Routing], end: int) -> None:
    rounds, values = [one.round for one in history], [one.entropy for one in history]
    _held(axis, rounds, values, end, color="#000000", marker=".")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("mean entropy of γ (nats)")


def _bins(axis: Any, last: Routing) -> None:
    edges = np.linspace(0, 1, last.histogram.shape[1] + 1)
    for number, counts in enumerate(last.histogram):
        axis.stairs(counts, edges, linewidth=1.4, **line_style(number))
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("γ of the pipeline, in the end")
    axis.set_ylabel("units (logarithmic above 1)")


def places(tree: Sequence[Node]) -> dict[int, float]:
    """Return where each pipeline stands across: leaves in order, a parent amid its children.

    A parent that goes on beside its children is a leaf too, left of them.
    """
    children: dict[int, list[int]] = {}
    for node in sorted(tree, key=lambda one: one.number):
        children.setdefault(node.parent, []).append(node.number)
    found: dict[int, float] = {}
    goes_on = {node.number for node in tree if node.is_active}
    num_leaves = 0

    def put(number: int) -> float:
        nonlocal num_leaves
        own = number in goes_on or number not in children
        if own:
            found[number] = float(num_leaves)
            num_leaves += 1
        below = [put(child) for child in children.get(number, [])]
        if not own:
            found[number] = sum(below) / len(below)
        return found[number]

    for root in children.get(ROOT, []):
        put(root)
    return found


def _tree(last: Routing, end: int, clock: str) -> Shown:
    """Return the dendrogram: pipelines from the round in which they opened downward.

    Args:
        end: rounds of training.
        clock: what they are called.
    """
    where = places(last.tree)
    nodes = {node.number: node for node in last.tree}
    leaves = len({where[node.number] for node in last.tree if _closed(node, last.tree, end) >= end})
    figure, found = axes(1, 1, max(4.0, 0.8 * leaves + 1.5), 3.2)
    axis = found[0][0]
    for number, node in nodes.items():
        x, closed = where[number], _closed(node, last.tree, end)
        style = {"color": COLOURS[0] if node.is_active else "#888888", "linewidth": 2.0}
        axis.plot([x, x], [node.opened_round, closed], solid_capstyle="butt", **style)
        if node.parent in nodes:
            axis.plot([where[node.parent], x], [node.opened_round] * 2, **style)
        words = f"{number}"
        if number in last.pipelines:
            words += f"\n{last.expected[last.pipelines.index(number)]:.0f} units"
        if closed >= end:
            place: dict[str, Any] = {"xy": (x, end), "xytext": (0, -4), "ha": "center", "va": "top"}
        else:
            middle = (node.opened_round + closed) / 2
            place = {"xy": (x, middle), "xytext": (-4, 0), "ha": "right", "va": "center"}
        axis.annotate(words, fontsize=8, textcoords="offset points", **place)
    axis.set_ylim(end * 1.22 + 1, -0.02 * end - 0.5)
    axis.set_xlim(min(where.values()) - 0.7, max(where.values()) + 0.7)
    axis.set_xticks([])
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= end])
    axis.set_ylabel(f"{clock} of training")
    caption = (
        "The tree of pipelines: each begins with its parent's parameters in the round where its "
        "line begins. Blue ones are active, with the units that they expect; grey ones were split "
        "or retired."
    )
    return Shown("tree", caption, figure)


def _closed(node: Node, tree: Sequence[Node], end: int) -> int:
    """Return the round in which a pipeline was split; the end where it was not."""
    opened = [one.opened_round for one in tree if one.parent == node.number]
    return end if node.is_active or not opened else min(opened)


def _table(last: Routing) -> Table:
    rows = tuple(
        (str(pipeline), f"{expected:.1f}", str(routed))
        for pipeline, expected, routed in zip(
            last.pipelines, last.expected, last.routed, strict=True
        )
    )
    columns = ("pipeline", "expected units", "units routed to it")
    return Table(f"γ after round {last.round}", columns, rows)


def _unsure(last: Routing) -> Table:
    rows = tuple(
        (str(unit), *(f"{value:.3f}" for value in values)) for unit, values in last.uncertain
    )
    return Table(
        f"The {len(rows)} most uncertain units", ("unit", *(f"γ {p}" for p in last.pipelines)), rows
    )
