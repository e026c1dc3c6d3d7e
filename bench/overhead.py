"""How much of a round do the server and the transport take?

Trains for some rounds with conv4, k_query 1, 4 slots x 8 tasks and two actors, a checkpoint with
fsync every round, on this machine, and reads the actors' own timings from `run.sqlite`. An actor
is held up by server and transport from the end of one item's computation to the start of its
next, less the time in which another actor still computes the same round (that is imbalance, and
shown by itself).

    dmaml bench overhead [--rounds 100] [--workers 2] [--source glyphs]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from dmaml.bench.options import Parser, whole
from dmaml.common.rundir import read_rows

CONFIG = """\
run:        {{name: overhead, seed: 1, rounds: {rounds}}}
task:       {{source: {source}, n_way: 5, k_shot: 1, k_query: 1}}
model:      {{name: conv4, width: 64}}
algorithm:  {{name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 8}}
topology:   {{slots: 4}}
outer:      {{name: adam, lr: 0.001}}
evaluation: {{every: 0, test_tasks: 0}}
server:     {{checkpoint_every: 1}}
"""
SKIPPED = 5  # rounds in which actors still warm up


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser("overhead", __doc__)
    parser.add_argument("--rounds", type=whole, default=100)
    parser.add_argument("--workers", type=whole, default=2)
    parser.add_argument("--source", default="glyphs")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "overhead.yaml"
        config.write_text(CONFIG.format(rounds=options.rounds, source=options.source))
        run_dir = Path(folder) / "run"
        command = [sys.executable, "-m", "dmaml.deploy.cli", "train", str(config), "--json"]
        command += ["--workers", str(options.workers), "--run-dir", str(run_dir)]
        report = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        found = measure(read_rows(run_dir, "rounds")[SKIPPED:])
    print(json.dumps({"tasks_per_s": report["tasks_per_s"], **found}))


def measure(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians over rounds, in milliseconds and in percent of a round."""
    shares: list[float] = []
    table: dict[str, list[float]] = {"round": [], "overhead": [], "imbalance": [], "compute": []}
    phases: dict[str, list[float]] = {"pull": [], "sample": [], "wait": [], "commit": []}
    for before, now in pairwise(rounds):
        last_end = max(item["computed_at"] for item in before["items"])
        wall = max(item["computed_at"] for item in now["items"]) - last_end
        ends = ends_of(before["items"])
        overhead, compute, imbalance = [], [], []
        for worker, items in by_worker(now["items"]).items():
            at, lost, busy = ends.get(worker, last_end), 0.0, 0.0
            for number, item in enumerate(items):
                start = item["computed_at"] - item["compute_s"]
                lost += start - (max(at, last_end) if number == 0 else at) - item["sample_s"]
                busy += item["compute_s"]
                at = item["computed_at"]
            overhead.append(lost)
            compute.append(busy)
            imbalance.append(wall - busy - lost)
        shares.append(100 * mean(overhead) / wall)
        table["round"].append(wall)
        table["overhead"].append(mean(overhead))
        table["imbalance"].append(mean(imbalance))
        table["compute"].append(mean(compute))
        for phase in ("pull", "sample", "wait"):
            phases[phase].append(sum(item[f"{phase}_s"] for item in now["items"]) / len(ends))
        phases["commit"].append(now["timings"]["commit_s"])
    return {
        "rounds": len(shares),
        "overhead_percent": round(median(shares), 2),
        "ms": {name: round(1000 * median(values), 2) for name, values in table.items()},
        "phase_ms_per_actor_and_round": {
            name: round(1000 * median(values), 2) for name, values in phases.items()
        },
    }


def by_worker(items: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return each actor's items in the order in which it computed them."""
    out: dict[str, list[dict[str, Any]]] = {}
    for item in sorted(items, key=lambda item: item["computed_at"]):
        out.setdefault(item["worker_id"], []).append(item)
    return out


def ends_of(items: list[dict[str, Any]]) -> dict[str, float]:
    """Return when each actor finished its last item of a round."""
    return {worker: own[-1]["computed_at"] for worker, own in by_worker(items).items()}


def mean(values: list[float]) -> float:
    """Return the arithmetic mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
