"""The run's record: `run.sqlite`, one writer thread, safe to read while training."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from dmaml.common.rundir import RECORD

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rounds (
    round INTEGER PRIMARY KEY,  -- commits of every kind before it
    version INTEGER NOT NULL,   -- TRAIN commits done after it
    tasks_seen INTEGER NOT NULL,
    loss REAL,                  -- mean query loss after adaptation
    metrics TEXT NOT NULL,      -- JSON: name -> mean over the round's tasks
    weights TEXT NOT NULL,      -- JSON: pipeline -> weights in slot order
    losses TEXT NOT NULL,       -- JSON: pipeline -> losses in slot order, null: void
    norm REAL,                  -- Euclidean norm of the combined gradient
    voids INTEGER NOT NULL,     -- items that counted nothing
    duration_s REAL NOT NULL,   -- from opening to commit
    timings TEXT NOT NULL,      -- JSON: the server's phases -> seconds
    items TEXT NOT NULL,        -- JSON: per item who did it, phases in seconds
    at REAL NOT NULL,           -- Unix time of the commit
    gamma_version INTEGER NOT NULL DEFAULT 0  -- of the γ that routed its tasks
);
CREATE TABLE IF NOT EXISTS evaluations (
    round INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    split TEXT NOT NULL,
    num_tasks INTEGER NOT NULL,
    metrics TEXT NOT NULL,      -- JSON: name -> {mean, ci95}, lists by adaptation step
    duration_s REAL NOT NULL,
    at REAL NOT NULL,
    gamma_version INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS gamma (
    version INTEGER PRIMARY KEY,  -- of γ
    round INTEGER NOT NULL,     -- commits of every kind before it
    state TEXT NOT NULL         -- JSON: see clustering.probing.gamma_row
);
CREATE TABLE IF NOT EXISTS worker_events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,           -- Unix time
    epoch INTEGER NOT NULL,
    worker_id TEXT NOT NULL,
    event TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS starts (
    epoch INTEGER PRIMARY KEY,  -- of the server
    at REAL NOT NULL,           -- Unix time
    facts TEXT NOT NULL         -- JSON: commit, versions, machine
);
"""

Row = dict[str, Any]


class Record:
    """Writes the record; all calls from one thread."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / RECORD, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._add_columns()

    def _add_columns(self) -> None:
        """Bring tables of an earlier version to the schema."""
        for table in ("rounds", "evaluations"):
            known = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            if "gamma_version" not in known:
                self._db.execute(
                    f"ALTER TABLE {table} ADD COLUMN gamma_version INTEGER NOT NULL DEFAULT 0"
                )

    def replay(self, done_rounds: int, rows: Iterable[Row]) -> None:
        """Bring the record to the state of a checkpoint: upsert its rows, delete later ones."""
        with self._db:
            for table in ("rounds", "evaluations", "gamma"):
                self._db.execute(f"DELETE FROM {table} WHERE round >= ?", (done_rounds,))
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Insert or replace the records of rounds; `table` in a row says where."""
        with self._db:
            for row in rows:
                values = {k: _plain(v) for k, v in row.items() if k != "table"}
                names = ", ".join(values)
                marks = ", ".join(f":{name}" for name in values)
                self._db.execute(
                    f"INSERT OR REPLACE INTO {row['table']} ({names}) VALUES ({marks})", values
                )

    def event(self, at: float, epoch: int, worker_id: str, event: str, message: str) -> None:
        """Note what happened to an actor."""
        with self._db:
            self._db.execute(
                "INSERT INTO worker_events (at, epoch, worker_id, event, message) "
                "VALUES (?, ?, ?, ?, ?)",
                (at, epoch, worker_id, event, message),
            )

    def start(self, at: float, epoch: int, facts: dict[str, str]) -> None:
        """Note a start of the server: by which code, on what."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO starts (epoch, at, facts) VALUES (?, ?, ?)",
                (epoch, at, _plain(facts)),
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
