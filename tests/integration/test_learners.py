"""Runs of the learners beside MAML: the same bits whoever computes, other tasks in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common import checkpoint as checkpoints
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DataError
from dmaml.deploy.cli import run_cli
from dmaml.learner import load
from dmaml.report.curve import draw_curve
from dmaml.report.trajectories import draw_trajectories
from tests.integration.harness import digest_of, latest, tiny, train

LEARNERS: dict[str, dict[str, Any]] = {
    "reptile": {"inner_lr": 0.02, "inner_steps": 3, "options": {"batch_size": 3}},
    "protonet": {},
    "matching": {"options": {"scale": 5.0}},
    "lstm": {"options": {"hidden": 8}},
    "mann": {"options": {"hidden": 8, "slots": 6, "width": 4, "heads": 2}},
    "scratch": {"inner_lr": 0.02},
    "pretrain": {"inner_lr": 0.02},
}


Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes runs on pictures of noise, 30 classes; oracle: on waves; maml_rl: of points."""
    file = tmp_path_factory.mktemp("pictures") / "noise.npz"
    rng = np.random.default_rng(0)
    classes, each = 30, 8
    pictures = rng.integers(0, 256, (classes, 1, 4, 4)) // 2 + rng.integers(
        0, 128, (classes, each, 4, 4)
    )
    np.savez(
        file,
        images=pictures.reshape(-1, 4, 4).astype(np.uint8),
        labels=np.repeat(np.arange(classes, dtype=np.int32), each),
        class_names=np.array([f"c{c}" for c in range(classes)]),
        split=np.repeat(np.array([0, 1, 2], dtype=np.int8), 10),
    )

    def make(name: str, **sections: dict[str, Any]) -> RunConfig:
        name, _, outer_step = name.partition(", ")
        algorithm = {"name": name, "tasks": 2} | LEARNERS.get(name, {})
        if outer_step:
            algorithm["options"] = {"outer_step": outer_step}
        values: dict[str, dict[str, Any]] = {"algorithm": algorithm, "run": {"rounds": 3}}
        if name == "maml_rl":
            options = {"preset": "code", "horizon": 8}
            values |= {
                "task": {"source": "navigation", "k_shot": 4, "k_query": 4, "options": options},
                "outer": {"name": "sgd", "lr": 1.0},
            }
        elif name != "oracle":
            values |= {
                "task": {"source": f"npz:{file}", "n_way": 2, "k_shot": 2, "k_query": 2},
                "model": {"name": "mlp", "hidden": [8], "batch_norm": True},
                "evaluation": {"k_query": 2, "every": 0},
            }
        for section, keys in sections.items():
            values[section] = values.get(section, {}) | keys
        return tiny(**values)

    return make


@pytest.mark.parametrize("name", [*LEARNERS, "oracle", "maml_rl"])
def test_three_actors_and_a_restart_give_the_bits_of_one(
    name: str, learner: Make, tmp_path: Path
) -> None:
    digest = train(learner(name), tmp_path / "one")

    first = train(learner(name, run={"rounds": 2}), tmp_path / "three", workers=3)
    again = train(learner(name), tmp_path / "three", workers=3)

    assert again == digest
    assert (first != digest) == (name != "scratch")  # which learns nothing


@pytest.mark.parametrize("name", [*LEARNERS, "oracle", "maml_rl, gradient"])
def test_the_division_into_slots_does_not_change_the_mean(
    name: str, learner: Make, tmp_path: Path
) -> None:
    sgd = {"name": "sgd", "lr": 0.1}
    one = learner(name, outer=sgd, topology={"slots": 1}, algorithm={"tasks": 4})
    two = learner(name, outer=sgd, topology={"slots": 2}, algorithm={"tasks": 2})

    for config, folder in ((one, "one"), (two, "two")):
        train(config, tmp_path / folder)

    a, b = (checkpoints.thetas_of(latest(tmp_path / f))[0] for f in ("one", "two"))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def protonet(learner: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that validates on tasks with three classes, trained on two."""
    folder = tmp_path_factory.mktemp("protonet") / "run"
    train(learner("protonet", evaluation={"n_way": 3, "k_shot": 1, "every": 2}), folder)
    return folder


def test_evaluation_takes_the_runs_n_way_or_another(protonet: Path) -> None:
    own = load(protonet).evaluate(tasks=4, steps=0)
    other = load(protonet, n_way=7, k_shot=3).evaluate(tasks=4, steps=0)

    assert (own["n_way"], own["k_shot"]) == (3, 1)
    assert (other["n_way"], other["k_shot"]) == (7, 3)
    assert own["loss"] != other["loss"]


def test_the_shape_of_evaluation_tasks_does_not_change_theta(
    protonet: Path, learner: Make, tmp_path: Path
) -> None:
    assert train(learner("protonet"), tmp_path / "run") == digest_of(protonet)


def test_the_command_evaluates_other_tasks(
    protonet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--tasks", "4", "--steps", "0", "--n-way", "4", "--k-shot", "2")

    assert run_cli(["evaluate", str(protonet), *options]) == 0

    assert "4-way 2-shot" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["reptile", "lstm", "mann", "scratch"])
def test_outputs_tied_to_the_classes_of_training_refuse_another_n_way(
    name: str, learner: Make, tmp_path: Path
) -> None:
    train(learner(name, run={"rounds": 1}), tmp_path / "run")

    with pytest.raises(ConfigError, match=rf"n_way 3 with task.n_way 2: algorithm '{name}'"):
        load(tmp_path / "run", n_way=3)
    shots = load(tmp_path / "run", k_shot=3).evaluate(tasks=2, steps=1)
    assert shots["k_shot"] == 3


def test_regression_has_no_other_n_way_but_other_shots(learner: Make, tmp_path: Path) -> None:
    train(learner("oracle", run={"rounds": 1}), tmp_path / "run")

    with pytest.raises(DataError, match="'sinusoid' required n_way 1"):
        load(tmp_path / "run", n_way=2)
    assert load(tmp_path / "run", k_shot=9).evaluate(tasks=2, steps=0)["k_shot"] == 9


def test_more_classes_than_there_are_or_less_than_one_are_refused(protonet: Path) -> None:
    with pytest.raises(DataError, match="100000"):
        load(protonet, n_way=100_000)
    with pytest.raises(ConfigError, match="k_shot 0: required at least 1"):
        load(protonet, k_shot=0)


@pytest.fixture(scope="module")
def point(learner: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of control."""
    folder = tmp_path_factory.mktemp("point") / "run"
    train(learner("maml_rl", evaluation={"every": 2, "tasks": 4, "k_query": 3}), folder)
    return folder


def test_a_run_of_control_is_evaluated_by_its_return(
    point: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load(point).evaluate(tasks=3, steps=2)

    assert run_cli(["evaluate", str(point), "--tasks", "3", "--steps", "2"]) == 0
    assert len(found["return"]) == len(found["ci95"]) == 3
    assert found["adaptation_delta"][0] == 0.0
    assert found["adaptation_delta"][2] == pytest.approx(found["return"][2] - found["return"][0])
    shown = capsys.readouterr().out
    assert f"{found['return'][2]:.3f}" in shown
    assert f"{found['adaptation_delta'][2]:+.3f}" in shown


def test_a_learner_shows_where_the_points_went(point: Path, tmp_path: Path) -> None:
    made = load(point)

    tasks = made.trajectories(tasks=2, steps=1, k_query=3)

    assert len(tasks) == 2
    assert [len(rows) for rows in tasks[0].observations] == [3, 3]
    assert all(row.shape[1] == 2 for rows in tasks[0].observations for row in rows)
    assert not tasks[0].observations[1][0][0].any()  # they begin in the origin
    assert draw_trajectories(made, tmp_path / "report" / "paths.png", 2, 1).stat().st_size > 5000
    assert draw_curve(point).stat().st_size > 5000


def test_pictures_have_no_trajectories(protonet: Path) -> None:
    with pytest.raises(ConfigError, match="algorithm 'protonet' has no trajectories"):
        load(protonet).trajectories()
