"""The run's record for TensorBoard: scalars of rounds and validations, histograms of γ.

Written with tensorboardX, which needs nothing that the server does not have; TensorBoard itself is
needed only where one looks: `tensorboard --logdir RUN/tensorboard`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]
Int64 = NDArray[np.int64]
_OF_ROUNDS: Final = {"loss": "train/loss", "norm": "train/gradient_norm", "duration_s": "time/s"}
_BINS: Final = 20


@final
class Scalars:
    """Writes rows of the record as TensorBoard's events; all calls from one thread.

    Every start of the server writes a file of its own. It begins with a mark that makes TensorBoard
    forget what an earlier start wrote for the same versions or later ones, so that a resumed run
    shows each version once.

    Args:
        folder: of the event files; made where there is none.
        epoch: of the server.
        version: TRAIN commits of the state that the run goes on from.
        records: rows since the checkpoint before that state.
    """

    def __init__(self, folder: Path, epoch: int, version: int, records: Sequence[Row]) -> None:
        from tensorboardX import RecordWriter  # takes 0.3 s, and most runs do without
        from tensorboardX.proto import event_pb2

        self._events: Any = event_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{epoch:06d}.dmaml"))
        self._version = version
        versions = [int(row["version"]) for row in records if row["table"] != "gamma"]
        first = min([version + 1, *versions])
        self._write(event_pb2.Event(file_version="brain.Event:2"))
        mark = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=first, session_log=mark))
        self.add(records)

    def add(self, rows: Sequence[Row]) -> None:
        """Write the records of rounds."""
        from tensorboardX import summary

        for row in rows:
            if row["table"] != "gamma":
                self._version = int(row["version"])
            values: list[Any] = []
            for tag, value in scalars_of(row):
                values += summary.scalar(tag, value).value
            for tag, counts in histograms_of(row):
                values += _histogram(summary, tag, counts).value
            event = self._events.Event(wall_time=float(row.get("at", 0.0)), step=self._version)
            event.summary.value.extend(values)
            self._write(event)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def scalars_of(row: Row) -> Iterator[tuple[str, float]]:
    """Yield (tag, finite value) of a row of the record."""
    for tag, value in _figures_of(row):
        if value is not None and math.isfinite(value):
            yield tag, value


def _figures_of(row: Row) -> Iterator[tuple[str, float | None]]:
    if row["table"] == "rounds":
        for name, tag in _OF_ROUNDS.items():
            yield tag, row[name]
        for name, value in row["metrics"].items():
            yield f"train/{name}", value
    elif row["table"] == "evaluations":
        for name, values in row["metrics"].items():
            for step, mean in enumerate(values["mean"]):
                yield f"{row['split']}/{name}/after_{step}_steps", mean
    else:
        state = row["state"]
        yield "gamma/entropy", state.get("entropy")
        for pipeline, units in zip(
            state.get("pipelines", []), state.get("expected_units", []), strict=False
        ):
            yield f"gamma/pipeline_{pipeline}/expected_units", units


def histograms_of(row: Row) -> Iterator[tuple[str, Int64]]:
    """Yield (tag, units by value of γ) of each pipeline of a row of `gamma`.

    Bins are of equal width over 0 to 1. They are the row's `histogram`, or counted from its
    `matrix` where it holds that.
    """
    if row["table"] != "gamma":
        return
    state = row["state"]
    counts = [np.asarray(one, dtype=np.int64) for one in state.get("histogram") or []]
    matrix = np.asarray(state.get("matrix") or [], dtype=np.float64)
    if not counts and matrix.size:
        counts = [np.histogram(column, _BINS, (0, 1))[0].astype(np.int64) for column in matrix.T]
    for pipeline, one in zip(state.get("pipelines", []), counts, strict=False):
        yield f"gamma/pipeline_{pipeline}", one


def _histogram(summary: Any, tag: str, counts: Int64) -> Any:
    """Return TensorBoard's message of a histogram over 0 to 1."""
    edges = np.linspace(0, 1, len(counts) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    return summary.histogram_raw(
        tag,
        min=0.0,
        max=1.0,
        num=int(counts.sum()),
        sum=float((counts * middles).sum()),
        sum_squares=float((counts * middles**2).sum()),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
    )
