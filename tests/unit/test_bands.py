"""Means, bands and smoothing of curves over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.report.bands import Band, band, mean_and_half, smoothed, t_quantile


def test_a_mean_of_three_has_students_interval() -> None:
    mean, half = mean_and_half([1.0, 2.0, 3.0])

    assert mean == 2.0
    assert half == pytest.approx(4.303 * 1.0 / np.sqrt(3))  # σ = 1, t of 2 degrees of freedom


def test_a_single_value_has_no_interval() -> None:
    assert mean_and_half([0.5]) == (0.5, 0.0)


def test_t_falls_to_the_normal_quantile() -> None:
    quantiles = [t_quantile(count) for count in range(2, 40)]

    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[0] == 12.706
    assert quantiles[-1] == 1.96


def test_a_band_of_equal_x_is_taken_as_it_is() -> None:
    one = band([([1, 2], [0.0, 4.0]), ([1, 2], [2.0, 4.0])])

    assert one.x.tolist() == [1, 2]
    assert one.mean.tolist() == [1.0, 4.0]
    assert one.half == pytest.approx([12.706 * np.sqrt(2) / np.sqrt(2), 0.0])
    assert one.count == 2


def test_curves_of_unlike_x_meet_where_all_have_values() -> None:
    one = band([([0, 10], [0.0, 10.0]), ([2, 8], [4.0, 10.0])], num_points=3)

    assert one.x.tolist() == [2, 5, 8]
    assert one.mean.tolist() == [3.0, 6.0, 9.0]


def test_curves_without_a_common_part_meet_in_one_point_that_stays_when_smoothed() -> None:
    one = band([([0, 1], [0.0, 2.0]), ([3, 4], [4.0, 5.0])])

    assert (one.x.tolist(), one.mean.tolist()) == ([3.0], [3.0])
    assert smoothed(one) == one


def test_smoothing_keeps_a_polynomial_and_takes_noise_away() -> None:
    x = np.arange(60.0)
    clean = 0.2 + 0.01 * x - 1e-4 * x**2
    noise = 0.05 * (-1.0) ** np.arange(60)
    half = np.full(60, 0.1)

    kept = smoothed(Band(x, clean, half, 3))
    found = smoothed(Band(x, clean + noise, half, 3))

    np.testing.assert_allclose(kept.mean, clean, atol=1e-9)
    assert np.abs(found.mean - clean)[5:-5].max() < 0.02
    assert (found.half == half).all()


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_few_points_are_smoothed_by_a_lower_degree(count: int) -> None:
    x = np.arange(float(count))
    y = np.sin(x)

    one = smoothed(Band(x, y, np.zeros(count), 1))

    np.testing.assert_allclose(one.mean, y, atol=1e-6)
