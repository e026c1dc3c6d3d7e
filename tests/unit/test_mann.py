from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.base import Problem
from dmaml.worker.algorithms.mann import Mann
from dmaml.worker.algorithms.sequences import Reader
from dmaml.worker.algorithms.shuffles import own_streams, permutations
from dmaml.worker.models.base import Params
from tests.unit import toy_tasks
from tests.unit.toy_tasks import built, configured, in_float64, points, start

torch.set_num_threads(1)
SIZES: dict[str, Any] = {"hidden": 5, "slots": 4, "width": 3, "heads": 2, "usage_decay": 0.9}
OPTIONS: dict[str, Any] = {"model": {"hidden": []}, "algorithm": {"options": SIZES}}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class PlainMemory:
    """The equations of the paper, one number at a time."""

    def __init__(self, params: Params) -> None:
        self.p = {name: value.numpy() for name, value in params.items()}
        self.h, self.c = np.zeros(5), np.zeros(5)
        self.memory = np.zeros((4, 3))
        self.read_weights = np.zeros((2, 4))
        self.usage = np.zeros(4)
        self.read = np.zeros(6)

    def step(self, x: np.ndarray) -> None:
        p = self.p
        z = p["controller.input"] @ np.concatenate([x, self.read])
        z = z + p["controller.recurrent"] @ self.h + p["controller.bias"]
        for j in range(5):
            i, f, g, o = (z[j + 5 * gate] for gate in range(4))
            self.c[j] = sigmoid(f) * self.c[j] + sigmoid(i) * math.tanh(g)
            self.h[j] = sigmoid(o) * math.tanh(self.c[j])
        keys = np.tanh(self.h @ p["key.weight"] + p["key.bias"]).reshape(2, 3)
        gates = self.h @ p["gate.weight"] + p["gate.bias"]
        least = sorted(range(4), key=lambda slot: (self.usage[slot], slot))[:2]
        written = np.zeros((2, 4))
        for head in range(2):
            for slot in range(4):
                is_least = 1.0 if slot == least[head] else 0.0
                sigma = sigmoid(gates[head])
                written[head, slot] = sigma * self.read_weights[head, slot] + (1 - sigma) * is_least
        for slot in least:
            self.memory[slot] = 0
        for head in range(2):
            for slot in range(4):
                self.memory[slot] += written[head, slot] * keys[head]
        read_weights, reads = np.zeros((2, 4)), []
        for head in range(2):
            likeness = [
                keys[head] @ row / math.sqrt((keys[head] @ keys[head] + 1e-6) * (row @ row + 1e-6))
                for row in self.memory
            ]
            exponentials = np.exp(likeness)
            read_weights[head] = exponentials / exponentials.sum()
            reads.append(read_weights[head] @ self.memory)
        self.usage = 0.9 * self.usage + read_weights.sum(0) + written.sum(0)
        self.read_weights, self.read = read_weights, np.concatenate(reads)

    def output(self) -> np.ndarray:
        seen = np.concatenate([self.h, self.read])
        out: np.ndarray = seen @ self.p["head.weight"] + self.p["head.bias"]
        return out


def predictor() -> Mann:
    problem = Problem("classification", (3,), 2)
    reader = Reader(configured("mann", model={"hidden": []}), problem)
    return Mann(reader, **SIZES, strength=1.0)


def inputs(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 5)))


def test_memory_and_weights_are_those_of_a_plain_loop_over_the_equations() -> None:
    network, params = predictor(), start(built("mann", **OPTIONS))
    plain, state = PlainMemory(params), network.start(1, torch.float64)

    for x in inputs(6):
        state = network.step(params, x[None], state)
        plain.step(x.numpy())

        np.testing.assert_allclose(state.h[0], plain.h)
        np.testing.assert_allclose(state.memory[0], plain.memory)
        np.testing.assert_allclose(state.read_weights[0], plain.read_weights)
        np.testing.assert_allclose(state.usage[0], plain.usage)
        np.testing.assert_allclose(state.read[0], plain.read)


def test_each_head_writes_to_a_slot_of_its_own_which_is_emptied_first() -> None:
    network, params = predictor(), start(built("mann", **OPTIONS))
    params["gate.bias"] = torch.full((2,), -50.0).double()  # sigma 0: to the least used slots only
    state = network.start(1, torch.float64)
    written, least = [], []

    for x in inputs(8):
        before = state.memory[0]
        least.append(sorted(state.usage[0].argsort(stable=True)[:2].tolist()))
        state = network.step(params, x[None], state)
        changed = (state.memory[0] - before).abs().sum(1) > 1e-9
        written.append(changed.nonzero().flatten().tolist())

    assert written == least
    assert written[:2] == [[0, 1], [2, 3]]
    assert float(state.memory.abs().max()) <= 1.0  # one key each, not a sum of two


def test_labels_come_one_step_late() -> None:
    algorithm = built("mann", **OPTIONS)
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 1, k_shot=2)), start(algorithm)
    x, y, u = (torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x))

    outputs = algorithm.predict(params, x, y, u, steps=0)

    order = permutations(own_streams(x[None], y[None]), 4)[0]
    for query, actual in zip(u, outputs, strict=True):
        plain, label = PlainMemory(params), np.zeros(2)
        for i in order:
            plain.step(np.concatenate([x[i].numpy(), label]))
            label = np.eye(2)[y[i]]
        plain.step(np.concatenate([query.numpy(), label]))
        np.testing.assert_allclose(actual, plain.output())


def test_derivatives_are_finite_while_slots_are_empty() -> None:
    algorithm = built("mann", **OPTIONS)
    params = algorithm.init(stream(1, Kind.INIT))

    gradient = toy_tasks.contribution(algorithm, params, points(stream(1, Kind.TRAIN), 4)).gradient

    assert all(bool(torch.isfinite(value).all()) for value in gradient.values())
    assert all(bool(value.any()) for value in gradient.values())


def test_it_learns_and_not_from_shuffled_labels() -> None:
    options = {"hidden": 32, "slots": 8, "width": 8, "heads": 2, "strength": 5.0}
    algorithm = built("mann", model={"hidden": []}, algorithm={"options": options})
    before = toy_tasks.loss_of(algorithm, algorithm.init(stream(1, Kind.INIT)))

    learned = toy_tasks.meta_trained(algorithm, rounds=90, lr=0.02)
    misled = toy_tasks.meta_trained(algorithm, rounds=90, lr=0.02, shuffled=True)

    assert toy_tasks.loss_of(algorithm, learned) < before / 2
    assert toy_tasks.loss_of(algorithm, misled, shuffled=True) > 0.9 * np.log(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": 3, "heads": 4}, "slots = 3: required a whole number >= 4"),
        ({"usage_decay": 1.5}, "usage_decay = 1.5: required a finite number from 0 to 1"),
        ({"strength": 0}, "strength = 0: required a finite number > 0"),
        ({"hidden": "many"}, "hidden = 'many'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        built("mann", algorithm={"options": options})
