"""Several sources as one: sizes, channels, origins, and equal ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import build
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.match import equalise_ranks, match, resize, to_channels
from dmaml.worker.tasks.mixed import Mixed

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))


def write(path: Path, value: int, classes: int = 10, channels: int = 1, size: int = 12) -> str:
    """Write an archive whose class c has pictures of the value `value + c`; return its source."""
    count = 6 * classes
    labels = np.repeat(np.arange(classes), 6)
    images = np.broadcast_to((value + labels)[:, None, None], (count, size, size))
    if channels == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return f"npz:{path}"


def mixed(sources: list[Any], seed: int = 1, size: int = 12, **options: Any) -> Mixed:
    task = {
        "source": "mixed",
        "image_size": size,
        "options": {"sources": sources, **options},
    }
    made = build(from_mapping({"run": {"seed": seed}, "task": task}))
    assert isinstance(made, Mixed)
    return made


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return [write(tmp_path / "dark.npz", 0), write(tmp_path / "light.npz", 100, 15, 3, 16)]


def streams(count: int) -> list[Any]:
    return [stream(7, Kind.TRAIN, 0, 0, task) for task in range(count)]


# --- pictures made alike --------------------------------------------------------------------


def test_equalised_planes_have_the_same_values_and_keep_the_order_of_their_pixels() -> None:
    pictures = RANDOM.integers(0, 256, (6, 3, 10, 12)).astype(np.uint8)
    pictures[0] //= 64  # many equal pixels
    pictures[1] = 7  # nothing but equal pixels

    equalised = equalise_ranks(pictures)

    planes = np.sort(equalised.reshape(18, -1), axis=1)
    assert (planes == planes[0]).all()
    assert planes[0].tolist() == (np.arange(120) * 255 // 119).tolist()
    for before, after in zip(pictures.reshape(18, -1), equalised.reshape(18, -1), strict=True):
        order = np.argsort(after, kind="stable")
        assert (np.diff(before[order].astype(int)) >= 0).all()


def test_of_equal_pixels_those_beside_brighter_ones_come_last() -> None:
    picture = np.zeros((1, 1, 11, 11), dtype=np.uint8)
    picture[..., 5, 5] = 255

    (plane,) = equalise_ranks(picture)[0].astype(int)

    near = np.zeros(plane.shape, dtype=bool)
    near[4:7, 4:7] = True
    assert plane[5, 5] == 255
    assert plane[near].min() > plane[~near].max()


def test_grey_becomes_equal_channels_and_colour_its_luma() -> None:
    grey = RANDOM.integers(0, 256, (2, 1, 4, 4)).astype(np.uint8)
    pure = np.zeros((3, 3, 1, 1), dtype=np.uint8)
    pure[range(3), range(3)] = 200

    assert (to_channels(grey, 3) == grey).all()
    assert (to_channels(to_channels(grey, 3), 1) == grey).all()
    assert to_channels(pure, 1).ravel().tolist() == [60, 117, 23]


def test_resizing_takes_the_square_in_the_middle() -> None:
    pictures = np.zeros((1, 1, 6, 10), dtype=np.uint8)
    pictures[..., 2:8] = 90

    assert (resize(pictures, 6) == 90).all()
    assert resize(pictures, 3).shape == (1, 1, 3, 3)
    assert (resize(pictures, 12) == 90).all()


def test_matching_does_not_depend_on_the_company() -> None:
    pictures = RANDOM.integers(0, 256, (600, 3, 9, 9)).astype(np.uint8)

    together = match(pictures, 7, 1, True)

    assert together.shape == (600, 1, 7, 7)
    assert (match(pictures[550:551], 7, 1, True) == together[550]).all()


# --- the source -----------------------------------------------------------------------------


def test_every_unit_remembers_its_origin(two: list[str]) -> None:
    made = mixed(two)

    assert made.num_units == 25
    assert made.origin is not None
    assert np.bincount(made.origin).tolist() == [10, 15]
    assert made.origin_names == tuple(two)
    for unit in range(25):
        assert made.unit_name(unit).startswith(made.origin_names[made.origin[unit]] + ": ")
    assert len({made.unit_name(unit) for unit in range(25)}) == 25


def test_the_pictures_of_a_unit_are_those_of_its_class(two: list[str]) -> None:
    """The value of a picture tells its source and class."""
    made = mixed(two)

    batch = made.sample(streams(30), np.arange(25), 4, 2, 2)

    assert batch.support_x.shape == (30, 8, 3, 12, 12)
    values = np.rint(batch.support_x[:, ::2, 0, 0, 0] * 255).astype(int)
    for units, row in zip(batch.units, values, strict=True):
        for unit, value in zip(units.tolist(), row.tolist(), strict=True):
            source, number = divmod(value, 100)
            assert made.unit_name(unit) == f"{two[source]}: {number}"
    assert (batch.query_x[:, ::2, 0, 0, 0] == batch.support_x[:, ::2, 0, 0, 0]).all()


@pytest.mark.parametrize("across", [False, True])
def test_a_task_has_one_origin_unless_it_goes_across(two: list[str], across: bool) -> None:
    made = mixed(two, across=across)
    assert made.origin is not None

    units = made.sample(streams(200), np.arange(25), 4, 1, 1).units

    origins = made.origin[units]
    assert all(len(set(row.tolist())) == 4 for row in units)
    if across:
        assert np.mean(origins == 1) == pytest.approx(0.6, abs=0.06)  # 15 of 25 classes
        assert (origins.min(1) < origins.max(1)).mean() > 0.7
    else:
        assert (origins == origins[:, :1]).all()
        assert origins[:, 0].mean() == pytest.approx(0.5, abs=0.1)  # by source, not by class


def test_shares_by_units_let_each_class_be_seen_as_often(two: list[str]) -> None:
    made = mixed(two, shares="units")
    assert made.origin is not None
    dark, light = (np.flatnonzero(made.origin == number) for number in (0, 1))

    whole = made.sample(streams(500), np.arange(25), 4, 1, 1).units
    routed = made.sample(streams(500), np.concatenate([dark[:4], light]), 4, 1, 1).units
    few = made.sample(streams(50), np.concatenate([dark[:3], light]), 4, 1, 1).units

    assert np.mean(made.origin[whole[:, 0]]) == pytest.approx(15 / 25, abs=0.05)
    assert np.mean(made.origin[routed[:, 0]]) == pytest.approx(15 / 19, abs=0.05)
    assert (made.origin[few] == 1).all()
    assert (made.origin[whole] == made.origin[whole][:, :1]).all()
    assert made.digest != mixed(two).digest


def test_shares_change_neither_a_task_of_a_source_nor_the_tasks_beside_it(two: list[str]) -> None:
    made, even = mixed(two, shares="units"), mixed(two)
    assert made.origin is not None

    equal = even.sample(streams(40), np.arange(25), 4, 1, 1)
    by_units = made.sample(streams(40), np.arange(25), 4, 1, 1)
    alone = made.sample(streams(40)[7:8], np.arange(25), 4, 1, 1)

    same = made.origin[equal.units[:, 0]] == made.origin[by_units.units[:, 0]]
    assert 0 < same.sum() < 40
    assert (equal.support_x[same] == by_units.support_x[same]).all()
    assert (alone.support_x[0] == by_units.support_x[7]).all()


def test_a_task_is_drawn_from_a_source_that_has_enough_allowed_classes(two: list[str]) -> None:
    made = mixed(two)
    assert made.origin is not None
    dark, light = (np.flatnonzero(made.origin == number) for number in (0, 1))

    batch = made.sample(streams(20), np.concatenate([dark[:3], light]), 4, 1, 1)

    assert (made.origin[batch.units] == 1).all()
    with pytest.raises(DataError, match="n_way 4 exceeds the 3 classes of the largest source"):
        made.sample(streams(1), np.concatenate([dark[:3], light[:3]]), 4, 1, 1)
    across = mixed(two, across=True)
    assert across.sample(streams(1), np.concatenate([dark[:3], light[:3]]), 6, 1, 1).num_tasks == 1


def test_the_splits_are_those_of_the_sources(two: list[str]) -> None:
    made = mixed(two)

    for name in SPLITS:
        own = {made.unit_name(int(unit)) for unit in made.split(name)}
        expected = set()
        for source in two:
            alone = build(from_mapping({"task": {"source": source}}))
            expected |= {f"{source}: {alone.unit_name(int(u))}" for u in alone.split(name)}
        assert own == expected


def test_drawn_and_read_pictures_are_equalised_alike(two: list[str]) -> None:
    made = mixed([two[0], "glyphs", "textures"], size=14, channels=1, equalise=True)

    batch = made.sample(streams(12), made.split("train"), 3, 1, 1)

    assert made.origin is not None
    assert set(made.origin[batch.units[:, 0]].tolist()) == {0, 1, 2}
    planes = np.sort(batch.support_x.reshape(36, -1), axis=1)
    assert (planes == planes[0]).all()
    assert (np.diff(planes[0]) >= 0).all()
    assert (planes[0, 0], planes[0, -1]) == (0.0, 1.0)


def test_an_entry_may_have_keys_of_its_own(two: list[str]) -> None:
    made = mixed([{"source": two[0], "rotations": True}, two[1]])

    assert made.num_units == 40 + 15


def test_chosen_classes_are_divided_70_10_20_and_keep_their_rotations_beside_them(
    tmp_path: Path,
) -> None:
    many = write(tmp_path / "many.npz", 0, 40)
    entry = {"source": many, "classes": 20, "rotations": True}

    made = mixed([entry, write(tmp_path / "few.npz", 100, 15)])
    other = mixed([entry, write(tmp_path / "few.npz", 100, 15)], seed=2)

    assert made.origin is not None
    assert made.num_units == 160 + 15
    own = [made.split(name) for name in SPLITS]
    sizes = [int((made.origin[units] == 0).sum()) for units in own]
    assert sizes == [4 * 14, 4 * 2, 4 * 4]
    assert [int((made.origin[units] == 1).sum()) for units in own] == [10, 2, 3]
    bases = [
        {made.unit_name(u).partition(" turned")[0] for u in units.tolist() if not made.origin[u]}
        for units in own
    ]
    assert [len(names) for names in bases] == [14, 2, 4]
    assert len(set.union(*bases)) == 20
    names = {other.unit_name(u).partition(" turned")[0] for u in other.split("train").tolist()}
    assert not bases[0] <= names
    made.require_episode("test", 4, 1, 1)
    batch = made.sample(streams(50), made.split("train"), 4, 1, 1)
    assert set(batch.units.ravel().tolist()) <= set(own[0].tolist())


def test_a_split_may_come_from_one_source_only(two: list[str]) -> None:
    made = mixed(two, only={"train": two[1], "test": two[0]})
    whole = mixed(two)
    assert made.origin is not None

    for name, expected in (("train", {1}), ("validation", {0, 1}), ("test", {0})):
        assert set(made.origin[made.split(name)].tolist()) == expected
        assert set(made.split(name)) <= set(whole.split(name))
    assert (made.origin == whole.origin).all()
    assert made.digest != whole.digest
    made.require_episode("test", 2, 1, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sources": ["glyphs"]}, "required a list of at least two sources"),
        ({"sources": "glyphs"}, "required a list of at least two sources"),
        ({"sources": ["glyphs", {"rotations": True}]}, "required a source's name, or a mapping"),
        ({"sources": ["glyphs", {"source": "textures", "n_way": 3}]}, "a source's name, or a map"),
        ({"sources": ["glyphs", {"source": "textures", "rotations": 3}]}, "rotations"),
        ({"sources": ["glyphs", "sinusoid"]}, "n_way"),
        ({"sources": ["glyphs", {"source": "textures", "classes": 9}]}, "9: required 10 to 480"),
        (
            {"sources": ["glyphs", {"source": "textures", "classes": 20, "unit": "alphabet"}]},
            "only classes of pictures can be chosen",
        ),
        ({"sources": ["glyphs", "textures"], "only": {"test": "omniglot"}}, "one of glyphs, tex"),
        ({"sources": ["glyphs", "textures"], "only": {"tests": "glyphs"}}, "any of train, valid"),
        ({"sources": ["glyphs", "textures"], "channels": 2}, "channels 2: required 1 or 3"),
        ({"sources": ["glyphs", "textures"], "shares": "even"}, "'even': required equal or units"),
        ({}, "sources"),
    ],
)
def test_unsuitable_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(from_mapping({"task": {"source": "mixed", "options": options}}))


def test_alphabets_cannot_go_across() -> None:
    task = {
        "source": "mixed",
        "unit": "alphabet",
        "options": {"sources": ["glyphs", "textures"], "across": True},
    }
    with pytest.raises(ConfigError, match="across true with unit 'alphabet'"):
        build(from_mapping({"task": task}))
