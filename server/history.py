"""What the run has shown so far: its last figures, its best validation, its speed."""

from __future__ import annotations

from collections import deque
from typing import Any, final

from dmaml.common.intervals import MAIN, main_metric
from dmaml.common.items import ItemKind

Row = dict[str, Any]


@final
class History:
    """Keeps the rows of the run's record until a checkpoint takes them along.

    Args:
        meta: of the checkpoint that the run goes on from.
    """

    def __init__(self, meta: Row | None = None) -> None:
        self.last_round: Row = {}
        self.last_evaluation: Row = meta["evaluation"] if meta else {}
        self.has_new_best = False
        self._best: float | None = meta["best"] if meta else None
        self._rows: list[Row] = []
        self._speed: deque[tuple[float, int]] = deque(maxlen=64)

    def add(self, kind: ItemKind, row: Row) -> None:
        """Keep the row of a committed round."""
        self._rows.append(row)
        if kind is ItemKind.TRAIN:
            self.last_round = row
        elif kind is ItemKind.EVALUATE:
            names = ("version", "split", "num_tasks", "metrics")
            self.last_evaluation = {name: row[name] for name in names}
            score = _score(row["metrics"])
            if score is not None and (self._best is None or score > self._best):
                self._best, self.has_new_best = score, True

    def clock(self, now: float, tasks_seen: int) -> None:
        """Note how many tasks the run has trained on by now."""
        self._speed.append((now, tasks_seen))

    def tasks_per_s(self) -> float:
        """Return tasks trained on per second over the last rounds."""
        if len(self._speed) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._speed[0], self._speed[-1]
        return (n1 - n0) / max(t1 - t0, 1e-9)

    def take(self) -> tuple[Row, bool]:
        """Return what the next checkpoint keeps, and whether it is the best; forget the rows."""
        rows, self._rows = self._rows, []
        is_best, self.has_new_best = self.has_new_best, False
        meta = {"records": rows, "evaluation": self.last_evaluation, "best": self._best}
        return meta, is_best


def _score(metrics: Row) -> float | None:
    """Return what validation maximises: accuracy or return, else the negative of a loss."""
    name = main_metric(metrics)
    return float(MAIN[name] * metrics[name]["mean"][-1]) if name in metrics else None
