"""Random streams: against Philox written plainly, golden values, and sanity."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dmaml.common.seeds import Kind, stream

MASK = 2**64 - 1


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Return one block of Philox4x64-10 (Salmon et al. 2011, section 3), in plain integers."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & MASK, (p0 >> 64) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [c0, c1, c2, c3]


def test_plain_philox_gives_the_published_answer():
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]

    assert philox((0, 0), (0, 0, 0, 0)) == known


@pytest.mark.parametrize("place", [(1, Kind.TRAIN, 0, 0, 0), (2**63, Kind.TEST, 2**40, 3, 99)])
def test_raw_words_are_philox_of_the_place(place):
    seed, kind, index, pipeline, task = place

    words = stream(*place).raw(8).tolist()

    # NumPy counts up before each block
    blocks = [philox((seed, int(kind)), (n, index, pipeline, task)) for n in (1, 2)]
    assert words == blocks[0] + blocks[1]


def test_golden_values_of_each_transform():
    def own():
        return stream(7, Kind.TRAIN, 3, 1, 5)

    assert own().raw(2).tolist() == GOLDEN_RAW
    assert own().uniform(2).tolist() == GOLDEN_UNIFORM
    assert own().normal(3).tolist() == pytest.approx(GOLDEN_NORMAL, rel=1e-14)
    assert own().integers(6, 10).tolist() == GOLDEN_INTEGERS
    assert own().permutation(6).tolist() == GOLDEN_PERMUTATION
    assert own().choice(1000, 4).tolist() == GOLDEN_SPARSE_CHOICE
    assert own().choice(8, 4).tolist() == GOLDEN_DENSE_CHOICE
    assert own().choice(64, 8).tolist() == GOLDEN_CHOICE_AT_THE_BORDER


def test_kinds_keep_their_numbers():
    assert [(kind.name, int(kind)) for kind in Kind] == [
        ("INIT", 1), ("TRAIN", 2), ("PROBE", 3), ("EVALUATE", 4), ("TEST", 5), ("SPLIT", 6),
        ("UNITS", 7), ("SOURCE", 8), ("SERVER", 9), ("CONTEXT", 10), ("SIMULATION", 11),
        ("FAULT", 12), ("CONTROL", 13), ("CALIBRATE", 14), ("PROJECTION", 15),
    ]  # fmt: skip


def test_streams_of_different_places_share_no_words():
    places = list(itertools.product((0, 1), (Kind.TRAIN, Kind.EVALUATE), (0, 1), (0, 1), (0, 1)))

    words = [word for place in places for word in stream(*place).raw(64).tolist()]

    assert len(set(words)) == len(words)


def test_neighbouring_streams_are_not_correlated():
    rows = np.stack([stream(1, Kind.TRAIN, 0, 0, task).uniform(2000) for task in range(20)])

    off_diagonal = np.corrcoef(rows)[~np.eye(20, dtype=bool)]

    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)


def test_stream_goes_on_where_it_was():
    whole, pieces = stream(1, Kind.TEST), stream(1, Kind.TEST)

    assert whole.raw(5).tolist() == [*pieces.raw(2).tolist(), *pieces.raw(3).tolist()]


def test_uniform_fills_its_interval():
    values = stream(1, Kind.TEST).uniform(100, 1000, low=-2.0, high=4.0)

    assert values.shape == (100, 1000)
    assert values.min() >= -2.0
    assert values.max() < 4.0
    assert values.mean() == pytest.approx(1.0, abs=5 * 6 / np.sqrt(12 * 1e5))
    assert stream(1, Kind.TEST).uniform().shape == ()


def test_normal_has_its_mean_spread_and_tails():
    values = stream(1, Kind.TEST).normal(100_001, mean=3.0, std=2.0)
    standard = (values - 3.0) / 2.0

    assert np.isfinite(values).all()
    assert standard.mean() == pytest.approx(0.0, abs=0.016)
    assert standard.std() == pytest.approx(1.0, abs=0.012)
    assert (np.abs(standard) > 1.959964).mean() == pytest.approx(0.05, abs=0.0035)
    assert (standard**4).mean() == pytest.approx(3.0, abs=0.16)


@pytest.mark.parametrize("high", [1, 2, 7, 1000, 2**32])
def test_integers_are_uniform_below_their_bound(high):
    values = stream(1, Kind.TEST).integers(20_000, high)

    assert values.min() >= 0
    assert values.max() < high
    assert values.mean() == pytest.approx((high - 1) / 2, abs=5 * high / np.sqrt(12 * 20_000))
    if high <= 7:
        assert set(values.tolist()) == set(range(high))


def test_permutations_are_uniform():
    own = stream(1, Kind.TEST)
    counts: dict[tuple[int, ...], int] = {}

    for _ in range(6000):
        order = tuple(own.permutation(3).tolist())
        counts[order] = counts.get(order, 0) + 1

    assert len(counts) == 6
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 20.5  # χ²(5) at p = 0.001


@pytest.mark.parametrize(("count", "size"), [(5, 5), (5, 0), (1, 1), (64, 8), (65, 8), (10**6, 9)])
def test_choice_never_repeats(count, size):
    own = stream(1, Kind.TEST)

    for _ in range(50):
        chosen = own.choice(count, size)
        assert len(set(chosen.tolist())) == size == chosen.size
        assert all(0 <= number < count for number in chosen)


@pytest.mark.parametrize("count", [6, 100])
def test_choice_is_uniform_in_every_place(count):
    own = stream(1, Kind.TEST)

    rows = np.stack([own.choice(count, 2) for _ in range(4000)])

    expected, error = (count - 1) / 2, 5 * count / np.sqrt(12 * 4000)
    assert rows[:, 0].mean() == pytest.approx(expected, abs=error)
    assert rows[:, 1].mean() == pytest.approx(expected, abs=error)


def test_choice_of_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="cannot choose 6 different numbers of 5"):
        stream(1, Kind.TEST).choice(5, 6)


# Values of this implementation; a change of any of them changes every published result.
GOLDEN_RAW = [9382047821062439416, 10637883200931178183]
GOLDEN_UNIFORM = [0.5086018314979395, 0.5766808038548317]
GOLDEN_NORMAL = [1.1420600694033725, -0.5606905637270233, 0.3416136558781572]
GOLDEN_INTEGERS = [5, 5, 0, 6, 7, 5]
GOLDEN_PERMUTATION = [2, 0, 1, 5, 3, 4]
GOLDEN_SPARSE_CHOICE = [508, 576, 46, 679]
GOLDEN_DENSE_CHOICE = [2, 0, 1, 5]
GOLDEN_CHOICE_AT_THE_BORDER = [32, 36, 2, 43, 48, 38, 61, 26]
