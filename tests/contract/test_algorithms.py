"""The laws of every algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dmaml.common.config import from_mapping, resolve
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm, Context
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
N_WAY, FEATURES, NUM_TASKS = 3, 4, 8

OF_REGRESSION = ("oracle",)
NOT_HERE = ("scratch", "pretrain", "lstm", "mann")  # learn nothing, or more slowly: see tests/unit
# settings with which an algorithm learns the toy tasks within 100 rounds
SETTINGS: dict[str, dict[str, Any]] = {
    "reptile": {"inner_lr": 0.02, "inner_steps": 5, "options": {"batch_size": 6}},
    "matching": {"options": {"scale": 10.0}},
    "lstm": {"options": {"hidden": 16}},
    "mann": {"options": {"hidden": 16, "slots": 8, "width": 4, "heads": 2}},
}
CASES: dict[str, dict[str, Any]] = {
    name: {"name": name} | SETTINGS.get(name, {})
    for name in algorithms.ALGORITHMS
    if name not in OF_REGRESSION
}
CASES["maml, first order"] = {"name": "maml", "order": "first"}
CASES["maml, local steps"] = {"name": "maml", "local_steps": 2, "local_lr": 0.1}


@pytest.fixture(params=CASES)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    return built(request.param)


@pytest.fixture(params=[name for name in CASES if name not in NOT_HERE])
def learner(request: pytest.FixtureRequest) -> Algorithm:
    return built(request.param)


def built(case: str) -> Algorithm:
    values = {
        "task": {"n_way": N_WAY},
        "model": {"name": "mlp", "hidden": [16], "batch_norm": True},
        "algorithm": {"inner_lr": 0.5} | CASES[case],
    }
    config = resolve(from_mapping(values))
    return algorithms.build(config, "classification", (FEATURES,), N_WAY, num_units=1)


def toy_tasks(random: Stream, shuffled: bool = False) -> TaskBatch:
    """Return tasks of `N_WAY` new points each, seen with a little noise.

    Two examples a class in the support set, two in the query set; `shuffled` gives the query set
    labels that say nothing.
    """
    centres = random.normal(NUM_TASKS, N_WAY, 1, FEATURES, std=2.0)
    x = centres + random.normal(NUM_TASKS, N_WAY, 4, FEATURES, std=0.3)
    support, query = (
        half.reshape(NUM_TASKS, 2 * N_WAY, FEATURES).astype(np.float32)
        for half in (x[:, :, :2], x[:, :, 2:])
    )
    labels = np.tile(np.repeat(np.arange(N_WAY), 2), (NUM_TASKS, 1))
    query_labels = labels.copy()
    if shuffled:
        query_labels = np.stack([row[random.permutation(2 * N_WAY)] for row in labels])
    units = np.zeros((NUM_TASKS, N_WAY), dtype=np.int64)
    return TaskBatch(support, labels, query, query_labels, units)


def context(version: int = 0) -> Context:
    return Context(version=version, rounds=150, stream=stream(2, Kind.TRAIN, version))


def endless(shuffled: bool = False) -> Iterator[TaskBatch]:
    index = 0
    while True:
        yield toy_tasks(stream(1, Kind.TRAIN, index), shuffled)
        index += 1


def meta_train(algorithm: Algorithm, rounds: int, shuffled: bool) -> Params:
    params = algorithm.init(stream(1, Kind.INIT))
    optimiser = torch.optim.Adam(params.values(), lr=0.01)
    tasks = endless(shuffled)
    for version in range(rounds):
        answer = algorithm.contribution(params, lambda: next(tasks), context(version))
        for name, value in params.items():
            value.grad = answer.gradient[name]
        optimiser.step()
    return params


def query_loss(algorithm: Algorithm, params: Params, shuffled: bool = False) -> float:
    batch = toy_tasks(stream(1, Kind.TEST), shuffled)
    return float(algorithm.evaluate(params, batch, steps=1).metrics["loss"][:, 1].mean())


def test_meta_training_halves_the_loss_after_adaptation(learner: Algorithm) -> None:
    before = query_loss(learner, learner.init(stream(1, Kind.INIT)))

    params = meta_train(learner, rounds=100, shuffled=False)

    assert query_loss(learner, params) < before / 2


def test_nothing_is_learned_from_shuffled_query_labels(learner: Algorithm) -> None:
    params = meta_train(learner, rounds=100, shuffled=True)

    assert query_loss(learner, params, shuffled=True) > 0.9 * np.log(N_WAY)


def test_a_contribution_has_the_parameters_names_shapes_and_figures(algorithm: Algorithm) -> None:
    params = algorithm.init(stream(1, Kind.INIT))
    tasks = endless()

    answer = algorithm.contribution(params, lambda: next(tasks), context())

    assert list(answer.gradient) == list(params)
    for name, gradient in answer.gradient.items():
        assert gradient.shape == params[name].shape
        assert gradient.dtype == torch.float32
        assert not gradient.requires_grad
    assert {"loss_before", "accuracy_before", "accuracy"} <= set(answer.metrics)
    assert np.isfinite([answer.loss, *answer.metrics.values()]).all()
    assert answer.num_tasks % NUM_TASKS == 0


def test_a_contribution_is_a_pure_function(algorithm: Algorithm) -> None:
    params = algorithm.init(stream(1, Kind.INIT))
    before = {name: value.clone() for name, value in params.items()}

    def answer() -> tuple[Params, float, dict[str, float]]:
        tasks = endless()
        made = algorithm.contribution(params, lambda: next(tasks), context())
        return made.gradient, made.loss, made.metrics

    once = answer()
    algorithm.evaluate(params, toy_tasks(stream(1, Kind.TEST)), steps=2)
    again = answer()

    assert all(torch.equal(once[0][name], again[0][name]) for name in params)
    assert once[1:] == again[1:]
    assert all(torch.equal(params[name], before[name]) for name in params)
    assert not any(value.requires_grad for value in params.values())


def test_evaluation_gives_each_task_a_figure_for_every_step(algorithm: Algorithm) -> None:
    params = algorithm.init(stream(1, Kind.INIT))

    metrics = algorithm.evaluate(params, toy_tasks(stream(1, Kind.TEST)), steps=2).metrics

    assert set(metrics) >= {"loss", "accuracy", "accuracy_inductive"}
    assert {figure.shape for figure in metrics.values()} == {(NUM_TASKS, 3)}
    assert {figure.dtype for figure in metrics.values()} == {np.dtype(np.float64)}


def test_a_prediction_does_not_depend_on_the_other_queries(algorithm: Algorithm) -> None:
    params = algorithm.init(stream(1, Kind.INIT))
    batch = toy_tasks(stream(1, Kind.TEST))
    x, y, queries = (
        torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x)
    )

    together = algorithm.predict(params, x, y, queries, steps=1)

    assert together.shape == (2 * N_WAY, N_WAY)
    torch.testing.assert_close(algorithm.predict(params, x, y, queries[:1], 1), together[:1])
