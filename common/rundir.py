"""A run directory as its readers see it.

config.yaml                     the resolved configuration
epoch                           number of starts of the server, raised before serving
checkpoint-a|b.safetensors      the two latest states
checkpoint-best.safetensors     the state with the best validation
run.sqlite                      rounds, evaluations, γ history, worker events, starts
server.json                     where the server listens now
logs/                           one file per process
tensorboard/                    scalars and γ histograms, with server.tensorboard
report/                         what `dmaml report` writes
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunDirectoryError

CONFIG: Final = "config.yaml"
EPOCH: Final = "epoch"
LOCK: Final = "lock"
ADDRESS: Final = "server.json"
RECORD: Final = "run.sqlite"
LOGS: Final = "logs"
TENSORBOARD: Final = "tensorboard"

Row = dict[str, Any]


def read_config(folder: Path) -> RunConfig:
    """Return the configuration of the run in a directory.

    Raises:
        RunDirectoryError: there is no run.
    """
    if not (folder / CONFIG).is_file():
        raise RunDirectoryError(
            f"{str(folder)!r} holds no run (no {CONFIG}). Give the run directory that "
            "`dmaml train` printed."
        )
    return configuration.load(folder / CONFIG)


def read_rows(folder: Path, table: str, after: int = -1) -> list[Row]:
    """Return the rows of one table, oldest first, JSON columns decoded.

    Opens the file read-only for this one query, so it may be called while a server writes.

    Args:
        after: only rows whose primary key is greater.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    if table not in ("rounds", "evaluations", "gamma", "worker_events", "starts"):
        raise ValueError(f"unknown table {table!r}")
    path = folder / RECORD
    if not path.exists():
        return []
    try:
        rows = _rows(path, table, after)
    except sqlite3.Error as error:
        raise RunDirectoryError(
            f"the record of {str(folder)!r} cannot be read: {error}. Restore {RECORD} from a "
            "backup."
        ) from None
    return [{key: _decoded(key, row[key]) for key in row.keys()} for row in rows]  # noqa: SIM118


def _rows(path: Path, table: str, after: int) -> list[sqlite3.Row]:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)
    try:
        db.row_factory = sqlite3.Row
        made = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        if made is None:  # the server is about to make its tables
            return []
        query = f"SELECT * FROM {table} WHERE rowid > ? ORDER BY rowid"
        return db.execute(query, (after,)).fetchall()
    finally:
        db.close()


def ending(rounds: Sequence[Row], events: Sequence[Row]) -> str:
    """Return how a run ended, `finished` or `failed`; "" where it goes on, or was gone on with.

    Args:
        rounds, events: the tables `rounds` and `worker_events`; the last rows are enough.
    """
    last = next((row for row in reversed(events) if row["event"] in ("finished", "failed")), None)
    if last is None or (rounds and rounds[-1]["at"] > last["at"]):
        return ""
    return str(last["event"])


def training_seconds(
    rounds: Sequence[Row], events: Sequence[Row], until: float = math.inf
) -> float:
    """Return the seconds in which TRAIN rounds were in progress, overlapping ones counted once.

    What is between rounds does not count: validations, the time without a server. Neither does a
    pause, from its beginning to its end, though answers to work in hand are still taken in it; one
    in which the server ended counts up to its last commit. A process or machine that is suspended
    leaves no trace: that time counts.

    Args:
        rounds, events: the tables `rounds` and `worker_events`.
        until: what is later does not count; seconds since the epoch, as `at` of the rows.
    """
    spans = _merged((row["at"] - row["duration_s"], min(row["at"], until)) for row in rounds)
    spans = [(begin, end) for begin, end in spans if begin < end]
    pauses = _merged(_pauses(events))
    total_s = sum(end - begin for begin, end in spans)
    paused_s = sum(
        max(0.0, min(end, until) - max(begin, since))
        for begin, end in spans
        for since, until in pauses
    )
    return total_s - paused_s


def _pauses(events: Sequence[Row]) -> Iterator[tuple[float, float]]:
    since: Row | None = None
    for row in events:
        if since is not None and row["epoch"] != since["epoch"]:
            since = None
        if row["event"] == "paused":
            since = since or row
        elif row["event"] in ("resumed", "draining") and since is not None:
            yield since["at"], row["at"]
            since = None


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the union of intervals as disjoint ones."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


_JSON: Final = frozenset({"metrics", "weights", "losses", "timings", "items", "state", "facts"})


def _decoded(key: str, value: Any) -> Any:
    return json.loads(value) if key in _JSON else value
