"""A compose project of its own: what the scenarios do to it, and what they read from it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.harness import wait_for

ROOT = Path(__file__).parents[2]
MONITORING = ("--profile", "monitoring")


@dataclass
class Compose:
    """One project: a name, ports that are free, and the knobs of `.env` that differ."""

    name: str
    knobs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for port in ("GRPC", "HTTP", "DASHBOARD", "PROMETHEUS", "GRAFANA"):
            self.knobs.setdefault(f"DMAML_{port}_PORT", str(free_port()))

    def run(self, *words: str, check: bool = True, timeout_s: float = 300.0) -> str:
        """Run `docker compose WORDS` and return what it said."""
        command = ["docker", "compose", "--project-name", self.name, *words]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | self.knobs, text=True, timeout=timeout_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if check and done.returncode:
            logs = self.run("logs", "--no-color", "--tail", "20", check=False)
            raise AssertionError(f"{' '.join(command)}:\n{done.stdout[-1000:]}\n{logs}")
        return done.stdout

    def up(self, workers: int, *words: str) -> float:
        """Bring the cluster to so many workers, wait until all are healthy; return the seconds."""
        began = time.monotonic()
        self.run("up", "-d", "--no-build", "--wait", "--scale", f"worker={workers}", *words)
        return time.monotonic() - began

    def down(self) -> None:
        """Remove everything."""
        self.run(*MONITORING, "down", "-v", "--remove-orphans")

    def left(self) -> list[str]:
        """Return the containers, volumes and networks of this project that are there."""
        label = f"label=com.docker.compose.project={self.name}"
        found: list[str] = []
        for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
            found += docker(*kind, "-q", "--filter", label).split()
        return found

    def container(self, service: str, number: int = 1) -> str:
        """Return the name of one container."""
        return f"{self.name}-{service}-{number}"

    def logs(self, service: str) -> str:
        """Return what a service said."""
        return self.run("logs", "--no-color", service)

    def get(self, path: str) -> bytes:
        """Return a page of the server."""
        return fetch(f"http://127.0.0.1:{self.knobs['DMAML_HTTP_PORT']}{path}")

    def status(self) -> dict[str, Any]:
        """Return the run now, or an empty one while the server is away."""
        try:
            status: dict[str, Any] = json.loads(self.get("/api/status"))
        except OSError:
            return {"version": 0, "workers": [], "state": ""}
        return status

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample of the server by name and labels."""
        families = text_string_to_metric_families(self.get("/metrics").decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def prometheus(self, path: str, **query: str) -> Any:
        """Ask Prometheus' API and return its data."""
        base = f"http://127.0.0.1:{self.knobs['DMAML_PROMETHEUS_PORT']}/api/v1/{path}"
        return json.loads(fetch(f"{base}?{urllib.parse.urlencode(query)}"))["data"]


KILL = """
for process in /proc/[0-9]*; do
    if [ "${process#/proc/}" != $$ ] && tr '\\0' ' ' < $process/cmdline | grep -q "$1"; then
        kill -9 "${process#/proc/}" && echo killed
    fi
done 2>/dev/null
"""


def kill_process(container: str, pattern: str) -> None:
    """Kill -9 the processes of a container whose command line holds `pattern`."""
    assert "killed" in docker("exec", "-i", container, "sh", "-s", "--", pattern, text=KILL)


def docker(*words: str, text: str | None = None) -> str:
    """Run `docker WORDS` and return what it printed."""
    command = ["docker", *words]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def wait(condition: Callable[[], Any], what: str, deadline_s: float = 120.0) -> Any:
    """Wait as `wait_for` does, but look less often: each look asks a container."""
    return wait_for(condition, what, deadline_s, pause_s=0.25)


def fetch(url: str) -> bytes:
    """Return a page."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        page: bytes = reply.read()
    return page


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
