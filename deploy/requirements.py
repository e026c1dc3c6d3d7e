"""Prints what an image installs beside torch: `python deploy/requirements.py server|worker`.

The one list of requirements is in pyproject.toml; the server's image leaves out what only actors,
pictures and downloads need.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib

NOT_ON_THE_SERVER = {"gymnasium", "matplotlib", "pillow", "platformdirs", "pooch", "ray"}
PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements(target: str, pyproject: Path = PYPROJECT) -> list[str]:
    """Return the requirements of `server` or `worker`, torch left out: it is installed before."""
    listed = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    by_name = {re.split(r"[^\w-]", line)[0]: line for line in listed}
    del by_name["torch"]
    if target == "server":
        return [line for name, line in by_name.items() if name not in NOT_ON_THE_SERVER]
    if target != "worker":
        raise SystemExit(f"error: {target!r}: required server or worker.")
    ray = by_name.pop("ray")
    return [*by_name.values(), ray.replace("ray", "ray[default]", 1)]  # its dashboard and metrics


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1])))
