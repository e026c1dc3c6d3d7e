"""The first split: along which directions it cuts, where, and how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.common.seeds import Kind, stream
from dmaml.server.clustering.grouping import FULL, TIED, Groups, grouped, quieted


def groups_of(
    means: Any, parts: int = 2, is_direction: bool = False, covariance: str = TIED
) -> Groups:
    rows = np.asarray(means, dtype=np.float32)
    own = stream(1, Kind.SERVER)
    return grouped(np.arange(len(rows)), rows, parts, is_direction, own, covariance)


def share_right(found: Groups, kinds: Any) -> float:
    same = (found.gamma.argmax(axis=1) == kinds).mean()
    return float(max(same, 1 - same))


def test_the_mean_of_a_units_rows_counts_and_units_without_rows_are_left_out() -> None:
    units = np.array([5, 5, 2, 9, 9, 7])
    rows = np.array([[0], [2], [1], [40], [42], [41]], dtype=np.float32)

    found = grouped(units, rows, 2, False, stream(1, Kind.SERVER))

    assert found.units.tolist() == [2, 5, 7, 9]
    labels = found.gamma.argmax(axis=1)
    assert labels[0] == labels[1] != labels[2] == labels[3]
    assert found.gamma.sum(axis=1) == pytest.approx(np.ones(4))


def test_a_fifth_of_the_units_is_found_by_class_priors() -> None:
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], [400, 100])
    means = random.normal(size=(500, 6))
    means[:, 0] += 4.0 * kinds

    found = groups_of(means)

    assert share_right(found, kinds) > 0.96
    assert found.gamma.mean(axis=0) == pytest.approx([0.8, 0.2], abs=0.03)


def test_two_groups_are_found_in_a_small_direction_beside_a_large_one_without_groups() -> None:
    random = np.random.default_rng(1)
    kinds = random.permutation(400) % 2
    means = random.normal(size=(400, 12))
    means[:, 0] *= 10.0
    means[:, 1] = 0.5 * means[:, 1] + 4.0 * kinds

    found = groups_of(means)

    assert share_right(found, kinds) > 0.99
    assert found.gain > 100


def test_one_kind_of_units_gains_next_to_nothing() -> None:
    means = np.random.default_rng(1).normal(size=(400, 12))

    assert groups_of(means).gain < 20


def test_a_single_odd_unit_is_no_group() -> None:
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], [50, 50])
    means = random.normal(size=(100, 4)) + 5.0 * kinds[:, None]
    means[0] = 1e4

    found = groups_of(means)

    assert share_right(found, kinds) >= 0.98


def test_directions_are_compared_whatever_their_lengths() -> None:
    random = np.random.default_rng(1)
    kinds = random.permutation(200) % 2
    means = np.eye(5)[kinds] + 0.1 * random.normal(size=(200, 5))
    means *= random.uniform(0.01, 100.0, size=(200, 1))

    assert share_right(groups_of(means, is_direction=True), kinds) > 0.99


def test_groups_of_one_mean_are_found_by_the_directions_that_they_differ_in() -> None:
    random = np.random.default_rng(1)
    kinds = random.permutation(400) % 2
    means = 0.2 * random.normal(size=(400, 6))
    means[:, :2] += random.normal(size=(400, 2)) * (kinds == 0)[:, None] * 4.0
    means[:, 2:4] += random.normal(size=(400, 2)) * (kinds == 1)[:, None] * 4.0

    assert share_right(groups_of(means, covariance=FULL), kinds) > 0.97
    assert share_right(groups_of(means), kinds) < 0.8
    means[0] *= 1e4  # is no group of its own
    assert share_right(groups_of(means, covariance=FULL), kinds) > 0.97


@pytest.mark.parametrize("number", [24, 40, 80, 400])
def test_noise_is_no_group_with_directions_of_its_own(number: int) -> None:
    means = np.random.default_rng(1).normal(size=(number, 12))

    found = groups_of(means, covariance=FULL)

    assert found.gain < 0.0
    assert np.bincount(found.gamma.argmax(axis=1)).min() > 1


def test_groups_are_found_in_a_small_direction_beside_larger_groups_that_are_less_apart() -> None:
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], [320, 80])
    means = random.normal(size=(400, 6))
    means[:, 0] = 100.0 * (means[:, 0] + 2.0 * (random.permutation(400) % 2))
    means[:, 1] = 0.01 * (means[:, 1] + 7.0 * kinds)

    found = groups_of(means)

    assert share_right(found, kinds) > 0.99


def test_noise_of_rows_hides_no_groups() -> None:
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], [60, 60])
    means = np.concatenate([random.normal(size=(120, 1)) + 6.0 * kinds[:, None],
                            np.zeros((120, 40))], axis=1)  # fmt: skip
    noise = random.normal(size=(120, 10, 41)) * np.r_[1.0, np.full(40, 50.0)]
    rows = (means[:, None] + noise).reshape(-1, 41).astype(np.float32)

    found = grouped(np.repeat(np.arange(120), 10), rows, 2, False, stream(1, Kind.SERVER))

    assert share_right(found, kinds) > 0.97


def test_noise_is_white_after_its_map_and_unknown_noise_is_left_alone() -> None:
    random = np.random.default_rng(1)
    noise = random.normal(size=(5000, 3)) @ np.array([[5.0, 0, 0], [1, 1, 0], [0, 0, 0.1]])

    mapped = noise @ quieted(noise)

    assert np.cov(mapped.T, bias=True) == pytest.approx(np.eye(3), abs=0.05)
    assert quieted(np.zeros((4, 3))).tolist() == np.eye(3).tolist()


def test_the_gain_is_half_the_difference_of_bayes_information_criterion() -> None:
    random = np.random.default_rng(1)
    far = np.concatenate([random.normal(size=50) - 9.0, random.normal(size=50) + 9.0])

    found = groups_of(far[:, None])

    inside = np.concatenate([far[:50] - far[:50].mean(), far[50:] - far[50:].mean()])
    logs = 100 * np.log(0.5) - 100 * np.log(inside.std() / far.std())
    assert found.gain == pytest.approx(logs - np.log(100), abs=0.1)  # a mean and a weight more
    assert found.gamma.sum(axis=0) == pytest.approx([50, 50], abs=0.01)


def test_fewer_units_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="2 units seen, to be divided into 3"):
        groups_of([[0.0], [1.0]], parts=3)
