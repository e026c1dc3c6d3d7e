"""A run as its report sees it: everything that its directory holds but the parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunDirectoryError
from dmaml.common.intervals import main_metric
from dmaml.common.rundir import Row, ending, read_config, read_rows, training_seconds

Curve = tuple[list[float], list[float]]


@dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Attributes:
        rounds, evaluations, gamma, events, starts: rows of `run.sqlite`, oldest first; `rounds` and
            `evaluations` have at least one.
        checkpoint: the latest state, or None before the first.
    """

    folder: Path
    config: RunConfig
    rounds: list[Row]
    evaluations: list[Row]
    gamma: list[Row]
    events: list[Row]
    starts: list[Row]
    checkpoint: Checkpoint | None

    @property
    def metric(self) -> str:
        """The figure that stands for the method: accuracy, return, mse or loss."""
        return main_metric(self.evaluations[-1]["metrics"])

    @property
    def num_steps(self) -> int:
        """Adaptation steps of the last validation; 0 where they change no figure of it."""
        means = [figures["mean"] for figures in self.evaluations[-1]["metrics"].values()]
        has_steps = any(len(set(values)) > 1 for values in means)
        return len(means[0]) - 1 if has_steps else 0

    @property
    def is_over(self) -> bool:
        """Whether the run is finished or failed."""
        return bool(ending(self.rounds, self.events))

    @property
    def clock(self) -> str:
        """What a version counts: rounds, or commits in mode async."""
        return "commit" if self.config.sync.mode == "async" else "round"

    def seconds(self, until: float = float("inf")) -> float:
        """Return the seconds of training; see `training_seconds`."""
        return training_seconds(self.rounds, self.events, until)


def read_record(folder: Path) -> RunRecord:
    """Return the record of the run in a directory; also while it trains.

    Raises:
        RunDirectoryError: no run, a damaged record, no round or no evaluation yet.
    """
    config = read_config(folder)
    tables = ("rounds", "evaluations", "gamma", "worker_events", "starts")
    rounds, evaluations, gamma, events, starts = (read_rows(folder, name) for name in tables)
    if not rounds:
        raise RunDirectoryError(
            f"run directory {str(folder)!r} has no round yet. Train first: dmaml train "
            f"{folder / 'config.yaml'} --run-dir {folder}"
        )
    if not evaluations:
        raise RunDirectoryError(_no_evaluation(folder, config, rounds[-1]["version"]))
    checkpoint, _ = checkpoints.load_latest(folder)
    return RunRecord(folder, config, rounds, evaluations, gamma, events, starts, checkpoint)


def _no_evaluation(folder: Path, config: RunConfig, version: int) -> str:
    every = config.evaluation.every
    reason = (
        f"the first comes at round {every}, and it is at {version}. Wait for it"
        if every
        else "evaluation.every is 0. Go on with it: "
        f"dmaml train {folder / 'config.yaml'} --run-dir {folder} --set evaluation.every=50"
    )
    return f"run directory {str(folder)!r} has no evaluation yet: {reason}."


def validation(record: RunRecord, by: str, step: int = -1) -> Curve:
    """Return the validation curve of the run's main figure.

    Args:
        by: `rounds`, `tasks` (seen in training) or `seconds` (of training; validation left out).
        step: adaptation steps after which it is measured, -1: the last.
    """
    at_version = {row["version"]: row for row in record.rounds}
    rows = [row for row in record.evaluations if row["version"] in at_version]
    rows = [row for row in rows if record.metric in row["metrics"]]
    places = {
        "rounds": lambda row: float(row["version"]),
        "tasks": lambda row: float(row["tasks_seen"]),
        "seconds": lambda row: record.seconds(row["at"]),
    }
    xs = [places[by](at_version[row["version"]]) for row in rows]
    return xs, [row["metrics"][record.metric]["mean"][step] for row in rows]
