"""The test of a split: shares by closed forms, false splits and power on simulated directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dmaml.common.seeds import Kind, Stream, stream
from dmaml.server.clustering.separation import RING_SHARE, explained, normalised, separate

ALPHA = 0.01
SEEDS = 200  # homogeneous populations of all kinds together


def fixed(seed: int) -> Stream:
    return stream(seed, Kind.SERVER)


def population(
    seed: int, counts: tuple[int, ...], dims: int, kind: str = "normal", apart: float = 1.5
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return directions and origins; units deviate by 1, noise is 2 / √10, origins `apart`."""
    random = np.random.default_rng(seed)
    origin = np.repeat(np.arange(len(counts)), counts)[random.permutation(sum(counts))]
    scale = np.ones(dims)
    if "correlated" in kind:
        scale = np.arange(1, dims + 1) ** -0.5
    deviations = random.normal(size=(len(origin), dims)) * scale / np.sqrt(np.square(scale).sum())
    if "heavy" in kind:  # Student's t with 2 degrees of freedom: no variance
        deviations /= np.sqrt(random.chisquare(2, size=(len(origin), 1)) / 2)
    means = random.normal(size=(len(counts), dims))
    means *= apart / np.sqrt(2) / np.linalg.norm(means, axis=1, keepdims=True)
    common = random.normal(size=dims) * 2 / np.sqrt(dims)
    noise = random.normal(size=deviations.shape) * 2 / np.sqrt(10 * dims)
    return normalised(common + means[origin] + deviations + noise), origin


@pytest.mark.parametrize(
    ("z", "share"),
    [
        (np.linspace(-1, 1, 4000), 0.75),
        (np.cos(np.linspace(0, math.pi, 4000)), RING_SHARE),
        (np.repeat([-1.0, 1.0], 50), 1.0),
        (np.array([-3.0, -1.0, 1.0, 3.0]), 0.8),
    ],
)
def test_the_explained_share_is_that_of_a_closed_form(z: Any, share: float) -> None:
    assert explained(z)[0] == pytest.approx(share, abs=2e-3)


def test_a_cut_that_leaves_one_side_empty_explains_nothing() -> None:
    assert explained(np.array([1.0, 2.0, 3.0])) == (0.0, 0.0)


def test_the_error_of_the_share_is_the_spread_over_samples() -> None:
    random = np.random.default_rng(3)
    found = [explained(random.normal(size=100)) for _ in range(400)]

    shares, errors = np.array(found).T

    assert errors.mean() == pytest.approx(shares.std(), rel=0.15)
    assert shares.mean() == pytest.approx(2 / math.pi, abs=0.01)


@pytest.mark.parametrize("kind", ["normal", "heavy", "correlated", "heavy correlated"])
def test_one_homogeneous_cloud_stays_whole(kind: str) -> None:
    with threadpool_limits(1):
        found = [
            separate(population(seed, (40,), 64, kind)[0], fixed(seed), 1)
            for seed in range(SEEDS // 4)
        ]

    assert sum(one.p_value < ALPHA for one in found) <= 1
    assert len({one.share for one in found}) > SEEDS // 8


def test_a_ring_which_is_the_null_itself_is_seldom_cut() -> None:
    angles = np.random.default_rng(1).uniform(0, 2 * math.pi, size=(20, 60))
    rings = [np.stack([np.cos(a), np.sin(a)], axis=1) for a in angles]

    found = [separate(ring, fixed(seed), 2) for seed, ring in enumerate(rings)]

    assert sum(one.p_value < ALPHA for one in found) <= 1
    assert np.mean([one.share for one in found]) == pytest.approx(RING_SHARE, abs=0.03)


@pytest.mark.parametrize(("counts", "dims"), [((30, 30), 64), ((48, 12), 64), ((80, 20), 512)])
def test_two_origins_are_separated(counts: tuple[int, ...], dims: int) -> None:
    right = 0
    for seed in range(20):
        directions, origin = population(seed, counts, dims, apart=2.0)
        found = separate(directions, fixed(seed), 2)
        same = found.labels == origin  # which of two equal clusters is the first is open
        right += found.p_value < ALPHA and bool(same.all() or not same.any())

    assert right >= 19


def test_the_larger_cluster_is_the_first() -> None:
    directions, _ = population(1, (48, 12), 64, apart=2.0)

    found = separate(directions, fixed(1), 2)

    assert np.bincount(found.labels).tolist() == [48, 12]


def test_rows_without_length_have_no_direction() -> None:
    rows = normalised(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))

    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
