"""How much each slot's contribution weighed in the sum, and its loss, over the run."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.rundir import Row
from dmaml.report.binned import binned
from dmaml.report.record import RunRecord
from dmaml.report.section import Section, Shown, axes, line_style, whole_numbers

MANY: Final = 6  # slots beyond so many are drawn as a map of colours


def contribution_weights(record: RunRecord) -> Section | None:
    """Return weights and losses by slot over the rounds; None of one slot, which always has 1."""
    pipelines = sorted({name for row in record.rounds for name in row["weights"]}, key=int)
    if record.config.topology.slots < 2 or not pipelines:
        return None
    figure, found = axes(len(pipelines), 2, 8.8, 2.9 * len(pipelines) + 0.2, sharex=True)
    for row, pipeline in zip(found, pipelines, strict=True):
        rounds = [one for one in record.rounds if pipeline in one["weights"]]
        for axis, key, words in (
            (row[0], "weights", "weight (share of the sum)"),
            (row[1], "losses", "query loss"),
        ):
            table = by_slot(rounds, key, pipeline)
            versions = [one["version"] for one in rounds]
            _draw(figure, axis, versions, table, words)
            if len(pipelines) > 1:
                axis.set_title(f"pipeline {pipeline}")
            whole_numbers(axis)
    for axis in found[-1]:
        axis.set_xlabel(record.clock)
    found[0][-1].legend(ncols=2) if record.config.topology.slots <= MANY else None
    equal = 1 / record.config.topology.slots
    caption = (
        f"Left: the weight that {record.config.weights.name} gave each slot's contribution "
        f"(equal weights: {equal:.3g}; 0 where it was void or not there). Right: the query loss "
        f"it came with. Means of neighbouring {record.clock}s."
    )
    return Section("Weights of the contributions", (), (Shown("weights", caption, figure),))


def by_slot(rounds: list[Row], key: str, pipeline: str) -> NDArray[np.float64]:
    """Return `weights` or `losses` of one pipeline, float64 `[rounds, slots]`; NaN: not there."""
    return np.array(
        [[np.nan if v is None else v for v in row[key][pipeline]] for row in rounds],
        dtype=np.float64,
    )


def _draw(figure: Any, axis: Any, versions: list[int], table: NDArray[Any], words: str) -> None:
    num_slots = table.shape[1]
    if num_slots <= MANY:
        for slot in range(num_slots):
            one = binned(versions, table[:, slot].tolist())
            axis.plot(one.x, one.mean, label=f"slot {slot}", **line_style(slot))
        if words.startswith("weight"):
            axis.set_ylim(0, max(1.4 / num_slots, float(np.nanmax(table)) * 1.1))
        axis.set_ylabel(words)
        return
    columns = [binned(versions, table[:, slot].tolist()) for slot in range(num_slots)]
    grid = np.linspace(versions[0], versions[-1], 120)
    image = np.array([np.interp(grid, one.x, one.mean) for one in columns])
    shown = axis.imshow(
        image, aspect="auto", origin="lower", cmap="cividis", interpolation="nearest",
        extent=(versions[0], versions[-1], -0.5, num_slots - 0.5),
    )  # fmt: skip
    axis.grid(visible=False)
    axis.set_ylabel("slot")
    figure.colorbar(shown, ax=axis, label=words)
