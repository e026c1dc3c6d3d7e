"""Meta-gradients in every order and with every option, against the literal algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.bench.orders import peak_bytes
from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm, Context
from dmaml.worker.algorithms.maml import step_weights
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
N_WAY, FEATURES, HIDDEN, ALPHA = 3, 4, 6, 0.3
EXACT = ["second", "forward_over_reverse"]

OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "head": {"adapt": "head"},
    "norms by step": {"per_step": ["norm*"]},
    "multi-step": {"multi_step_rounds": 10},
    "clip": {"inner_clip": 0.3},
    "scalar": {"inner_lr": "learned", "initial_lr": ALPHA, "per": "scalar"},
    "layer": {"inner_lr": "learned", "initial_lr": ALPHA, "per": "layer"},
    "layer_step": {"inner_lr": "learned", "initial_lr": ALPHA, "per": "layer_step"},
    "parameter": {"inner_lr": "learned", "initial_lr": ALPHA, "per": "parameter"},
    "everything": {
        "inner_lr": "learned", "initial_lr": ALPHA, "per": "layer_step", "adapt": ["linear*"],
        "per_step": ["norm*", "linear1.bias"], "multi_step_rounds": 10,
        "inner_reduction": "sum_over_ways", "inner_clip": 0.6,
    },
}  # fmt: skip


def config_of(hidden: tuple[int, ...] = (HIDDEN,), engine: str = "vmap", **section: Any) -> Any:
    values = {
        "task": {"n_way": N_WAY},
        "model": {"name": "mlp", "hidden": list(hidden), "batch_norm": True},
        "engine": {"name": engine, "chunk": 2},
        "algorithm": {"inner_lr": ALPHA, "inner_steps": 3} | section,
    }
    return resolve(from_mapping(values))


def build(config: RunConfig) -> Algorithm:
    return algorithms.build(config, "classification", (FEATURES,), N_WAY)


def context(version: int = 0) -> Context:
    return Context(version=version, rounds=20, stream=stream(1, Kind.TRAIN))


def episodes(num_tasks: int = 3, seed: int = 0) -> TaskBatch:
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.permutation(np.repeat(np.arange(N_WAY), 2)) for _ in range(num_tasks)])
    x, u = (rng.normal(size=(num_tasks, 2 * N_WAY, FEATURES)) for _ in range(2))
    units = np.zeros((num_tasks, N_WAY), dtype=np.int64)
    return TaskBatch(x, labels, u, labels, units)  # type: ignore[arg-type]


def start(algorithm: Algorithm, seed: int = 1) -> Params:
    """Return meta-parameters in float64, each away from what it starts from."""
    rng = np.random.default_rng(seed)
    return {
        name: value.double() + 0.1 * torch.from_numpy(rng.normal(size=value.shape))
        for name, value in algorithm.init(stream(seed, Kind.INIT)).items()
    }


def gradient_of(config: RunConfig, theta: Params, version: int = 0) -> Params:
    batch = episodes()
    return build(config).contribution(theta, lambda: batch, context(version)).gradient


def flat(params: Params) -> Tensor:
    return torch.cat([value.double().flatten() for value in params.values()])


def error_of(gradient: Params, exact: Params) -> float:
    return float((flat(gradient) - flat(exact)).norm() / flat(exact).norm())


# -- the literal algorithm: one task, one number, one line an equation ----------------------------


def plain_outputs(w: Params, x: Tensor) -> Tensor:
    z = F.batch_norm(
        x @ w["linear0.weight"], None, None, w["norm0.scale"], w["norm0.shift"], training=True
    )
    return F.relu(z) @ w["linear1.weight"] + w["linear1.bias"]


def plain_rate(meta: Params, section: Any, name: str, step: int) -> Tensor | float:
    if section.inner_lr != "learned":
        return ALPHA
    layer = name.split(".", maxsplit=1)[0]
    if section.per == "layer_step":
        return meta[f"inner_lr/{layer}"][step]
    return meta["inner_lr/" + {"scalar": "all", "layer": layer, "parameter": name}[section.per]]


def plain_meta_loss(
    meta: Params, config: RunConfig, adapted: set[str], stepwise: set[str], weights: list[float]
) -> Tensor:
    section, batch = config.algorithm, episodes()
    names = ["linear0.weight", "norm0.scale", "norm0.shift", "linear1.weight", "linear1.bias"]
    factor = N_WAY if section.inner_reduction == "sum_over_ways" else 1
    total = torch.zeros(()).double()
    for task in range(batch.num_tasks):
        arrays = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
        x, y, u, v = (torch.from_numpy(array[task]) for array in arrays)
        phi = {name: meta[name] for name in adapted}
        for step in range(section.inner_steps + 1):
            w = {n: meta[n][step] if n in stepwise else phi.get(n, meta[n]) for n in names}
            total = total + weights[step] * F.cross_entropy(plain_outputs(w, u), v)
            if step < section.inner_steps:
                loss = F.cross_entropy(plain_outputs(w, x), y)
                slope = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
                length = torch.cat([g.flatten() for g in slope]).norm()
                short = min(1.0, (section.inner_clip or torch.inf) / length)
                phi = {
                    n: value - plain_rate(meta, section, n, step) * factor * short * g
                    for (n, value), g in zip(phi.items(), slope, strict=True)
                }
    return total / batch.num_tasks


ROLES: dict[str, tuple[set[str], set[str]]] = {
    "head": ({"linear1.weight", "linear1.bias"}, set()),
    "norms by step": (
        {"linear0.weight", "linear1.weight", "linear1.bias"}, {"norm0.scale", "norm0.shift"},
    ),
    "everything": (
        {"linear0.weight", "linear1.weight"}, {"norm0.scale", "norm0.shift", "linear1.bias"},
    ),
}  # fmt: skip
ALL = {"linear0.weight", "norm0.scale", "norm0.shift", "linear1.weight", "linear1.bias"}


@pytest.mark.parametrize("engine", ["vmap", "loop"])
@pytest.mark.parametrize("order", EXACT)
@pytest.mark.parametrize("option", OPTIONS)
def test_exact_orders_give_the_derivative_of_the_literal_algorithm(
    option: str, order: str, engine: str
) -> None:
    config = config_of(engine=engine, order=order, **OPTIONS[option])
    theta = start(build(config))
    version, share = 4, (1 - 4 / 10) / 3
    is_multi = "multi_step_rounds" in OPTIONS[option]
    weights = [0.0, share, share, 1 - 2 * share] if is_multi else [0.0, 0.0, 0.0, 1.0]

    gradient = gradient_of(config, theta, version)

    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    adapted, stepwise = ROLES.get(option, (ALL, set()))
    loss = plain_meta_loss(leaves, config, adapted, stepwise, weights)
    by_hand = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    expected = dict(zip(leaves, by_hand, strict=True))
    assert list(gradient) == list(theta)
    for name, value in expected.items():
        torch.testing.assert_close(gradient[name], value, rtol=0, atol=1e-12)
        assert float(value.abs().max()) > 1e-4, name


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
def test_forward_over_reverse_is_exact_in_float64_and_to_rounding_in_float32(steps: int) -> None:
    second, forward = (config_of(order=order, inner_steps=steps) for order in EXACT)
    theta = start(build(second))

    exact = gradient_of(second, theta)
    single = {name: value.float() for name, value in theta.items()}

    assert error_of(gradient_of(forward, theta), exact) < 1e-12
    assert error_of(gradient_of(forward, single), exact) < 1e-4


def test_finite_differences_of_one_step_are_equation_2() -> None:
    epsilon = 0.02
    config = config_of(order="finite_difference", epsilon=epsilon, inner_steps=1)
    theta = start(build(config))
    batch = episodes()

    gradient = gradient_of(config, theta)

    def slope(w: Params, x: Any, y: Any) -> Params:
        leaves = {name: value.detach().requires_grad_() for name, value in w.items()}
        loss = F.cross_entropy(plain_outputs(leaves, torch.from_numpy(x)), torch.from_numpy(y))
        return dict(zip(w, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    total = torch.zeros_like(flat(theta))
    for x, y, u, v in zip(
        batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True
    ):
        inner = slope(theta, x, y)
        query = slope({n: w - ALPHA * inner[n] for n, w in theta.items()}, u, v)
        h = epsilon * flat(theta).norm() / flat(query).norm()
        plus, minus = (
            flat(slope({n: w + sign * h * query[n] for n, w in theta.items()}, x, y))
            for sign in (1, -1)
        )
        total += flat(query) - ALPHA * (plus - minus) / (2 * h)
    torch.testing.assert_close(flat(gradient), total / batch.num_tasks, rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", OPTIONS)
def test_error_of_finite_differences_falls_with_the_square_of_epsilon_where_the_loss_is_smooth(
    option: str,
) -> None:
    if "norm" in option or option == "everything":
        pytest.skip("a linear model has no norm")
    section = OPTIONS[option]
    exact_config = config_of(hidden=(), **section)
    theta = start(build(exact_config))
    exact = gradient_of(exact_config, theta)

    errors = [
        error_of(
            gradient_of(
                config_of(hidden=(), order="finite_difference", epsilon=epsilon, **section), theta
            ),
            exact,
        )
        for epsilon in (0.04, 0.02)
    ]

    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("option", OPTIONS)
def test_finite_differences_that_no_unit_changes_sides_in_are_exact(option: str) -> None:
    exact = config_of(**OPTIONS[option])
    tiny = config_of(order="finite_difference", epsilon=1e-6, **OPTIONS[option])
    theta = start(build(exact))

    error = error_of(gradient_of(tiny, theta, version=4), gradient_of(exact, theta, version=4))

    assert error < 1e-6


def test_a_step_without_a_gradient_has_no_differences() -> None:
    batch = episodes()
    nothing = TaskBatch(
        0 * batch.support_x, batch.support_y, 0 * batch.query_x, batch.query_y, batch.units
    )
    algorithm = build(config_of(hidden=(), order="finite_difference"))
    zero = {n: torch.zeros_like(v) for n, v in start(algorithm).items()}

    gradient = algorithm.contribution(zero, lambda: nothing, context()).gradient

    assert float(flat(gradient).abs().max()) < 1e-12


@pytest.mark.parametrize("option", ["scalar", "layer", "layer_step", "parameter"])
def test_first_order_is_exact_for_the_rate_of_a_single_step(option: str) -> None:
    second = config_of(order="second", inner_steps=1, **OPTIONS[option])
    first = config_of(order="first", inner_steps=1, **OPTIONS[option])
    theta = start(build(second))

    exact, cheap = gradient_of(second, theta), gradient_of(first, theta)

    rates = [name for name in theta if "/" in name]
    assert rates
    for name in rates:
        torch.testing.assert_close(cheap[name], exact[name], rtol=0, atol=1e-12)
    assert error_of(cheap, exact) > 0.01


def test_first_order_rounds_are_first_order_and_then_no_more() -> None:
    annealed = config_of(first_order_rounds=5)
    theta = start(build(annealed))

    early, late = (flat(gradient_of(annealed, theta, version)) for version in (4, 5))

    assert torch.equal(early, flat(gradient_of(config_of(order="first"), theta)))
    assert torch.equal(late, flat(gradient_of(config_of(), theta)))
    assert not torch.equal(early, late)


def test_weights_of_the_steps_fall_to_the_last_ones_alone() -> None:
    section = config_of(multi_step_rounds=10).algorithm

    tables = [step_weights(section, version) for version in (0, 5, 10, 11)]

    assert tables[0] == pytest.approx((0, 1 / 3, 1 / 3, 1 / 3))
    assert tables[1] == pytest.approx((0, 1 / 6, 1 / 6, 2 / 3))
    assert tables[2] == tables[3] == (0, 0, 0, 1)
    assert step_weights(config_of().algorithm, 0) == (0, 0, 0, 1)
    assert step_weights(config_of(inner_steps=0).algorithm, 0) == (1,)


@pytest.mark.parametrize("order", EXACT)
def test_multi_step_loss_is_reported_as_the_loss_after_the_last_step(order: str) -> None:
    plain, multi = config_of(), config_of(order=order, multi_step_rounds=10)
    theta, batch = start(build(plain)), episodes()

    answers = [build(c).contribution(theta, lambda: batch, context()) for c in (plain, multi)]

    assert answers[1].loss == pytest.approx(answers[0].loss, abs=1e-12)
    assert answers[1].metrics == pytest.approx(answers[0].metrics, abs=1e-12)


def test_memory_of_forward_over_reverse_hardly_grows_with_the_steps() -> None:
    num = 200  # examples: activations are most of the memory, as in a network of convolutions
    x = np.zeros((2, num, FEATURES), dtype=np.float32)
    y = np.zeros((2, num), dtype=np.int64)
    batch = TaskBatch(x, y, x, y, np.zeros((2, N_WAY), dtype=np.int64))

    def peak(order: str, steps: int) -> int:
        algorithm = build(config_of((32, 32), order=order, inner_steps=steps))
        theta = algorithm.init(stream(1, Kind.INIT))
        return peak_bytes(lambda: algorithm.contribution(theta, lambda: batch, context()))

    growth = {order: peak(order, 8) / peak(order, 1) for order in EXACT}

    assert growth["second"] > 3
    assert growth["forward_over_reverse"] < 1.3
