from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap
from torch.nn import functional as F

from dmaml.common.config import RunConfig, from_mapping
from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import models
from dmaml.worker.models.base import Params
from dmaml.worker.models.conv4 import Conv4
from dmaml.worker.models.layers import batch_norm, folded_batch_norm, patches
from dmaml.worker.models.mlp import Mlp, truncated_normal
from dmaml.worker.models.module import ModuleModel

torch.set_num_threads(1)
HERE = "tests.unit.test_models"
CONV4 = Conv4((2, 9, 6), 3, width=4)


class OwnModule(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(input_shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten()
        )
        self.last = nn.Linear(width * (input_shape[1] - 2) * (input_shape[2] - 2), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.body(x))
        return y


class WithBuffer(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(num_outputs))


class WithDropout(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)


def own_mlp(input_shape: tuple[int, ...], num_outputs: int) -> Mlp:
    return Mlp(input_shape, num_outputs, (7,))


def number(input_shape: tuple[int, ...], num_outputs: int) -> int:
    return num_outputs


def doubles(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape))
    return values.requires_grad_(grad)


def double(params: Params) -> Params:
    return {name: value.double() for name, value in params.items()}


def with_name(name: str, **options: Any) -> RunConfig:
    return from_mapping({"model": {"name": name, "options": options}})


def plain_conv4(params: Params, x: Tensor) -> Tensor:
    for i in range(4):
        weight = params[f"conv{i}.weight"].permute(3, 2, 0, 1)
        x = F.conv2d(x, weight, stride=2, padding=1)
        scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    return x.mean((2, 3)) @ params["head.weight"] + params["head.bias"]


def test_patches_are_those_of_a_strided_padded_convolution() -> None:
    x, weight = doubles(2, 3, 7, 6), doubles(5, 3, 3, 3, seed=1)

    windows = patches(x.movedim(1, -1))

    expected = F.conv2d(x, weight, stride=2, padding=1).flatten(2).mT
    torch.testing.assert_close(windows @ weight.permute(2, 3, 1, 0).flatten(0, 2), expected)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 2)])
def test_patches_have_exact_first_and_second_derivatives(height: int, width: int) -> None:
    x = doubles(2, height, width, 2, grad=True)

    assert gradcheck(patches, x)
    assert gradgradcheck(lambda z: patches(z).sin(), x)


def test_patches_of_a_stack_of_tasks_are_those_of_each_task() -> None:
    x = doubles(2, 2, 3, 4, 1, grad=True)

    together = vmap(patches)(x)

    torch.testing.assert_close(together, torch.stack([patches(task) for task in x]), rtol=0, atol=0)
    assert gradcheck(vmap(patches), x)
    assert gradgradcheck(lambda z: vmap(patches)(z).sin(), x)
    torch.testing.assert_close(vmap(patches, in_dims=1)(x.movedim(0, 1)), together)


@pytest.mark.parametrize("impose", [False, True])
def test_folded_batch_norm_is_a_linear_layer_and_its_batch_norm(impose: bool) -> None:
    x, weight = doubles(11, 3), doubles(3, 5, seed=1)
    scale, shift = doubles(5, seed=2), doubles(5, seed=3)
    imposed = (doubles(5, seed=4), doubles(5, seed=5).square()) if impose else None

    matrix, folded = folded_batch_norm(x, weight, scale, shift, imposed)

    expected, statistics = batch_norm(x @ weight, scale, shift, imposed)
    torch.testing.assert_close(torch.cat([x, torch.ones(11, 1)], 1).double() @ matrix, expected)
    torch.testing.assert_close(folded, statistics)


def test_batch_norm_is_that_of_torch() -> None:
    x, scale, shift = doubles(11, 5), doubles(5, seed=1), doubles(5, seed=2)

    y, _ = batch_norm(x, scale, shift, None)

    torch.testing.assert_close(y, F.batch_norm(x, None, None, scale, shift, training=True))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 6), (2, 1, 5)])
def test_conv4_is_four_strided_convolutions(shape: tuple[int, ...]) -> None:
    model = Conv4(shape, 3, width=5)
    params = double(model.init(stream(1, Kind.INIT)))
    params["norm0.shift"] = doubles(5)
    params["norm1.scale"] = doubles(5, seed=1)
    x = doubles(4, *shape, seed=2)

    outputs, statistics = model.forward(params, x)

    torch.testing.assert_close(outputs, plain_conv4(params, x), rtol=1e-8, atol=1e-8)
    assert [mean.shape for mean, _ in statistics] == [(5,)] * 4


def test_imposed_statistics_make_a_picture_independent_of_the_others() -> None:
    params = double(CONV4.init(stream(1, Kind.INIT)))
    support, query = doubles(6, 2, 9, 6), doubles(4, 2, 9, 6, seed=1)
    _, statistics = CONV4.forward(params, support)

    together, used = CONV4.forward(params, query, statistics)

    alone = torch.cat([CONV4.forward(params, row[None], statistics)[0] for row in query])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(used, statistics)
    assert not torch.allclose(together, CONV4.forward(params, query)[0])


def test_conv4_starts_xavier_uniform_with_a_small_head() -> None:
    params = Conv4((1, 28, 28), 5, width=64).init(stream(1, Kind.INIT))

    bound = (6 / (9 * 128)) ** 0.5
    assert float(params["conv1.weight"].abs().max()) <= bound
    assert float(params["conv1.weight"].std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert float(params["head.weight"].std()) == pytest.approx(0.01, rel=0.1)
    assert not params["head.bias"].any()


def test_conv4_refuses_examples_that_are_no_pictures() -> None:
    with pytest.raises(ConfigError, match=r"'conv4' requires pictures .* \(8,\).*mlp"):
        models.build(with_name("conv4"), (8,), 5)


def test_glorot_weights_are_uniform_within_their_bound() -> None:
    model = Mlp((40,), 5, (60, 30), init="glorot")

    params = model.init(stream(1, Kind.INIT))

    for i, bound in enumerate([0.06**0.5, (6 / 90) ** 0.5, (6 / 35) ** 0.5]):
        weight = params[f"linear{i}.weight"]
        assert weight.dtype == torch.float32
        assert 0.95 * bound < float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert not params[f"linear{i}.bias"].any()


def test_truncated_normal_has_no_value_beyond_two() -> None:
    values = truncated_normal(stream(1, Kind.INIT), 20_000)

    assert values.shape == (20_000,)
    assert float(np.abs(values).max()) < 2
    assert float(values.std()) == pytest.approx(0.880, rel=0.02)  # of a normal cut at two


@pytest.mark.parametrize("normalised", [False, True])
def test_mlp_is_its_formula(normalised: bool) -> None:
    config = from_mapping({"model": {"name": "mlp", "hidden": [5], "batch_norm": normalised}})
    model = models.build(config, (2, 3), 4)
    params = double(model.init(stream(1, Kind.INIT)))
    x = doubles(7, 2, 3)

    outputs, statistics = model.forward(params, x)

    hidden = x.flatten(1) @ params["linear0.weight"]
    if normalised:
        hidden = F.batch_norm(hidden, None, None, training=True)
    expected = hidden.relu() @ params["linear1.weight"]
    torch.testing.assert_close(outputs, expected)
    assert len(statistics) == normalised
    assert ("linear0.bias" in params) != normalised


def test_a_users_module_is_found_by_path_and_normalises_with_the_batch() -> None:
    model = models.build(with_name(f"{HERE}:OwnModule", width=3), (2, 5, 5), 4)
    params = double(model.init(stream(1, Kind.INIT)))
    params["body.1.weight"] = doubles(3)
    x = doubles(6, 2, 5, 5)

    outputs, statistics = model.forward(params, x)

    z = F.conv2d(x, params["body.0.weight"], params["body.0.bias"])
    expected_mean, expected_variance = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)
    scale, shift = params["body.1.weight"], params["body.1.bias"]
    z = F.batch_norm(z, None, None, scale, shift, training=True)
    expected = z.relu().flatten(1) @ params["last.weight"].T + params["last.bias"]
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(statistics, [(expected_mean, expected_variance)])


def test_a_users_module_takes_imposed_statistics() -> None:
    model = ModuleModel(lambda: OwnModule((2, 5, 5), 4))
    params = model.init(stream(1, Kind.INIT))
    x = doubles(6, 2, 5, 5).float()
    outputs, statistics = model.forward(params, x)

    again, _ = model.forward(params, x, statistics)
    alone, _ = model.forward(params, x[:1], statistics)

    torch.testing.assert_close(again, outputs)
    torch.testing.assert_close(alone, outputs[:1])


def test_a_users_module_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    ModuleModel(lambda: OwnModule((2, 5, 5), 4)).init(stream(1, Kind.INIT))

    assert torch.equal(torch.rand(1), expected)


def test_something_with_the_methods_of_a_model_is_taken_as_it_is() -> None:
    assert isinstance(models.build(with_name(f"{HERE}:own_mlp"), (3,), 2), Mlp)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("WithBuffer", {}, "'WithBuffer' holds the buffer 'offset'.*parameter"),
        ("WithDropout", {}, "'WithDropout' holds dropout 'drop' with p = 0.5.*pure"),
        ("OwnModule", {"depth": 3}, "cannot be made.*depth.*called as"),
        ("number", {}, "made a int; required a torch.nn.Module"),
        ("Missing", {}, "cannot be imported"),
    ],
)
def test_an_unsuitable_model_is_refused(name: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        models.build(with_name(f"{HERE}:{name}", **options), (2, 5, 5), 4)


def test_options_of_our_own_models_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.options .* 'mlp'.*Remove them"):
        models.build(with_name("mlp", width=3), (2,), 4)


def test_an_unknown_model_is_refused_with_the_near_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'conv4'"):
        models.build(with_name("conv5"), (1, 28, 28), 5)


def test_the_features_of_conv4_are_its_last_layers_at_every_place() -> None:
    whole, embedding = Conv4((2, 9, 6), 3, width=4), Conv4((2, 9, 6), 0, width=4)
    params, x = double(whole.init(stream(1, Kind.INIT))), doubles(5, 2, 9, 6)

    outputs, _ = whole.forward(params, x)
    features, _ = embedding.forward(params, x)

    mean = features.view(5, -1, 4).mean(1)
    assert features.shape == (5, 4)  # one place is left of nine by six
    torch.testing.assert_close(
        torch.addmm(params["head.bias"], mean, params["head.weight"]), outputs
    )


def test_the_features_of_an_mlp_are_its_last_hidden_layer() -> None:
    params, x = double(Mlp((2, 3), 0, (7,)).init(stream(1, Kind.INIT))), doubles(5, 2, 3)

    features, _ = Mlp((2, 3), 0, (7,)).forward(params, x)

    expected = (x.flatten(1) @ params["linear0.weight"] + params["linear0.bias"]).relu()
    torch.testing.assert_close(features, expected)
    assert torch.equal(Mlp((2, 3), 0, ()).forward({}, x)[0], x.flatten(1))


def test_a_model_that_gives_no_features_is_refused() -> None:
    config = with_name(f"{HERE}:OwnModule")

    with (
        pytest.warns(UserWarning, match="zero-element"),
        pytest.raises(ConfigError, match=r"gave \(2, 0\).*Leave its last layer out"),
    ):
        models.build_embedding(config, (2, 9, 6))
