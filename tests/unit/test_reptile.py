from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.algorithms.finetuning import minibatches
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch
from tests.unit import toy_tasks
from tests.unit.toy_tasks import built, contribution, in_float64, points, start

torch.set_num_threads(1)
ALPHA = 0.05


def reptile(inner_steps: int = 1, task_reduction: str = "mean", **options: Any) -> Algorithm:
    keys = {"inner_lr": ALPHA, "inner_steps": inner_steps, "task_reduction": task_reduction}
    return built("reptile", algorithm=keys | {"options": options}, engine={"chunk": 2})


def plain_outputs(phi: Params, x: Tensor) -> Tensor:
    hidden = (x @ phi["linear0.weight"] + phi["linear0.bias"]).relu()
    return hidden @ phi["linear1.weight"] + phi["linear1.bias"]


def plain_gradient(phi: Params, x: Tensor, y: Tensor) -> Params:
    leaves = {name: value.clone().requires_grad_() for name, value in phi.items()}
    loss = F.cross_entropy(plain_outputs(leaves, x), y)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def whole(batch: TaskBatch, task: int) -> tuple[Tensor, Tensor]:
    x = np.concatenate([batch.support_x[task], batch.query_x[task]])
    y = np.concatenate([batch.support_y[task], batch.query_y[task]])
    return torch.from_numpy(x), torch.from_numpy(y)


def test_one_sgd_step_on_all_examples_gives_their_gradient_times_the_rate() -> None:
    algorithm = reptile(optimizer="sgd")
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 3)), start(algorithm)

    answer = contribution(algorithm, theta, batch)

    gradients = [plain_gradient(theta, *whole(batch, task)) for task in range(3)]
    for name, actual in answer.gradient.items():
        mean = torch.stack([gradient[name] for gradient in gradients]).mean(0)
        torch.testing.assert_close(actual, ALPHA * mean)
    assert float(answer.gradient["linear1.weight"].abs().max()) > 1e-4


def test_the_inner_adam_has_no_first_moment_and_starts_fresh_with_each_task() -> None:
    algorithm = reptile(inner_steps=3)
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 3)), start(algorithm)

    answer = contribution(algorithm, theta, batch)

    ways = []
    for task in range(3):
        phi, v = dict(theta), {name: torch.zeros_like(value) for name, value in theta.items()}
        for t in (1, 2, 3):
            g = plain_gradient(phi, *whole(batch, task))
            v = {name: 0.999 * v[name] + 0.001 * g[name] ** 2 for name in v}
            corrected = {name: v[name] / (1 - 0.999**t) for name in v}
            phi = {n: phi[n] - ALPHA * g[n] / (corrected[n].sqrt() + 1e-8) for n in phi}
        ways.append({name: theta[name] - phi[name] for name in theta})
    for name, actual in answer.gradient.items():
        torch.testing.assert_close(actual, torch.stack([way[name] for way in ways]).mean(0))


def test_the_servers_step_of_rate_one_ends_at_the_adapted_parameters() -> None:
    algorithm = reptile(inner_steps=4, optimizer="sgd")
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 1)), start(algorithm)

    moved = {n: theta[n] - g for n, g in contribution(algorithm, theta, batch).gradient.items()}

    phi = dict(theta)
    for _ in range(4):
        gradient = plain_gradient(phi, *whole(batch, 0))
        phi = {name: phi[name] - ALPHA * gradient[name] for name in phi}
    torch.testing.assert_close(moved, phi)


def test_figures_are_of_the_first_mini_batch_and_of_the_adapted_query_set() -> None:
    algorithm = reptile(optimizer="sgd")
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 1)), start(algorithm)

    answer = contribution(algorithm, theta, batch)

    x, y = whole(batch, 0)
    phi = {name: theta[name] - answer.gradient[name] for name in theta}
    query = torch.from_numpy(batch.query_x[0])
    after = F.cross_entropy(plain_outputs(phi, query), torch.from_numpy(batch.query_y[0]))
    before = F.cross_entropy(plain_outputs(theta, x), y)
    assert answer.loss == pytest.approx(float(after))
    assert answer.metrics["loss_before"] == pytest.approx(float(before))
    assert set(answer.metrics) == {"loss_before", "accuracy_before", "accuracy"}


def test_two_halves_average_to_the_whole_and_sums_add_up() -> None:
    algorithm, summed = reptile(3, batch_size=2), reptile(3, "sum", batch_size=2)
    batch = in_float64(points(stream(1, Kind.TRAIN), 4))
    theta = start(algorithm)

    def part(tasks: slice) -> TaskBatch:
        return TaskBatch(
            batch.support_x[tasks],
            batch.support_y[tasks],
            batch.query_x[tasks],
            batch.query_y[tasks],
            batch.units[tasks],
        )

    all_of_it = contribution(algorithm, theta, batch).gradient
    halves = [contribution(algorithm, theta, part(s)).gradient for s in (slice(2), slice(2, 4))]

    for name, value in all_of_it.items():
        torch.testing.assert_close(value, (halves[0][name] + halves[1][name]) / 2)
    total = contribution(summed, theta, batch).gradient
    torch.testing.assert_close(total, {name: 4 * value for name, value in all_of_it.items()})


def test_mini_batches_pass_over_all_examples_in_new_orders() -> None:
    x, y = torch.arange(14.0).view(2, 7, 1), torch.arange(14).view(2, 7)

    drawn = minibatches(x, y, 3)
    labels = torch.cat([next(drawn)[1] for _ in range(7)], dim=1)

    for task in range(2):
        passes = labels[task].view(3, 7)
        assert all(sorted(one) == list(range(7 * task, 7 * task + 7)) for one in passes.tolist())
        assert not torch.equal(passes[0], passes[1])
    assert not torch.equal(labels[0], labels[1] - 7)
    again = minibatches(x[1:], y[1:], 3)
    assert torch.equal(torch.cat([next(again)[1] for _ in range(7)], dim=1), labels[1:])


@pytest.mark.parametrize("size", [None, 3, 4])
def test_a_mini_batch_of_everything_is_everything_as_it_is(size: int | None) -> None:
    x, y = torch.arange(6.0).view(2, 3, 1), torch.arange(6).view(2, 3)

    drawn = minibatches(x, y, size)

    assert all(torch.equal(next(drawn)[1], y) for _ in range(2))


def test_evaluation_and_prediction_train_on_the_support_set_alone() -> None:
    algorithm = reptile(optimizer="sgd", batch_size=1)
    batch, theta = in_float64(points(stream(1, Kind.TRAIN), 1, k_shot=2)), start(algorithm)
    x, y, u = (torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x))

    metrics = algorithm.evaluate(theta, batch, steps=2).metrics
    predicted = algorithm.predict(theta, x, y, u, steps=2)

    phi, losses = dict(theta), []
    labels = torch.from_numpy(batch.query_y[0])
    for _ in range(3):
        losses.append(float(F.cross_entropy(plain_outputs(phi, u), labels)))
        last = plain_outputs(phi, u)
        gradient = plain_gradient(phi, x, y)
        phi = {name: phi[name] - ALPHA * gradient[name] for name in phi}
    np.testing.assert_allclose(metrics["loss"], [losses])
    torch.testing.assert_close(predicted, last)


def test_it_learns_and_not_from_shuffled_labels() -> None:
    keys = {"inner_lr": 0.02, "inner_steps": 5, "options": {"batch_size": 4}}
    algorithm = built("reptile", model={"hidden": [16], "batch_norm": True}, algorithm=keys)
    shape = {"k_shot": 4, "steps": 5}
    untrained = toy_tasks.loss_of(algorithm, algorithm.init(stream(1, Kind.INIT)), **shape)

    learned = toy_tasks.meta_trained(algorithm, rounds=40, lr=0.03, k_shot=4)
    misled = toy_tasks.meta_trained(algorithm, rounds=40, lr=0.03, k_shot=4, shuffled=True)

    assert toy_tasks.loss_of(algorithm, learned, **shape) < untrained / 2
    assert toy_tasks.loss_of(algorithm, misled, shuffled=True, **shape) > 0.9 * np.log(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size = 0: required a whole number >= 1"),
        ({"evaluation_batch_size": 1.5}, "evaluation_batch_size = 1.5: required a whole"),
        ({"optimizer": "adams"}, "Did you mean 'adam'"),
        ({"batchsize": 3}, "Did you mean 'batch_size'"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        reptile(**options)
