from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.matching import cosines
from tests.unit import toy_tasks
from tests.unit.toy_tasks import built, in_float64, points, start

torch.set_num_threads(1)


def test_the_cosine_of_rows_worked_by_hand() -> None:
    a = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    b = torch.tensor([[[6.0, 8.0], [-4.0, 3.0], [-3.0, -4.0]]])

    actual = cosines(a, b)

    torch.testing.assert_close(actual, torch.tensor([[[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]]))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_outputs_are_the_logarithms_of_the_attention_to_each_class(scale: float) -> None:
    algorithm = built("matching", algorithm={"options": {"scale": scale}})
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 1, 3, 2, 2)), start(algorithm)
    x, y, u = (torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x))

    outputs = algorithm.predict(params, x, y, u, steps=0)

    def features(rows: torch.Tensor) -> np.ndarray:
        return (rows @ params["linear0.weight"] + params["linear0.bias"]).relu().numpy()

    for query, row in zip(features(u), outputs.exp(), strict=True):
        weights = [
            math.exp(scale * (query @ s) / (np.linalg.norm(query) * np.linalg.norm(s)))
            for s in features(x)
        ]
        total = sum(weights)
        expected = [
            sum(w for w, k in zip(weights, y, strict=True) if k == c) / total for c in range(3)
        ]
        assert row.tolist() == pytest.approx(expected)


def test_it_learns_and_not_from_shuffled_labels() -> None:
    algorithm = built("matching", model={"hidden": [16]}, algorithm={"options": {"scale": 10.0}})
    before = toy_tasks.loss_of(algorithm, algorithm.init(stream(1, Kind.INIT)))

    learned = toy_tasks.meta_trained(algorithm, rounds=60, lr=0.02)
    misled = toy_tasks.meta_trained(algorithm, rounds=60, lr=0.02, shuffled=True)

    assert toy_tasks.loss_of(algorithm, learned) < before / 2
    assert toy_tasks.loss_of(algorithm, misled, shuffled=True) > 0.9 * np.log(2)


@pytest.mark.parametrize("scale", [0, -1.0, "much", float("1e400")])
def test_a_wrong_scale_is_refused(scale: object) -> None:
    with pytest.raises(ConfigError, match="scale"):
        built("matching", algorithm={"options": {"scale": scale}})
