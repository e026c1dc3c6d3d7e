"""The equations of `gamma`: figures worked by hand, finite differences, projections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.server.clustering import param_loss
from dmaml.server.clustering.param_loss import Evidence, Reading

# two samples of unit 7, one each of 2 and 9
LOSSES = np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 1.0], [3.0, 2.0]], dtype=np.float32)
UNITS = np.array([7, 7, 2, 9])
# DIFF of pipeline 1: -2, 0, 3, 1; its mean .5. minDIFF -2; minSampleMean 2.5


def found(**reading: Any) -> Evidence:
    return param_loss.evidence(LOSSES, UNITS, Reading(**reading))


def test_diff_is_the_difference_to_the_other_pipeline_from_both_sides() -> None:
    diff = param_loss.differences(LOSSES)

    assert diff.tolist() == [[-2, 2], [0, 0], [3, -3], [1, -1]]


def test_diff_of_three_pipelines_is_the_difference_to_the_mean_of_the_others() -> None:
    diff = param_loss.differences(np.array([[1.0, 2.0, 6.0]]))

    assert diff.tolist() == [[-3.0, -1.5, 4.5]]


def test_loss_diff_as_printed_is_the_shifted_mean_less_the_shifted_sample_mean() -> None:
    one = found()

    assert one.units.tolist() == [2, 7, 9]
    assert one.share.tolist() == [0.25, 0.5, 0.25]
    assert one.loss_diff.tolist() == [[2.5, -2.5], [-1.5, 1.5], [0.5, -0.5]]


@pytest.mark.parametrize(
    ("reading", "first", "second"),
    [
        ({"centre": "none"}, [3, -1, 1], [-3, 1, -1]),
        ({"centre": "min"}, [5, 1, 3], [0, 4, 2]),  # minDIFF -2 and -3
        ({"diff": "absolute", "centre": "none"}, [3, 1, 1], [3, 1, 1]),
        ({"diff": "absolute"}, [1.5, -0.5, -0.5], [1.5, -0.5, -0.5]),  # of 2, 0, 3, 1: mean 1.5
        ({"robust": "median"}, [2.5, -1.5, 0.5], [-2.5, 1.5, -0.5]),  # median .5 as well
        # the median .5 and its absolute deviations 2.5, .5, 2.5, .5: their median is 1.5
        ({"robust": "clip", "width": 1.0, "centre": "none"}, [2, -0.5, 1], [-2, 0.5, -1]),
    ],
    ids=str,
)
def test_loss_diff_in_the_other_readings(
    reading: dict[str, Any], first: list[float], second: list[float]
) -> None:
    loss_diff = found(**reading).loss_diff

    assert loss_diff[:, 0].tolist() == first
    assert loss_diff[:, 1].tolist() == second


@pytest.mark.parametrize("robust", ["median", "clip"])
def test_one_wild_sample_moves_the_robust_losses_of_the_others_little(robust: str) -> None:
    random = np.random.default_rng(0)
    losses = random.normal(1.0, 0.2, size=(40, 2))
    units = np.arange(40)
    wild = losses.copy()
    wild[3, 0] = 1e4
    others = units != 3

    def moved(name: str) -> float:
        before, after = (
            param_loss.evidence(x, units, Reading(robust=name)).loss_diff for x in (losses, wild)
        )
        return float(np.abs(after - before)[others].max())

    assert moved(robust) < 0.1
    assert moved("none") > 100


def test_param_loss_by_hand() -> None:
    gamma = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])

    # .25 (.2 * 2.5 - .8 * 2.5) + .5 * 0 + .25 * .5
    assert param_loss.param_loss(gamma, found()) == pytest.approx(-0.25)
    # as printed the second term has 1 - p2 = p1, and p1 x - p1 x is nothing
    assert param_loss.param_loss(gamma, found(), "second") == pytest.approx(0.0)


@pytest.mark.parametrize("complement", ["first", "second"])
@pytest.mark.parametrize("diff", ["signed", "absolute"])
@pytest.mark.parametrize("num_pipelines", [2, 3, 5])
def test_gradient_is_that_of_finite_differences(
    num_pipelines: int, diff: str, complement: str
) -> None:
    random = np.random.default_rng(num_pipelines)
    losses, units = random.uniform(size=(24, num_pipelines)), random.integers(6, size=24)
    one = param_loss.evidence(losses, units, Reading(diff=diff))
    gamma = random.dirichlet(np.ones(num_pipelines), len(one.units))

    gradient = param_loss.gradient(one, complement)

    step = 1e-4
    for u, p in np.ndindex(*gradient.shape):
        way = np.zeros_like(gamma)
        way[u] = -step / (num_pipelines - 1)  # the others give way alike
        way[u, p] = step
        up, down = (param_loss.param_loss(gamma + s * way, one, complement) for s in (1, -1))
        assert gradient[u, p] == pytest.approx((up - down) / (2 * step), abs=1e-10)
    assert np.allclose(gradient.sum(axis=1), 0.0)


def test_gradient_by_hand() -> None:
    gradient = param_loss.gradient(found())

    assert gradient.tolist() == [[1.25, -1.25], [-1.5, 1.5], [0.25, -0.25]]


@pytest.mark.parametrize(
    ("diff", "complement", "expected"),
    [
        ("absolute", "first", [0, 0, 0]),  # ParamLoss = |DIFF|, whatever γ is
        ("signed", "second", [0, 0, 0]),  # ParamLoss = 0
        ("absolute", "second", [1.5, 1, 0.5]),  # every unit leaves pipeline 1
    ],
)
def test_the_other_readings_of_diff_and_complement_say_nothing_of_who_is_better(
    diff: str, complement: str, expected: list[float]
) -> None:
    one = found(diff=diff, complement=complement, centre="none")

    gradient = param_loss.gradient(one, complement)

    assert gradient[:, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1.3, -0.3], [1, 0]),
        ([0.6, 0.4], [0.6, 0.4]),
        ([-1e6, 1e6 + 1], [0, 1]),
        ([0.5, 0.5, 0.0], [0.5, 0.5, 0.0]),
        ([0.9, 0.6, -0.5], [0.65, 0.35, 0.0]),
        ([1 / 3 + 2.0, 1 / 3 - 1.0, 1 / 3 - 1.0], [1, 0, 0]),
    ],
)
def test_gamma_is_brought_back_to_the_nearest_distribution(
    row: list[float], expected: list[float]
) -> None:
    assert param_loss.bounded(np.array([row]))[0] == pytest.approx(expected, abs=1e-12)


def test_two_pipelines_are_brought_back_by_clipping() -> None:
    gamma = np.random.default_rng(0).normal(scale=2.0, size=500)

    bounded = param_loss.bounded(np.stack([gamma, 1 - gamma], axis=1))

    assert bounded[:, 0] == pytest.approx(gamma.clip(0, 1))


def test_bias_is_the_share_that_begins_in_pipeline_0() -> None:
    draws = (np.arange(1000) + 0.5) / 1000

    two = param_loss.initial(draws, 2, 0.65, 0.1)
    four = param_loss.initial(draws, 4, 0.4, 0.2)

    assert (two[:, 0] > 0.5).sum() == 650
    assert np.unique(two).tolist() == pytest.approx([0.4, 0.6])
    assert np.bincount(four.argmax(axis=1)).tolist() == [400, 200, 200, 200]
    assert four[0] == pytest.approx([0.7, 0.1, 0.1, 0.1])
    assert np.allclose(four.sum(axis=1), 1.0)
