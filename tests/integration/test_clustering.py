"""γ in a real run: probes, splits, pipelines that sit out; the same bits as ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.common.items import ItemKind, RunState, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.deploy.cli import run_cli
from dmaml.learner import load
from tests.integration.harness import (
    CountingAnswerer,
    LiveServer,
    Worker,
    digest_of,
    killable,
    latest,
    tiny,
    train,
    write_archives,
)

SPLITTER = "tests.integration.strategies:Splitter"
LONELY = "tests.integration.strategies:Lonely"


def families(rounds: int = 6, **sections: dict[str, Any]) -> RunConfig:
    """Return a run on families of functions that is split twice; see `strategies.Splitter`."""
    values: dict[str, dict[str, Any]] = {
        "run": {"rounds": rounds},
        "task": {
            "source": "function_families", "n_way": 1, "k_shot": 5, "k_query": 5,
            "options": {"functions": 250},
        },
        "clustering": {"name": SPLITTER, "pipelines": 2, "max_pipelines": 3},
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return tiny(**values)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Makes a run on two small archives, dark pictures and light ones."""
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    values: dict[str, dict[str, Any]] = {
        "run": {"rounds": 4},
        "task": {
            "source": "mixed", "n_way": 2, "k_shot": 1, "k_query": 1, "image_size": 6,
            "options": {"sources": write_archives(tmp_path)},
        },
        "evaluation": {"every": 0, "tasks": 4, "steps": 1, "k_query": 2, "test_tasks": 0},
    }  # fmt: skip

    def make(**sections: dict[str, Any]) -> RunConfig:
        merged = {name: dict(section) for name, section in values.items()}
        for name, section in sections.items():
            merged[name] = {**merged.get(name, {}), **section}
        return tiny(**merged)

    return make


def gamma_of(run: Path) -> np.ndarray:
    """Return γ of the latest checkpoint."""
    return latest(run).tensors["clustering.gamma"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one actor and nothing in its way."""
    run = tmp_path_factory.mktemp("clustering") / "run"
    train(families(), run)
    return run


def test_probes_split_the_run_and_its_history_is_recorded(undisturbed: Path) -> None:
    rows = read_rows(undisturbed, "gamma")

    assert [row["version"] for row in rows] == [1, 2, 3]
    assert [row["state"]["pipelines"] for row in rows] == [[0, 1], [0, 1], [1, 2, 3]]
    assert rows[-1]["state"]["tree"] == [
        [0, -1, 0, False], [1, -1, 0, True], [2, 0, 3, True], [3, 0, 3, True]
    ]  # fmt: skip
    rounds = read_rows(undisturbed, "rounds")
    assert [row["gamma_version"] for row in rounds] == [1, 1, 2, 3, 3, 3]
    assert set(rounds[-1]["losses"]) == {"1", "2", "3"}
    assert gamma_of(undisturbed).shape == (1000, 3)
    assert sorted(n for n in latest(undisturbed).tensors if n.startswith("theta")) == [
        "theta.1", "theta.2", "theta.3"
    ]  # fmt: skip


def test_three_actors_give_the_same_gamma_and_theta(tmp_path: Path, undisturbed: Path) -> None:
    digest = train(families(), tmp_path / "run", workers=3)

    assert digest == digest_of(undisturbed)
    assert np.array_equal(gamma_of(tmp_path / "run"), gamma_of(undisturbed))


def test_the_evaluation_schedule_does_not_change_gamma(tmp_path: Path, undisturbed: Path) -> None:
    digest = train(families(evaluation={"every": 1}), tmp_path / "run")

    assert digest == digest_of(undisturbed)
    assert np.array_equal(gamma_of(tmp_path / "run"), gamma_of(undisturbed))


def test_a_resumed_run_goes_on_with_its_pipelines(tmp_path: Path, undisturbed: Path) -> None:
    train(families(4), tmp_path / "run")

    assert train(families(), tmp_path / "run") == digest_of(undisturbed)
    assert [row["version"] for row in read_rows(tmp_path / "run", "gamma")] == [1, 2, 3]


@pytest.mark.parametrize("index", [0, *(pytest.param(i, marks=pytest.mark.e2e) for i in (1, 2))])
def test_a_server_killed_in_a_probe_goes_on_with_the_same_gamma_and_theta(
    index: int, tmp_path: Path, undisturbed: Path
) -> None:
    config = families(server={"checkpoint_every": 3})
    run = tmp_path / "run"
    is_killed = threading.Event()

    with killable(config, run) as server:

        def kill(number: int, item: WorkItem) -> None:
            is_due = item.kind is ItemKind.PROBE and (item.index, item.slot) == (index, 1)
            if is_due and not is_killed.is_set():
                is_killed.set()
                server.kill()
                server.restart()

        Worker(config, server.target, CountingAnswerer(config, kill)).join()
        assert server.terminate() == 0

    assert is_killed.is_set()
    assert (run / "epoch").read_text() == "2"
    assert digest_of(run) == digest_of(undisturbed)
    assert np.array_equal(gamma_of(run), gamma_of(undisturbed))
    assert [row["version"] for row in read_rows(run, "gamma")] == [1, 2, 3]


@pytest.mark.parametrize("sync", [{"mode": "quorum", "quorum": 1}, {"mode": "async", "window": 2}])
def test_other_modes_split_at_a_barrier(sync: dict[str, Any], tmp_path: Path) -> None:
    train(families(sync=sync), tmp_path / "run", workers=2)

    states = [row["state"]["pipelines"] for row in read_rows(tmp_path / "run", "gamma")]
    assert states == [[0, 1], [0, 1], [1, 2, 3]]


def test_a_pipeline_with_too_few_units_sits_out_and_says_so(
    tmp_path: Path, pictures: Callable[..., RunConfig]
) -> None:
    config = pictures(clustering={"name": LONELY, "pipelines": 3})
    train(config, tmp_path / "run", workers=2)

    rows = read_rows(tmp_path / "run", "rounds")
    events = [e["message"] for e in read_rows(tmp_path / "run", "worker_events")
              if e["event"] == "sat_out"]  # fmt: skip
    thetas = latest(tmp_path / "run").tensors
    assert [row["version"] for row in rows] == [1, 2, 3, 4]
    assert [sorted(row["losses"]) for row in rows] == [["0"]] * 4
    assert [message.split(":")[0] for message in events] == [
        "pipeline 1 sits out", "pipeline 2 sits out"
    ]  # fmt: skip
    assert "too few units for task.n_way 2" in events[0]
    assert "outer.1.exp_avg" not in thetas
    assert "outer.0.exp_avg" in thetas


def test_a_run_in_which_no_pipeline_can_train_fails_with_a_sentence(
    tmp_path: Path, pictures: Callable[..., RunConfig]
) -> None:
    lonely = {"name": LONELY, "pipelines": 3, "options": {"thirds": True}}
    config = pictures(clustering=lonely, task={"n_way": 8})

    with LiveServer(config, tmp_path / "run", exit_when_done=True) as server:
        with pytest.raises(RunFailedError, match="leaves no pipeline enough units"):
            Worker(config, server.target).join()
        server.wait()

    assert server.state is RunState.FAILED
    assert "task.n_way 8" in server.message


def test_kmeans_opens_a_pipeline_for_each_kind_of_pictures_and_cluster_shows_them(
    tmp_path: Path, pictures: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    kmeans = {"name": "kmeans", "pipelines": 2, "options": {"samples": 2}}
    train(pictures(clustering=kmeans, evaluation={"every": 2}), run, workers=2)
    capsys.readouterr()

    assert run_cli(["cluster", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["origins"]) == 2
    assert found["recovery"] == [1.0, 1.0]
    assert found["scores"]["purity"] == 1.0
    assert [p["parent"] for p in found["pipelines"]] == [None, 0]
    assert sum(p["units"] for p in found["pipelines"]) == found["num_units"]
    assert run_cli(["cluster", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "recovery of" in shown
    assert "pipeline 0:" in shown
    routing = load(run).evaluate(tasks=8, steps=1)["routing"]
    assert routing["by"] == "centres"
    assert sum(row["tasks"] for row in routing["origins"]) == 8
    assert sorted(row["shares"] for row in routing["origins"]) == [[0.0, 1.0], [1.0, 0.0]]
    assert run_cli(["evaluate", str(run), "--tasks", "2", "--steps", "0"]) == 0
    assert "routed by centres" in capsys.readouterr().out


def test_a_run_that_is_over_before_its_warm_up_says_so_at_the_start(
    tmp_path: Path, pictures: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    kmeans = {"name": "kmeans", "pipelines": 2, "options": {"warmup": 2}}

    train(pictures(run={"rounds": 2}, clustering=kmeans), tmp_path / "run")

    assert "clustering 'kmeans' asks for nothing before run.rounds 2 are over" in caplog.text


def test_cluster_of_a_run_without_clustering_shows_one_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(run={"rounds": 1}), tmp_path / "run")
    capsys.readouterr()

    assert run_cli(["cluster", str(tmp_path / "run"), "--json"]) == 0

    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(p["pipeline"], p["units"]) for p in found["pipelines"]] == [(0, 1)]
    assert found["recovery"] is None


def test_cluster_without_a_checkpoint_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveServer(families(), tmp_path / "run"):
        assert run_cli(["cluster", str(tmp_path / "run")]) == 2

    assert "has no checkpoint yet" in capsys.readouterr().err
