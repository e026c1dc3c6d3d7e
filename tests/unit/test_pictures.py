"""Pictures of any size and mode become what the run's own source makes of its own."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.sections import TaskSection
from dmaml.learner import load
from dmaml.learner.pictures import MAX_PIXELS, Preparation, find_pictures, read_picture
from dmaml.worker.tasks import build
from dmaml.worker.tasks.locate import find
from tests.unit.saved_runs import config_of, saved

GREY = Preparation(1, 8, 8, dark_ground=False)
COLOUR = Preparation(3, 8, 8, dark_ground=False)
INK = Preparation(1, 8, 8, dark_ground=True)


def half(light: int, dark: int, mode: str = "L", size: tuple[int, int] = (16, 16)) -> Image.Image:
    """Return a picture that is light but for a dark strip at the left."""
    pixels = np.full(size[::-1], light, dtype=np.uint8)
    pixels[:, : size[0] // 4] = dark
    return Image.fromarray(pixels).convert(mode)


MODES = {
    "grey.png": half(200, 40),
    "rgb.png": half(200, 40, "RGB"),
    "rgba.png": half(200, 40, "RGBA"),
    "palette.png": half(200, 40, "P"),
    "grey_alpha.png": half(200, 40, "LA"),
    "sixteen.png": Image.fromarray(np.asarray(half(200, 40)).astype(np.uint16) * 257),
    "photo.bmp": half(200, 40, "RGB"),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    MODES[name].save(tmp_path / name)

    grey, colour = (how.read([tmp_path / name])[0] for how in (GREY, COLOUR))

    assert grey.shape == (1, 8, 8)
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[0, :, -2:], 200 / 255, atol=0.02)
    np.testing.assert_allclose(grey[0, :, 0], 40 / 255, atol=0.08)
    np.testing.assert_array_equal(colour, grey.repeat(3, axis=0))


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [half(200, 40), half(10, 10)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])

    found = GREY.read([tmp_path / "a.gif"])

    np.testing.assert_allclose(found[0, 0, :, -2:], 200 / 255, atol=0.02)


def test_transparency_is_white_and_a_long_picture_is_cut_to_its_middle(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "long.png")

    found = GREY.read([tmp_path / "clear.png", tmp_path / "long.png"])

    np.testing.assert_array_equal(found[0], 1)
    np.testing.assert_allclose(found[1], 1, atol=0.05)  # the filter looks over the edge


def test_where_the_ground_is_dark_dark_ink_on_a_light_ground_is_turned_over(tmp_path: Path) -> None:
    ink, turned = half(255, 0), half(0, 255)
    ink.save(tmp_path / "ink.png")
    turned.save(tmp_path / "turned.png")

    found = INK.read([tmp_path / "ink.png", tmp_path / "turned.png"])
    kept = GREY.read([tmp_path / "ink.png"])

    np.testing.assert_array_equal(found[0], found[1])
    assert found[0, 0, 0, 0] == 1
    assert found[0, 0, 0, -1] == 0
    assert kept[0, 0, 0, 0] == 0


def test_original_omniglot_drawings_become_the_runs_own_pictures_bit_for_bit(
    tmp_path: Path,
) -> None:
    small, large = (find(name, None) for name in ("omniglot28.npz", "omniglot105_bits.npz"))
    if small is None or large is None:
        pytest.skip("needs omniglot28.npz and omniglot105_bits.npz")
    rows = np.arange(0, 32460, 1623)
    with np.load(small) as archive:
        expected = archive["images"][rows]
    with np.load(large) as archive:
        bits = np.unpackbits(archive["images_packed"][rows], axis=1, count=105 * 105)
    for row, ink in zip(rows, bits.reshape(-1, 105, 105), strict=True):
        Image.fromarray(ink == 0).save(tmp_path / f"{row:05}.png")  # black on white, 1 bit

    found = Preparation(1, 28, 28, dark_ground=True).read(sorted(tmp_path.iterdir()))

    np.testing.assert_array_equal(np.rint(found[:, 0] * 255), expected)


def source(name: str, shape: tuple[int, ...], kind: str = "classification") -> Any:
    class Source:
        input_shape = shape

    Source.kind = kind  # type: ignore[attr-defined]
    return TaskSection(source=name), Source()


@pytest.mark.parametrize(
    ("name", "shape", "ground"),
    [
        ("omniglot", (1, 28, 28), True),
        ("mnist", (1, 28, 28), True),
        ("glyphs", (1, 28, 28), True),
        ("cifar_fs", (3, 32, 32), False),
        ("folder:x", (1, 20, 20), False),
    ],
)
def test_sources_say_whether_their_ground_is_dark(
    name: str, shape: tuple[int, ...], ground: bool
) -> None:
    assert Preparation.of(*source(name, shape)) == Preparation(*shape, dark_ground=ground)


@pytest.mark.parametrize(("ground", "ink"), [(0, 255), (255, 0)])
def test_the_ground_of_an_archive_is_looked_at(ground: int, ink: int, tmp_path: Path) -> None:
    images = np.full((12, 8, 8), ground, dtype=np.uint8)
    images[:, :, 0] = ink
    file = tmp_path / "own.npz"
    np.savez(file, images=images, labels=np.arange(12) // 2)
    task = {"source": f"npz:{file}", "n_way": 2, "k_shot": 1, "k_query": 1}
    archive = build(from_mapping({"task": task}))

    how = Preparation.of(TaskSection(source=f"npz:{file}"), archive)

    assert how == Preparation(1, 8, 8, dark_ground=ground == 0)


def test_a_mixed_runs_pictures_are_equalised(tmp_path: Path) -> None:
    half(200, 40).save(tmp_path / "a.png")

    found = replace(GREY, equalise=True).read([tmp_path / "a.png"])

    expected = np.arange(64) * 255 // 63
    np.testing.assert_array_equal(np.rint(np.sort(found.ravel()) * 255), expected)


def test_examples_that_are_no_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(1,\), which are no pictures"):
        Preparation.of(*source("sinusoid", (1,), "regression"))


# --- folders ------------------------------------------------------------------------------------


def folder(root: Path, *classes: str, per_class: int = 2) -> Path:
    """Write class folders of drawings that differ."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 255, (28, 28), dtype=np.uint8) // 2  # dark ground
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_folder_and_its_arrays_give_the_same(tmp_path: Path) -> None:
    learner = load(saved(config_of(), tmp_path / "run"))
    support = folder(tmp_path / "support", "a", "b", "c")
    query = folder(tmp_path / "query", "c", "a")
    arrays = {
        root: np.stack([np.asarray(Image.open(file)) for file in sorted(root.rglob("*.png"))])
        for root in (support, query)
    }

    adapted = learner.adapt(support)
    found = adapted.predict(query)

    expected = learner.adapt(arrays[support], list("aabbcc")).predict(arrays[query])
    assert found.labels == expected.labels
    assert found.classes == ("a", "b", "c")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    one = adapted.predict(str(query / "c" / "1.png"))
    np.testing.assert_allclose(one.probabilities[0], found.probabilities[3], atol=1e-6)


def test_files_go_by_class_and_name_or_lie_flat(tmp_path: Path) -> None:
    root = folder(tmp_path / "t", "b", "a")

    classed = find_pictures(root, "query", needs_classes=False)
    flat = find_pictures(root / "a", "query", needs_classes=False)

    assert [str(path.relative_to(root)) for path in classed.paths] == [
        "a/0.png", "a/1.png", "b/0.png", "b/1.png",
    ]  # fmt: skip
    assert classed.labels == ("a", "a", "b", "b")
    assert [path.name for path in flat.paths] == ["0.png", "1.png"]
    assert flat.labels is None
    with pytest.raises(
        DataError, match=r"support: folder '.*a' holds pictures without folders for"
    ):
        find_pictures(root / "a", "support", needs_classes=True)


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    root = folder(tmp_path / "t", "a")
    (root / "b").mkdir()

    for path, sentence in (
        (tmp_path / "empty", "support: folder '.*empty' holds no pictures"),
        (tmp_path / "nowhere", "support: folder '.*nowhere' was not found"),
        (root, "support: folder '.*t': no pictures in 'b'. Add some or delete it."),
    ):
        with pytest.raises(DataError, match=sentence):
            find_pictures(path, "support", needs_classes=True)


def header(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    about = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_100, 10_000, 20_000])
def test_a_gigantic_picture_is_refused_by_its_header(side: int, tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    file.write_bytes(header(side, side))

    with pytest.raises(DataError, match=f"huge.png' has .*at most {MAX_PIXELS:,}"):
        read_picture(file)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    half(200, 40).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    for name, content in (("cut.png", data[:40]), ("text.png", b"hello"), ("none.png", b"")):
        (tmp_path / name).write_bytes(content)

        with pytest.raises(DataError, match=rf"picture '.*{name}' cannot be read: .*Mend it"):
            read_picture(tmp_path / name)
