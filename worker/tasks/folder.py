"""`folder:PATH`: a tree of pictures, one folder per class.

`PATH/class/picture.png`, or `PATH/alphabet/class/picture.png` as in Omniglot's own tree. When the
first folders are called `train`, `validation` (or `val`, `valid`) and `test`, they are the
split, with either layout below them; without one for validation, a tenth of the training classes is
held out by seed. Otherwise 64 / 16 / 20 % of the classes by seed.

Pictures (png, jpg, jpeg, bmp, gif, webp, tif, tiff, ppm; the first frame of an animation) are
turned as their EXIF data say, cut to the square in the middle, resized with Pillow's Lanczos
filter, and kept as they are otherwise: ink is not inverted. Transparency is laid on white. If every
picture is grey, so is the source; else RGB. Other files and names that begin with a dot or `__` are
ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dmaml.common.config import RunConfig
from dmaml.common.errors import DataError
from dmaml.common.seeds import Int64
from dmaml.worker.tasks.images import Album, ImageSource, cached, file_digest, make_album
from dmaml.worker.tasks.npz import divide
from dmaml.worker.tasks.splits import TEST, TRAIN, VALIDATION

SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
)
SPLIT_FOLDERS: Final = {
    **{"train": TRAIN, "training": TRAIN, "test": TEST},
    **{"val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION},
}
_NAMED: Final = 5  # so many culprits are named in an error
_LAYOUT: Final = "Required PATH/class/picture.png or PATH/alphabet/class/picture.png."

Tree = dict[tuple[str, ...], list[Path]]  # folders below PATH -> its pictures


def folder(config: RunConfig, path: str) -> ImageSource:
    """Return the source of a tree of pictures, `task.image_size` pixels square.

    Raises:
        ConfigError: `task.splits` that the tree does not allow.
        DataError: no such folder, no pictures, another layout, or pictures that cannot be read.
    """
    album = read_folder(Path(path).expanduser(), config.task.image_size)
    return ImageSource(album, divide(album, config), config.task, config.run.seed)


def read_folder(root: Path, size: int) -> Album:
    """Return the album of a tree, from the cache where the same files were read before.

    Args:
        root: the folder that holds the class folders.
        size: height and width that pictures are made, pixels.

    Raises:
        DataError: see `folder`.
    """
    tree = scan(root)
    key = hashlib.sha256(f"folder {size}".encode())
    try:
        for place, files in tree.items():
            for file in files:
                key.update(f"{'/'.join((*place, file.name))} {file_digest(file)}\n".encode())
    except OSError as error:
        raise DataError(
            f"picture {str(error.filename)!r} cannot be read: {error.strerror}. "
            "Mend its permissions or take it out."
        ) from None
    return cached(key.hexdigest(), lambda: _decode(root, tree, size))


# --- the tree -------------------------------------------------------------------------------


def scan(root: Path) -> Tree:
    """Return the class folders of a tree with their pictures, both in the order of their names.

    Raises:
        DataError: no folder, no pictures, an empty class folder, or classes at unlike depths.
    """
    if not root.is_dir():
        raise DataError(f"folder {str(root)!r} was not found. Give the path of a folder.")
    tree = dict(_walk(root, ()))
    empty = ["/".join(place) for place, files in tree.items() if not files and place]
    tree = {place: files for place, files in tree.items() if files}
    if not tree:
        raise DataError(
            f"folder {str(root)!r} holds no pictures ({', '.join(sorted(SUFFIXES))}). {_LAYOUT}"
        )
    if empty:
        raise DataError(
            f"folder {str(root)!r}: no pictures in {_some(empty)}. Add some or delete it."
        )
    depths = {place: len(place) - _has_split(tree) for place in tree}
    if len(set(depths.values())) > 1 or not 1 <= min(depths.values()) <= 2:
        shallow = min(depths, key=lambda place: depths[place])
        deep = max(depths, key=lambda place: depths[place])
        found = " and ".join(f"{'/'.join((*p, tree[p][0].name))!r}" for p in (shallow, deep))
        raise DataError(f"folder {str(root)!r}: found {found}. {_LAYOUT}")
    return tree


def _walk(path: Path, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Path]]]:
    """Yield every folder that has pictures or nothing below it, at most 4 deep (links may loop)."""
    try:
        entries = sorted(e for e in path.iterdir() if not e.name.startswith((".", "__")))
    except OSError as error:
        raise DataError(
            f"folder {str(path)!r} cannot be read: {error.strerror}. Mend its permissions."
        ) from None
    folders = [entry for entry in entries if entry.is_dir()]
    pictures = [e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]
    if pictures or not folders:
        yield place, pictures
    if len(place) < 4:
        for entry in folders:
            yield from _walk(entry, (*place, entry.name))


def _has_split(tree: Tree) -> bool:
    """Tell whether the first folders are a split: all called so, with classes below them."""
    tops = {place[0].lower() for place in tree if len(place) > 1}
    codes = {SPLIT_FOLDERS.get(top) for top in tops}
    return {TRAIN, TEST} <= codes <= {TRAIN, VALIDATION, TEST} and all(len(p) > 1 for p in tree)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more


# --- decoding -------------------------------------------------------------------------------


def _decode(root: Path, tree: Tree, size: int) -> Album:
    files = [file for pictures in tree.values() for file in pictures]
    images = np.empty((len(files), size, size, 3), dtype=np.uint8)
    broken = [
        str(file.relative_to(root))
        for row, file in enumerate(files)
        if not _read_into(images[row], file)
    ]
    if broken:
        raise DataError(
            f"folder {str(root)!r}: {len(broken)} of {len(files)} pictures cannot be read: "
            f"{_some(broken)}. Mend them or take them out."
        )
    is_grey = bool((images == images[..., :1]).all())
    labels = np.repeat(np.arange(len(tree)), [len(pictures) for pictures in tree.values()])
    split, names, alphabets = _describe(tree)
    return make_album(images[..., 0] if is_grey else images, labels, names, split, alphabets)


def _read_into(row: NDArray[np.uint8], file: Path) -> bool:
    try:
        row[...] = read_picture(file, len(row))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def _describe(tree: Tree) -> tuple[Int64 | None, list[str], list[str] | None]:
    """Return the split, the name and the alphabet of each class, as its folders tell them."""
    split = None
    places = list(tree)
    if _has_split(tree):
        split = np.array([SPLIT_FOLDERS[place[0].lower()] for place in places], dtype=np.int64)
        places = [place[1:] for place in places]
    names = ["/".join(place) for place in places]
    return split, names, [place[0] for place in places] if len(places[0]) == 2 else None


def read_picture(file: Path, size: int) -> NDArray[np.uint8]:
    """Return one picture, uint8 `[size, size, 3]`; grey has three equal channels.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: as Pillow finds it damaged.
    """
    with Image.open(file) as opened:
        fitted = ImageOps.fit(on_white(opened), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def on_white(opened: Image.Image) -> Image.Image:
    """Return the first frame as RGB: upright by its EXIF data, transparency laid on white.

    Raises:
        OSError, ValueError, SyntaxError: as Pillow finds it damaged.
    """
    picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")
