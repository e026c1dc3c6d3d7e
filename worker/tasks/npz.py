"""`npz:PATH`: pictures in the project's exchange format, a NumPy archive without pickles.

| key | meaning |
| --- | --- |
| `images` | uint8 `[N, H, W]` (grey) or `[N, H, W, 3]` (RGB) |
| `labels` | integers `[N]`, class ids 0 .. C - 1 |
| `class_names` | text `[C]`; optional |
| `split` | integers `[C]`; optional; 0 = training, 1 = test, 2 = validation |
| `alphabets` or `superclasses` | text `[C]`, the group of each class; optional |

A file without `split` has 64 / 16 / 20 % of its classes (of its alphabets, with `unit: alphabet`)
by seed; one whose `split` has no 2 has a tenth of the training classes by seed as validation.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.sections import TaskSection
from dmaml.common.seeds import Int64
from dmaml.worker.tasks.images import Album, ImageSource, cached, file_digest, make_album
from dmaml.worker.tasks.locate import locate
from dmaml.worker.tasks.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    hold_out,
    number_groups,
    split_fractions,
)

_CODES = np.array([TRAIN, TEST, VALIDATION])  # 0, 1, 2 of the file
_BROKEN = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError, MemoryError),
    *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
)  # what NumPy and zipfile raise for damaged, foreign, encrypted and oversized files
_FORMAT = "Required the keys `images` and `labels` of docs/data.md."


def npz(config: RunConfig, path: str, data_dir: Path | None = None) -> ImageSource:
    """Return the source of an archive; a bare file name is also looked for in the data folders.

    Raises:
        ConfigError: `task.splits` that the file does not allow.
        DataError: no such file, a truncated one, or one of another format.
    """
    file = Path(path).expanduser()
    if not file.is_file() and file.name == path:
        file = _locate(path, data_dir)
    album = read_npz(file)
    return ImageSource(album, divide(album, config), config.task, config.run.seed)


def _locate(name: str, data_dir: Path | None) -> Path:
    try:
        return locate(name, data_dir)
    except DataError as error:
        raise DataError(f"{error} It is not in the current folder either.") from None


def divide(album: Album, config: RunConfig) -> Int64:
    """Return the split of each class for `task.splits` default or official, int64 `[C]`.

    With unit alphabet, whole alphabets are divided and held out.

    Raises:
        ConfigError: `vinyals`, which is Omniglot's; `official` for an album without its own split.
    """
    task, seed = config.task, config.run.seed
    if task.splits == "vinyals":
        raise ConfigError(
            f"task.splits 'vinyals' with task.source {task.source!r}: it is a division of "
            "omniglot. Set task.splits to default."
        )
    if task.splits == "official" and album.split is None:
        raise ConfigError(
            f"task.splits 'official' with task.source {task.source!r}, which has no split of its "
            "own. Set task.splits to default: 64 / 16 / 20 % of the classes by seed."
        )
    group = _groups(album, task)
    if album.split is None:
        return split_fractions(int(group.max()) + 1, seed, _plural(task))[group]
    if (album.split == VALIDATION).any():
        return album.split
    return hold_out_groups(album.split, group, seed)


def hold_out_groups(codes: Int64, group: Int64, seed: int) -> Int64:
    """Return the codes with a tenth of the TRAIN groups made VALIDATION by seed.

    Args:
        codes: int64 `[C]`; a group with unlike ones stays so, and `enroll` refuses it.
        group: int64 `[C]`, 0 .. groups - 1; each class its own where classes are units.
    """
    _, first = np.unique(group, return_index=True)
    held = hold_out(codes[first], seed)[group] == VALIDATION
    return np.where(held & (codes == TRAIN), VALIDATION, codes)


def _plural(task: TaskSection) -> str:
    return "alphabets" if task.unit == "alphabet" else "classes"


def _groups(album: Album, task: TaskSection) -> Int64:
    if task.unit == "alphabet" and album.alphabets is not None:
        return number_groups(album.alphabets)[1]
    return np.arange(len(album.names), dtype=np.int64)


# --- reading --------------------------------------------------------------------------------


def read_npz(path: Path) -> Album:
    """Return the album of an archive, from the cache where it was read before.

    Raises:
        DataError: it is missing, truncated, holds pickles, or has another format.
    """
    try:
        key = f"npz {file_digest(path)}"
    except OSError as error:
        raise DataError(
            f"data file {str(path)!r} cannot be read: {error.strerror or error}. "
            "Give the path of an .npz file."
        ) from None
    return cached(key, lambda: _decode(path))


def read_arrays(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return those of the wanted arrays that an archive has, without unpickling anything.

    Raises:
        DataError: it is missing, truncated, or holds pickles.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in wanted if key in archive.files}
    except _BROKEN as error:
        raise DataError(
            f"data file {str(path)!r} is truncated or not a NumPy archive without pickles "
            f"({str(error).partition('. ')[0]}). Fetch or write it again."
        ) from None


def _decode(path: Path) -> Album:
    arrays = read_arrays(
        path, ("images", "labels", "class_names", "split", "alphabets", "superclasses")
    )
    try:
        return _album(arrays)
    except ValueError as error:
        raise DataError(f"data file {str(path)!r}: {error} {_FORMAT}") from None


def _album(arrays: dict[str, NDArray[Any]]) -> Album:
    """Return the album, or raise ValueError with the array that is wrong."""
    for key in ("images", "labels"):
        if key not in arrays:
            raise ValueError(f"it has no array {key!r}.")
    images, labels = arrays["images"], arrays["labels"]
    grey, colour = images.ndim == 3, images.ndim == 4 and images.shape[-1:] == (3,)
    if images.dtype != np.uint8 or not (grey or colour) or 0 in images.shape:
        raise ValueError(
            f"images required uint8 [N, H, W] or [N, H, W, 3], found {images.dtype} "
            f"{list(images.shape)}."
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels required integers [{len(images)}], found {labels.dtype} {list(labels.shape)}."
        )
    names = arrays.get("class_names")
    if names is None:
        names = np.arange(min(int(labels.max()) + 1, len(labels))).astype(str)
    if names.ndim != 1 or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"labels {labels.min()} to {labels.max()} required class_names for each, found "
            f"{list(names.shape)}."
        )
    groups = arrays.get("alphabets", arrays.get("superclasses"))
    for key, values in (("split", arrays.get("split")), ("alphabets", groups)):
        if values is not None and values.shape != names.shape:
            raise ValueError(
                f"{key} required one entry for each of the {len(names)} classes, found "
                f"{list(values.shape)}."
            )
    alphabets = None if groups is None else groups.astype(str).tolist()
    codes = _codes(arrays.get("split"))
    return make_album(images, labels.astype(np.int64), names.astype(str).tolist(), codes, alphabets)


def _codes(split: NDArray[Any] | None) -> Int64 | None:
    if split is None:
        return None
    if split.dtype.kind not in "iu" or not np.isin(split, (0, 1, 2)).all():
        raise ValueError(f"split required 0, 1 or 2, found {sorted(set(split.tolist()))}.")
    return _CODES[split.astype(np.int64)].astype(np.int64)
