"""Scores of a clustering on tables worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dmaml.report.scores import least_certain, purity, recovery, score


def test_recovery_gives_each_origin_the_cluster_that_makes_most_right() -> None:
    columns = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    origin = np.array([0, 0, 0, 0, 1, 1, 1, 1])

    assert recovery(columns, origin, 2) == [0.75, 0.75]
    assert purity(columns, origin) == 0.75


def test_an_origin_without_a_cluster_of_its_own_is_not_recovered() -> None:
    columns = np.zeros(5, dtype=np.int64)
    origin = np.array([0, 0, 0, 1, 1])

    assert recovery(columns, origin, 1) == [1.0, 0.0]
    assert purity(columns, origin) == 0.6


def test_an_origin_that_is_split_counts_its_larger_cluster() -> None:
    columns = np.array([0, 0, 0, 2, 1, 1])
    origin = np.array([0, 0, 0, 0, 1, 1])

    assert recovery(columns, origin, 3) == [0.75, 1.0]
    assert purity(columns, origin) == 1.0


def test_a_perfect_clustering_scores_one_whatever_its_numbers() -> None:
    gamma = np.eye(2, dtype=np.float32)[[1, 1, 0, 0]]

    found = score(gamma, np.array([0, 0, 1, 1]))

    assert found == {
        "recovery": [1.0, 1.0], "purity": 1.0, "nmi": pytest.approx(1.0), "ari": 1.0, "entropy": 0.0
    }  # fmt: skip


def test_entropy_needs_no_origin() -> None:
    gamma = np.array([[0.5, 0.5], [1.0, 0.0]], dtype=np.float32)

    assert score(gamma, None) == {"entropy": pytest.approx(math.log(2) / 2)}


def test_the_least_certain_units_come_first_and_sure_ones_not_at_all() -> None:
    gamma = np.array([[0.9, 0.1], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]], dtype=np.float32)

    assert least_certain(gamma, 3).tolist() == [2, 3, 0]
    assert least_certain(gamma, 1).tolist() == [2]
    assert least_certain(gamma[1:2], 3).tolist() == []
