"""The cluster, whole, in real containers: a training that has everything happen to it.

Three workers train on Omniglot from a mounted folder; they become five; one container is killed,
another loses its network, the server's process is killed by `kill -9`, four workers are taken away,
and the run finishes with the digest that the same configuration gives outside of containers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.rundir import read_rows
from dmaml.worker.tasks.locate import locate
from tests.e2e.compose import MONITORING, Compose, docker, kill_process, wait

ROUNDS = int(os.environ.get("DMAML_E2E_ROUNDS", "800"))
NAME = "omniglot-e2e"
CONFIG = f"""\
run:        {{name: {NAME}, seed: 3, rounds: {ROUNDS}}}
task:       {{source: omniglot, n_way: 5, k_shot: 1, k_query: 1}}
model:      {{name: conv4, width: 32}}
algorithm:  {{name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 2}}
topology:   {{slots: 8}}
outer:      {{name: adam, lr: 0.001}}
evaluation: {{every: 500, tasks: 40, steps: 1, k_query: 5, test_tasks: 0}}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Story:
    """What was seen on the way, and what was there at the end."""

    run_dir: Path
    timings: dict[str, float]
    last_status: dict[str, Any]
    busy: dict[Any, float]
    nodes_scraped: int
    adopted: bool
    samples: list[tuple[int, float]]
    prometheus_version: float
    prometheus_rounds: float
    version_before_kill: int
    left: list[str]
    reference: str


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Tell the story once."""
    folder = tmp_path_factory.mktemp("cluster")
    folder.chmod(0o755)  # the containers' user is nobody here
    (folder / "e2e.yaml").write_text(CONFIG)
    data = locate("omniglot28.npz")
    cluster = Compose(
        "dmaml-e2e",
        {
            "DMAML_CONFIG_DIR": str(folder),
            "DMAML_CONFIG": "e2e.yaml",
            "DMAML_DATA": str(data.parent),
        },
    )
    cluster.down()
    try:
        yield _tell(cluster, folder, data.parent)
    finally:
        cluster.down()


def _tell(cluster: Compose, folder: Path, data: Path) -> Story:
    timings: dict[str, float] = {}
    began = time.monotonic()

    timings["up with 3 workers"] = cluster.up(3)
    cluster.run(*MONITORING, "up", "-d", "--no-deps", "prometheus")
    _advance(cluster, 40)

    timings["3 -> 5 workers"] = cluster.up(5, "--no-recreate")
    _wait_for_workers(cluster, 5)
    wait(lambda: _nodes(cluster) == 6, "Prometheus scrapes the head and five nodes")
    nodes = _nodes(cluster)

    joined = _joined(cluster)
    kill_process(cluster.container("ray-head"), "dmaml.deploy.cli workers")
    timings["supervisor killed, five actors adopted"] = _seconds_until(
        lambda: "is adopted: 5 in all" in cluster.logs("ray-head"), "they are adopted"
    )
    adopted = _joined(cluster) == joined
    kill_process(cluster.container("worker", 1), "ray::MetaWorker")
    timings["actor killed, its successor joined"] = _seconds_until(
        lambda: _joined(cluster) == joined + 1, "a new actor takes its place"
    )

    docker("kill", cluster.container("worker", 2))
    timings["killed worker noticed"] = _wait_for_workers(cluster, 4)
    _advance(cluster, 20)

    network = f"{cluster.name}_default"
    docker("network", "disconnect", network, cluster.container("worker", 3))
    timings["cut-off worker noticed"] = _wait_for_workers(cluster, 3)
    _advance(cluster, 20)

    version, busy = cluster.status()["version"], cluster.metrics()
    script = f"import json, os; os.kill(json.load(open('/runs/{NAME}/server.json'))['pid'], 9)"
    cluster.run("exec", "-T", "server", "python3", "-c", script)
    killed = time.monotonic()
    wait(lambda: cluster.status().get("epoch") == 2, "the server started again")
    wait(lambda: cluster.status()["version"] > version, "it goes on")
    timings["server killed, next round committed"] = time.monotonic() - killed

    timings["-> 1 worker"] = cluster.up(1, "--no-recreate")
    _wait_for_workers(cluster, 1)
    wait(lambda: cluster.status()["state"] == "FINISHED", "the run finishes", 400.0)
    timings["scenario"] = time.monotonic() - began

    status = cluster.status()
    wait(lambda: _sample(cluster, "dmaml_version") == ROUNDS, "Prometheus saw the last round")
    samples = _samples(cluster, began)
    run_dir = folder / "run"
    docker("cp", f"{cluster.container('server')}:/runs/{NAME}", str(run_dir))
    last = _sample(cluster, "dmaml_version"), _rounds(cluster)
    seen = status, busy, nodes, adopted, samples, *last
    cluster.down()
    left = cluster.left()

    reference = time.monotonic()
    digest = _train_outside(folder, data)
    timings["the same with `dmaml train --workers 1`"] = time.monotonic() - reference
    (folder / "timings.json").write_text(json.dumps(timings))
    for what, seconds in timings.items():
        sys.stderr.write(f"{what:45s} {seconds:6.1f} s\n")
    return Story(run_dir, timings, *seen, version, left, digest)


def test_the_digest_is_that_of_one_actor_outside_of_containers(story: Story) -> None:
    assert story.last_status["theta_sha256"] == story.reference


def test_every_round_was_committed_once(story: Story) -> None:
    rows = read_rows(story.run_dir, "rounds")

    assert [row["version"] for row in rows] == list(range(1, ROUNDS + 1))
    assert sum(row["voids"] for row in rows) == 0


def test_lost_and_leaving_workers_are_in_the_record(story: Story) -> None:
    events = [(row["epoch"], row["event"]) for row in read_rows(story.run_dir, "worker_events")]

    assert events.count((1, "joined")) >= 5
    assert events.count((1, "lost")) == 3  # an actor, a container, a network
    assert (2, "joined") in events
    assert (2, "left") in events
    assert "failed" not in {event for _, event in events}


def test_a_new_supervisor_adopts_the_actors_that_are_there(story: Story) -> None:
    assert story.adopted


def test_prometheus_agrees_with_the_record(story: Story) -> None:
    losses = {row["version"]: row["loss"] for row in read_rows(story.run_dir, "rounds")}

    assert story.prometheus_version == ROUNDS
    done_after_the_kill = ROUNDS - story.version_before_kill
    assert story.prometheus_rounds == pytest.approx(done_after_the_kill, abs=20)
    assert len(story.samples) > 10
    for version, loss in story.samples:  # the two are not read at one instant
        near = [losses.get(v) for v in (version - 1, version, version + 1)]
        assert any(value == pytest.approx(loss, rel=1e-9) for value in near), version


def test_prometheus_scraped_every_node_of_ray(story: Story) -> None:
    assert story.nodes_scraped == 6


def test_a_waiting_lease_is_answered_within_100_ms(story: Story) -> None:
    name, labels = "dmaml_lease_delay_seconds_bucket", frozenset({("le", "0.1")})
    total = story.busy["dmaml_lease_delay_seconds_count", frozenset()]

    assert total > 500  # three to five workers had them
    assert story.busy[name, labels] >= 0.99 * total


def test_scaling_up_is_healthy_soon(story: Story) -> None:
    assert story.timings["3 -> 5 workers"] <= 60.0  # 20 s on two quiet cores: docs/cluster.md


def test_nothing_is_left_after_down(story: Story) -> None:
    assert story.left == []


def _advance(cluster: Compose, rounds: int) -> None:
    target = cluster.status()["version"] + rounds
    wait(lambda: cluster.status()["version"] >= target, f"{rounds} further rounds")


def _wait_for_workers(cluster: Compose, number: int) -> float:
    return _seconds_until(lambda: len(cluster.status()["workers"]) == number, f"{number} workers")


def _seconds_until(condition: Callable[[], Any], what: str) -> float:
    began = time.monotonic()
    wait(condition, what, 60.0)
    return time.monotonic() - began


def _joined(cluster: Compose) -> float:
    return cluster.metrics()["dmaml_worker_events_total", frozenset({("event", "joined")})]


def _nodes(cluster: Compose) -> int:
    found = cluster.prometheus("query", query='sum(up{job="ray"})')["result"]
    return int(float(found[0]["value"][1])) if found else 0


def _sample(cluster: Compose, query: str) -> float:
    found = cluster.prometheus("query", query=query)["result"]
    return float(found[0]["value"][1]) if found else 0.0


def _rounds(cluster: Compose) -> float:
    return _sample(cluster, 'dmaml_rounds_total{kind="train"}')


def _samples(cluster: Compose, began: float) -> list[tuple[int, float]]:
    """Return (version, query loss) of every scrape; a new process has no loss yet: NaN."""
    end = time.time()
    window = {"start": str(end - (time.monotonic() - began)), "end": str(end), "step": "5"}
    series = [
        {at: float(value) for at, value in result["values"]}
        for query in ("dmaml_version", "dmaml_query_loss")
        for result in cluster.prometheus("query_range", query=query, **window)["result"]
    ]
    versions, losses = series
    known = {at: loss for at, loss in losses.items() if not math.isnan(loss)}
    return [(int(v), known[at]) for at, v in versions.items() if v and at in known]


def _train_outside(folder: Path, data: Path) -> str:
    done = subprocess.run(
        [
            sys.executable, "-m", "dmaml.deploy.cli", "train", "e2e.yaml", "--workers", "1",
            "--run-dir", "outside", "--data-dir", str(data), "--json",
        ],
        cwd=folder, text=True, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    digest: str = json.loads(done.stdout.splitlines()[-1])["theta_sha256"]
    return digest
