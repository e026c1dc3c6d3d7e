"""The embedded handwriting: alphabets, drawings and episodes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker.tasks import alphabets, strokes
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.glyphs import NOISE, Glyphs, content_digest, draw
from dmaml.worker.tasks.strokes import KNOTS, POINTS, SIZE, STROKES, Characters

# Change these together with glyphs.VERSION: results before and after cannot be compared.
CONTENT = "71c5d6dda3d82b43a5d624bb69ba384e53fd66c27ec1e72162280f703f3275a2"
DRAWINGS = "a6e1167f59e482aae438c6b930743f391dec0bd5a2dbc32675212a067dc7f2d2"


def glyphs(seed: int = 1, **task: Any) -> Glyphs:
    return Glyphs(from_mapping({"run": {"seed": seed}, "task": {"source": "glyphs", **task}}))


@pytest.fixture(scope="module", autouse=True)
def one_table() -> Iterator[None]:
    """Make the characters once: they are the same in every source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alphabets, "characters", functools.cache(alphabets.characters))
        yield


@pytest.fixture(scope="module")
def source() -> Glyphs:
    return glyphs()


@pytest.fixture(scope="module")
def characters(source: Glyphs) -> Characters:
    return source.characters


def noise_of(count: int, task: int = 0) -> strokes.Float64:
    return stream(5, Kind.TRAIN, 0, 0, task).uniform(count, NOISE)


def streams(*tasks: int) -> list[Stream]:
    return [stream(7, Kind.TRAIN, 3, 0, task) for task in tasks]


def alphabet_of(source: Glyphs, unit: int) -> str:
    return source.unit_name(unit).split("/")[0]


# --- strokes --------------------------------------------------------------------------------


def test_a_point_makes_a_disc_that_fades_over_one_pixel() -> None:
    points = np.array([[[0.5, 0.5]]], dtype=np.float32)  # the middle of pixel (14, 14)

    (picture,) = strokes.rasterise(points, np.array([1.0], dtype=np.float32))

    expected = [0.0, 0.5, 1.0, 0.5, 0.0]  # 2, 1, 0, 1 and 2 pixels away: 1.5 - distance
    expected = [round(255 * value + 1e-6) for value in expected]
    assert picture[14, 12:17].tolist() == picture[12:17, 14].tolist() == expected
    assert picture[13, 13] == round(255 * (1.5 - 2**0.5))


def test_a_bar_has_points_at_equal_distances() -> None:
    knots = np.zeros((1, STROKES, KNOTS, 2))
    knots[0, 0, :, 0] = np.arange(KNOTS) * 2.0

    stroke, weights = strokes.trace(knots, np.ones((1, STROKES, KNOTS)), np.array([1]))
    points = strokes.combine(weights[0], knots[0, stroke[0]].astype(np.float32))

    assert points[:, 0] == pytest.approx((np.arange(POINTS) + 0.5) / POINTS * 10.0, abs=0.05)
    assert (points[:, 1] == 0.0).all()


def test_points_are_shared_among_strokes_by_length() -> None:
    knots = np.zeros((1, STROKES, KNOTS, 2))
    knots[0, 0, :, 0] = np.arange(KNOTS)
    knots[0, 1, :, 1] = np.arange(KNOTS) * 3.0

    stroke, _ = strokes.trace(knots, np.ones((1, STROKES, KNOTS)), np.array([2]))

    assert np.bincount(stroke[0]).tolist() == [POINTS // 4, 3 * POINTS // 4]


def test_a_spline_goes_through_its_knots_and_its_weights_sum_to_one(
    characters: Characters,
) -> None:
    line = strokes.path(characters.knots[:50].astype(np.float64), np.ones((50, STROKES, KNOTS)))

    through = line[:, :, :: (line.shape[2] - 1) // (KNOTS - 1)]
    assert through == pytest.approx(characters.knots[:50])
    assert characters.weights.sum(axis=2) == pytest.approx(1.0, abs=1e-5)


def test_what_would_leave_the_picture_is_shrunk_and_pushed_back() -> None:
    points = np.array([[[-20.0, 0.0], [20.0, 1.0]]], dtype=np.float32)

    placed = strokes.fit(points, np.array([[5.0, 50.0]], dtype=np.float32))

    room = SIZE / 2 - strokes.BORDER
    assert placed[0, :, 0].tolist() == pytest.approx([-room, room])
    assert placed[0, :, 1].max() == pytest.approx(room)


# --- alphabets ------------------------------------------------------------------------------


def test_the_characters_are_those_of_this_version(characters: Characters) -> None:
    assert content_digest(characters) == CONTENT


def test_there_are_thousands_of_characters_in_alphabets_of_usual_size(source: Glyphs) -> None:
    _, sizes = np.unique(
        [alphabet_of(source, unit) for unit in range(source.num_units)], return_counts=True
    )

    assert source.num_units == len(source.characters) == sizes.sum() >= 2000
    assert len(sizes) == alphabets.NUM_ALPHABETS
    assert alphabets.SMALLEST <= sizes.min() < sizes.max() <= alphabets.LARGEST


def test_an_alphabet_does_not_depend_on_the_ones_before_it(characters: Characters) -> None:
    first = alphabets.alphabet(stream(alphabets.SEED, Kind.SOURCE, index=0))
    second = alphabets.alphabet(stream(alphabets.SEED, Kind.SOURCE, index=1))

    here = slice(len(first), len(first) + len(second))
    assert second.knots.tolist() == characters.knots[here].tolist()


def test_characters_have_one_to_four_strokes_and_dense_points(characters: Characters) -> None:
    assert set(characters.stroke.max(axis=1).tolist()) == {0, 1, 2, 3}

    knots = characters.knots[np.arange(len(characters))[:, None], characters.stroke]
    points = strokes.combine(characters.weights, knots)
    gaps = np.sqrt((np.diff(points, axis=1) ** 2).sum(axis=2))
    gaps = gaps[np.diff(characters.stroke.astype(int), axis=1) == 0]
    assert np.quantile(gaps, 0.99) < 1.0  # pixels: less than the width of the pen


def test_no_two_characters_of_an_alphabet_look_alike(source: Glyphs) -> None:
    characters = source.characters
    count = len(alphabets.alphabet(stream(alphabets.SEED, Kind.SOURCE, index=0)))
    plain = draw(characters, np.arange(count), np.full((count, NOISE), 0.5))
    flat = plain.reshape(count, -1) / 255.0

    shared = np.minimum(flat[:, None], flat[None]).sum(axis=2)
    total = np.maximum(flat[:, None], flat[None]).sum(axis=2)
    np.fill_diagonal(shared, 0.0)
    assert (shared / total).max() < 0.9


# --- drawings -------------------------------------------------------------------------------


def test_the_drawings_are_those_of_this_version(characters: Characters) -> None:
    pictures = draw(characters, np.arange(0, 2000, 20), noise_of(100))

    assert hashlib.sha256(pictures.tobytes()).hexdigest() == DRAWINGS


def test_a_drawing_has_the_same_bits_in_any_company(characters: Characters) -> None:
    classes, noise = np.arange(700), noise_of(700)

    together = draw(characters, classes, noise)
    backwards = draw(characters, classes[::-1], noise[::-1])[::-1]
    alone = [draw(characters, classes[i : i + 1], noise[i : i + 1])[0] for i in (0, 130, 699)]
    few = draw(characters, classes[3:10], noise[3:10])

    assert (together == backwards).all()
    assert (together[[0, 130, 699]] == np.stack(alone)).all()
    assert (together[3:10] == few).all()


def test_every_drawing_has_ink_and_an_empty_border(characters: Characters) -> None:
    pictures = draw(characters, np.arange(len(characters)), noise_of(len(characters)))

    assert pictures.shape == (len(characters), 1, SIZE, SIZE)
    assert pictures.dtype == np.uint8
    assert pictures.max(axis=(1, 2, 3)).min() > 200
    assert (pictures.sum(axis=(1, 2, 3), dtype=np.int64) / 255.0).min() > 8  # pixels
    inner = pictures.copy()
    inner[:, :, 1:-1, 1:-1] = 0
    assert inner.max() < 64
    assert 0.05 < pictures.mean() / 255.0 < 0.12  # Omniglot at this size: 0.084


def test_drawings_of_a_character_differ_and_are_anti_aliased(characters: Characters) -> None:
    pictures = draw(characters, np.zeros(200, dtype=np.int64), noise_of(200))

    assert len(np.unique(pictures.reshape(200, -1), axis=0)) == 200
    assert ((pictures > 25) & (pictures < 230)).mean() > 0.02


def test_nearest_mean_on_pixels_is_better_than_chance_and_far_from_perfect(
    source: Glyphs,
) -> None:
    batch = source.sample(streams(*range(100)), source.split("train"), 5, 1, 5)

    support = batch.support_x.reshape(100, 1, 5, -1)
    query = batch.query_x.reshape(100, 25, 1, -1)
    nearest = ((query - support) ** 2).sum(axis=3).argmin(axis=2)
    assert 0.35 < (nearest == batch.query_y).mean() < 0.65  # chance 0.2; Omniglot 0.44


# --- the source -----------------------------------------------------------------------------


def test_splits_share_no_alphabet(source: Glyphs) -> None:
    parts = [{alphabet_of(source, int(u)) for u in source.split(name)} for name in SPLITS]

    assert [len(part) for part in parts] == [38, 10, 12]
    assert len(set.union(*parts)) == alphabets.NUM_ALPHABETS


def test_the_seed_divides_the_same_characters_differently(source: Glyphs) -> None:
    other = glyphs(seed=2)

    assert content_digest(other.characters) == content_digest(source.characters)
    assert other.digest != source.digest
    alphabets_of_test = [
        {alphabet_of(one, int(u)) for u in one.split("test")} for one in (source, other)
    ]
    assert alphabets_of_test[0] != alphabets_of_test[1]


def test_with_unit_alphabet_an_episode_is_of_one_alphabet() -> None:
    source = glyphs(unit="alphabet")

    batch = source.sample(streams(*range(8)), source.split("test"), 20, 1, 1)

    assert source.num_units == alphabets.NUM_ALPHABETS
    assert (batch.units == batch.units[:, :1]).all()
    assert set(batch.units[:, 0].tolist()) <= set(source.split("test").tolist())


def test_rotations_turn_the_drawing_of_the_base_class(source: Glyphs) -> None:
    turned = glyphs(rotations=True)
    name = "alphabet 03/character 05"
    unit_of = {turned.unit_name(unit): unit for unit in range(turned.num_units)}

    assert turned.num_units == 4 * source.num_units
    plain, *others = (
        turned.sample(streams(0), np.array([unit_of[name + end]]), 1, 1, 1).support_x[0, 0, 0]
        for end in ("", " turned 90°", " turned 180°", " turned 270°")
    )
    for number, picture in enumerate(others, start=1):
        assert (picture == np.rot90(plain, number)).all()


def test_an_episode_draws_every_example_anew(source: Glyphs) -> None:
    batch = source.sample(streams(0, 1), source.split("train"), 5, 3, 4)

    everything = np.concatenate([batch.support_x, batch.query_x], axis=1).reshape(2 * 35, -1)
    assert len(np.unique(everything, axis=0)) == 70
    assert everything.min() == 0.0
    assert everything.max() == 1.0


def test_more_ways_than_classes_are_refused(source: Glyphs) -> None:
    with pytest.raises(DataError, match="n_way"):
        source.sample(streams(0), source.split("train")[:4], 5, 1, 1)


def test_a_division_of_omniglot_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Set task\.splits to default"):
        glyphs(splits="vinyals")


# --- origins --------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["class", "alphabet"])
def test_the_origin_of_a_unit_is_the_style_of_its_alphabet(unit: str) -> None:
    config = from_mapping({"task": {"source": "glyphs", "unit": unit, "rotations": True}})
    source = Glyphs(config, origins="style")
    angular = {
        f"alphabet {number + 1:02d}"
        for number, style in enumerate(alphabets.styles())
        if style.is_angular
    }

    assert len(angular) == 17
    assert source.origin is not None
    assert source.origin_names == ("round", "angular")
    for unit_id in range(0, source.num_units, 7):
        assert source.origin[unit_id] == (alphabet_of(source, unit_id) in angular)


def test_origins_change_no_task() -> None:
    plain, told = glyphs(), Glyphs(from_mapping({"task": {"source": "glyphs"}}), origins="style")
    units = plain.split("train")

    batches = [source.sample(streams(1, 2), units, 5, 1, 2) for source in (plain, told)]

    assert plain.origin is None
    assert plain.digest == told.digest
    np.testing.assert_array_equal(batches[0].support_x, batches[1].support_x)


def test_every_third_alphabet_has_a_hollow_pen_of_as_much_ink() -> None:
    config = from_mapping({"task": {"source": "glyphs"}})
    plain, pens = Glyphs(config), Glyphs(config, origins="pen")
    units = plain.split("train")

    full, told = (source.sample(streams(*range(60)), units, 5, 1, 2) for source in (plain, pens))

    assert pens.origin is not None
    assert pens.origin_names == ("full", "hollow")
    for unit_id in range(0, pens.num_units, 97):
        number = int(alphabet_of(pens, unit_id).removeprefix("alphabet "))
        assert pens.origin[unit_id] == (number % 3 == 0)
    is_hollow = np.repeat(pens.origin[told.units], 2, axis=1)
    order = np.argsort(told.query_y, axis=1, kind="stable")
    x, y = (np.take_along_axis(b.query_x, order[:, :, None, None, None], 1) for b in (full, told))
    np.testing.assert_array_equal(full.units, told.units)
    np.testing.assert_array_equal(x[is_hollow == 0], y[is_hollow == 0])
    assert (x[is_hollow == 1] != y[is_hollow == 1]).any()
    assert y[is_hollow == 1].mean() == pytest.approx(x[is_hollow == 1].mean(), rel=0.03)
    assert plain.digest != pens.digest


def test_other_origins_are_refused() -> None:
    with pytest.raises(ConfigError, match="origins 'ink': required style, pen, or null"):
        Glyphs(from_mapping({"task": {"source": "glyphs"}}), origins="ink")
