"""Simulated computation, served: the digest is that of the same run computed plainly."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmaml.bench.trial import config_of, plain_digest, simulated
from tests.integration.harness import train


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_plain_run_has_the_digest_of_a_served_one(tmp_path: Path, epochs: int) -> None:
    values = {
        "run": {"rounds": 4},
        "task": {"n_way": 5, "k_shot": 1, "k_query": 1},
        "model": {"name": "conv4", "width": 4},
        "algorithm": {"tasks": 2, "local_steps": epochs},
        "topology": {"slots": 3},
        "evaluation": {"every": 0, "test_tasks": 0},
    }
    slow = {"factor": 5.0, "claim": str(tmp_path / "claim")}
    config = config_of(values, simulated(0.01, slow=slow))

    assert train(config, tmp_path / "run", workers=2) == plain_digest(config)
