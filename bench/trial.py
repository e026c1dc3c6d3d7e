"""One run in the embedded cluster, and the same run computed plainly."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.layout import Flat
from dmaml.common.rundir import Row, read_rows

Values = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Trial:
    """What a run left.

    Attributes:
        rounds: rows of its record, oldest first.
        joined_at: when each actor joined, Unix time, oldest first.
        theta_sha256: digest of the final parameters.
        wall_s: from the start of the first process to the end of the last.
    """

    rounds: list[Row]
    joined_at: list[float]
    theta_sha256: str
    wall_s: float


def run_trial(config: RunConfig, actors: int, folder: Path | None, data_dir: Path | None) -> Trial:
    """Train a run with a real server and so many real actors, in a new directory.

    Args:
        folder: where the run directory is made, and removed; None: the temporary folder. What an
            fsync costs is that of its file system.

    Raises:
        DmamlError: what the run ended with.
    """
    from dmaml.deploy.local import LocalOptions, train  # imports Ray

    with tempfile.TemporaryDirectory(prefix="dmaml-bench-", dir=folder) as place:
        run_dir = Path(place) / "run"
        began = time.monotonic()
        options = LocalOptions(actors, data_dir=data_dir)
        with redirect_stdout(sys.stderr):  # Ray prints its warnings; standard output is the report
            train(config, run_dir, options, lambda address: None, lambda status: None)
        wall_s = time.monotonic() - began
        latest, _ = checkpoints.load_latest(run_dir)
        if latest is None:
            raise RunFailedError("the run left no checkpoint.")
        digest = checkpoints.theta_sha256(checkpoints.thetas_of(latest))
        events = read_rows(run_dir, "worker_events")
        joined_at = [row["at"] for row in events if row["event"] == "joined"]
        return Trial(read_rows(run_dir, "rounds"), joined_at, digest, wall_s)


def settled(trial: Trial, actors: int, skipped: int) -> list[Row]:
    """Return the rounds after the last actor came, less as many more as are skipped.

    Raises:
        RunFailedError: fewer than two are left.
    """
    if len(trial.joined_at) >= actors:
        last = trial.joined_at[actors - 1]
        found = [row for row in trial.rounds if row["at"] > last][skipped:]
        if len(found) >= 2:
            return found
    raise RunFailedError(
        f"{len(trial.rounds)} rounds were over before {actors} actors had come and warmed up. "
        "Raise --rounds."
    )


def plain_digest(config: RunConfig) -> str:
    """Return θ's digest after the same run in one process: no server, no actor, no message.

    Synchronous, weights and aggregation `mean`, one part, a constant learning rate. Simulated
    computation does not sleep.
    """
    from dmaml.server.outer import Outer  # both import torch
    from dmaml.worker.answers import Answerer

    if config.algorithm.options:
        awake = config.algorithm.model_copy(update={"options": {"task_ms": 0}})
        config = config.model_copy(update={"algorithm": awake})
    answerer = Answerer(config)
    first = answerer.answer(WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0), _NOTHING, None, [])
    outer = Outer(first.flat, config.outer)
    slots = config.topology.slots
    share = np.float32(1 / slots)
    for version in range(config.run.rounds):
        theta = outer.theta.copy()
        total: Flat | None = None
        for slot in range(slots):
            item = WorkItem(version + 1, ItemKind.TRAIN, 0, slot, 0, version, version)
            gradient = answerer.answer(item, theta, first.layout, answerer.draw(item)).flat
            total = gradient * share if total is None else total + gradient * share
        assert total is not None
        outer.step(total, config.outer.lr)
    return checkpoints.theta_sha256({0: outer.theta})


_NOTHING: Flat = np.empty(0, dtype="<f4")


def config_of(*layers: Values) -> RunConfig:
    """Return the resolved configuration of sections laid over each other, later ones on top.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged[section] = {**merged.get(section, {}), **values}
    return configuration.resolve(configuration.from_mapping(merged, "benchmark"))


def simulated(task_ms: float, **options: Any) -> Values:
    """Return the sections that replace computation by a sleep (dmaml.bench.simulated)."""
    return {
        "task": {"source": "dmaml.bench.simulated:Blank"},
        "algorithm": {
            "name": "dmaml.bench.simulated:Sleeping",
            "options": {"task_ms": task_ms, **options},
        },
    }
