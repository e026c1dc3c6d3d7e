"""How many rounds per second does each mode do when one of the actors is slow?

dmaml bench stragglers
    5 slots and 5 actors, one of which takes 5 times as long (each task sleeps instead of being
    computed, dmaml.bench.simulated; conv4-64, a checkpoint with fsync every round). A round is W
    answers that were applied, W the number of slots: so a quorum's round of 4 answers counts as
    0.8, and an asynchronous commit of one answer as 0.2. `versions_per_s` counts commits.
    Synchronous runs must end with the digest of the same run computed plainly, in one process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from dmaml.bench import phases
from dmaml.bench.options import Parser, add_places, finish, positive, say, whole
from dmaml.bench.scaling import BASE
from dmaml.bench.trial import Trial, config_of, plain_digest, run_trial, settled, simulated
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError, UnknownNameError

SKIPPED: Final = 5  # commits after the last actor came
COLUMNS: Final = {
    "leg": "mode", "rounds_per_s": "rounds/s", "relative": "÷ sync", "versions_per_s": "versions/s",
    "answers_per_version": "answers a version", "digest": "digest",
}  # fmt: skip


@dataclass(frozen=True)
class Leg:
    """A mode under test.

    Attributes:
        sync, server: keys of these sections.
        is_exact: θ must have the digest of the plain run.
    """

    name: str
    sync: Mapping[str, Any]
    server: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = False


def legs(slots: int) -> dict[str, Leg]:
    """Return every mode by its name; the slow actor is the one that a quorum leaves out."""
    alone = {"speculation": False}
    quorum = {"mode": "quorum", "quorum": slots - 1}
    found = [
        Leg("sync", {"mode": "sync"}, alone, is_exact=True),
        Leg("speculation", {"mode": "sync"}, {"speculation": True}, is_exact=True),
        Leg("quorum", quorum, alone),
        Leg("quorum-merge", quorum | {"late": "merge"}, alone),
        Leg("async", {"mode": "async", "window": 3}, alone),
    ]
    return {leg.name: leg for leg in found}


def config_for(leg: Leg, options: argparse.Namespace, claim: Path) -> RunConfig:
    """Return the configuration of one run."""
    slow = {"factor": options.slow_factor, "claim": str(claim)}
    shape = {
        "run": {"name": "bench-stragglers", "rounds": options.rounds + SKIPPED},
        "algorithm": {"tasks": options.tasks},
        "topology": {"slots": options.slots},
        "sync": leg.sync,
        "server": leg.server,
    }
    return config_of(BASE, simulated(options.simulated_task_ms, slow=slow), shape)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print.

    Raises:
        DmamlError: a run failed, or its digest is wrong.
    """
    parser = Parser("stragglers", __doc__)
    parser.add_argument("--legs", default="", help="names separated by commas (all)")
    parser.add_argument("--simulated-task-ms", type=positive, default=25.0, metavar="MS")
    parser.add_argument("--tasks", type=whole, default=8, help="of a slot (8)")
    parser.add_argument("--slots", type=whole, default=5, help="slots, and actors (5)")
    parser.add_argument("--slow-factor", type=positive, default=5.0, help="of the slow actor (5)")
    parser.add_argument("--rounds", type=whole, default=40, help="of W answers in each run (40)")
    parser.add_argument("--repeats", type=whole, default=1, help="of all runs, in turn (1)")
    add_places(parser)
    options = parser.parse_args(arguments)
    if options.slots < 2:
        parser.error("--slots 1: one slow actor of one leaves nobody to wait for")
    report = measured(chosen(options), options)
    finish(report, COLUMNS, report["legs"], options.json)


def chosen(options: argparse.Namespace) -> list[Leg]:
    """Return the legs that were asked for; `sync`, which others are compared with, comes first.

    Raises:
        UnknownNameError: no such leg.
    """
    known = legs(options.slots)
    names = options.legs.split(",") if options.legs else list(known)
    for name in names:
        if name not in known:
            raise UnknownNameError("leg", name, tuple(known))
    return [leg for name, leg in known.items() if name in names or name == "sync"]


def measured(runs: list[Leg], options: argparse.Namespace) -> dict[str, Any]:
    """Run every leg, as often as asked, in turn, and return the report."""
    found: dict[str, list[dict[str, Any]]] = {leg.name: [] for leg in runs}
    for leg in runs:
        config_for(leg, options, Path("claim"))  # an unknown key is said before anything runs
    for number in range(options.repeats):
        for leg in runs:
            say(f"run {number + 1}/{options.repeats}: {leg.name}")
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory(prefix="dmaml-bench-") as folder:
                config = config_for(leg, options, Path(folder) / "claim")
                trial = run_trial(config, options.slots, options.folder, options.data_dir)
                entry = figures(trial, options) | {"load_before": round(load, 2)}
                if leg.is_exact:
                    check_digest(leg, trial, config)
            say(f"  {entry['rounds_per_s']} rounds/s")
            found[leg.name].append(entry)
    rates = {name: median(e["rounds_per_s"] for e in entries) for name, entries in found.items()}
    table = [
        {
            "leg": leg.name,
            "rounds_per_s": round(rates[leg.name], 3),
            "relative": round(rates[leg.name] / rates["sync"], 2),
            "versions_per_s": round(median(e["versions_per_s"] for e in found[leg.name]), 3),
            "answers_per_version": median(e["answers_per_version"] for e in found[leg.name]),
            "digest": "as the plain run's" if leg.is_exact else "",
            "runs": found[leg.name],
        }
        for leg in runs
    ]
    return {
        "benchmark": "stragglers",
        "slots": options.slots,
        "actors": options.slots,
        "slow_actors": 1,
        "slow_factor": options.slow_factor,
        "simulated_task_ms": options.simulated_task_ms,
        "tasks": options.tasks,
        "cpus": os.cpu_count(),
        "rounds_per_s": {row["leg"]: row["rounds_per_s"] for row in table},
        "relative_to_sync": {row["leg"]: row["relative"] for row in table},
        "legs": table,
    }


def figures(trial: Trial, options: argparse.Namespace) -> dict[str, Any]:
    """Return what one run came to."""
    rounds = settled(trial, options.slots, SKIPPED)
    first, last = rounds[0], rounds[-1]
    seconds = last["at"] - first["at"]
    tasks = last["tasks_seen"] - first["tasks_seen"]
    versions = last["version"] - first["version"]
    return {
        "rounds_per_s": round(phases.tasks_per_s(rounds) / (options.slots * options.tasks), 4),
        "versions_per_s": round(versions / seconds, 4),
        "answers_per_version": round(tasks / (versions * options.tasks), 3),
        "seconds": round(seconds, 2),
        "theta_sha256": trial.theta_sha256,
        "wall_s": round(trial.wall_s, 1),
    }


def check_digest(leg: Leg, trial: Trial, config: RunConfig) -> None:
    """Raise unless θ has the digest of the same run computed plainly."""
    expected = plain_digest(config)
    if trial.theta_sha256 != expected:
        raise RunFailedError(
            f"{leg.name}: θ has the digest {trial.theta_sha256[:16]}, required {expected[:16]}. "
            "This is a bug: results must not depend on who computes them."
        )


if __name__ == "__main__":
    main()
