"""The laws of aggregation rules, over every one in the table."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.common.config import AggregationSection
from dmaml.common.errors import UnknownNameError
from dmaml.server import aggregation
from dmaml.server.aggregation import RULES
from dmaml.server.aggregation.base import AggregationRule


@pytest.fixture(params=sorted(RULES))
def rule(request) -> AggregationRule:
    return aggregation.build(AggregationSection(name=request.param))


def gradients_of(count: int, size: int = 11) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(size).astype("<f4") for _ in range(count)]


def equal(count: int) -> np.ndarray:
    return np.full(count, 1.0 / count)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_result_is_one_float32_gradient_inside_the_given_ones(rule, count):
    gradients = gradients_of(count)

    found = rule.combine(gradients, equal(count))

    stacked = np.stack(gradients)
    assert found.dtype == np.dtype("<f4")
    assert found.shape == gradients[0].shape
    assert (found >= stacked.min(axis=0) - 1e-6).all()
    assert (found <= stacked.max(axis=0) + 1e-6).all()


def test_equal_gradients_stay_what_they_are(rule):
    gradient = gradients_of(1)[0]

    found = rule.combine([gradient.copy() for _ in range(4)], np.array([0.1, 0.2, 0.3, 0.4]))

    assert found == pytest.approx(gradient, rel=1e-6)


def test_rule_scales_with_its_gradients(rule):
    gradients = gradients_of(5)

    once = rule.combine(gradients, equal(5))
    twice = rule.combine([2 * gradient for gradient in gradients], equal(5))

    assert twice == pytest.approx(2 * once, rel=1e-6)


def test_same_call_gives_the_same_bits_and_leaves_its_arguments(rule):
    gradients = gradients_of(5)
    for gradient in gradients:
        gradient.flags.writeable = False

    first = rule.combine(gradients, equal(5))
    second = rule.combine(gradients, equal(5))

    assert first.tobytes() == second.tobytes()
    assert first.flags.writeable
    assert not any(np.shares_memory(first, gradient) for gradient in gradients)


def test_unknown_name_is_refused_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"'meen'\. Did you mean 'mean'"):
        aggregation.build(AggregationSection(name="meen"))
