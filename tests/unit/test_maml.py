from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm, Context, Contribution
from dmaml.worker.algorithms.local_steps import LocalSteps
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
SHAPE, N_WAY, WIDTH, ALPHA = (1, 10, 9), 3, 4, 0.3
Forward = Callable[[Params, Tensor], Tensor]


def settings(**algorithm: Any) -> RunConfig:
    engine = algorithm.pop("engine", "vmap")
    chunk = algorithm.pop("chunk", None)
    model = algorithm.pop("model", {"name": "conv4", "width": WIDTH})
    values = {
        "task": {"n_way": N_WAY},
        "model": model,
        "engine": {"name": engine, "chunk": chunk},
        "algorithm": {"inner_lr": ALPHA} | algorithm,
    }
    return resolve(from_mapping(values))


def conv4(**algorithm: Any) -> Algorithm:
    return algorithms.build(settings(**algorithm), "classification", SHAPE, N_WAY)


def context() -> Context:
    return Context(version=0, rounds=1, stream=stream(1, Kind.TRAIN))


def contribution(algorithm: Algorithm, params: Params, batch: TaskBatch) -> Contribution:
    return algorithm.contribution(params, lambda: batch, context())


def pictures(num_tasks: int, k_shot: int = 2, k_query: int = 3, seed: int = 0) -> TaskBatch:
    """Return random episodes in float64, each with its own noise and label order."""
    rng = np.random.default_rng(seed)

    def labels(k: int) -> Any:
        return np.stack([rng.permutation(np.repeat(np.arange(N_WAY), k)) for _ in range(num_tasks)])

    return TaskBatch(
        support_x=rng.normal(size=(num_tasks, N_WAY * k_shot, *SHAPE)),  # type: ignore[arg-type]
        support_y=labels(k_shot),
        query_x=rng.normal(size=(num_tasks, N_WAY * k_query, *SHAPE)),  # type: ignore[arg-type]
        query_y=labels(k_query),
        units=np.zeros((num_tasks, N_WAY), dtype=np.int64),
    )


def start(algorithm: Algorithm, seed: int = 1) -> Params:
    """Return parameters in float64 with every one of them away from 0 and 1."""
    rng = np.random.default_rng(seed)
    params = algorithm.init(stream(seed, Kind.INIT))
    return {
        name: value.double() + 0.1 * torch.from_numpy(rng.normal(size=value.shape))
        for name, value in params.items()
    }


def part(batch: TaskBatch, tasks: slice) -> TaskBatch:
    return TaskBatch(
        batch.support_x[tasks],
        batch.support_y[tasks],
        batch.query_x[tasks],
        batch.query_y[tasks],
        batch.units[tasks],
    )


def plain_conv4(params: Params, x: Tensor) -> Tensor:
    for i in range(4):
        weight = params[f"conv{i}.weight"].permute(3, 2, 0, 1)
        x = F.conv2d(x, weight, stride=2, padding=1)
        scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    return x.mean((2, 3)) @ params["head.weight"] + params["head.bias"]


def plain_phi(theta: Params, batch: TaskBatch, task: int, steps: int, second: bool) -> Params:
    x, y = torch.from_numpy(batch.support_x[task]), torch.from_numpy(batch.support_y[task])
    phi = dict(theta)
    for _ in range(steps):
        loss = F.cross_entropy(plain_conv4(phi, x), y)
        gradient = torch.autograd.grad(loss, list(phi.values()), create_graph=second)
        phi = {n: v - ALPHA * g for (n, v), g in zip(phi.items(), gradient, strict=True)}
    return phi


def plain_query(phi: Params, batch: TaskBatch, task: int) -> tuple[Tensor, Tensor]:
    x, y = torch.from_numpy(batch.query_x[task]), torch.from_numpy(batch.query_y[task])
    outputs = plain_conv4(phi, x)
    return F.cross_entropy(outputs, y), (outputs.argmax(1) == y).double().mean()


def plain_meta_gradient(
    theta: Params, batch: TaskBatch, steps: int, second: bool
) -> tuple[Params, float]:
    theta = {name: value.clone().requires_grad_() for name, value in theta.items()}
    losses = []
    for task in range(batch.num_tasks):
        phi = plain_phi(theta, batch, task, steps, second)
        losses.append(plain_query(phi, batch, task)[0])
    mean = torch.stack(losses).mean()
    values = torch.autograd.grad(mean, list(theta.values()))
    return dict(zip(theta, values, strict=True)), float(mean.detach())


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("order", ["first", "second", "forward_over_reverse"])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradient_is_that_of_the_formula(engine: str, order: str, steps: int) -> None:
    batch = pictures(3)
    algorithm = conv4(engine=engine, order=order, inner_steps=steps, chunk=2)
    theta = start(algorithm)

    answer = contribution(algorithm, theta, batch)

    expected, loss = plain_meta_gradient(theta, batch, steps, second=order != "first")
    assert max(float(g.abs().max()) for g in expected.values()) > 0.05
    for name, gradient in expected.items():
        torch.testing.assert_close(answer.gradient[name], gradient, rtol=0, atol=1e-6)
    assert answer.loss == pytest.approx(loss, abs=1e-9)
    assert answer.num_tasks == 3


def test_second_and_first_order_differ() -> None:
    batch = pictures(2)
    theta = start(conv4())

    second, first = (
        contribution(conv4(order=order), theta, batch).gradient["conv1.weight"]
        for order in ("second", "first")
    )

    assert float((second - first).abs().max()) > 1e-3


def linear_task(seed: int = 0) -> tuple[TaskBatch, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    arrays = {
        "x": rng.normal(size=(1, 4, 2)),
        "y": rng.normal(size=(1, 4, 1)),
        "u": rng.normal(size=(1, 5, 2)),
        "v": rng.normal(size=(1, 5, 1)),
    }
    batch = TaskBatch(
        arrays["x"], arrays["y"], arrays["u"], arrays["v"], np.zeros((1, 1), dtype=np.int64)
    )
    return batch, {name: array[0] for name, array in arrays.items()}


@pytest.mark.parametrize("order", ["first", "second", "forward_over_reverse", "finite_difference"])
def test_a_linear_model_with_squared_error_has_the_closed_form(order: str) -> None:
    batch, a = linear_task()
    config = settings(model={"name": "mlp", "hidden": []}, order=order, inner_steps=2)
    algorithm = algorithms.build(config, "regression", (2,), 1)
    w = np.array([[0.7], [-1.2], [0.4]])  # the last row is the bias
    theta = {"linear0.weight": torch.from_numpy(w[:2]), "linear0.bias": torch.from_numpy(w[2])}

    answer = contribution(algorithm, theta, batch)

    x, u = (np.hstack([a[k], np.ones((len(a[k]), 1))]) for k in "xu")
    shrink = np.eye(3) - ALPHA * 2 / 4 * x.T @ x  # dφ/dθ of one step: I - α Hessian
    phi = w
    for _ in range(2):
        phi = phi - ALPHA * 2 / 4 * x.T @ (x @ phi - a["y"])
    by_phi = 2 / 5 * u.T @ (u @ phi - a["v"])
    expected = by_phi if order == "first" else shrink @ shrink @ by_phi  # no third derivatives
    actual = torch.cat([answer.gradient["linear0.weight"], answer.gradient["linear0.bias"][None]])
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10)
    assert answer.loss == pytest.approx(float(np.mean((u @ phi - a["v"]) ** 2)))
    assert answer.metrics["loss_before"] == pytest.approx(float(np.mean((x @ w - a["y"]) ** 2)))
    assert set(answer.metrics) == {"loss_before"}


def test_sum_over_ways_is_a_step_n_way_times_as_long() -> None:
    batch, theta = pictures(2), start(conv4())

    summed = contribution(conv4(inner_reduction="sum_over_ways"), theta, batch)
    longer = contribution(conv4(inner_lr=N_WAY * ALPHA), theta, batch)

    torch.testing.assert_close(summed.gradient, longer.gradient)
    assert summed.metrics == pytest.approx(longer.metrics)


def test_sum_over_tasks_is_the_mean_times_their_number() -> None:
    batch, theta = pictures(3), start(conv4())

    mean = contribution(conv4(), theta, batch)
    total = contribution(conv4(task_reduction="sum"), theta, batch)

    expected = {name: 3 * value for name, value in mean.gradient.items()}
    torch.testing.assert_close(total.gradient, expected)
    assert (total.loss, total.metrics) == (mean.loss, mean.metrics)


def test_two_halves_average_to_the_whole() -> None:
    batch, algorithm = pictures(4), conv4()
    theta = start(algorithm)

    whole = contribution(algorithm, theta, batch)
    halves = [contribution(algorithm, theta, part(batch, s)) for s in (slice(2), slice(2, 4))]

    expected = {n: (halves[0].gradient[n] + halves[1].gradient[n]) / 2 for n in theta}
    torch.testing.assert_close(whole.gradient, expected)
    assert whole.loss == pytest.approx((halves[0].loss + halves[1].loss) / 2)


def test_figures_before_adaptation_are_those_of_the_support_set() -> None:
    batch, algorithm = pictures(2), conv4()
    theta = start(algorithm)

    metrics = contribution(algorithm, theta, batch).metrics

    outputs = [plain_conv4(theta, torch.from_numpy(x)) for x in batch.support_x]
    labels = torch.from_numpy(batch.support_y)
    losses = [float(F.cross_entropy(o, y)) for o, y in zip(outputs, labels, strict=True)]
    correct = (torch.stack(outputs).argmax(2) == labels).double().mean()
    phis = [plain_phi(with_grad(theta), batch, task, 1, False) for task in range(2)]
    after = [float(plain_query(phi, batch, task)[1]) for task, phi in enumerate(phis)]
    assert metrics == pytest.approx(
        {
            "loss_before": np.mean(losses),
            "accuracy_before": float(correct),
            "accuracy": np.mean(after),
        }
    )


def with_grad(theta: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in theta.items()}


def test_without_inner_steps_the_meta_gradient_is_the_query_losses_gradient() -> None:
    batch, algorithm = pictures(2), conv4(inner_steps=0)
    theta = start(algorithm)

    answer = contribution(algorithm, theta, batch)

    expected, loss = plain_meta_gradient(theta, batch, steps=0, second=True)
    torch.testing.assert_close(answer.gradient, expected)
    assert answer.metrics["loss_before"] == answer.loss == pytest.approx(loss)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_evaluation_follows_the_adaptation_step_by_step(engine: str) -> None:
    batch, algorithm = pictures(3), conv4(engine=engine, chunk=2)
    theta = start(algorithm)

    metrics = algorithm.evaluate(theta, batch, steps=2).metrics

    for task in range(3):
        for step in range(3):
            phi = plain_phi(with_grad(theta), batch, task, step, second=False)
            loss, accuracy = plain_query(phi, batch, task)
            assert metrics["loss"][task, step] == pytest.approx(float(loss.detach()), abs=1e-9)
            assert metrics["accuracy"][task, step] == pytest.approx(float(accuracy))
    assert {m.dtype for m in metrics.values()} == {np.dtype(np.float64)}
    assert {m.shape for m in metrics.values()} == {(3, 3)}


def test_prediction_and_inductive_accuracy_use_the_support_sets_statistics() -> None:
    batch, algorithm = pictures(3), conv4()
    theta = start(algorithm)
    tensors = [torch.from_numpy(a) for a in (batch.support_x, batch.support_y, batch.query_x)]

    inductive = algorithm.evaluate(theta, batch, steps=1).metrics["accuracy_inductive"]

    for task, (support_x, support_y, query_x) in enumerate(zip(*tensors, strict=True)):
        together = algorithm.predict(theta, support_x, support_y, query_x, steps=1)
        alone = algorithm.predict(theta, support_x, support_y, query_x[:1], steps=1)
        correct = (together.argmax(1).numpy() == batch.query_y[task]).mean()
        torch.testing.assert_close(together[:1], alone)
        assert inductive[task, 1] == pytest.approx(correct)
        assert not together.requires_grad


def test_regression_is_evaluated_by_its_squared_error() -> None:
    batch, a = linear_task()
    config = settings(model={"name": "mlp", "hidden": []})
    algorithm = algorithms.build(config, "regression", (2,), 1)
    theta = {"linear0.weight": torch.zeros(2, 1).double(), "linear0.bias": torch.ones(1).double()}

    metrics = algorithm.evaluate(theta, batch, steps=1).metrics

    assert set(metrics) == {"mse"}
    assert metrics["mse"][0, 0] == pytest.approx(np.mean((1 - a["v"]) ** 2))


def test_local_steps_are_plain_descent_on_fresh_tasks() -> None:
    batches = [pictures(2, seed=seed) for seed in range(3)]
    plain, lr = conv4(), 0.05
    theta = start(plain)
    local = conv4(local_steps=3, local_lr=lr)
    draws = iter(batches)

    answer = local.contribution(theta, lambda: next(draws), context())

    phi, losses = theta, []
    for batch in batches:
        step = contribution(plain, phi, batch)
        phi = {name: value - lr * step.gradient[name] for name, value in phi.items()}
        losses.append(step.loss)
    expected = {name: (theta[name] - phi[name]) / lr for name in theta}
    torch.testing.assert_close(answer.gradient, expected)
    assert answer.loss == pytest.approx(np.mean(losses))
    assert answer.num_tasks == 6


def test_one_local_step_is_the_algorithms_own_gradient_bit_for_bit() -> None:
    batch, plain = pictures(2), conv4()
    theta = {name: value.float() for name, value in start(plain).items()}

    local = contribution(LocalSteps(plain, steps=1, lr=0.01), theta, batch)

    own = contribution(plain, theta, batch)
    assert all(torch.equal(local.gradient[name], own.gradient[name]) for name in theta)
    assert (local.loss, local.metrics) == (own.loss, own.metrics)


def test_local_lr_defaults_to_the_outer_one() -> None:
    batch, theta = pictures(2), start(conv4())
    config = settings(local_steps=2).model_copy(update={"outer": settings().outer})
    unset = config.model_copy(
        update={"algorithm": config.algorithm.model_copy(update={"local_lr": None})}
    )

    answers = [
        contribution(algorithms.build(c, "classification", SHAPE, N_WAY), theta, batch)
        for c in (config, unset)
    ]

    assert config.algorithm.local_lr == config.outer.lr
    torch.testing.assert_close(answers[0].gradient, answers[1].gradient)


class Own:
    def __init__(self, config: RunConfig, model: Any, kind: str, power: int = 1) -> None:
        self.seen = (model, kind, power)


def test_a_users_algorithm_is_found_by_path() -> None:
    config = settings(name="tests.unit.test_maml:Own", options={"power": 2})

    algorithm = algorithms.build(config, "classification", SHAPE, N_WAY)

    assert isinstance(algorithm, Own)
    assert algorithm.seen[1:] == ("classification", 2)


def test_unsuitable_algorithms_are_refused() -> None:
    wrong = settings(name="tests.unit.test_maml:Own", options={"powder": 2})

    with pytest.raises(ConfigError, match=r"powder.*called as"):
        algorithms.build(wrong, "classification", SHAPE, N_WAY)
    with pytest.raises(ConfigError, match=r"'maml' takes no options, found 'a'"):
        algorithms.build(settings(options={"a": 1}), "classification", SHAPE, N_WAY)
    with pytest.raises(UnknownNameError, match="Did you mean 'maml'"):
        algorithms.build(settings(name="mamal"), "classification", SHAPE, N_WAY)
