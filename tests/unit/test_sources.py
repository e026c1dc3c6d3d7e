"""Task sources: .npz archives, Omniglot, sinusoids, and how a name becomes a source."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import RunConfig, from_mapping
from dmaml.common.errors import ConfigError, DataError, UnknownNameError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import build, sinusoid
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.episodes import require_episode
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.npz import hold_out_groups
from dmaml.worker.tasks.splits import TEST, TRAIN, VALIDATION
from tests.unit.built_sources import config, images_of, names

DATA = os.environ.get("DMAML_DATA", "")
needs_omniglot = pytest.mark.skipif(
    not Path(DATA, "omniglot28.npz").is_file(), reason="needs omniglot28.npz in $DMAML_DATA"
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))


# --- npz ------------------------------------------------------------------------------------

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(num_classes: int = 10, per_class: int = 3, **arrays: Any) -> str:
        size = num_classes * per_class
        noise = np.random.default_rng(0).integers(0, 256, (size, 4, 4)).astype(np.uint8)
        standard = {
            "images": noise,
            "labels": np.repeat(np.arange(num_classes, dtype=np.int32), per_class),
            "class_names": np.array([f"c{c}" for c in range(num_classes)]),
        }
        merged = {key: v for key, v in {**standard, **arrays}.items() if v is not None}
        np.savez_compressed(tmp_path / "own.npz", **merged)
        return f"npz:{tmp_path / 'own.npz'}"

    return write


def test_a_file_without_split_is_divided_by_seed(write: Write) -> None:
    source = images_of(write(num_classes=25))

    assert [len(source.split(name)) for name in SPLITS] == [16, 4, 5]


def test_the_codes_of_the_file_are_train_test_validation(write: Write) -> None:
    source = images_of(write(num_classes=3, split=np.array([0, 1, 2])))

    assert [names(source, name) for name in SPLITS] == [["c0"], ["c2"], ["c1"]]


def test_a_file_without_validation_has_a_tenth_of_training_held_out(write: Write) -> None:
    source = images_of(write(num_classes=25, split=np.repeat([0, 1], [20, 5])))

    assert [len(source.split(name)) for name in SPLITS] == [18, 2, 5]
    assert names(source, "test") == [f"c{c}" for c in range(20, 25)]


def test_whole_alphabets_are_divided_and_held_out(write: Write) -> None:
    alphabets = np.repeat([f"a{i}" for i in range(6)], 4)
    path = write(num_classes=24, alphabets=alphabets, split=np.repeat([0, 1], [20, 4]))

    source = images_of(path, unit="alphabet")

    assert [len(source.split(name)) for name in SPLITS] == [4, 1, 1]
    assert names(source, "test") == ["a5"]


def test_an_alphabet_in_training_and_test_is_refused_also_when_some_are_held_out(
    write: Write,
) -> None:
    path = write(num_classes=6, superclasses=np.array(list("xyxyzz")), split=[0, 0, 0, 1, 0, 0])

    with pytest.raises(DataError, match="each alphabet in one split, found 'y'"):
        build(config(path, unit="alphabet"))


@pytest.mark.parametrize("seed", range(8))
def test_holding_out_alphabets_never_moves_a_test_class(seed: int) -> None:
    codes = np.array([TRAIN, TEST, TRAIN, TRAIN])

    held = hold_out_groups(codes, np.array([0, 0, 1, 1]), seed)

    assert held.tolist() in ([VALIDATION, TEST, TRAIN, TRAIN], [TRAIN, TEST, *[VALIDATION] * 2])


def test_colour_goes_channels_first(write: Write) -> None:
    images = np.zeros((30, 4, 5, 3), dtype=np.uint8)

    assert images_of(write(images=images)).input_shape == (3, 4, 5)


def test_classes_without_names_are_numbered(write: Write) -> None:
    source = images_of(write(num_classes=3, class_names=None))

    assert sorted(source.unit_name(unit) for unit in range(3)) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": None}, "no array 'images'"),
        ({"labels": None}, "no array 'labels'"),
        ({"images": np.zeros((30, 4, 4))}, r"images required uint8 .* found float64 \[30, 4, 4\]"),
        ({"images": np.zeros((30, 4), np.uint8)}, r"found uint8 \[30, 4\]"),
        ({"images": np.zeros((30, 4, 4, 4), np.uint8)}, r"found uint8 \[30, 4, 4, 4\]"),
        ({"images": np.zeros((0, 4, 4), np.uint8), "labels": np.zeros(0, int)}, r"\[0, 4, 4\]"),
        ({"labels": np.zeros(29, int)}, r"labels required integers \[30\], found int64 \[29\]"),
        ({"labels": np.zeros(30)}, "found float64"),
        ({"labels": np.full(30, 10)}, "labels 10 to 10 required class_names for each"),
        ({"labels": np.full(30, -1)}, "labels -1 to -1"),
        ({"labels": np.full(30, 2**60), "class_names": None}, r"required class_names .* \[30\]"),
        ({"split": np.zeros(9, int)}, "split required one entry for each of the 10 classes"),
        ({"split": np.full(10, 3)}, r"split required 0, 1 or 2, found \[3\]"),
        ({"alphabets": np.array(["x"])}, "alphabets required one entry for each of the 10"),
        ({"images": np.array([{}])}, r"without pickles \([^.]*\)\. Fetch"),
    ],
)
def test_a_malformed_archive_is_told_in_a_sentence(
    write: Write, arrays: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        build(config(write(**arrays)))


def test_a_truncated_archive_is_told(write: Write) -> None:
    path = Path(write().removeprefix("npz:"))
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"own\.npz' is truncated or not a NumPy archive"):
        build(config(f"npz:{path}"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)

    with pytest.raises(DataError, match="truncated or not a NumPy archive"):
        build(config(f"npz:{tmp_path / 'x.npz'}"))


def test_a_plain_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))

    with pytest.raises(DataError, match="truncated or not a NumPy archive"):
        build(config(f"npz:{tmp_path / 'x.npy'}"))


def test_a_missing_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz' cannot be read: No such file"):
        build(config(f"npz:{tmp_path / 'none.npz'}"))


def test_a_bare_name_is_looked_for_in_the_data_folders(write: Write, tmp_path: Path) -> None:
    write()

    source = build(config("npz:own.npz"), data_dir=tmp_path)

    assert source.num_units == 10


def test_vinyals_is_omniglots(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"splits 'vinyals' with .*own\.npz.*splits to default"):
        build(config(write(), splits="vinyals"))


def test_official_needs_a_split_in_the_file(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"has no split of its own"):
        build(config(write(), splits="official"))


def test_the_seed_changes_the_split_but_not_that_of_the_file(write: Write) -> None:
    def test_classes(path: str, seed: int) -> list[str]:
        made = build(from_mapping({"run": {"seed": seed}, "task": {"source": path}}))
        assert isinstance(made, ImageSource)
        return names(made, "test")

    path = write(num_classes=25)
    assert test_classes(path, 1) != test_classes(path, 2)
    path = write(num_classes=25, split=np.arange(25) % 3)
    assert test_classes(path, 1) == test_classes(path, 2)


def test_a_class_too_small_is_told_before_anything_starts(write: Write) -> None:
    source = images_of(write(num_classes=25, per_class=3))

    with pytest.raises(DataError, match=r"k_shot \+ k_query 16 exceeds the 3 examples of class"):
        require_episode(source, "train", 5, 1, 15)


def test_too_many_ways_are_told_before_anything_starts(write: Write) -> None:
    source = images_of(write(num_classes=25))

    with pytest.raises(DataError, match=r"n_way 6 exceeds the 5 classes in split 'test'\. Lower"):
        require_episode(source, "test", 6, 1, 1)


# --- omniglot -------------------------------------------------------------------------------


@needs_omniglot
@pytest.mark.parametrize(
    ("task", "sizes"),
    [
        ({}, [1100, 100, 423]),
        ({"splits": "vinyals", "rotations": True}, [4400, 400, 1692]),
        ({"splits": "official"}, [868, 96, 659]),
        ({"unit": "alphabet"}, [32, 8, 10]),
        ({"unit": "alphabet", "splits": "official"}, [27, 3, 20]),
    ],
)
def test_omniglot_is_divided_as_papers_do(task: dict[str, Any], sizes: list[int]) -> None:
    source = images_of("omniglot", **task)

    assert [len(source.split(name)) for name in SPLITS] == sizes
    for name in SPLITS:
        require_episode(source, name, 5, 1, 15)


@needs_omniglot
def test_omniglot_has_its_own_pixels() -> None:
    source = images_of("omniglot")
    with np.load(Path(DATA, "omniglot28.npz"), allow_pickle=False) as file:
        expected = file["images"]

    assert (source.images[:, 0] == expected).all()


@needs_omniglot
def test_omniglot_alphabets_cannot_be_divided_by_character() -> None:
    with pytest.raises(ConfigError, match="it divides characters, not alphabets"):
        build(config("omniglot", unit="alphabet", splits="vinyals"))


@needs_omniglot
@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"unit": "class"}, "it divides whole alphabets"),
        ({"unit": "alphabet", "splits": "official"}, "it divides whole alphabets"),
        ({"unit": "alphabet", "options": {"training_alphabets": 49}}, "1 to 48 of the 50"),
        ({"unit": "alphabet", "options": {"training_alphabets": 0}}, "1 to 48 of the 50"),
        ({"unit": "alphabet", "options": {"training_alphabets": "35"}}, "1 to 48 of the 50"),
    ],
    ids=str,
)
def test_training_alphabets_that_cannot_be_are_refused(task: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(config("omniglot", **{"options": {"training_alphabets": 35}, **task}))


def test_another_file_under_omniglots_name_is_refused(write: Write, tmp_path: Path) -> None:
    write()
    (tmp_path / "own.npz").rename(tmp_path / "omniglot28.npz")

    with pytest.raises(DataError, match="required 1623 classes with `split` and `alphabets`"):
        build(config("omniglot"), data_dir=tmp_path)


# --- sinusoid -------------------------------------------------------------------------------


def test_a_sinusoid_is_the_wave_of_its_stream() -> None:
    made = build(config("sinusoid", n_way=1))

    batch = made.sample([stream(3, Kind.TRAIN, 1)], made.split("train"), 1, 5, 10)

    replay = stream(3, Kind.TRAIN, 1)
    replay.integers(1, 1)
    amplitude, phase = 0.1 + 4.9 * replay.uniform(1), np.pi * replay.uniform(1)
    x = -5 + 10 * replay.uniform(15)
    y = amplitude * np.sin(x - phase)
    np.testing.assert_array_equal(batch.support_x[0, :, 0], x[:5].astype(np.float32))
    np.testing.assert_allclose(batch.support_y[0, :, 0], y[:5], rtol=1e-6)
    np.testing.assert_allclose(batch.query_y[0, :, 0], y[5:], rtol=1e-6)


def test_sinusoids_fill_the_published_ranges() -> None:
    made = sinusoid.Sinusoid(config("sinusoid", n_way=1))

    streams = [stream(1, Kind.TRAIN, 0, 0, task) for task in range(500)]
    batch = made.sample(streams, made.split("train"), 1, 100, 1)

    assert -5.0 <= batch.support_x.min() < -4.99 < 4.99 < batch.support_x.max() <= 5.0
    heights = abs(batch.support_y).max(axis=(1, 2))
    assert 0.09 < heights.min() < 0.2
    assert 4.9 < heights.max() <= 5.0


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"n_way": 5}, r"n_way 5 with .* Set task\.n_way to 1"),
        ({"n_way": 1, "splits": "vinyals"}, r"splits 'vinyals' .* Set it to 'default'"),
        ({"n_way": 1, "rotations": True}, "rotations True .* Set it to False"),
        ({"n_way": 1, "unit": "alphabet"}, "unit 'alphabet'"),
    ],
)
def test_keys_of_pictures_do_not_go_with_sinusoids(task: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(config("sinusoid", **task))


# --- the table ------------------------------------------------------------------------------


def test_a_misspelt_source_is_told_with_a_near_one() -> None:
    with pytest.raises(UnknownNameError, match=r"'omniglott'\. Did you mean 'omniglot'\? Known:"):
        build(config("omniglott"))


def test_a_misspelt_prefix_is_told_with_a_near_one() -> None:
    with pytest.raises(UnknownNameError, match=r"'fodler'\. Did you mean 'folder'"):
        build(config("fodler:pictures"))


@pytest.mark.parametrize("source", ["npz", "npz:", "folder"])
def test_a_missing_path_is_told(source: str) -> None:
    with pytest.raises(ConfigError, match="required a path"):
        build(config(source))


def test_a_path_too_many_is_told() -> None:
    with pytest.raises(ConfigError, match="'omniglot' takes no path"):
        build(config("omniglot:x"))


def test_options_of_our_own_sources_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.options .* do not fit"):
        build(config("sinusoid", n_way=1, options={"amplitude": 3}))


def test_prefixes_win_over_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "folder", types.SimpleNamespace(Thing=None))

    with pytest.raises(DataError, match="folder 'Thing' was not found"):
        build(config("folder:Thing"))


def test_a_users_thing_gets_the_config_and_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def thing(config: RunConfig, size: int) -> object:
        return (config.task.source, size)

    monkeypatch.setitem(sys.modules, "own", types.SimpleNamespace(Thing=thing))

    assert build(config("own:Thing", options={"size": 3})) == ("own:Thing", 3)  # type: ignore[comparison-overlap]
    with pytest.raises(ConfigError, match="missing a required argument: 'size'"):
        build(config("own:Thing"))


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot be imported.*PYTHONPATH"):
        build(config("no_such_package.tasks:Thing"))


@pytest.mark.parametrize("source", [":", ":Thing", "own:", "..:Thing", "a:b:c", "/etc/x:y"])
def test_what_is_neither_path_nor_module_is_told(source: str) -> None:
    with pytest.raises(
        ConfigError, match=r"required npz:PATH, folder:PATH or package\.module:Thing"
    ):
        build(config(source))
