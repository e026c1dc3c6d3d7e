from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.errors import ConfigError
from dmaml.common.sections import TaskSection
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import cache, images
from dmaml.worker.tasks.episodes import draw
from dmaml.worker.tasks.images import Album, ImageSource


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def album(num_classes: int = 3, per_class: int = 4, shape: tuple[int, ...] = (2, 2)) -> Album:
    """Return pictures whose first pixel is the class, and whose last is the example."""
    labels = np.arange(num_classes * per_class) % num_classes  # not in the order of the classes
    pictures = np.zeros((len(labels), *shape), dtype=np.uint8)
    pictures[:, 0, 0] = labels.reshape(-1, *(1,) * (len(shape) - 2))
    pictures[:, -1, -1] = (np.arange(len(labels)) // num_classes).reshape(
        -1, *(1,) * (len(shape) - 2)
    )
    return images.make_album(pictures, labels, [f"class {c}" for c in range(num_classes)])


def source(of: Album, **task: Any) -> ImageSource:
    return ImageSource(of, np.zeros(len(of.names), dtype=np.int64), TaskSection(**task), seed=1)


def refuse() -> Album:
    raise AssertionError("decoded again")


# --- albums and the cache -------------------------------------------------------------------


def test_rows_are_put_in_the_order_of_their_classes() -> None:
    made = album(num_classes=3, per_class=2)

    assert made.images.shape == (6, 1, 2, 2)
    assert made.images[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert made.images[:, 0, 1, 1].tolist() == [0, 1, 0, 1, 0, 1]


def test_colour_goes_channels_first() -> None:
    pictures = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)

    made = images.make_album(pictures, np.array([0]), ["a"])

    assert made.images[0, 0].tolist() == [[0, 3], [6, 9]]


def test_the_cache_gives_back_the_same_album_memory_mapped() -> None:
    made = images.make_album(
        np.arange(16, dtype=np.uint8).reshape(4, 2, 2),
        np.array([1, 0, 1, 0]),
        ["a", "b"],
        np.array([0, 2]),
        ["x", "y"],
    )

    first = images.cached("key", lambda: made)
    second = images.cached("key", refuse)

    for found in (first, second):
        assert isinstance(found.images.base, np.memmap)
        assert not found.images.flags.writeable
        assert found.images.tolist() == made.images.tolist()
        assert found.split is not None
        assert found.split.tolist() == [0, 2]
        assert (found.names, found.alphabets) == (("a", "b"), ("x", "y"))
        assert found.content == made.content


def test_another_key_is_decoded_anew() -> None:
    images.cached("key", album)

    with pytest.raises(AssertionError, match="decoded again"):
        images.cached("other key", refuse)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_torn_cache_file_is_made_again(folder: Path, suffix: str) -> None:
    images.cached("key", album)
    (torn,) = (folder / "pictures").glob(f"*{suffix}")
    torn.write_bytes(torn.read_bytes()[:-7])

    again = images.cached("key", album)

    assert again.images.tolist() == album().images.tolist()
    assert images.cached("key", refuse).content == album().content


def test_a_cache_that_cannot_be_written_is_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        found = images.cached("key", album)

    assert found.images.tolist() == album().images.tolist()
    assert "cannot be written" in caplog.text
    assert "set DMAML_CACHE" in caplog.text


def test_several_may_fill_the_cache_at_once(folder: Path) -> None:
    barrier = threading.Barrier(4, timeout=10)
    found: list[Album] = []

    def decode() -> Album:
        barrier.wait()  # all of them decode before any of them writes
        return album()

    def run() -> None:
        found.append(images.cached("key", decode))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [one.images.tolist() for one in found] == [album().images.tolist()] * 4
    assert sorted(p.suffix for p in (folder / "pictures").iterdir()) == [".json", ".npy"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cache.write_whole(tmp_path / "new" / "file", fail)

    assert list((tmp_path / "new").iterdir()) == []


def test_content_tells_pixels_counts_and_splits_apart() -> None:
    pixels = np.zeros((4, 2, 2), dtype=np.uint8)
    other = pixels + np.uint8(1)
    labels, names = np.array([0, 0, 1, 1]), ["a", "b"]

    contents = {
        images.make_album(pixels, labels, names).content,
        images.make_album(other, labels, names).content,
        images.make_album(pixels, np.array([0, 1, 1, 1]), names).content,
        images.make_album(pixels, labels, names, np.array([0, 1])).content,
        images.make_album(pixels, labels, names, None, ["x", "y"]).content,
    }

    assert len(contents) == 5


# --- the source -----------------------------------------------------------------------------


def test_pictures_are_those_of_the_drawn_classes_and_examples() -> None:
    made = source(album(num_classes=5, per_class=4))

    batch = made.sample([stream(1, Kind.TRAIN)], made.split("train"), 3, 1, 3)

    chosen = draw(made.roster, [stream(1, Kind.TRAIN)], made.split("train"), 3, 4)
    rows = np.concatenate(
        [batch.support_x.reshape(3, 1, -1), batch.query_x.reshape(3, 3, -1)], axis=1
    )
    pixels = (rows * 255).round().astype(int)
    assert (pixels[:, :, 0] == chosen.classes[0][:, None]).all()
    assert (pixels[:, :, -1] == chosen.examples[0]).all()


def test_a_turned_class_has_turned_pictures() -> None:
    made = source(album(num_classes=2, per_class=2, shape=(2, 2, 3)), rotations=True)

    batch = made.sample([stream(1, Kind.TRAIN)], made.split("train"), 8, 1, 1)

    for label, unit in enumerate(batch.units[0]):
        base, turn = divmod(int(made.roster.members[unit]), 4)
        pixels = (batch.support_x[0, label] * 255).round().astype(int)
        upright = np.rot90(pixels, -turn, axes=(1, 2))
        assert upright[:, 0, 0].tolist() == [base] * 3
        assert upright[:, 0, 1].tolist() == [0] * 3


def test_oblong_pictures_cannot_be_rotated() -> None:
    with pytest.raises(ConfigError, match="required square pictures, found 2 x 3"):
        source(album(shape=(2, 3)), rotations=True)


def test_the_digest_tells_pictures_splits_and_rotations_apart() -> None:
    plain = source(album())
    turned = source(album(), rotations=True)
    divided = ImageSource(album(), np.array([0, 1, 2]), TaskSection(), seed=1)
    bigger = source(album(per_class=5))

    assert plain.digest == source(album()).digest
    assert len({one.digest for one in (plain, turned, divided, bigger)}) == 4
