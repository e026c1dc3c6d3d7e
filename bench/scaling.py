"""How does the duration of a round grow with workers, epochs or tasks?

dmaml bench scaling --simulated-task-ms 20
    Table 6.4 of the DMAML thesis (Soulier 2020): 1 to 16 workers, slots and actors together, 32
    tasks a slot, conv4-64, a checkpoint with fsync every round. Each task sleeps instead of being
    computed (dmaml.bench.simulated), so that two cores can be many machines. The final θ must have
    the digest of the same run computed plainly, in one process.
dmaml bench scaling --factor epochs|tasks [--simulated-task-ms 20]
    The same for local steps, and for tasks, of one worker.
dmaml bench scaling
    Real computation: tasks/s of 1 and of 2 actors over the same 4 slots of 32 tasks.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from dmaml.bench import phases
from dmaml.bench.options import Parser, add_places, finish, positive, say, whole, wholes
from dmaml.bench.overhead import measure
from dmaml.bench.trial import (
    Trial,
    Values,
    config_of,
    plain_digest,
    run_trial,
    settled,
    simulated,
)
from dmaml.common.config import RunConfig, identity
from dmaml.common.errors import RunFailedError

SKIPPED: Final = 5  # rounds after the last actor came
BASE: Final[Values] = {
    "task": {"source": "glyphs", "n_way": 5, "k_shot": 1, "k_query": 1},
    "model": {"name": "conv4", "width": 64},
    "algorithm": {"name": "maml", "inner_lr": 0.4, "inner_steps": 1},
    "outer": {"name": "adam", "lr": 0.001},
    "evaluation": {"every": 0, "test_tasks": 0},
    "server": {"checkpoint_every": 1},
}
COLUMNS: Final = {
    "ratio": "ratio", "slots": "slots", "actors": "actors", "epochs": "epochs", "tasks": "tasks",
    "seen_tasks": "tasks/round", "seconds": "s/round", "relative": "%", "tasks_per_s": "tasks/s",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One row of the table: a run's shape."""

    ratio: int
    slots: int = 1
    actors: int = 1
    epochs: int = 1
    tasks: int = 32

    @property
    def seen_tasks(self) -> int:
        """Tasks of one round."""
        return self.slots * self.epochs * self.tasks

    def __str__(self) -> str:
        return f"{self.actors} actors, {self.slots} slots, {self.epochs} epochs, {self.tasks} tasks"


def points(factor: str, ratios: Sequence[int], tasks: int) -> list[Point]:
    """Return the rows of the table in which one factor grows."""
    if factor == "workers":
        return [Point(ratio, slots=ratio, actors=ratio, tasks=tasks) for ratio in ratios]
    if factor == "epochs":
        return [Point(ratio, epochs=ratio, tasks=tasks) for ratio in ratios]
    return [Point(ratio, tasks=tasks * ratio) for ratio in ratios]


def config_for(point: Point, options: argparse.Namespace) -> RunConfig:
    """Return the configuration of a row's run."""
    shape: Values = {
        "run": {"name": "bench-scaling", "rounds": options.rounds + SKIPPED},
        "task": {"source": options.source},
        "algorithm": {"tasks": point.tasks, "local_steps": point.epochs},
        "topology": {"slots": point.slots},
    }
    asleep = options.simulated_task_ms
    return config_of(BASE, shape, simulated(asleep) if asleep is not None else {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        DmamlError: a run failed, or its digest is wrong.
    """
    parser = Parser("scaling", __doc__)
    parser.add_argument("--factor", choices=("workers", "epochs", "tasks"), default="workers")
    parser.add_argument("--simulated-task-ms", type=positive, metavar="MS", help="sleep a task")
    parser.add_argument("--ratios", type=wholes, default=(1, 2, 4, 8, 16), help="1,2,4,8,16")
    parser.add_argument("--tasks", type=whole, default=32, help="of a slot (32)")
    parser.add_argument("--rounds", type=whole, default=40, help="to measure in each run (40)")
    parser.add_argument("--repeats", type=whole, default=1, help="of all runs, in turn (1)")
    parser.add_argument("--source", default="glyphs", help="of real tasks (glyphs)")
    parser.add_argument("--slots", type=whole, default=4, help="real computation: slots (4)")
    parser.add_argument("--actors", type=wholes, default=(1, 2), help="real computation: 1,2")
    add_places(parser)
    options = parser.parse_args(arguments)
    is_real = options.simulated_task_ms is None
    if is_real and options.factor == "workers":
        rows = [Point(a, options.slots, a, 1, options.tasks) for a in options.actors]
    else:
        rows = points(options.factor, options.ratios, options.tasks)
    from dmaml.deploy.train import check_work  # imports torch

    check_work(config_for(rows[0], options), options.data_dir)
    report = measured(rows, options)
    finish(report, COLUMNS, report["points"], options.json)


def measured(rows: list[Point], options: argparse.Namespace) -> dict[str, Any]:
    """Run every row, as often as asked, in turn, and return the report."""
    is_real = options.simulated_task_ms is None
    has_same_slots = is_real and options.factor == "workers"
    found: dict[int, list[dict[str, Any]]] = {point.ratio: [] for point in rows}
    for number in range(options.repeats):
        for point in rows:
            say(f"run {number + 1}/{options.repeats}: {point}")
            config = config_for(point, options)
            load = os.getloadavg()[0]
            trial = run_trial(config, point.actors, options.folder, options.data_dir)
            entry = figures(trial, point, has_same_slots) | {"load_before": round(load, 2)}
            say(f"  {entry['seconds_per_round']['median']} s a round, {entry['ms']}")
            found[point.ratio].append(entry)
    check_digests(rows, found, options)
    seconds = {
        ratio: median(entry["seconds_per_round"]["median"] for entry in entries)
        for ratio, entries in found.items()
    }
    relative = phases.relative_percent(seconds)
    table = [
        vars(point)
        | {
            "seen_tasks": point.seen_tasks,
            "seconds": round(seconds[point.ratio], 4),
            "relative": relative[str(point.ratio)],
            "tasks_per_s": round(point.seen_tasks / seconds[point.ratio], 2),
            "runs": found[point.ratio],
        }
        for point in rows
    ]
    report: dict[str, Any] = {
        "benchmark": "scaling",
        "factor": "actors" if has_same_slots else options.factor,
        "simulated_task_ms": options.simulated_task_ms,
        "source": options.source if is_real else None,
        "cpus": os.cpu_count(),
        "digests_checked": True,
        "points": table,
    }
    if has_same_slots:
        rates = {str(row["actors"]): row["tasks_per_s"] for row in table}
        base = table[0]["tasks_per_s"]
        return report | {
            "tasks_per_s": rates,
            "speedup": {actors: round(rate / base, 3) for actors, rate in rates.items()},
        }
    return report | {"relative_duration_percent": relative}


def figures(trial: Trial, point: Point, has_same_slots: bool) -> dict[str, Any]:
    """Return what one run came to."""
    rounds = settled(trial, point.actors, SKIPPED)
    parts = measure(rounds)["ms"] if has_same_slots else phases.median_phases(rounds)
    return {
        "rounds": len(rounds) - 1,
        "seconds_per_round": phases.spread_of(phases.durations(rounds)),
        "ms": parts,
        "theta_sha256": trial.theta_sha256,
        "wall_s": round(trial.wall_s, 1),
    }


def check_digests(
    rows: list[Point], found: dict[int, list[dict[str, Any]]], options: argparse.Namespace
) -> None:
    """Raise unless every run of one shape ended with the same bits.

    Runs of sleeping tasks are compared with the same run computed plainly; real ones with each
    other, whatever the number of actors.
    """
    expected: dict[str, str] = {}
    for point in rows:
        config = config_for(point, options)
        key, is_asleep = identity(config), options.simulated_task_ms is not None
        for entry in found[point.ratio]:
            digest = entry["theta_sha256"]
            if key not in expected:
                expected[key] = plain_digest(config) if is_asleep else digest
            if digest != expected[key]:
                raise RunFailedError(
                    f"{point}: θ has the digest {digest[:16]}, required {expected[key][:16]}. "
                    "This is a bug: results must not depend on who computes them."
                )


if __name__ == "__main__":
    main()
