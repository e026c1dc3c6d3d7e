"""Outer optimisers on the flat buffer against torch's on named tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmaml.common.config import OuterSection
from dmaml.common.layout import Layout, TensorSpec
from dmaml.server.outer import Outer

LAYOUT = Layout((TensorSpec("w", (17, 3)), TensorSpec("b", (5,)), TensorSpec("s", ())))
CONFIGS = [
    OuterSection(name="sgd", lr=0.1),
    OuterSection(name="sgd", lr=0.1, momentum=0.9),
    OuterSection(name="adam", lr=0.01),
    OuterSection(name="adam", lr=0.01, beta1=0.5, beta2=0.7, eps=1e-3),
]


def start() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(LAYOUT.size).astype("<f4")


def gradients(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(LAYOUT.size).astype("<f4") for _ in range(count)]


def torch_optimizer(config: OuterSection, tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(tensors, lr=config.lr, momentum=config.momentum)
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(tensors, lr=config.lr, betas=betas, eps=config.eps)


@pytest.mark.parametrize("config", CONFIGS)
def test_steps_equal_torch_on_named_tensors_bit_for_bit(config):
    outer = Outer(start(), config)
    tensors = {n: torch.from_numpy(v.copy()) for n, v in LAYOUT.views(start()).items()}
    optimizer = torch_optimizer(config, list(tensors.values()))

    for gradient in gradients(20):
        outer.step(gradient)
        for name, view in LAYOUT.views(gradient).items():
            tensors[name].grad = torch.from_numpy(view.copy())
        optimizer.step()

    expected = LAYOUT.flatten({n: t.numpy() for n, t in tensors.items()})
    assert outer.theta.tobytes() == expected.tobytes()


@pytest.mark.parametrize("config", CONFIGS)
def test_state_taken_back_goes_on_bit_for_bit(config):
    whole = Outer(start(), config)
    for gradient in gradients(10):
        whole.step(gradient)
    first = Outer(start(), config)
    for gradient in gradients(10)[:4]:
        first.step(gradient)
    theta, state = first.theta.copy(), first.state()
    first.step(gradients(1)[0])  # what was taken must not move with it

    second = Outer(theta, config)
    if state:
        second.load(state)
    for gradient in gradients(10)[4:]:
        second.step(gradient)

    assert second.theta.tobytes() == whole.theta.tobytes()


def test_theta_is_a_copy_of_what_was_given():
    given = start()

    Outer(given, CONFIGS[0]).step(gradients(1)[0])

    assert given.tobytes() == start().tobytes()


def test_first_sgd_step_by_hand():
    outer = Outer(np.array([1.0, 2.0], dtype="<f4"), OuterSection(name="sgd", lr=0.5))

    outer.step(np.array([2.0, -4.0], dtype="<f4"))

    assert outer.theta.tolist() == [0.0, 4.0]
