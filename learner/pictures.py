"""Picture files as a run's own source prepares them: size, channels, ink and ground."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dmaml.common.errors import ConfigError, DataError
from dmaml.common.sections import TaskSection
from dmaml.worker.tasks.base import TaskSource
from dmaml.worker.tasks.folder import SUFFIXES, on_white, scan
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.match import equalise_ranks

MAX_PIXELS: Final = 50_000_000  # of a file; 150 MB as RGB
_DARK_GROUND: Final = frozenset({"omniglot", "mnist", "glyphs"})  # light ink on a dark ground
_MIDDLE: Final = 128
_ROWS: Final = 256  # pictures of a source whose ground is looked at

Uint8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Files:
    """Pictures on disk.

    Attributes:
        paths: in the order of classes, then of names.
        labels: the class folder of each; None: the folder is flat.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Preparation:
    """How pictures become examples.

    Attributes:
        channels, height, width: of an example.
        dark_ground: a picture whose median is light has its ink turned light.
        resample: Pillow's filter.
        equalise: see `match.equalise_ranks`.
    """

    channels: int
    height: int
    width: int
    dark_ground: bool
    resample: Image.Resampling = Image.Resampling.LANCZOS
    equalise: bool = False

    @classmethod
    def of(cls, task: TaskSection, source: TaskSource) -> Preparation:
        """Return what a run's source does with its own pictures.

        Raises:
            ConfigError: its examples are no pictures.
        """
        shape = tuple(source.input_shape)
        if source.kind != "classification" or len(shape) != 3 or shape[0] not in (1, 3):
            raise ConfigError(
                f"task.source {task.source!r} gives examples of shape {shape}, which are no "
                "pictures. Give arrays to dmaml.learner (docs/learner.md)."
            )
        is_box = task.source == "miniimagenet" and shape[1] == 28  # the mean of 3x3 pixels of 84
        return cls(
            *shape,
            dark_ground=_has_dark_ground(task.source, source),
            resample=Image.Resampling.BOX if is_box else Image.Resampling.LANCZOS,
            equalise=task.source == "mixed" and bool(task.options.get("equalise", False)),
        )

    def read(self, paths: Sequence[Path]) -> NDArray[np.float32]:
        """Return examples of [0, 1], `[N, channels, height, width]`.

        Raises:
            DataError: a file that is no picture, is damaged or too large.
        """
        pictures = np.stack([self._picture(path) for path in paths])
        if self.equalise:
            pictures = equalise_ranks(pictures)
        scaled: NDArray[np.float32] = np.divide(pictures, np.float32(255), dtype=np.float32)
        return scaled

    def _picture(self, path: Path) -> Uint8:
        picture = read_picture(path).convert("L" if self.channels == 1 else "RGB")
        if self.dark_ground and np.median(np.asarray(picture.convert("L"))) >= _MIDDLE:
            picture = ImageOps.invert(picture)
        fitted = np.asarray(ImageOps.fit(picture, (self.width, self.height), self.resample))
        return fitted[None] if self.channels == 1 else fitted.transpose(2, 0, 1)


def find_pictures(path: Path, what: str, needs_classes: bool) -> Files:
    """Return the pictures of a folder with one folder per class, or of a flat one.

    Args:
        path: the folder, or a single picture where classes are not needed.
        what: "support" or "query", for errors.
        needs_classes: refuse a flat folder.

    Raises:
        DataError: nothing there, no pictures, or another layout.
    """
    path = path.expanduser()
    if path.is_file() and not needs_classes:
        return Files((path,), None)
    if path.is_file():
        raise DataError(
            f"{what}: {str(path)!r} is a file. Required a folder with a folder for each class."
        )
    flat = _flat(path)
    if flat and needs_classes:
        raise DataError(
            f"{what}: folder {str(path)!r} holds pictures without folders for their classes. "
            "Required a folder for each class, with its pictures."
        )
    if flat:
        return Files(tuple(flat), None)
    try:
        tree = scan(path)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    pairs = [(file, "/".join(place)) for place, files in tree.items() for file in files]
    return Files(tuple(file for file, _ in pairs), tuple(label for _, label in pairs))


def read_picture(path: Path) -> Image.Image:
    """Return the first frame of a picture file, upright, without transparency, 8 bits.

    Raises:
        DataError: it is no picture, damaged, or of more than `MAX_PIXELS`: told by its header,
            before any pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, f"{width:,} x {height:,} pixels")
            return on_white(opened)
    except Image.DecompressionBombError:
        raise _too_large(path, "far too many pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        why = getattr(error, "strerror", None) or str(error).split(" '")[0] or "damaged"
        raise DataError(
            f"picture {str(path)!r} cannot be read: {why}. Mend it or take it out."
        ) from None


def _too_large(path: Path, found: str) -> DataError:
    return DataError(
        f"picture {str(path)!r} has {found}; at most {MAX_PIXELS:,} (width x height) are read. "
        "Make it smaller."
    )


def _flat(path: Path) -> list[Path]:
    """Return the pictures right in a folder, unless they lie beside folders of pictures."""
    try:
        entries = sorted(e for e in path.iterdir() if not e.name.startswith((".", "__")))
    except OSError:
        return []  # `scan` says why
    if any(entry.is_dir() for entry in entries):
        return []
    return [e for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]


def _has_dark_ground(name: str, source: TaskSource) -> bool:
    """Tell whether a source's pictures are light ink on a dark ground.

    Known of those named in `_DARK_GROUND`; grey pictures of `npz:PATH` are looked at. Those of
    `folder:PATH` are kept as they are, so one's own are, too.
    """
    if name in _DARK_GROUND:
        return True
    if not name.startswith("npz:") or not isinstance(source, ImageSource):
        return False
    some = source.images[:: max(1, len(source.images) // _ROWS)]
    return source.input_shape[0] == 1 and bool(np.median(some) < _MIDDLE // 2)
