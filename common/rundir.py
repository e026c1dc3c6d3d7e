"""A run directory as its readers see it.

config.yaml                     the resolved configuration
epoch                           number of starts of the server, raised before serving
checkpoint-a|b.safetensors      the two latest states
checkpoint-best.safetensors     the state with the best validation
run.sqlite                      rounds, evaluations, γ history, worker events
server.json                     where the server listens now
logs/                           one file per process
"""

from __future__ import annotations

import json
import sqlite3
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


def read_rows(folder: Path, table: str) -> list[Row]:
    """Return the rows of one table, oldest first, JSON columns decoded.

    Opens the file read-only for this one query, so it may be called while a server writes.
    """
    if table not in ("rounds", "evaluations", "gamma", "worker_events"):
        raise ValueError(f"unknown table {table!r}")
    path = folder / RECORD
    if not path.exists():
        return []
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)
    try:
        db.row_factory = sqlite3.Row
        made = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        if made is None:  # the server is about to make its tables
            return []
        rows = db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
    finally:
        db.close()
    return [{key: _decoded(key, row[key]) for key in row.keys()} for row in rows]  # noqa: SIM118


_JSON: Final = frozenset({"metrics", "weights", "losses", "timings", "items", "state"})


def _decoded(key: str, value: Any) -> Any:
    return json.loads(value) if key in _JSON else value
