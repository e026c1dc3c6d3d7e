"""Every strategy in a real run: killed in each of its phases, with more actors, and as shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.checkpoint import Checkpoint
from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.deploy.cli import run_cli
from tests.integration.forked import forked
from tests.integration.harness import (
    CountingAnswerer,
    Worker,
    digest_of,
    latest,
    tiny,
    train,
    write_archives,
)


@dataclass(frozen=True)
class Case:
    """A strategy on two small archives.

    Attributes:
        clustering: the section.
        rounds: TRAIN rounds.
        kills: the items before whose answer the server is killed: kind and index of the round.
        phases: what the record tells that it went through, in order.
    """

    clustering: dict[str, Any]
    rounds: int
    kills: tuple[tuple[ItemKind, int], ...]
    phases: tuple[str, ...]

    def config(self, sources: list[str]) -> RunConfig:
        """Return a run that takes about a second."""
        values: dict[str, dict[str, Any]] = {
            "run": {"rounds": self.rounds},
            "task": {
                "source": "mixed", "n_way": 2, "k_shot": 1, "k_query": 1, "image_size": 6,
                "options": {"sources": sources, "shares": "units"},
            },
            "clustering": self.clustering,
            "evaluation": {"every": 0, "tasks": 4, "steps": 1, "k_query": 2, "test_tasks": 0},
            "server": {"checkpoint_every": 3},
        }  # fmt: skip
        return tiny(**values)


TRAIN, PROBE = ItemKind.TRAIN, ItemKind.PROBE
CASES = {
    "kmeans": Case(
        {"name": "kmeans", "pipelines": 2, "options": {"samples": 2, "warmup": 2}},
        4,
        ((TRAIN, 1), (PROBE, 0), (TRAIN, 3)),
        ("train",),
    ),
    "gamma": Case(
        {
            "name": "gamma", "pipelines": 2,
            "options": {
                "meta_train_iterations": 2, "update_iterations": 4, "cycles": 2, "tasks": 4,
                "iterations_per_round": 2, "bound": "phase",
            },
        },
        5,
        ((PROBE, 0), (TRAIN, 1), (PROBE, 2), (TRAIN, 3), (PROBE, 3), (TRAIN, 4)),
        (
            "meta-train, cycle 1 of 2", "update, cycle 1 of 2", "meta-train, cycle 2 of 2",
            "update, cycle 2 of 2", "train",
        ),
    ),
    "mixture": Case(
        {
            "name": "mixture", "pipelines": 2, "max_pipelines": 3,
            "options": {
                "warmup": 2, "every": 1, "cycles": 2, "restarts": 2, "trial": 1, "samples": 2,
                "first": ["embedding", "sketches"], "split_visits": 3.0, "least": 0.0,
            },
        },
        8,
        (
            (TRAIN, 1), (PROBE, 0), (PROBE, 1), (PROBE, 2), (TRAIN, 3), (PROBE, 3), (PROBE, 5),
            (TRAIN, 7),
        ),
        ("split", "em 0", "em 1", "done"),
    ),
    "gradient_tree": Case(
        {
            "name": "gradient_tree", "max_pipelines": 3,
            "options": {"every": 2, "rows": 2, "dims": 8, "tasks": 40, "alpha": 1.0},
        },
        6,
        ((TRAIN, 1), (PROBE, 0), (PROBE, 2), (TRAIN, 3), (PROBE, 4)),
        ("train",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Each strategy in turn."""
    return CASES[request.param]


@pytest.fixture(scope="module")
def config(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """The run of a strategy."""
    folder = tmp_path_factory.mktemp("archives")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMAML_CACHE", str(folder / "cache"))
        yield case.config(write_archives(folder))


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with one actor and nothing in its way."""
    run = tmp_path_factory.mktemp("strategies") / "run"
    train(config, run)
    return run


def clustering_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return all that a strategy knows, and γ."""
    arrays = {
        name: (value.dtype.str, value.shape, value.tobytes())
        for name, value in checkpoint.tensors.items()
        if name.startswith("cluster")
    }
    return {"values": checkpoint.meta["clustering"], **arrays}


def test_it_goes_through_its_phases(case: Case, undisturbed: Path) -> None:
    rows = read_rows(undisturbed, "gamma")

    assert tuple(dict.fromkeys(row["state"]["phase"] for row in rows)) == case.phases
    assert [row["version"] for row in rows] == list(range(1, len(rows) + 1))


def test_three_actors_give_the_same_gamma_and_theta(
    config: RunConfig, undisturbed: Path, tmp_path: Path
) -> None:
    digest = train(config, tmp_path / "run", workers=3)

    assert digest == digest_of(undisturbed)
    assert clustering_of(latest(tmp_path / "run")) == clustering_of(latest(undisturbed))


@pytest.mark.e2e
def test_a_server_killed_in_every_phase_ends_with_the_same_gamma_and_theta(
    case: Case, config: RunConfig, undisturbed: Path, tmp_path: Path
) -> None:
    run, left = tmp_path / "run", set(case.kills)

    with forked(config, run) as server:

        def kill(number: int, item: WorkItem) -> None:
            if item.slot == 1 and (item.kind, item.index) in left:
                left.remove((item.kind, item.index))
                server.kill()
                server.restart()

        Worker(config, server.target, CountingAnswerer(config, kill)).join()
        assert server.wait() == 0

    assert not left
    assert (run / "epoch").read_text() == str(1 + len(case.kills))
    assert digest_of(run) == digest_of(undisturbed)
    assert clustering_of(latest(run)) == clustering_of(latest(undisturbed))
    assert plain(read_rows(run, "gamma")) == plain(read_rows(undisturbed, "gamma"))


def plain(rows: Any) -> list[dict[str, Any]]:
    """Return rows of the record without the time of day."""
    return [{name: value for name, value in dict(row).items() if name != "at"} for row in rows]


def test_it_can_be_shown(case: Case, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()

    assert run_cli(["cluster", str(undisturbed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert run_cli(["cluster", str(undisturbed)]) == 0
    shown = capsys.readouterr().out

    assert found["strategy"] == case.clustering["name"]
    assert len(found["origins"]) == len(found["recovery"]) == 2
    assert all(0 <= share <= 1 for share in found["recovery"])
    assert {"purity", "nmi", "ari", "entropy"} <= set(found["scores"])
    active = [row for row in found["pipelines"] if row["active"]]
    assert len(active) > 1
    assert sum(row["units"] for row in active) == found["num_units"]
    doubts = [row["entropy"] for row in found["uncertain"]]
    assert doubts == sorted(doubts, reverse=True)
    assert all(np.isclose(sum(row["gamma"]), 1, atol=1e-4) for row in found["uncertain"])
    last = found["history"][-1]
    assert [unit for unit, _ in last["uncertain"]] == [row["unit"] for row in found["uncertain"]]
    assert np.allclose(last["expected_units"], [row["expected_units"] for row in active])
    for row in found["pipelines"]:
        assert f"pipeline {row['pipeline']}" in shown
    assert "recovery of" in shown
