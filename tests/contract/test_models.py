"""The laws of every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms, models
from dmaml.worker.algorithms.base import Context
from dmaml.worker.models.base import Model
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
SHAPE = (1, 16, 16)


class OwnModule(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        flat = int(np.prod(input_shape))
        super().__init__(
            nn.Flatten(),
            nn.Linear(flat, 6),
            nn.BatchNorm1d(6),
            nn.Tanh(),
            *([nn.Linear(6, num_outputs)] if num_outputs else []),
        )


CASES = {name: {"name": name, "width": 4} for name in models.MODELS}
CASES["mlp with batch norm"] = {"name": "mlp", "batch_norm": True}
CASES["a user's"] = {"name": "tests.contract.test_models:OwnModule"}


@pytest.fixture(params=CASES)
def config(request: pytest.FixtureRequest) -> RunConfig:
    return from_mapping({"model": CASES[request.param]})


@pytest.fixture
def model(config: RunConfig) -> Model:
    return models.build(config, SHAPE, 3)


def pictures(*counts: int) -> Tensor:
    values = np.random.default_rng(0).normal(size=(*counts, *SHAPE))
    return torch.from_numpy(values).float()


def test_initial_parameters_are_float32_and_a_function_of_the_stream(model: Model) -> None:
    once, again, other = (model.init(stream(seed, Kind.INIT)) for seed in (1, 1, 2))

    assert all(value.dtype == torch.float32 for value in once.values())
    assert not any(value.requires_grad for value in once.values())
    assert list(once) == list(again)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_outputs_are_a_pure_function_that_leaves_its_arguments_alone(model: Model) -> None:
    params, x = model.init(stream(1, Kind.INIT)), pictures(5)
    before = {name: value.clone() for name, value in params.items()}

    once, _ = model.forward(params, x)
    model.forward(params, pictures(3))
    again, _ = model.forward(params, x)

    assert once.shape == (5, 3)
    assert torch.equal(once, again)
    assert all(torch.equal(params[name], before[name]) for name in params)


def test_a_models_own_statistics_imposed_on_it_change_nothing(model: Model) -> None:
    params, x = model.init(stream(1, Kind.INIT)), pictures(5)
    expected, statistics = model.forward(params, x)

    outputs, used = model.forward(params, x, statistics)

    torch.testing.assert_close(outputs, expected)
    assert len(used) == len(statistics)


def test_tasks_mapped_together_give_what_each_gives_alone(model: Model) -> None:
    starts = [model.init(stream(seed, Kind.INIT)) for seed in (1, 2)]
    params = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    x = pictures(2, 5)

    together, statistics = vmap(model.forward)(params, x)

    for task, start in enumerate(starts):
        outputs, own = model.forward(start, x[task])
        torch.testing.assert_close(together[task], outputs)
        torch.testing.assert_close([(m[task], v[task]) for m, v in statistics], own)


def test_outputs_can_be_differentiated_twice_by_every_parameter(model: Model) -> None:
    params = {n: v.requires_grad_() for n, v in model.init(stream(1, Kind.INIT)).items()}
    values = list(params.values())
    outputs, _ = model.forward(params, pictures(5))

    first = torch.autograd.grad(outputs.square().sum(), values, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), values)

    assert all(bool(torch.isfinite(g).all()) for g in second)
    assert any(bool(g.any()) for g in second)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_second_derivatives_in_forward_mode_are_those_in_reverse_mode(
    config: RunConfig, engine: str
) -> None:
    rng = np.random.default_rng(1)
    x, u = (rng.normal(size=(2, 6, *SHAPE)) for _ in range(2))
    labels = np.tile(np.repeat(np.arange(3), 2), (2, 1))
    batch = TaskBatch(x, labels, u, labels, np.zeros((2, 3), dtype=np.int64))  # type: ignore[arg-type]

    def meta_gradient(order: str) -> Tensor:
        section = {"order": order, "inner_lr": 0.1, "inner_steps": 2}
        values = config.model_dump() | {"engine": {"name": engine}, "algorithm": section}
        values["task"]["n_way"] = 3
        maml = algorithms.build(resolve(from_mapping(values)), "classification", SHAPE, 3)
        theta = {name: v.double() + 0.05 for name, v in maml.init(stream(1, Kind.INIT)).items()}
        context = Context(0, 1, stream(1, Kind.CONTEXT))
        gradient = maml.contribution(theta, lambda: batch, context).gradient
        return torch.cat([value.flatten() for value in gradient.values()])

    second, first = meta_gradient("second"), meta_gradient("first")
    forward = meta_gradient("forward_over_reverse")
    torch.testing.assert_close(forward, second, rtol=0, atol=1e-12)
    assert float((second - first).norm() / second.norm()) > 1e-3


def test_an_embedding_has_all_but_the_heads_parameters_and_gives_features(
    config: RunConfig, model: Model
) -> None:
    whole = model.init(stream(1, Kind.INIT))

    embedding, num_features = models.build_embedding(config, SHAPE)
    params = embedding.init(stream(1, Kind.INIT))
    features, statistics = embedding.forward(params, pictures(5))

    assert features.shape == (5, num_features)
    assert list(params) == list(whole)[: len(params)]
    assert 0 < len(params) < len(whole)
    assert all(torch.equal(value, whole[name]) for name, value in params.items())
    assert len(statistics) == len(model.forward(whole, pictures(5))[1])
