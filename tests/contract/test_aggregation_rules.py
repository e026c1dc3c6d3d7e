"""The laws of aggregation rules, over every one in the table."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.common.sections import AggregationSection
from dmaml.server import aggregation
from dmaml.server.aggregation import RULES, base, scores, sorting
from dmaml.server.aggregation.base import AggregationRule

REQUIRED = {"clip": {"norm": 1e6}}  # options without a default; so large that nothing is clipped
COUNTS = [1, 5, 8, 33]  # krum of f = 1 takes 1, or 5 and more


@pytest.fixture(params=sorted(RULES))
def name(request) -> str:
    return request.param


@pytest.fixture
def rule(name) -> AggregationRule:
    return aggregation.build(AggregationSection(name=name, options=REQUIRED.get(name, {})))


def gradients_of(count: int, size: int = 11) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size).astype("<f4") for _ in range(count)]


def equal(count: int) -> np.ndarray:
    return np.full(count, 1.0 / count)


@pytest.mark.parametrize("count", COUNTS)
def test_result_is_one_float32_gradient_inside_the_given_ones(rule, name, count):
    gradients = gradients_of(count)

    found = rule.combine(gradients, equal(count)) / (count if name == "sum" else 1)

    stacked = np.stack(gradients)
    assert found.dtype == np.dtype("<f4")
    assert found.shape == gradients[0].shape
    assert (found >= stacked.min(axis=0) - 1e-6).all()
    assert (found <= stacked.max(axis=0) + 1e-6).all()


def test_equal_gradients_stay_what_they_are(rule, name):
    gradient = gradients_of(1)[0]
    weights = np.array([0.1, 0.2, 0.3, 0.4, 0.0])

    found = rule.combine([gradient.copy() for _ in weights], weights)

    assert found == pytest.approx((5 if name == "sum" else 1) * gradient, rel=1e-6)


def test_single_contribution_is_returned_as_it_is(rule):
    gradient = gradients_of(1, size=1000)[0]

    assert rule.combine([gradient], equal(1)).tolist() == gradient.tolist()


def test_rule_scales_with_its_gradients(rule):
    gradients = gradients_of(5)

    once = rule.combine(gradients, equal(5))
    twice = rule.combine([2 * gradient for gradient in gradients], equal(5))

    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_order_of_the_contributions_does_not_matter_beyond_rounding(rule):
    gradients, weights = gradients_of(7), np.arange(7) / 21
    order = np.array([3, 6, 0, 5, 1, 4, 2])

    plain = rule.combine(gradients, weights)
    permuted = rule.combine([gradients[i] for i in order], weights[order])

    assert permuted == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("width", [1, 7, 64, 4096])
def test_blocks_do_not_change_a_bit(rule, width, monkeypatch):
    gradients, weights = gradients_of(6, size=200), np.arange(1, 7) / 21
    for gradient in gradients:
        gradient[::5] = np.where(gradient[::5] > 0, 0.0, -0.0)  # either zero is the same
    whole = rule.combine(gradients, weights)

    for module, constant in ((base, "BLOCK"), (sorting, "WIDTH"), (scores, "CHUNK")):
        monkeypatch.setattr(module, constant, width)

    assert rule.combine(gradients, weights).tobytes() == whole.tobytes()


def test_same_call_gives_the_same_bits_and_leaves_its_arguments(rule):
    gradients, weights = gradients_of(5), equal(5)
    for array in (*gradients, weights):
        array.flags.writeable = False

    first = rule.combine(gradients, weights)
    second = rule.combine(gradients, weights)

    assert first.tobytes() == second.tobytes()
    assert first.flags.writeable
    assert not any(np.shares_memory(first, gradient) for gradient in gradients)


@pytest.mark.parametrize("count", [1, 5])
def test_gradients_on_a_map_of_a_file_give_an_array_in_memory(rule, count, tmp_path):
    gradients = gradients_of(count)
    spooled = np.memmap(tmp_path / "map", dtype="<f4", mode="w+", shape=(count, 11))
    spooled[:] = gradients

    found = rule.combine(list(spooled), equal(count))

    assert type(found) is np.ndarray
    assert found.tobytes() == rule.combine(gradients, equal(count)).tobytes()


def test_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"'meen'\. Did you mean 'mean'"):
        aggregation.build(AggregationSection(name="meen"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mean", {"norm": 1}, ["'mean' takes no options", "'norm'"]),
        ("clip", {}, ["'clip' needs the option 'norm'", "docs/weights.md"]),
        ("clip", {"norm": float("nan")}, ["norm = nan", "> 0"]),
        ("clip", {"norm": 1, "inner": {"name": "krumm"}}, ["'krumm'", "Did you mean 'krum'?"]),
        ("clip", {"norm": 1, "inner": "krum"}, ["inner = 'krum'", "{name: mean}"]),
        ("trimmed_mean", {"fraction": 0.5}, ["fraction = 0.5", "< 0.5"]),
        ("trimmed_mean", {"fraction": -0.1}, ["fraction = -0.1", ">= 0"]),
        ("krum", {"num_byzantine": -1}, ["num_byzantine = -1", ">= 0"]),
        ("krum", {"f": 1}, ["'f'", "Known: num_byzantine"]),
        ("multi_krum", {"num_selected": 0}, ["num_selected = 0", ">= 1"]),
        ("collections:OrderedDict", {}, ["OrderedDict without combine"]),
    ],
)
def test_bad_options_are_refused_with_one_sentence(name, options, words):
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        aggregation.build(AggregationSection(name=name, options=options))

    assert [word for word in words if word not in str(caught.value)] == []
