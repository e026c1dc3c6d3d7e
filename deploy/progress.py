"""The live bar of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dmaml.common.errors import DmamlError
from dmaml.common.items import RunState
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator, Status

LINE_EVERY_S: Final = 10.0


class Watcher:
    """Keeps the latest status of a server, from a thread of its own."""

    def __init__(self, address: Address) -> None:
        self.latest: Status | None = None
        self._operator = Operator(address, Retry(0.0))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._operator.close()
        self._thread.join(timeout=5.0)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                for status in self._operator.watch():
                    self.latest = status
            except (DmamlError, ValueError):
                self._stopped.wait(0.5)  # restarting, or closed by `stop`


class Bar:
    """Shows a status: round, query loss, accuracy before and after adaptation, speed, actors."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._last_line = (0.0, -1)
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(compact=True),
                console=console,
                expand=True,
            )
            self._task = self._progress.add_task("train", total=rounds, text="starting")
            self._progress.start()

    def show(self, status: Status) -> None:
        """Bring the bar up to date; elsewhere print a line every ten seconds."""
        text = describe(status)
        if self._progress is not None:
            self._progress.update(self._task, completed=status.trained, text=text)
            return
        now = time.monotonic()
        at, version = self._last_line
        is_last = status.trained == status.rounds
        if status.trained != version and (now - at >= LINE_EVERY_S or is_last):
            self._last_line = (now, status.trained)
            self._console.print(
                f"round {status.trained}/{status.rounds}  {text}", highlight=False, soft_wrap=True
            )

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.stop()


def describe(status: Status) -> str:
    """Return a status as a short line."""
    actors = f"{len(status.workers)} actor{'' if len(status.workers) == 1 else 's'}"
    if not status.trained:
        return f"{RunState(status.state).name.lower()}  {actors}"
    parts = [f"loss {status.query_loss:.3f}"] if status.query_loss else []
    metrics: dict[str, Any] = dict(status.metrics)
    if "accuracy" in metrics:
        before = metrics.get("accuracy_before")
        start = f"{before:.2f} → " if before is not None else ""
        parts.append(f"accuracy {start}{metrics['accuracy']:.2f}")
    elif "return" in metrics:
        parts = [f"return {metrics['return_before']:.2f} → {metrics['return']:.2f}"]
    elif "loss_before" in metrics:
        parts.append(f"before {metrics['loss_before']:.3f}")
    parts.append(f"{status.tasks_per_s:.0f} tasks/s")
    parts.append(actors)
    return "  ".join(parts)
