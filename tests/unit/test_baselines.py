"""What papers compare with: no meta-training, pretraining, and the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.models.base import Params
from dmaml.worker.tasks import sinusoid
from dmaml.worker.tasks.base import TaskBatch
from tests.unit.toy_tasks import (
    FEATURES,
    built,
    configured,
    contribution,
    in_float64,
    points,
    start,
)

torch.set_num_threads(1)
ALPHA = 0.3
NUM_UNITS = 6
SGD: dict[str, Any] = {"inner_lr": ALPHA, "inner_steps": 2, "options": {"optimizer": "sgd"}}


def hidden(params: Params, x: Tensor) -> Tensor:
    return (x @ params["linear0.weight"] + params["linear0.bias"]).relu()


def outputs_of(params: Params, x: Tensor, head: str = "linear1") -> Tensor:
    return hidden(params, x) @ params[f"{head}.weight"] + params[f"{head}.bias"]


def descended(phi: Params, x: Tensor, y: Tensor, head: str = "linear1") -> Params:
    """Return φ after one plain step on the mean cross-entropy."""
    leaves = {name: value.clone().requires_grad_() for name, value in phi.items()}
    gradient = torch.autograd.grad(
        F.cross_entropy(outputs_of(leaves, x, head), y), list(leaves.values())
    )
    return {n: (leaves[n] - ALPHA * g).detach() for n, g in zip(leaves, gradient, strict=True)}


def tensors(batch: TaskBatch, task: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arrays = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    x, y, u, v = (torch.from_numpy(a[task]) for a in arrays)
    return x, y, u, v


# --- scratch ----------------------------------------------------------------------------------


def test_scratch_pushes_nothing_and_says_what_training_alone_reaches() -> None:
    algorithm = built("scratch", algorithm=SGD)
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 1, k_shot=2)), start(algorithm)

    answer = contribution(algorithm, theta, batch)

    x, y, u, v = tensors(batch)
    phi = descended(descended(theta, x, y), x, y)
    assert not any(bool(value.any()) for value in answer.gradient.values())
    assert list(answer.gradient) == list(theta)
    assert answer.loss == pytest.approx(float(F.cross_entropy(outputs_of(phi, u), v)))
    before = float(F.cross_entropy(outputs_of(theta, u), v))
    assert answer.metrics["loss_before"] == pytest.approx(before)


def test_scratch_trains_every_task_from_the_same_start() -> None:
    algorithm = built("scratch", algorithm=SGD)
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 3, k_shot=2)), start(algorithm)

    curves = algorithm.evaluate(theta, batch, steps=3).metrics["loss"]
    predicted = algorithm.predict(theta, *tensors(batch, 2)[:3], steps=3)

    for task in range(3):
        x, y, u, v = tensors(batch, task)
        phi, expected = theta, []
        for _ in range(4):
            expected.append(float(F.cross_entropy(outputs_of(phi, u), v)))
            last, phi = outputs_of(phi, u), descended(phi, x, y)
        np.testing.assert_allclose(curves[task], expected)
    torch.testing.assert_close(predicted, last)


# --- pretrain ---------------------------------------------------------------------------------


def pooled(num_tasks: int = 3, n_way: int = 2) -> TaskBatch:
    """Return tasks whose units are drawn from `NUM_UNITS` classes."""
    random = stream(2, Kind.TRAIN)
    units = np.stack([random.permutation(NUM_UNITS)[:n_way] for _ in range(num_tasks)])
    batch = in_float64(points(stream(1, Kind.TRAIN), num_tasks, n_way, k_shot=2))
    return replace(batch, units=units)


def pretrain(**options: Any) -> Algorithm:
    return built("pretrain", NUM_UNITS, algorithm={"inner_lr": ALPHA, "options": options})


def test_pretraining_tells_all_classes_apart_by_one_classifier() -> None:
    algorithm, batch = pretrain(), pooled()
    theta = start(algorithm)

    answer = contribution(algorithm, theta, batch)

    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    losses = []
    for task in range(3):
        x, y, u, v = tensors(batch, task)
        classes = torch.from_numpy(batch.units[task])[torch.cat([y, v])]
        outputs = outputs_of(leaves, torch.cat([x, u]), "classifier")
        losses.append(F.cross_entropy(outputs, classes))
    mean = torch.stack(losses).mean()
    expected = torch.autograd.grad(mean, list(leaves.values()))
    assert theta["classifier.weight"].shape == (8, NUM_UNITS)
    for actual, value in zip(answer.gradient.values(), expected, strict=True):
        torch.testing.assert_close(actual, value)
    assert answer.loss == pytest.approx(float(mean.detach()))


@pytest.mark.parametrize("n_way", [2, 4])
def test_a_task_gets_a_new_last_layer_of_zeros_and_all_layers_are_tuned(n_way: int) -> None:
    algorithm, batch = pretrain(optimizer="sgd"), pooled(2, n_way)
    theta = start(algorithm)

    curves = algorithm.evaluate(theta, batch, steps=3).metrics["loss"]
    predicted = algorithm.predict(theta, *tensors(batch, 1)[:3], steps=3)

    new = {
        "classifier.weight": torch.zeros(8, n_way, dtype=torch.float64),
        "classifier.bias": torch.zeros(n_way, dtype=torch.float64),
    }
    for task in range(2):
        x, y, u, v = tensors(batch, task)
        phi, expected = theta | new, []
        for _ in range(4):
            last = outputs_of(phi, u, "classifier")
            expected.append(float(F.cross_entropy(last, v)))
            phi = descended(phi, x, y, "classifier")
        assert expected[0] == pytest.approx(np.log(n_way))
        np.testing.assert_allclose(curves[task], expected)
    torch.testing.assert_close(predicted, last)


def test_labels_that_mean_the_same_in_every_task_keep_the_last_layer() -> None:
    algorithm = built("pretrain", algorithm={"inner_lr": ALPHA}, task={"unit": "split"})
    batch, theta = pooled(2, 2), start(algorithm)

    answer = contribution(algorithm, theta, batch)
    figures = algorithm.evaluate(theta, batch, steps=1).metrics

    assert theta["classifier.weight"].shape == (8, 2)
    per_task = [tensors(batch, task) for task in range(2)]
    losses = [
        F.cross_entropy(outputs_of(theta, torch.cat([x, u]), "classifier"), torch.cat([y, v]))
        for x, y, u, v in per_task
    ]
    assert answer.loss == pytest.approx(float(torch.stack(losses).mean()))
    for task, (x, y, u, v) in enumerate(per_task):
        phi = descended(theta, x, y, "classifier")
        expected = [F.cross_entropy(outputs_of(p, u, "classifier"), v) for p in (theta, phi)]
        np.testing.assert_allclose(figures["loss"][task], [float(one) for one in expected])


def test_pretraining_on_waves_learns_one_function_for_all() -> None:
    config = configured("pretrain", task={"n_way": 1, "source": "sinusoid"})
    algorithm = algorithms.build(config, "regression", (1,), 1, num_units=3)
    theta = algorithm.init(stream(1, Kind.INIT))

    answer = contribution(algorithm, theta, waves(4))

    assert theta["classifier.weight"].shape == (8, 1)
    outputs = outputs_of(theta, torch.from_numpy(both(waves(4))[0]), "classifier")
    expected = (outputs - torch.from_numpy(both(waves(4))[1])).square().mean()
    assert answer.loss == pytest.approx(float(expected))


def test_units_that_are_no_classes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.unit 'alphabet'.*Set task\.unit to class"):
        built("pretrain", task={"unit": "alphabet"})


# --- oracle -----------------------------------------------------------------------------------


def waves(num_tasks: int, index: int = 0) -> TaskBatch:
    config = configured("oracle", task={"n_way": 1, "source": "sinusoid"})
    source = sinusoid.Sinusoid(config)
    streams = [stream(1, Kind.TRAIN, index, 0, j) for j in range(num_tasks)]
    return source.sample(streams, source.split("train"), 1, 5, 10)


def both(batch: TaskBatch) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([batch.support_x, batch.query_x], axis=1)
    return x, np.concatenate([batch.support_y, batch.query_y], axis=1)


def oracle(*sizes: int) -> Algorithm:
    config = configured(
        "oracle", task={"n_way": 1, "source": "sinusoid"}, model={"hidden": list(sizes) or [8]}
    )
    return algorithms.build(config, "regression", (1,), 1, num_units=3, num_parameters=2)


def test_the_parameters_of_a_wave_are_its_amplitude_and_phase() -> None:
    batch = waves(5)
    assert batch.parameters is not None

    amplitude, phase = batch.parameters.T[:, :, None, None]

    np.testing.assert_allclose(batch.query_y, amplitude * np.sin(batch.query_x - phase), atol=1e-5)


def test_the_oracle_sees_the_tasks_parameters_and_learns_from_the_query_set() -> None:
    algorithm, batch = oracle(), in_float64(waves(3))
    assert batch.parameters is not None
    theta = start(algorithm)

    answer = contribution(algorithm, theta, batch)
    curves = algorithm.evaluate(theta, batch, steps=2).metrics["mse"]

    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    told = torch.from_numpy(batch.parameters).double()[:, None].expand(-1, 10, -1)
    x = torch.cat([torch.from_numpy(batch.query_x), told], dim=2)
    errors = (outputs_of(leaves, x) - torch.from_numpy(batch.query_y)).square().mean((1, 2))
    expected = torch.autograd.grad(errors.mean(), list(leaves.values()))
    assert theta["linear0.weight"].shape == (3, 8)
    for actual, value in zip(answer.gradient.values(), expected, strict=True):
        torch.testing.assert_close(actual, value)
    np.testing.assert_allclose(curves, errors.detach().numpy()[:, None].repeat(3, 1))


def test_the_oracle_does_not_look_at_the_support_set() -> None:
    algorithm, batch = oracle(), waves(3)
    theta = algorithm.init(stream(1, Kind.INIT))
    other = replace(batch, support_x=batch.support_x + 1, support_y=batch.support_y * 2)

    once, again = (algorithm.evaluate(theta, b, 0).metrics["mse"] for b in (batch, other))

    assert np.array_equal(once, again)


def test_the_oracle_gets_better_than_the_best_single_function() -> None:
    algorithm = oracle(40, 40)
    params = algorithm.init(stream(1, Kind.INIT))
    optimiser = torch.optim.Adam(params.values(), lr=0.01)
    for index in range(150):
        gradient = contribution(algorithm, params, waves(25, index)).gradient
        for name, value in params.items():
            value.grad = gradient[name]
        optimiser.step()

    mse = algorithm.evaluate(params, waves(100, 1000), 0).metrics["mse"].mean()

    assert mse < np.var(both(waves(100, 1000))[1]) / 4


def test_what_an_oracle_cannot_do_is_refused() -> None:
    algorithm, batch = oracle(), waves(1)
    theta = algorithm.init(stream(1, Kind.INIT))

    with pytest.raises(ConfigError, match="cannot predict from examples"):
        algorithm.predict(theta, *tensors(batch)[:3], steps=0)
    with pytest.raises(ConfigError, match="'oracle' is for regression"):
        built("oracle")
    silent = configured("oracle", task={"n_way": 1, "source": "own:Thing"})
    with pytest.raises(ConfigError, match="'own:Thing' does not say them"):
        algorithms.build(silent, "regression", (FEATURES,), 1)
