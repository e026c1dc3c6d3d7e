"""The laws of weight generators, over every one in the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.common.sections import WeightsSection
from dmaml.server import weights
from dmaml.server.weights import GENERATORS
from dmaml.server.weights.base import WeightGenerator

OTHER_OPTIONS = [
    ("loss_weighted", {"form": "inverse"}),
    ("loss_weighted", {"temperature": 1e-9}),
    ("loss_median", {"width": 1e-9}),
    ("loss_moving_average", {"form": "inverse", "window": 2}),
    ("staleness_discount", {"inner": {"name": "loss_moving_average"}, "exponent": 2}),
]


@pytest.fixture(
    params=[*((name, {}) for name in sorted(GENERATORS)), *OTHER_OPTIONS],
    ids=lambda param: f"{param[0]}-{param[1]}" if param[1] else param[0],
)
def section(request) -> WeightsSection:
    name, options = request.param
    return WeightsSection(name=name, options=options)


@pytest.fixture
def generator(section) -> WeightGenerator:
    return weights.build(section)


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


@pytest.mark.parametrize(
    "losses",
    [
        [0.0, 0.0, 0.0],
        [1e-300, 1.0, 1e300],
        [0.0, 5.0],
        [-3.0, -1.0, 2.0],
        [1.7e308, -1.7e308],
        [5e-324, 0.0, 1.0, 1.0],
    ],
)
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

    assert permuted.tolist() == plain[order].tolist()


def test_permuted_staleness_permutes_the_weights(generator):
    losses, order = losses_of(6), np.array([3, 0, 5, 1, 4, 2])
    slots, staleness = np.arange(6), np.array([4, 0, 1, 0, 9, 2])
    state = generator.state()

    plain = generator.weights(losses, slots, staleness)
    generator.load(state)
    permuted = generator.weights(losses[order], slots[order], staleness[order])

    assert permuted.tolist() == plain[order].tolist()


@pytest.mark.parametrize("loss", [0.7, 0.0, -2.0, 1e300])
def test_equal_losses_and_equal_histories_have_equal_weights(generator, loss):
    for before in (1.0, 3.0):
        ask(generator, np.full(5, before))

    assert ask(generator, np.full(5, loss)) == pytest.approx(np.full(5, 0.2), abs=1e-15)


@pytest.mark.parametrize("staleness", [0, 7])
def test_single_contribution_has_the_whole_weight(generator, staleness):
    found = generator.weights(np.array([3.0]), np.array([2]), np.array([staleness]))

    assert found.tolist() == [1.0]


def test_state_is_json_and_a_fresh_one_goes_on_where_it_was(generator, section):
    for seed in range(3):
        ask(generator, losses_of(5, seed))
    state = json.loads(json.dumps(generator.state()))
    expected = ask(generator, losses_of(5, 9))

    fresh = weights.build(section)
    fresh.load(state)

    assert ask(fresh, losses_of(5, 9)).tolist() == expected.tolist()
    assert fresh.state() == generator.state()


def test_losses_are_left_alone(generator):
    losses = losses_of(4)

    ask(generator, losses)

    assert losses.tolist() == losses_of(4).tolist()


def test_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"'maen'\. Did you mean 'mean'"):
        weights.build(WeightsSection(name="maen"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mean", {"width": 1}, ["'mean' takes no options", "'width'", "Remove it"]),
        ("loss_weighted", {"temprature": 1}, ["'temprature'", "Did you mean 'temperature'?"]),
        ("loss_weighted", {"form": "softmx"}, ["form 'softmx'", "Did you mean 'softmax'?"]),
        ("loss_weighted", {"form": 3}, ["form '3'", "Known: inverse, softmax"]),
        *(
            ("loss_weighted", {"temperature": bad}, [f"temperature = {bad!r}", "> 0", "weights.md"])
            for bad in (0, -1, float("nan"), float("inf"), True, "1", None)
        ),
        ("loss_weighted", {"temperature": 10**400}, ["'loss_weighted' cannot be made"]),
        ("loss_weighted", {"form": "inverse", "eps": 0}, ["eps = 0", "> 0"]),
        ("loss_median", {"width": -2}, ["width = -2", "> 0"]),
        ("loss_moving_average", {"window": 0}, ["window = 0", ">= 1"]),
        ("loss_moving_average", {"window": 2.5}, ["window = 2.5", "whole number"]),
        ("staleness_discount", {"exponent": -1}, ["exponent = -1", ">= 0"]),
        ("staleness_discount", {"inner": "mean"}, ["inner = 'mean'", "{name: mean}"]),
        ("staleness_discount", {"inner": {"nme": "mean"}}, ["inner", "{name: mean}"]),
        ("staleness_discount", {"inner": {"name": "maen"}}, ["'maen'", "Did you mean 'mean'?"]),
        (
            "staleness_discount",
            {"inner": {"name": "loss_median", "options": {"width": 0}}},
            ["weight generator 'loss_median'", "width = 0"],
        ),
        ("collections:OrderedDict", {}, ["OrderedDict without weights, state, load"]),
    ],
)
def test_bad_options_are_refused_with_one_sentence(name, options, words):
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        weights.build(WeightsSection(name=name, options=options))

    assert [word for word in words if word not in str(caught.value)] == []
