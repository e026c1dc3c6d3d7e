"""A folder of pictures as a task source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmaml.common.errors import DataError
from dmaml.worker.tasks.base import SPLITS
from dmaml.worker.tasks.episodes import require_episode
from dmaml.worker.tasks.folder import read_folder, read_picture
from tests.unit.built_sources import images_of, names


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMAML_CACHE", str(tmp_path / "cache"))


def save(path: Path, colour: Any = 100, mode: str = "L", size: tuple[int, int] = (6, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def tree(root: Path, *classes: str, per_class: int = 2) -> Path:
    for number, name in enumerate(classes):
        for example in range(per_class):
            save(root / name / f"{example}.png", colour=10 * number + example)
    return root


def test_classes_are_the_folders(tmp_path: Path) -> None:
    album = read_folder(tree(tmp_path / "t", "b", "a", "c"), size=4)

    assert album.names == ("a", "b", "c")
    assert album.num_examples.tolist() == [2, 2, 2]
    assert album.images.shape == (6, 1, 4, 4)
    assert album.images[:, 0, 0, 0].tolist() == [10, 11, 0, 1, 20, 21]
    assert album.alphabets is None


def test_two_levels_are_alphabets(tmp_path: Path) -> None:
    album = read_folder(tree(tmp_path / "t", "x/1", "x/2", "y/1"), size=4)

    assert album.names == ("x/1", "x/2", "y/1")
    assert album.alphabets == ("x", "x", "y")


@pytest.mark.parametrize("below", ["", "x/"])
def test_folders_called_train_and_test_are_the_split(tmp_path: Path, below: str) -> None:
    root = tree(tmp_path / "t", *(f"{s}/{below}{c}" for s, c in (("train", 1), ("train", 2))))
    tree(root, f"val/{below}3", f"Test/{below}4")

    source = images_of(f"folder:{root}", image_size=4)

    expected = [[f"{below}1", f"{below}2"], [f"{below}3"], [f"{below}4"]]
    assert [names(source, name) for name in SPLITS] == expected


def test_grey_pictures_saved_as_colour_are_grey(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a", "b")
    save(root / "b" / "x.PNG", (7, 7, 7), "RGB")

    assert read_folder(root, size=4).images.shape == (5, 1, 4, 4)


def test_one_coloured_picture_makes_all_rgb(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a", "b")
    save(root / "b" / "x.bmp", (7, 8, 9), "RGB")

    album = read_folder(root, size=4)

    assert album.images.shape == (5, 3, 4, 4)
    assert album.images[-1, :, 0, 0].tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "JPG"]
)
def test_formats_are_read(tmp_path: Path, suffix: str) -> None:
    picture = read_picture(save(tmp_path / f"x.{suffix}", 100), size=5)

    assert picture.shape == (5, 5, 3)
    assert abs(picture.astype(int) - 100).max() <= 2


def test_the_square_in_the_middle_is_taken(tmp_path: Path) -> None:
    wide = np.zeros((4, 12), dtype=np.uint8)
    wide[:, 4:8] = 200
    Image.fromarray(wide).save(tmp_path / "x.png")

    assert (read_picture(tmp_path / "x.png", size=4) == 200).all()


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 0)), ("LA", (0, 0))])
def test_transparency_lies_on_white(tmp_path: Path, mode: str, colour: Any) -> None:
    assert (read_picture(save(tmp_path / "x.png", colour, mode), size=4) == 255).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x4021, dtype=np.uint16)).save(tmp_path / "x.png")

    assert (read_picture(tmp_path / "x.png", size=4) == 0x40).all()


def test_exif_orientation_is_followed(tmp_path: Path) -> None:
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:4] = 255  # white above, stored; shown turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(half).save(tmp_path / "x.png", exif=exif)

    picture = read_picture(tmp_path / "x.png", size=8)

    assert picture[0].max() == 0
    assert picture[-1].min() == 255


def test_other_files_and_hidden_folders_are_ignored(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a", ".git", "__MACOSX")
    (root / "README.md").write_text("hello")
    (root / "a" / "Thumbs.db").write_bytes(b"x")
    save(root / "a" / "._0.png")

    album = read_folder(root, size=4)

    assert album.names == ("a",)
    assert album.num_examples.tolist() == [2]


def test_a_changed_picture_is_read_anew(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a", "b")
    before = read_folder(root, size=4)
    save(root / "a" / "0.png", 222)

    after = read_folder(root, size=4)

    assert after.images[0].max() == 222
    assert after.content != before.content
    assert read_folder(root, size=5).images.shape[-1] == 5


def test_a_loop_of_links_ends_in_a_sentence(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a")
    (root / "b").mkdir()
    (root / "b" / "again").symlink_to(root, target_is_directory=True)

    with pytest.raises(DataError, match=r"Required PATH/class/picture\.png"):
        read_folder(root, size=4)


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a", "b")
    (root / "a" / "broken.png").write_bytes(b"not a picture")
    whole = save(root / "b" / "cut.png", size=(64, 64))
    whole.write_bytes(whole.read_bytes()[:60])

    with pytest.raises(
        DataError, match=r"2 of 6 pictures cannot be read: 'a/broken\.png', 'b/cut\.png'\. Mend"
    ):
        read_folder(root, size=4)


def test_folders_that_do_not_fit_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    flat = save(tmp_path / "flat" / "1.png").parent
    mixed = tree(tmp_path / "mixed", "a", "x/b")
    deep = tree(tmp_path / "deep", "x/y/z")
    hollow = tree(tmp_path / "hollow", "a", "b")
    (hollow / "nothing").mkdir()

    for path, words in (
        (tmp_path / "none", r"none' was not found"),
        (save(tmp_path / "file.png"), r"file\.png' was not found"),
        (tmp_path / "empty", r"holds no pictures \(\.bmp, "),
        (flat, r"found '1\.png'"),
        (mixed, r"found 'a/0\.png' and 'x/b/0\.png'"),
        (deep, r"found 'x/y/z/0\.png'"),
        (hollow, "no pictures in 'nothing'"),
    ):
        with pytest.raises(DataError, match=words):
            read_folder(path, size=4)


def test_a_class_folder_with_too_few_pictures_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", *(f"c{i:02}" for i in range(20)), per_class=3)
    (root / "c07" / "2.png").unlink()
    source = images_of(f"folder:{root}", image_size=4)
    (split,) = (name for name in SPLITS if "c07" in names(source, name))

    with pytest.raises(DataError, match="exceeds the 2 examples of class 'c07'"):
        require_episode(source, split, 2, 1, 2)
