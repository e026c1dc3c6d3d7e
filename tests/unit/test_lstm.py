from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.shuffles import own_streams, permutations
from dmaml.worker.models.base import Params
from tests.unit import toy_tasks
from tests.unit.toy_tasks import built, contribution, in_float64, points, start

torch.set_num_threads(1)
RAW = {"hidden": []}  # features are the example itself


def plain_lstm(params: Params, layers: int, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    """Return h and c of each layer after one more x."""
    out = []
    for layer in range(layers):
        h, c = state[2 * layer], state[2 * layer + 1]
        z = params[f"lstm{layer}.input"] @ x + params[f"lstm{layer}.recurrent"] @ h
        i, f, g, o = (z + params[f"lstm{layer}.bias"]).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        x = o.sigmoid() * c.tanh()
        out += [x, c]
    return out


@pytest.mark.parametrize(("layers", "features"), [(1, "plain"), (2, "plain"), (1, "standardised")])
def test_outputs_are_those_of_the_equations(layers: int, features: str) -> None:
    options = {"hidden": 5, "layers": layers, "features": features}
    algorithm = built("lstm", model=RAW, algorithm={"options": options})
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 1, k_shot=3)), start(algorithm)
    x, y, u = (torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x))

    outputs = algorithm.predict(params, x, y, u, steps=0)

    order = permutations(own_streams(x[None], y[None]), 6)[0]
    if features == "standardised":
        mean, scale = x.mean(0), (x.var(0, correction=0) + 1e-5).sqrt()
        x, u = (x - mean) / scale, (u - mean) / scale
    state = [torch.zeros(5, dtype=torch.float64)] * (2 * layers)
    for i in order:
        label = torch.tensor([1.0, 0.0] if y[i] == 0 else [0.0, 1.0]).double()
        state = plain_lstm(params, layers, torch.cat([x[i], label]), state)
    for query, actual in zip(u, outputs, strict=True):
        last = plain_lstm(params, layers, torch.cat([query, torch.zeros(2)]), state)[-2]
        expected = params["head.weight"].T @ last + params["head.bias"]
        torch.testing.assert_close(actual, expected)


def test_targets_of_regression_are_read_as_they_are() -> None:
    from dmaml.worker import algorithms
    from tests.unit.toy_tasks import configured

    config = configured("lstm", task={"n_way": 1}, model=RAW, algorithm={"options": {"hidden": 4}})
    algorithm = algorithms.build(config, "regression", (1,), 1)
    params = start(algorithm)
    x, y, u = (torch.tensor(v).double()[:, None] for v in ([0.5], [-2.0], [1.5]))

    output = algorithm.predict(params, x, y, u, steps=0)

    state = [torch.zeros(4, dtype=torch.float64)] * 2
    state = plain_lstm(params, 1, torch.tensor([0.5, -2.0]).double(), state)
    state = plain_lstm(params, 1, torch.tensor([1.5, 0.0]).double(), state)
    expected = params["head.weight"].T @ state[0] + params["head.bias"]
    torch.testing.assert_close(output[0], expected)


def test_the_embedding_is_trained_too() -> None:
    algorithm = built("lstm", model={"hidden": [6]}, algorithm={"options": {"hidden": 4}})
    params = start(algorithm)

    gradient = contribution(
        algorithm, params, in_float64(points(stream(1, Kind.TRAIN), 3))
    ).gradient

    assert next(iter(gradient)) == "embedding.linear0.weight"
    assert all(bool(value.any()) for value in gradient.values())


def test_it_learns_and_not_from_shuffled_labels() -> None:
    algorithm = built("lstm", model=RAW, algorithm={"options": {"hidden": 32}})
    before = toy_tasks.loss_of(algorithm, algorithm.init(stream(1, Kind.INIT)))

    learned = toy_tasks.meta_trained(algorithm, rounds=70, lr=0.02)
    misled = toy_tasks.meta_trained(algorithm, rounds=70, lr=0.02, shuffled=True)

    assert toy_tasks.loss_of(algorithm, learned) < before / 2
    assert toy_tasks.loss_of(algorithm, misled, shuffled=True) > 0.9 * np.log(2)


@pytest.mark.parametrize("option", ["hidden", "layers"])
def test_sizes_below_one_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} = 0: required a whole number >= 1"):
        built("lstm", algorithm={"options": {option: 0}})


@pytest.mark.parametrize("name", ["lstm", "mann"])
def test_other_features_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown features 'pixels'\. Known: plain"):
        built(name, algorithm={"options": {"features": "pixels"}})
