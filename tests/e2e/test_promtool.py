"""What promtool says of our configuration, rules, metrics and dashboards, and when the alerts fire.

promtool is taken from PATH, else from the Prometheus image of docker-compose.yml.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dmaml.common.items import RunState
from dmaml.server.clustering.base import Gamma
from dmaml.server.metrics import Metrics

pytestmark = pytest.mark.e2e

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
IMAGE = os.environ.get("DMAML_PROMETHEUS_IMAGE", "prom/prometheus:v2.42.0")
MINUTES = 60  # of every series below


def promtool(folder: Path, *arguments: str, text: str = "") -> str:
    """Run promtool in a folder and return what it says; fail unless it is content."""
    command = ["promtool"]
    if shutil.which("promtool") is None:
        user = f"{os.getuid()}:{os.getgid()}"
        command = ["docker", "run", "--rm", "-i", "--network", "none", "--user", user]
        command += ["--volume", f"{folder}:/work:ro", "--workdir", "/work"]
        command += ["--entrypoint", "promtool", IMAGE]
    done = subprocess.run(
        [*command, *arguments], cwd=folder, input=text, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"promtool {' '.join(arguments)}: {said}"
    return said


def test_the_configuration_is_valid() -> None:
    said = promtool(PROMETHEUS, "check", "config", "prometheus.yml")

    assert "1 rule files found" in said


def test_the_rules_are_valid_and_none_is_there_twice() -> None:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    number = sum(len(group["rules"]) for group in rules)

    said = promtool(PROMETHEUS, "check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")

    assert f"{number} rules found" in said


def test_the_servers_metrics_follow_the_conventions(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.enter(RunState.RUNNING)
    metrics.route(Gamma(0, (0, 1), np.ones((0, 2), np.float32)))

    said = promtool(tmp_path, "check", "metrics", text=metrics.text().decode())

    assert said == ""


@pytest.mark.parametrize("name", ["training", "cluster"])
def test_every_expression_of_a_dashboard_parses(name: str, tmp_path: Path) -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboards" / f"{name}.json").read_text())
    found = [t["expr"] for panel in board["panels"] for t in panel.get("targets", [])]
    found += [note["expr"] for note in board["annotations"]["list"]]
    found += [
        re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])
        for variable in board["templating"]["list"]
    ]
    written = [
        {
            "record": f"expression_{index}",
            "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*"),
        }
        for index, expression in enumerate(found)
    ]
    assert not any("$" in rule["expr"] for rule in written)
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": name, "rules": written}]})
    )

    said = promtool(tmp_path, "check", "rules", "rules.yml")

    assert f"{len(found)} rules found" in said


# -- when the alerts fire -----------------------------------------------------------------------

SERVER = 'job="dmaml",instance="server:9464"'
RAY = 'job="ray",instance="10.0.0.2:8080"'
HEALTHY = {
    f"up{{{SERVER}}}": "1+0x60",
    f"up{{{RAY}}}": "1+0x60",
    f'dmaml_run_state{{{SERVER},state="running"}}': "1+0x60",
    f'dmaml_run_state{{{SERVER},state="paused"}}': "0+0x60",
    f'dmaml_run_state{{{SERVER},state="failed"}}': "0+0x60",
    f'dmaml_rounds_total{{{SERVER},kind="train"}}': "0+60x60",
    f'dmaml_rounds_total{{{SERVER},kind="evaluate"}}': "0+1x60",
    f'dmaml_workers{{{SERVER},state="computing"}}': "3+0x60",
    f'dmaml_workers{{{SERVER},state="silent"}}': "0+0x60",
    f'dmaml_worker_events_total{{{SERVER},event="lost"}}': "0+0x60",
    f'dmaml_worker_events_total{{{SERVER},event="lease_expired"}}': "0+0x60",
    f'dmaml_contributions_total{{{SERVER},outcome="buffered"}}': "0+240x60",
    f'dmaml_contributions_total{{{SERVER},outcome="stale_lease"}}': "0+1x60",
    f'dmaml_contributions_total{{{SERVER},outcome="non_finite"}}': "0+0x60",
    f"dmaml_epoch{{{SERVER}}}": "1+0x60",
    f"dmaml_event_loop_lag_seconds{{{SERVER}}}": "0.002+0x60",
    f'dmaml_lease_delay_seconds_bucket{{{SERVER},le="0.01"}}': "0+240x60",
    f'dmaml_lease_delay_seconds_bucket{{{SERVER},le="0.3"}}': "0+240x60",
    f'dmaml_lease_delay_seconds_bucket{{{SERVER},le="+Inf"}}': "0+240x60",
    f"dmaml_checkpoint_age_seconds{{{SERVER}}}": "5+0x60",
    f"process_open_fds{{{SERVER}}}": "30+0x60",
    f"process_max_fds{{{SERVER}}}": "1024+0x60",
    f"ray_node_mem_used{{{RAY}}}": "1+0x60",
    f"ray_node_mem_total{{{RAY}}}": "2+0x60",
    f"ray_node_disk_utilization_percentage{{{RAY}}}": "40+0x60",
}
STOPPED = {
    f'dmaml_rounds_total{{{SERVER},kind="train"}}': "700+0x60",
    f'dmaml_rounds_total{{{SERVER},kind="evaluate"}}': "7+0x60",
}
RUNNING, PAUSED, FAILED = (
    f'dmaml_run_state{{{SERVER},state="{state}"}}' for state in ("running", "paused", "failed")
)
CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({}, set()),
    "server down": ({f"up{{{SERVER}}}": "1+0x50 0+0x10"}, {"DmamlServerDown"}),
    "server unknown": ({f"up{{{SERVER}}}": "_x60"}, {"DmamlServerDown"}),
    "server starts again and again": (
        {f"dmaml_epoch{{{SERVER}}}": "1+0x50 2 3 4 5 5 5 5 5 5 5"},
        {"DmamlServerRestartsOften"},
    ),
    "slow event loop": (
        {f"dmaml_event_loop_lag_seconds{{{SERVER}}}": "0.4+0x60"},
        {"DmamlEventLoopSlow"},
    ),
    "slow leases": (
        {f'dmaml_lease_delay_seconds_bucket{{{SERVER},le="0.01"}}': "0+200x60"},
        {"DmamlLeasesSlow"},
    ),
    "old checkpoint": (
        {f"dmaml_checkpoint_age_seconds{{{SERVER}}}": "0+60x60"},
        {"DmamlCheckpointOld"},
    ),
    "old checkpoint of a run that is over": (
        {**STOPPED, RUNNING: "0+0x60", f"dmaml_checkpoint_age_seconds{{{SERVER}}}": "0+60x60"},
        set(),
    ),
    "files run out": ({f"process_open_fds{{{SERVER}}}": "900+0x60"}, {"DmamlServerFilesRunOut"}),
    "failed": ({**STOPPED, RUNNING: "0+0x60", FAILED: "1+0x60"}, {"DmamlRunFailed"}),
    "paused": ({**STOPPED, RUNNING: "0+0x60", PAUSED: "1+0x60"}, {"DmamlRunPaused"}),
    "paused just now": ({RUNNING: "1+0x55 0+0x5", PAUSED: "0+0x55 1+0x5"}, set()),
    "no progress": (STOPPED, {"DmamlNoProgress"}),
    "voids": (
        {f'dmaml_contributions_total{{{SERVER},outcome="non_finite"}}': "0+0x55 2+0x5"},
        {"DmamlVoids"},
    ),
    "nobody works": (
        {**STOPPED, f'dmaml_workers{{{SERVER},state="computing"}}': "0+0x60"},
        {"DmamlNoProgress", "DmamlNoWorkers"},
    ),
    "silent actors": (
        {f'dmaml_workers{{{SERVER},state="silent"}}': "1+0x60"},
        {"DmamlWorkersSilent"},
    ),
    "actors lost": (
        {f'dmaml_worker_events_total{{{SERVER},event="lost"}}': "0+0x55 5+0x5"},
        {"DmamlWorkersLost"},
    ),
    "leases expire": (
        {f'dmaml_worker_events_total{{{SERVER},event="lease_expired"}}': "0+0x55 9+0x5"},
        {"DmamlLeasesExpire"},
    ),
    "answers refused": (
        {f'dmaml_contributions_total{{{SERVER},outcome="stale_lease"}}': "0+30x60"},
        {"DmamlAnswersRefused"},
    ),
    "a Ray node does not answer": ({f"up{{{RAY}}}": "1+0x50 0+0x10"}, {"RayNodeDown"}),
    "no Ray node": ({f"up{{{RAY}}}": "_x60"}, {"RayNodesMissing"}),
    "a node's memory is full": ({f"ray_node_mem_used{{{RAY}}}": "1.9+0x60"}, {"RayNodeMemoryFull"}),
    "a disk is full": (
        {f"ray_node_disk_utilization_percentage{{{RAY}}}": "93+0x60"},
        {"RayNodeDiskFull"},
    ),
}


def case(changes: dict[str, str], expected: set[str]) -> dict[str, Any]:
    """Return a promtool test: after an hour of these series exactly these alerts fire."""
    assert set(changes) <= set(HEALTHY)
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for name, values in (HEALTHY | changes).items()
        ],
        "promql_expr_test": [
            {
                "expr": 'sum by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)
                ],
            }
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_exactly_these_alerts_fire_when(name: str, tmp_path: Path) -> None:
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["alerts.yml"],
                "evaluation_interval": "1m",
                "tests": [case(*CASES[name])],
            }
        )
    )

    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "test.yml")


def test_every_alert_was_seen_to_fire() -> None:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]

    fired = set().union(*(expected for _, expected in CASES.values()))

    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}
