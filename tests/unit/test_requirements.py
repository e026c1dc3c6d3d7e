"""What the images install: the server's is light, the worker's has everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")  # Python 3.11, as in the images

from dmaml.deploy.requirements import requirements  # noqa: E402

ROOT = Path(__file__).parents[2]
LISTED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def names(lines: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0] for line in lines}


def test_the_server_installs_nothing_that_only_actors_and_pictures_need() -> None:
    left_out = names(LISTED) - names(requirements("server"))

    assert left_out == {
        "gymnasium",
        "matplotlib",
        "pillow",
        "platformdirs",
        "pooch",
        "ray",
        "torch",
    }


def test_the_worker_installs_everything_but_torch_which_is_there_before() -> None:
    assert names(LISTED) - names(requirements("worker")) == {"torch"}


@pytest.mark.parametrize("target", ["server", "worker"])
def test_versions_are_bound_as_in_pyproject(target: str) -> None:
    kept = [line for line in requirements(target) if not line.startswith("ray")]

    assert set(kept) <= set(LISTED)


def test_the_workers_ray_has_its_dashboard_and_metrics() -> None:
    ray = next(line for line in LISTED if line.startswith("ray"))

    assert f"ray[default]{ray.removeprefix('ray')}" in requirements("worker")


def test_the_command_prints_one_requirement_a_line() -> None:
    command = [sys.executable, str(ROOT / "deploy" / "requirements.py"), "server"]

    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == requirements("server")
