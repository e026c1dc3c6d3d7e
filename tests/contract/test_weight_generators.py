"""The laws of weight generators, over every one in the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dmaml.common.config import WeightsSection
from dmaml.common.errors import UnknownNameError
from dmaml.server import weights
from dmaml.server.weights import GENERATORS
from dmaml.server.weights.base import WeightGenerator


@pytest.fixture(params=sorted(GENERATORS))
def generator(request) -> WeightGenerator:
    return weights.build(WeightsSection(name=request.param))


def losses_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, count)


def ask(generator: WeightGenerator, losses: np.ndarray, slots: np.ndarray | None = None):
    slots = np.arange(losses.size) if slots is None else slots
    return generator.weights(losses, slots, np.zeros(losses.size, dtype=np.int64))


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_weights_are_not_negative_and_sum_to_one(generator, count):
    found = ask(generator, losses_of(count))

    assert found.shape == (count,)
    assert found.dtype == np.float64
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("losses", [[0.0, 0.0, 0.0], [1e-300, 1.0, 1e300], [0.0, 5.0]])
def test_extreme_losses_give_weights_all_the_same(generator, losses):
    found = ask(generator, np.array(losses))

    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_weights_follow_a_permutation_of_the_contributions(generator):
    losses, order = losses_of(6), np.array([3, 0, 5, 1, 4, 2])
    state = generator.state()

    plain = ask(generator, losses)
    generator.load(state)
    permuted = ask(generator, losses[order], order)

    assert permuted == pytest.approx(plain[order], abs=1e-15)


def test_equal_losses_have_equal_weights(generator):
    assert ask(generator, np.full(5, 0.7)) == pytest.approx(np.full(5, 0.2), abs=1e-15)


def test_single_contribution_has_the_whole_weight(generator):
    assert ask(generator, np.array([3.0])).tolist() == [1.0]


def test_state_is_json_and_goes_on_where_it_was(generator):
    for seed in range(3):
        ask(generator, losses_of(5, seed))
    state = json.loads(json.dumps(generator.state()))
    expected = ask(generator, losses_of(5, 9))

    generator.load(state)

    assert ask(generator, losses_of(5, 9)).tolist() == expected.tolist()


def test_losses_are_left_alone(generator):
    losses = losses_of(4)

    ask(generator, losses)

    assert losses.tolist() == losses_of(4).tolist()


def test_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"'maen'\. Did you mean 'mean'"):
        weights.build(WeightsSection(name="maen"))
