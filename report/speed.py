"""Rounds per second, and where the time of the actors and of the server went."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.rundir import Row
from dmaml.report.binned import binned
from dmaml.report.charts import COLOURS
from dmaml.report.record import RunRecord
from dmaml.report.section import AFTER, Section, Shown, Table, axes, whole_numbers

# phases of an item in the order in which they happen, as its actor timed them
PHASES: Final = {
    "wait_s": "waiting for an item",
    "pull_s": "pulling θ",
    "sample_s": "sampling tasks",
    "compute_s": "computing",
}
COMMIT: Final = "commit_s"


def speed(record: RunRecord) -> Section:
    """Return rounds per second over the run and the mean seconds of an item by phase."""
    versions = [row["version"] for row in record.rounds]
    table = phase_seconds(record.rounds)
    figure, found = axes(1, 2, 9.4, 3.2)
    rate = binned(versions, [1 / max(row["duration_s"], 1e-9) for row in record.rounds])
    axis = found[0][0]
    axis.plot(rate.x, rate.mean, color=AFTER)
    axis.fill_between(rate.x, rate.low, rate.high, color=AFTER, alpha=0.18, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(record.clock)
    axis.set_ylabel(f"{record.clock}s per second")
    axis = found[0][1]
    parts = [binned(versions, table[:, i].tolist()) for i in range(table.shape[1])]
    axis.stackplot(
        parts[0].x, np.array([1000 * part.mean for part in parts]), labels=list(PHASES.values()),
        colors=["#cccccc", COLOURS[3], COLOURS[2], COLOURS[0]], linewidth=0,
    )  # fmt: skip
    commits = binned(versions, [row["timings"].get(COMMIT) for row in record.rounds])
    axis.plot(commits.x, 1000 * commits.mean, color="black", label="the server's commit")
    axis.set_xlabel(record.clock)
    axis.set_ylabel("milliseconds")
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))
    for one in found[0]:
        whole_numbers(one)
    caption = (
        f"Left: {record.clock}s per second, from the opening of each to its commit, with the "
        f"middle 80 % of neighbouring ones. Right: where the time of a work item went, mean over "
        "the items, and the server's time to combine and step (not stacked: it overlaps)."
    )
    return Section("Speed", (), (Shown("speed", caption, figure),), (_table(record, table),))


def phase_seconds(rounds: list[Row]) -> NDArray[np.float64]:
    """Return the mean seconds of an item's phases, float64 `[rounds, phases]`; NaN: no item."""
    rows = []
    for row in rounds:
        items = row["items"]
        rows.append([
            sum(item.get(phase, 0.0) for item in items) / len(items) if items else np.nan
            for phase in PHASES
        ])  # fmt: skip
    return np.array(rows, dtype=np.float64)


def _table(record: RunRecord, table: NDArray[np.float64]) -> Table:
    mean = np.nanmean(table, axis=0)
    total = float(mean.sum())
    commits = [row["timings"][COMMIT] for row in record.rounds if COMMIT in row["timings"]]
    durations = np.array([row["duration_s"] for row in record.rounds])
    rows = [
        (label, f"{1000 * value:.2f}", f"{100 * value / max(total, 1e-12):.1f} %")
        for label, value in zip(PHASES.values(), mean.tolist(), strict=True)
    ]
    if commits:
        rows.append(("the server's commit", f"{1000 * float(np.mean(commits)):.2f}", ""))
    rows.append((f"a {record.clock}, median", f"{1000 * float(np.median(durations)):.2f}", ""))
    return Table("Mean over the run", ("phase", "milliseconds", "share of an item"), tuple(rows))
