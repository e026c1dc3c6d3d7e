"""Convolutions, pooling, and the networks made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap
from torch.nn import functional as F

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import models
from dmaml.worker.models.base import Model, Params
from dmaml.worker.models.convolution import convolve, max_pool
from dmaml.worker.models.layers import windows_and_one

torch.set_num_threads(1)


def doubles(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    return values.requires_grad_(grad)


def build(name: str, shape: tuple[int, ...], width: int = 4) -> Model:
    return models.build(from_mapping({"model": {"name": name, "width": width}}), shape, 3)


def plain(params: Params, x: Tensor, blocks: int) -> Tensor:
    for i in range(blocks):
        x = F.conv2d(x, params[f"conv{i}.weight"].permute(3, 2, 0, 1), padding=1)
        scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
        x = F.max_pool2d(F.relu(F.batch_norm(x, None, None, scale, shift, training=True)), 2)
    return x.movedim(1, -1).flatten(1) @ params["head.weight"] + params["head.bias"]


def awkward(model: Model, grad: bool = False) -> Params:
    """Return parameters in float64 with shifts and, for each norm, negative scales among others."""
    params = {n: v.double() for n, v in model.init(stream(1, Kind.INIT)).items()}
    for seed, name in enumerate(params):
        if name.startswith("norm"):
            params[name] = doubles(*params[name].shape, seed=seed)
    return {name: value.requires_grad_(grad) for name, value in params.items()}


def second_order(forward: object, params: Params, x: Tensor, query: Tensor) -> list[Tensor]:
    """Return the gradient through a step on `x`, seen on `query`."""
    assert callable(forward)
    inner = torch.autograd.grad(
        forward(params, x).square().mean(), list(params.values()), create_graph=True
    )
    stepped = {n: v - 0.1 * g for (n, v), g in zip(params.items(), inner, strict=True)}
    outer = forward(stepped, query).square().mean()
    return list(torch.autograd.grad(outer, list(params.values())))


def test_convolve_is_torchs_convolution() -> None:
    x, weight = doubles(2, 5, 4, 3), doubles(3, 3, 3, 6, seed=1)

    expected = F.conv2d(x.movedim(-1, 1), weight.permute(3, 2, 0, 1), padding=1).movedim(1, -1)

    torch.testing.assert_close(convolve(x, weight), expected)


def test_windows_times_weights_are_the_convolution() -> None:
    x, weight = doubles(2, 5, 4, 3), doubles(3, 3, 3, 6, seed=1)

    seen = windows_and_one(x)

    expected = convolve(x, weight).flatten(1, 2)
    torch.testing.assert_close(seen[..., :-1] @ weight.flatten(0, 2), expected)
    assert bool((seen[..., -1] == 1).all())


def test_max_pool_is_torchs_and_leaves_out_an_odd_last_row() -> None:
    x = doubles(2, 5, 7, 3)

    expected = F.max_pool2d(x.movedim(-1, 1), 2).movedim(1, -1)

    assert torch.equal(max_pool(x), expected)


def test_convolve_and_max_pool_have_exact_first_and_second_derivatives() -> None:
    x, weight = doubles(2, 4, 5, 2, grad=True), doubles(3, 3, 2, 3, seed=1, grad=True)

    assert gradcheck(convolve, (x, weight))
    assert gradgradcheck(convolve, (x, weight))
    assert gradcheck(max_pool, x)
    assert gradgradcheck(lambda z: max_pool(z.sin()), x)


def test_mapped_tasks_have_exact_second_derivatives() -> None:
    x, weight = doubles(2, 2, 4, 3, 1, grad=True), doubles(2, 3, 3, 1, 2, seed=1, grad=True)

    def pooled(a: Tensor, b: Tensor) -> Tensor:
        return max_pool(convolve(a, b)).sin()

    assert gradcheck(vmap(pooled), (x, weight))
    assert gradgradcheck(vmap(pooled), (x, weight))


@pytest.mark.parametrize("shared", [0, 1])
def test_what_tasks_share_may_stay_unmapped(shared: int) -> None:
    arguments = [doubles(2, 2, 4, 4, 1), doubles(2, 3, 3, 1, 2, seed=1)]
    arguments[shared] = arguments[shared][0]
    dims = (None, 0) if shared == 0 else (0, None)

    together = vmap(convolve, dims)(*arguments)

    for task in range(2):
        own = [a if d is None else a[task] for a, d in zip(arguments, dims, strict=True)]
        torch.testing.assert_close(together[task], convolve(*own))


@pytest.mark.parametrize(
    ("name", "blocks", "shape"),
    [("conv4_pool", 4, (3, 17, 28)), ("conv2", 2, (1, 7, 4)), ("conv4_pool", 4, (1, 16, 16))],
)
def test_pooled_models_are_the_plain_network_with_its_second_derivatives(
    name: str, blocks: int, shape: tuple[int, ...]
) -> None:
    model = build(name, shape)
    params, x, query = awkward(model, grad=True), doubles(5, *shape), doubles(4, *shape, seed=1)

    ours = second_order(lambda p, z: model.forward(p, z)[0], params, x, query)

    torch.testing.assert_close(model.forward(params, x)[0], plain(params, x, blocks))
    expected = second_order(lambda p, z: plain(p, z, blocks), params, x, query)
    torch.testing.assert_close(ours, expected)


def test_statistics_are_those_of_the_convolutions_output() -> None:
    model = build("conv2", (2, 6, 6))
    params, x = awkward(model), doubles(5, 2, 6, 6)

    _, statistics = model.forward(params, x)

    z = F.conv2d(x, params["conv0.weight"].permute(3, 2, 0, 1), padding=1)
    torch.testing.assert_close(statistics[0], (z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)))
    norm = F.batch_norm(z, None, None, params["norm0.scale"], params["norm0.shift"], training=True)
    z = F.max_pool2d(norm.relu(), 2)
    z = F.conv2d(z, params["conv1.weight"].permute(3, 2, 0, 1), padding=1)
    torch.testing.assert_close(statistics[1], (z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)))


def test_imposed_statistics_make_a_picture_independent_of_the_others() -> None:
    model = build("conv4_pool", (1, 16, 16))
    params, query = awkward(model), doubles(4, 1, 16, 16, seed=1)
    _, statistics = model.forward(params, doubles(6, 1, 16, 16))

    together, used = model.forward(params, query, statistics)

    alone = torch.cat([model.forward(params, row[None], statistics)[0] for row in query])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(used, statistics)
    assert not torch.allclose(together, model.forward(params, query)[0])


@pytest.mark.parametrize(
    ("name", "shape", "width", "features"),
    [
        ("conv4_pool", (3, 84, 84), 32, 800),  # Finn's miniImageNet network: 5 x 5 x 32
        ("conv4_pool", (1, 28, 28), 64, 64),  # Snell's Omniglot embedding
        ("conv4_pool", (3, 84, 84), 64, 1600),
        ("conv2", (1, 28, 28), 64, 3136),
    ],
)
def test_feature_counts_are_the_published_ones(
    name: str, shape: tuple[int, ...], width: int, features: int
) -> None:
    params = build(name, shape, width).init(stream(1, Kind.INIT))

    assert params["head.weight"].shape == (features, 3)


def test_pooled_models_start_xavier_uniform() -> None:
    params = build("conv4_pool", (3, 84, 84), 32).init(stream(1, Kind.INIT))

    for name, fans in (("conv1.weight", 9 * 64), ("head.weight", 803)):
        bound = (6 / fans) ** 0.5
        assert float(params[name].abs().max()) <= bound
        assert float(params[name].std()) == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not params["head.bias"].any()
    assert bool((params["norm2.scale"] == 1).all())


def test_pictures_that_cannot_be_halved_so_often_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'conv4_pool' halves pictures 4 times.*8 x 20.*conv4"):
        build("conv4_pool", (1, 8, 20))
    with pytest.raises(ConfigError, match=r"'conv2' requires pictures .* \(8,\).*mlp"):
        build("conv2", (8,))
