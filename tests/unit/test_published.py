"""Sources with published divisions, and those whose pictures are divided."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, DataError
from dmaml.worker.tasks import build, published
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.images import ImageSource

DATA = os.environ.get("DMAML_DATA", "")
CIFAR100 = ("cifar_fs", "fc100")


def needs(file: str) -> Any:
    return pytest.mark.skipif(not Path(DATA, file).is_file(), reason=f"needs {file} in $DMAML_DATA")


def source(name: str, **task: Any) -> ImageSource:
    made = build(from_mapping({"task": {"source": name, **task}}))
    assert isinstance(made, ImageSource)
    return made


def sizes(made: ImageSource) -> list[int]:
    return [len(made.split(name)) for name in SPLITS]


def names(made: ImageSource, split: Any) -> set[str]:
    return {made.unit_name(int(unit)) for unit in made.split(split)}


@pytest.mark.parametrize(
    ("division", "counts"),
    [
        (published.MINIIMAGENET, [64, 16, 20]),
        (published.CIFAR_FS, [64, 16, 20]),
        (published.FC100, [12, 4, 4]),
    ],
)
def test_published_divisions_have_their_sizes_and_no_name_twice(
    division: published.Division, counts: list[int]
) -> None:
    assert [len(part) for part in division] == counts
    assert len(set().union(*division)) == sum(counts)


@needs("cifar100.npz")
def test_cifar_fs_has_its_classes() -> None:
    made = source("cifar_fs")

    assert sizes(made) == [64, 16, 20]
    assert made.input_shape == (3, 32, 32)
    assert "beaver" in names(made, "validation")
    assert "whale" in names(made, "test")


@needs("cifar100.npz")
def test_fc100_has_no_superclass_in_two_splits() -> None:
    made = source("fc100")
    assert made.origin is not None

    groups = [set(made.origin[made.split(name)].tolist()) for name in SPLITS]

    assert sizes(made) == [60, 20, 20]
    assert [len(part) for part in groups] == [12, 4, 4]
    assert len(set().union(*groups)) == 20
    assert {"baby", "boy", "girl", "man", "woman"} <= names(made, "test")  # people
    assert source("fc100", unit="alphabet").num_units == 20


@pytest.mark.parametrize("name", CIFAR100)
@needs("cifar100.npz")
def test_the_division_is_that_of_the_files_own_key(name: str) -> None:
    with np.load(Path(DATA, "cifar100.npz")) as archive:
        split = archive["split" if name == "cifar_fs" else "split_fc100"]
        expected = [set(archive["class_names"][split == code].tolist()) for code in (0, 2, 1)]

    assert [names(source(name), split) for split in SPLITS] == expected


@needs("miniimagenet28.npz")
def test_miniimagenet_at_28_is_divided_by_ravi_and_larochelle() -> None:
    made = source("miniimagenet")

    assert sizes(made) == [64, 16, 20]
    assert made.input_shape == (3, 28, 28)
    with np.load(Path(DATA, "miniimagenet28.npz")) as archive:
        own = [set(archive["class_names"][archive["split"] == code].tolist()) for code in (0, 2, 1)]
    assert [names(made, split) for split in SPLITS] == own


@needs("miniimagenet84_jpeg.npz")
def test_miniimagenet_at_84_is_decoded_from_jpegs() -> None:
    made = source("miniimagenet", image_size=84)

    assert sizes(made) == [64, 16, 20]
    assert made.images.shape == (3000, 3, 84, 84)


@needs("miniimagenet84_jpeg.npz")
@needs("miniimagenet28.npz")
def test_both_archives_of_miniimagenet_show_the_same_pictures() -> None:
    large, small = source("miniimagenet", image_size=84).images, source("miniimagenet").images
    with np.load(Path(DATA, "miniimagenet84_jpeg.npz")) as archive:
        rows = archive["row_in_28"][np.argsort(archive["labels"], kind="stable")]

    reduced = large[::100].reshape(-1, 3, 28, 3, 28, 3).mean((3, 5))

    with np.load(Path(DATA, "miniimagenet28.npz")) as archive:
        place = np.argsort(np.argsort(archive["labels"], kind="stable"))
    np.testing.assert_allclose(reduced, small[place[rows[::100]]], atol=1.01)


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_miniimagenet_is_read_from_a_folder(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    colours = iter(np.random.default_rng(0).integers(0, 256, (300, 3)))
    for folder, part in zip(("train", "val", "test"), published.MINIIMAGENET, strict=True):
        for wnid in part:
            place = tmp_path / "miniimagenet" / (f"{folder}/{wnid}" if layout == "split" else wnid)
            place.mkdir(parents=True)
            for number in range(2):
                colour = tuple(next(colours).tolist())
                Image.new("RGB", (84, 84), colour).save(place / f"{number}.png")

    made = source("miniimagenet", image_size=84)

    assert made.input_shape == (3, 84, 84)
    assert sizes(made) == [64, 16, 20]
    assert all("n01855672" not in names(made, split) for split in ("train", "test"))


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
@needs("cifar10.npz")
@needs("mnist.npz")
def test_the_pictures_of_ten_classes_are_divided(name: str) -> None:
    made = source(name)
    with np.load(Path(DATA, f"{name}.npz")) as archive:
        tests = np.bincount(archive["labels"][archive["original_part"] == 1]).tolist()
        others = np.bincount(archive["labels"][archive["original_part"] == 0]).tolist()
        labels = sorted(archive["class_names"].tolist())

    assert sizes(made) == [10, 10, 10]
    counts = {made.roster.class_name(c): int(n) for c, n in enumerate(made.roster.num_examples)}
    for split, part in zip(SPLITS, ("training", "validation", "test"), strict=True):
        assert sorted(names(made, split)) == [f"{label} ({part})" for label in labels]
    assert sorted(n for c, n in counts.items() if "(test)" in c) == sorted(tests)
    assert sorted(n for c, n in counts.items() if "(val" in c) == sorted(o // 5 for o in others)
    assert sum(counts.values()) == sum(tests) + sum(others)


def test_no_picture_is_in_two_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    images = np.arange(250, dtype=np.uint8).repeat(16).reshape(250, 4, 4)
    labels = np.random.default_rng(0).permutation(np.arange(250) % 10)
    np.savez(tmp_path / "mnist.npz", images=images, labels=labels)

    made = source("mnist")

    counts = made.roster.num_examples.reshape(10, 3)
    assert (counts == [16, 4, 5]).all()  # 64, 16 and 20 % of 25
    values = made.images[:, 0, 0, 0]
    assert sorted(values.tolist()) == list(range(250))
    assert (labels[values] == np.repeat(np.arange(10), 25)).all()


@needs("fungi12_28.npz")
def test_fungi_are_divided_by_species() -> None:
    assert sizes(source("fungi")) == [8, 2, 2]


def test_fungi_are_read_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    for species in range(10):
        place = tmp_path / "fungi" / f"species {species}"
        place.mkdir(parents=True)
        Image.new("RGB", (40, 30), (20 * species, 9, 9)).save(place / "one.png")

    made = source("fungi", image_size=32)

    assert made.input_shape == (3, 32, 32)
    assert sizes(made) == [6, 2, 2]


@pytest.mark.parametrize("name", ["cifar_fs", "fc100", "miniimagenet", "mnist"])
@needs("cifar100.npz")
@needs("miniimagenet28.npz")
@needs("mnist.npz")
def test_omniglots_division_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'vinyals' with task.source '{name}'"):
        source(name, splits="vinyals")


def test_other_classes_than_the_published_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    images, labels = np.zeros((4, 3, 3), np.uint8), np.arange(4)
    path = tmp_path / "cifar100.npz"

    np.savez(path, images=images, labels=labels, class_names=["apple", "unicorn", "gnu", "sea"])
    with pytest.raises(DataError, match=r"class 'unicorn' \(and 1 others\).*published.*cifar_fs"):
        source("cifar_fs")
    with pytest.raises(DataError, match="no array `superclasses`"):
        source("fc100")
    np.savez(path, images=images, labels=labels, class_names=["apple", "bear", "bee", "sea"])
    with pytest.raises(DataError, match="none of them in part 'test'"):
        source("cifar_fs")


def test_missing_data_are_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / name))

    for name, file in (
        ("mnist", "mnist.npz'"),
        ("miniimagenet", r"miniimagenet84_jpeg.npz' \(or a folder 'miniimagenet'\)"),
        ("fungi", r"fungi12_28.npz' \(or a folder 'fungi'\)"),
    ):
        with pytest.raises(DataError, match=f"{file} was not found in .*Set DMAML_DATA"):
            source(name)


def test_a_damaged_archive_of_jpegs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    (tmp_path / "miniimagenet84_jpeg.npz").write_bytes(b"PK\x03\x04 no archive")

    with pytest.raises(DataError, match="truncated or not a NumPy archive"):
        source("miniimagenet", image_size=84)


def test_a_broken_picture_of_an_archive_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path))
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    file = io.BytesIO()
    Image.new("RGB", (84, 84)).save(file, "JPEG")
    jpeg = np.frombuffer(file.getvalue(), dtype=np.uint8)
    arrays = {
        "jpeg_bytes": np.concatenate([jpeg, jpeg[:200]]),
        "offsets": np.array([0, len(jpeg), len(jpeg) + 200]),
        "labels": np.array([0, 1]),
        "class_names": np.array(["poncho", "crate"]),
    }
    path = tmp_path / "miniimagenet84_jpeg.npz"

    for without, words in (
        (None, "picture 1 of 2 .class 'crate'. is no JPEG file that can be read"),
        ("offsets", "has no array 'offsets'. Required jpeg_bytes, offsets"),
    ):
        np.savez(path, **{key: value for key, value in arrays.items() if key != without})
        with pytest.raises(DataError, match=words):
            source("miniimagenet", image_size=84)
    np.savez(path, **{**arrays, "labels": np.array([0, 2])})
    with pytest.raises(DataError, match="labels of 0 to 1, found 3 and 0 to 2"):
        source("miniimagenet", image_size=84)
