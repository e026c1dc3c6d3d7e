"""How a running cluster shares its work, and how soon a waiting actor gets an item.

Start one first, for instance `docker compose up -d --scale worker=4 --wait`, then:

    dmaml bench cluster --http localhost:9464 --seconds 60

Prints one JSON object: answers of each actor meanwhile, the least over the most of them (1: fair),
and the quantiles of the lease delay (docs/metrics.md) as upper bounds of the histogram's buckets.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from dmaml.bench.options import Parser, positive

DELAY = "dmaml_lease_delay_seconds_bucket"
SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def status(http: str) -> dict[str, Any]:
    """Return the run now."""
    with urllib.request.urlopen(f"http://{http}/api/status", timeout=10) as reply:
        found: dict[str, Any] = json.loads(reply.read())
        return found


def delays(http: str) -> dict[float, float]:
    """Return the histogram of the lease delay: upper bound, seconds -> leases so far."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
    return {
        float(sample.labels["le"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == DELAY
    }


def quantile(buckets: dict[float, float], share: float) -> float:
    """Return the least bound that holds this share of all."""
    total = max(buckets.values())
    return min(bound for bound, count in buckets.items() if count >= share * total)


def measure(http: str, seconds: float) -> dict[str, Any]:
    """Return what happened in so many seconds."""
    before, delays_before = status(http), delays(http)
    time.sleep(seconds)
    after, delays_after = status(http), delays(http)
    answers_before = {w["worker_id"]: w["contributions"] for w in before["workers"]}
    answers = {
        w["worker_id"]: w["contributions"] - answers_before.get(w["worker_id"], 0)
        for w in after["workers"]
    }
    buckets = {bound: count - delays_before[bound] for bound, count in delays_after.items()}
    return {
        "seconds": seconds,
        "rounds": after["version"] - before["version"],
        "tasks_per_s": (after["tasks_seen"] - before["tasks_seen"]) / seconds,
        "answers": answers,
        "fairness": min(answers.values()) / max(answers.values()),
        "leases": max(buckets.values()),
        "lease_delay_s": {name: quantile(buckets, share) for name, share in SHARES.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser("cluster", __doc__)
    parser.add_argument("--http", default="localhost:9464")
    parser.add_argument("--seconds", type=positive, default=60.0)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.http, options.seconds)))


if __name__ == "__main__":
    main()
