"""Outer optimisers on the flat buffer: against torch's on named tensors and plain float64 ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import Checkpoint
from dmaml.common.layout import Layout, TensorSpec
from dmaml.common.outer import OuterSection
from dmaml.server.outer import Outer, yogi
from dmaml.server.parameters import Parameters

LAYOUT = Layout((TensorSpec("w", (17, 3)), TensorSpec("b", (5,)), TensorSpec("s", ())))
CONFIGS = [
    OuterSection(name="sgd", lr=0.1),
    OuterSection(name="sgd", lr=0.1, momentum=0.9),
    OuterSection(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.1),
    OuterSection(name="sgd", lr=0.1, momentum=0.9, nesterov=True),
    OuterSection(name="adam", lr=0.01),
    OuterSection(name="adam", lr=0.01, beta1=0.5, beta2=0.7, eps=1e-3, weight_decay=0.1),
    OuterSection(name="adamw", lr=0.01),
    OuterSection(name="adamw", lr=0.1, beta1=0.5, beta2=0.7, eps=1e-3, weight_decay=0.5),
    OuterSection(name="adagrad", lr=0.1),
    OuterSection(name="adagrad", lr=0.1, eps=1e-3, weight_decay=0.1),
    OuterSection(name="yogi", lr=0.1),
    OuterSection(name="yogi", lr=0.1, beta1=0.5, beta2=0.7, eps=1e-8, weight_decay=0.1),
]
OF_TORCH = [config for config in CONFIGS if config.name != "yogi"]
OWN_EPS = {"adam": 1e-8, "adamw": 1e-8, "adagrad": 1e-10, "yogi": 1e-3, "sgd": 0.0}


def name_of(config: OuterSection) -> str:
    return " ".join([config.name, *sorted(config.model_fields_set - {"name", "lr"})])


def start() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(LAYOUT.size).astype("<f4")


def gradients(count: int) -> list[np.ndarray]:
    """Return gradients whose lengths go up and down by a factor of ten."""
    rng = np.random.default_rng(1)
    scales = 10.0 ** np.sin(np.arange(count))
    return [(s * rng.standard_normal(LAYOUT.size)).astype("<f4") for s in scales]


def rates(config: OuterSection, count: int) -> list[float]:
    return [config.lr * 0.9**index for index in range(count)]


def stepped(outer: Outer, config: OuterSection, first: int, last: int) -> Outer:
    for index in range(first, last):
        outer.step(gradients(last)[index], rates(config, last)[index])
    return outer


# -- the same as torch ---------------------------------------------------------------------------


def torch_optimizer(config: OuterSection, tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
    """Return torch's optimiser with nothing but what the configuration says."""
    said = {key: getattr(config, key) for key in config.model_fields_set - {"name"}}
    betas = (said.pop("beta1", 0.9), said.pop("beta2", 0.999))
    kinds = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad"}
    if config.name.startswith("adam"):
        said["betas"] = betas
    return getattr(torch.optim, kinds[config.name])(tensors, **said)


@pytest.mark.parametrize("config", OF_TORCH, ids=name_of)
def test_steps_equal_torch_on_named_tensors_bit_for_bit(config):
    outer = Outer(start(), config)
    tensors = {n: torch.from_numpy(v.copy()) for n, v in LAYOUT.views(start()).items()}
    optimizer = torch_optimizer(config, list(tensors.values()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda index: 0.9**index)

    for gradient, lr in zip(gradients(20), rates(config, 20), strict=True):
        outer.step(gradient, lr)
        for name, view in LAYOUT.views(gradient).items():
            tensors[name].grad = torch.from_numpy(view.copy())
        optimizer.step()
        schedule.step()

    expected = LAYOUT.flatten({n: t.numpy() for n, t in tensors.items()})
    assert outer.theta.tobytes() == expected.tobytes()


# -- the same as the equations -------------------------------------------------------------------


def plain_sgd(config, theta, pairs):
    buffer = None
    for gradient, lr in pairs:
        g = gradient + config.weight_decay * theta
        buffer = g if buffer is None else config.momentum * buffer + g
        theta = theta - lr * (g + config.momentum * buffer if config.nesterov else buffer)
    return theta


def plain_adagrad(config, theta, pairs):
    total = np.zeros_like(theta)
    for gradient, lr in pairs:
        g = gradient + config.weight_decay * theta
        total = total + g**2
        theta = theta - lr * g / (np.sqrt(total) + config.eps)
    return theta


def plain_adam(config, theta, pairs):
    """Adam, AdamW and Yogi: they differ in where the decay goes, and in how v moves."""
    is_apart = config.name == "adamw"
    m = v = np.zeros_like(theta)
    for t, (gradient, lr) in enumerate(pairs, 1):
        decay = config.weight_decay * theta
        g = gradient if is_apart else gradient + decay
        m = config.beta1 * m + (1 - config.beta1) * g
        if config.name == "yogi":
            v = v - (1 - config.beta2) * np.sign(v - g**2) * g**2
        else:
            v = config.beta2 * v + (1 - config.beta2) * g**2
        m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + config.eps) - lr * decay * is_apart
    return theta


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_steps_are_those_of_the_equations_in_float64(config):
    plain = {"sgd": plain_sgd, "adagrad": plain_adagrad}.get(config.name, plain_adam)
    own = {"eps": OWN_EPS[config.name], "weight_decay": 0.01 if config.name == "adamw" else 0.0}
    said = {key: getattr(config, key) for key in own if key in config.model_fields_set}
    definite = config.model_copy(update=own | said)
    pairs = [
        (gradient.astype(np.float64), lr)
        for gradient, lr in zip(gradients(20), rates(config, 20), strict=True)
    ]

    outer = stepped(Outer(start(), config), config, 0, 20)

    expected = plain(definite, start().astype(np.float64), pairs)
    assert np.abs(expected - start()).max() > 0.01
    np.testing.assert_allclose(outer.theta, expected, rtol=1e-5, atol=1e-5)


def test_first_sgd_step_by_hand():
    outer = Outer(np.array([1.0, 2.0], dtype="<f4"), OuterSection(name="sgd", lr=0.5))

    outer.step(np.array([2.0, -4.0], dtype="<f4"), 0.5)

    assert outer.theta.tolist() == [0.0, 4.0]


def test_the_rate_is_the_one_of_the_step_and_not_the_configured_one():
    outer = Outer(np.array([1.0], dtype="<f4"), OuterSection(name="sgd", lr=0.5))

    outer.step(np.array([1.0], dtype="<f4"), 0.25)
    outer.step(np.array([1.0], dtype="<f4"), 0.0)

    assert outer.theta.tolist() == [0.75]


def test_the_second_moment_of_yogi_falls_by_the_square_of_a_small_gradient_only():
    config = OuterSection(name="yogi", beta2=0.75)
    outer = Outer(np.zeros(3, dtype="<f4"), config)

    outer.step(np.array([4.0, 1.0, 2.0], dtype="<f4"), 0.1)
    assert outer.state()["exp_avg_sq"].tolist() == [4.0, 0.25, 1.0]
    outer.step(np.array([1.0, 4.0, 1.0], dtype="<f4"), 0.1)

    assert outer.state()["exp_avg_sq"].tolist() == [3.75, 4.25, 1.0]  # below, above, equal


@pytest.mark.parametrize("block", [1, 7, 56, 1 << 20])
def test_bits_of_yogi_do_not_depend_on_the_block(block, monkeypatch):
    config = CONFIGS[-1]
    whole = stepped(Outer(start(), config), config, 0, 10)
    monkeypatch.setattr(yogi, "BLOCK", block)

    cut = stepped(Outer(start(), config), config, 0, 10)

    assert cut.theta.tobytes() == whole.theta.tobytes()


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_what_is_given_is_left_alone(config):
    given, gradient = start(), gradients(1)[0]

    outer = Outer(given, config)
    for _ in range(2):
        outer.step(gradient, config.lr)

    assert given.tobytes() == start().tobytes()
    assert gradient.tobytes() == gradients(1)[0].tobytes()
    assert outer.theta.tobytes() != given.tobytes()


# -- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_state_taken_back_goes_on_bit_for_bit(config):
    whole = stepped(Outer(start(), config), config, 0, 10)
    first = stepped(Outer(start(), config), config, 0, 4)
    theta, state = first.theta.copy(), first.state()
    first.step(gradients(1)[0], config.lr)  # what was taken must not move with it

    second = Outer(theta, config)
    if state:
        second.load(state)
    stepped(second, config, 4, 10)

    assert second.theta.tobytes() == whole.theta.tobytes()


@pytest.mark.parametrize("when", [0, 4])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_a_checkpoint_in_the_middle_changes_no_bit_of_any_pipeline(config, when, tmp_path):
    def step(parameters: Parameters, first: int, last: int) -> None:
        for index in range(first, last):
            for pipeline in (0, 3):
                gradient = gradients(last)[index] * np.float32(pipeline + 1)
                parameters.step(pipeline, gradient, rates(config, last)[index])

    whole, first, second = (Parameters(config) for _ in range(3))
    for parameters in (whole, first):
        parameters.start(LAYOUT, {0: start(), 3: start()[::-1].copy()})
    step(whole, 0, 10)
    step(first, 0, when)

    meta = {"progress": {"version": when}, "layout": first.layout_json()}
    checkpoints.write(tmp_path / "a", Checkpoint(1, first.tensors(), meta))
    second.load(checkpoints.read(tmp_path / "a"))
    step(second, when, 10)

    found, expected = second.tensors(), whole.tensors()
    assert {n: t.tobytes() for n, t in found.items()} == {
        n: t.tobytes() for n, t in expected.items()
    }
    assert found["theta.0"].tobytes() != found["theta.3"].tobytes()


def test_the_checkpoint_holds_every_moment():
    kept = {
        name_of(config): set(stepped(Outer(start(), config), config, 0, 2).state())
        for config in CONFIGS
    }

    moments = {"step", "exp_avg", "exp_avg_sq"}
    for name, found in kept.items():
        is_plain = name == "sgd"
        expected = {"sgd": {"momentum_buffer"}, "adagrad": {"step", "sum"}}
        assert found == (set() if is_plain else expected.get(name.split()[0], moments)), name
