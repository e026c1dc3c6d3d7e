"""The equations of the mixture's evidence, by hand and against plain references."""

from __future__ import annotations

import numpy as np
import pytest

from dmaml.server.clustering import evidence
from dmaml.server.clustering.evidence import Evidence

NO_CLIP = 1e9


def test_rows_of_a_unit_that_follow_each_other_are_one_episode() -> None:
    units = np.array([4, 4, 2, 2, 4, 4])
    values = np.array([[1, 0], [3, 0], [0, 2], [0, 4], [5, 6], [7, 6]], dtype=np.float32)

    found, losses = evidence.episodes(units, values)

    assert found.tolist() == [4, 2, 4]
    assert losses.tolist() == [[2, 0], [0, 3], [6, 6]]


def test_what_is_hard_for_all_pipelines_does_not_count() -> None:
    random = np.random.default_rng(1)
    losses, gamma = random.normal(size=(40, 3)), random.dirichlet(np.ones(3), 40)
    harder = losses + random.normal(scale=100.0, size=(40, 1))

    z = evidence.standardised(losses, gamma, 5.0)

    np.testing.assert_allclose(evidence.standardised(harder, gamma, 5.0), z, atol=1e-9)


def test_neither_the_unit_of_the_loss_nor_a_better_pipeline_nor_sizes_move_the_middle() -> None:
    random = np.random.default_rng(1)
    gamma = np.eye(2)[np.repeat([0, 1], [40, 10])]
    losses = random.normal(scale=0.1, size=(50, 2)) - gamma  # each at its own by 1

    z = evidence.standardised(losses, gamma, NO_CLIP)
    moved = evidence.standardised(7 * losses + np.array([0.0, 30.0]), gamma, NO_CLIP)

    np.testing.assert_allclose(moved, z, atol=1e-9)
    assert z[:40, 0].mean() == pytest.approx(-z[40:, 0].mean())  # not the mean of all


def test_pipelines_that_are_the_same_give_no_evidence() -> None:
    losses = np.repeat(np.arange(6.0)[:, None], 2, axis=1)

    assert not evidence.standardised(losses, np.full((6, 2), 0.5), 5.0).any()


def test_a_far_row_is_moved_towards_the_middle() -> None:
    rows = np.array([[1.0], [-1.0], [1.0], [-1.0], [100.0]])

    assert evidence.shortened(rows, np.zeros(1), 3.0).tolist() == [[1], [-1], [1], [-1], [3]]


def test_sums_forget_and_errors_are_standard_errors() -> None:
    one, two = np.array([[1.0, -1.0]]), np.array([[3.0, -3.0]])
    known = Evidence.empty(2, 2).added(np.array([0]), one, 0.5).added(np.array([0]), two, 0.5)

    mean = (0.5 * 1 + 3) / 1.5
    spread = 2 * (0.5 * (1 - mean) ** 2 + (3 - mean) ** 2)
    effective = 1.5**2 / 1.25
    assert known.means.tolist() == [pytest.approx([mean, -mean]), [0, 0]]
    assert known.errors[0] == pytest.approx(1.0 / effective)  # too little to know the noise
    again = known.added(np.array([0, 0]), np.concatenate([one, two]), 1.0)
    assert spread > 0
    assert again.count.tolist() == [3.5, 0]


def test_the_error_of_a_mean_falls_with_visits_as_that_of_a_mean_does() -> None:
    random = np.random.default_rng(1)
    known = Evidence.empty(400, 2)
    for _ in range(9):
        x = random.normal(scale=2.0, size=400)
        known = known.added(np.arange(400), np.stack([x, -x], axis=1), 1.0)

    assert known.errors.mean() == pytest.approx(2 * 2.0**2 / 9, rel=0.05)  # |z|² = 2 x²
    assert known.means[:, 0].var() + known.means[:, 1].var() == pytest.approx(8 / 9, rel=0.1)


def test_em_finds_a_fifth_of_the_units_where_the_mean_would_cut_the_others() -> None:
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], [320, 80])
    x = np.where(kinds == 0, -1.0, 1.0) + random.normal(scale=0.35, size=400)
    means, start = np.stack([x, -x], axis=1), np.full((400, 2), 0.5)
    start[:, 0] -= 0.2 * np.sign(x - np.median(x))  # half of all units in each
    start[:, 1] = 1 - start[:, 0]

    fit = evidence.fitted(means, np.full(400, 0.01), start, np.ones((400, 2)), 1.0)

    assert (fit.gamma.argmax(axis=1) == kinds).mean() > 0.99
    assert fit.priors == pytest.approx([0.8, 0.2], abs=0.02)
    assert fit.means[0] == pytest.approx([-1, 1], abs=0.1)
    inside = x - np.where(kinds == 0, x[kinds == 0].mean(), x[kinds == 1].mean())
    assert fit.spread == pytest.approx(2 * inside.var() - 0.01, rel=0.05)


def test_a_temperature_trusts_the_losses_less_and_the_anchor_as_before() -> None:
    x = np.array([-1.0, -0.9, 0.9, 1.0])
    means, start = np.stack([x, -x], axis=1), np.eye(2)[[0, 0, 1, 1]]
    anchor = np.where(start > 0, 0.7, 0.3)

    cold = evidence.fitted(means, np.ones(4), start, anchor, 1.0).gamma
    hot = evidence.fitted(means, np.ones(4), start, anchor, 1e9).gamma

    assert (cold.max(axis=1) > hot.max(axis=1)).all()
    np.testing.assert_allclose(hot, anchor, atol=1e-3)


def test_units_without_evidence_of_their_own_stay_where_their_anchor_has_them() -> None:
    means, start = np.zeros((10, 2)), np.eye(2)[[0] * 7 + [1] * 3]
    anchor = np.where(start > 0, 0.9, 0.1)

    fit = evidence.fitted(means, np.ones(10), start, anchor, 1.0)

    assert (fit.gamma.argmax(axis=1) == start.argmax(axis=1)).all()


def test_the_held_out_gain_is_over_the_pipeline_that_waits() -> None:
    gamma = np.array([[1.0, 0.0], [0.5, 0.5]])
    losses = np.array([[3.0, 1.0, 9.0], [3.0, 2.0, 9.0], [4.0, 1.0, 3.0]])

    gain = evidence.held_out_gain(gamma, np.array([0, 0, 1]), losses)

    assert gain == pytest.approx(((2 + 1) / 2 + 2) / 2)
