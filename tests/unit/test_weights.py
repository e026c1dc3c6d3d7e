"""Each weight generator on the thesis's own example, worked by hand, and at its edges.

The example: workers 1 to 5 with losses 2, 3, 8, 19, 20 (accuracies .89, .88, .60, .43, .40).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from dmaml.common.sections import WeightsSection
from dmaml.server.weights import build

LOSSES = np.array([2.0, 3.0, 8.0, 19.0, 20.0])
SLOTS = np.arange(5)
FRESH = np.zeros(5, dtype=np.int64)


def weights_of(name, losses=LOSSES, staleness=FRESH, **options):
    return build(WeightsSection(name=name, options=options)).weights(
        np.asarray(losses, dtype=np.float64), SLOTS[: len(losses)], staleness[: len(losses)]
    )


def over_sum(*shares: float) -> list[float]:
    return [share / sum(shares) for share in shares]


def test_mean_of_the_example():
    assert weights_of("mean").tolist() == [0.2] * 5


def test_loss_weighted_softmax_of_the_example():
    # exponents of e: 0, -1, -6, -17, -18
    expected = over_sum(1, 0.36787944, 0.00247875, 4.1399e-8, 1.5230e-8)

    assert weights_of("loss_weighted") == pytest.approx(expected, abs=1e-8)
    assert weights_of("loss_weighted")[:2] == pytest.approx([0.7297, 0.2684], abs=1e-4)


def test_loss_weighted_softmax_at_a_higher_temperature():
    # T = 10: exponents 0, -0.1, -0.6, -1.7, -1.8
    expected = over_sum(1, 0.90483742, 0.54881164, 0.18268352, 0.16529889)

    assert weights_of("loss_weighted", temperature=10) == pytest.approx(expected, abs=1e-8)


def test_loss_weighted_inverse_of_the_example():
    # 1/2, 1/3, 1/8, 1/19, 1/20 = (1140, 760, 285, 120, 114) / 2280
    expected = over_sum(1140, 760, 285, 120, 114)

    assert weights_of("loss_weighted", form="inverse") == pytest.approx(expected, abs=1e-8)


def test_loss_median_of_the_example():
    # median 8; distances 6, 5, 0, 11, 12; their median 6: exponents -1/2 (d/6)^2
    expected = over_sum(math.exp(-1 / 2), math.exp(-25 / 72), 1, math.exp(-121 / 72), math.exp(-2))

    assert weights_of("loss_median") == pytest.approx(expected, abs=1e-12)


def test_loss_median_is_wider_with_its_width():
    # width 2: exponents -1/8 (d/6)^2
    expected = over_sum(
        math.exp(-1 / 8), math.exp(-25 / 288), 1, math.exp(-121 / 288), math.exp(-1 / 2)
    )

    assert weights_of("loss_median", width=2) == pytest.approx(expected, abs=1e-12)


def test_loss_moving_average_of_the_example_is_loss_weighted_at_first():
    found = weights_of("loss_moving_average")

    assert found.tolist() == weights_of("loss_weighted").tolist()


def test_loss_moving_average_of_the_example_and_a_second_round():
    generator = build(WeightsSection(name="loss_moving_average", options={"form": "inverse"}))
    generator.weights(LOSSES, SLOTS, FRESH)

    found = generator.weights(LOSSES[::-1].copy(), SLOTS, FRESH)

    # means 11, 11, 8, 11, 11: 1/11 and 1/8 = (8, 11) / 88
    assert found == pytest.approx(over_sum(8, 8, 11, 8, 8), abs=1e-8)


def test_staleness_discount_of_the_example():
    # the mean's 1/5 each, by (1 + tau)^-1 for tau 0, 1, 3, 0, 1
    found = weights_of("staleness_discount", staleness=np.array([0, 1, 3, 0, 1]), exponent=1)

    assert found == pytest.approx(over_sum(4, 2, 1, 4, 2), abs=1e-15)


def test_staleness_discount_of_another_generator():
    # (1140, 760, 285, 120, 114) / 2280 by 1, 1/2, 1/3, 1/4, 1
    found = weights_of(
        "staleness_discount",
        staleness=np.array([0, 1, 2, 3, 0]),
        exponent=1,
        inner={"name": "loss_weighted", "options": {"form": "inverse"}},
    )

    assert found == pytest.approx(over_sum(1140, 380, 95, 30, 114), abs=1e-8)


def test_equal_staleness_changes_nothing():
    found = weights_of("staleness_discount", staleness=np.full(5, 6), inner={"name": "loss_median"})

    assert found == pytest.approx(weights_of("loss_median"), abs=1e-15)


def test_the_freshest_that_counts_keeps_its_weight_however_strong_the_discount():
    # loss 2000 has weight 0 by softmax; the freshest of the others is two rounds old
    found = weights_of(
        "staleness_discount",
        losses=[2000.0, 1.0, 1.0],
        staleness=np.array([0, 2, 900]),
        exponent=500,
        inner={"name": "loss_weighted"},
    )

    assert found.tolist() == [0.0, 1.0, 0.0]


def test_history_keeps_the_last_losses_of_each_slot_and_no_more():
    generator = build(WeightsSection(name="loss_moving_average", options={"window": 3}))

    for loss in range(10):
        generator.weights(np.array([float(loss), 1.0]), np.array([4, 7]), FRESH[:2])

    assert generator.state() == {"history": {"4": [7.0, 8.0, 9.0], "7": [1.0, 1.0, 1.0]}}


@pytest.mark.parametrize("window", [1, 2])
def test_a_slot_that_is_there_twice_is_judged_by_the_losses_up_to_its_own(window):
    options = {"window": window, "form": "inverse"}
    generator = build(WeightsSection(name="loss_moving_average", options=options))
    generator.weights(np.array([4.0, 4.0]), np.array([0, 1]), FRESH[:2])

    found = generator.weights(np.array([2.0, 2.0, 6.0]), np.array([0, 1, 1]), np.array([0, 1, 0]))

    means = {1: [2, 2, 6], 2: [3, 3, 4]}[window]
    assert found == pytest.approx(over_sum(*(1 / mean for mean in means)), abs=1e-8)
    assert generator.state()["history"]["1"] == [2.0, 6.0][-window:]


def test_a_void_slot_adds_nothing_to_its_history():
    generator = build(WeightsSection(name="loss_moving_average"))

    generator.weights(np.array([1.0, 2.0]), np.array([0, 1]), FRESH[:2])
    generator.weights(np.array([3.0]), np.array([1]), FRESH[:1])

    assert generator.state() == {"history": {"0": [1.0], "1": [2.0, 3.0]}}


def test_a_longer_history_of_a_checkpoint_is_cut_to_the_window():
    generator = build(WeightsSection(name="loss_moving_average", options={"window": 2}))

    generator.load({"history": {"3": [9.0, 8.0, 1.0]}})

    assert generator.state() == {"history": {"3": [8.0, 1.0]}}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 1.0, 1.0, 50.0, -50.0], [1 / 3, 1 / 3, 1 / 3, 0, 0]),  # MAD 0
        ([4.0, 4.0], [0.5, 0.5]),
        ([1.0, 9.0], [0.5, 0.5]),
        ([0.1, np.nextafter(0.1, 1)], [0.5, 0.5]),
        ([1.0, 2.0, 3.0, 4.0], over_sum(1, math.e**1, math.e**1, 1)),  # d 3, 1, 1, 3; MAD 2
    ],
)
def test_loss_median_at_its_edges(losses, expected):
    assert weights_of("loss_median", losses=losses) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.0, 1.0], [1.0, 0.0]),  # nearly everything to a loss of 0
        ([-1.0, 0.0, 1.0], [1.0, 0.0, 0.0]),  # raised to 0, 1, 2
        ([0.0, 0.0], [0.5, 0.5]),
    ],
)
def test_inverse_of_losses_that_are_not_positive(losses, expected):
    found = weights_of("loss_weighted", losses=losses, form="inverse")

    assert found == pytest.approx(expected, abs=1e-7)


def test_softmax_ignores_what_all_losses_share():
    lowered = weights_of("loss_weighted", losses=LOSSES - 100)

    assert lowered == pytest.approx(weights_of("loss_weighted"), abs=1e-15)
