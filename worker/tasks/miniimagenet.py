"""`miniimagenet`: 100 classes of ImageNet, divided 64 / 16 / 20, `task.image_size` pixels square.

The pictures are taken from the first of these that is found in the data folders:

1. `miniimagenet28.npz`, in the exchange format with `wnids`, where `task.image_size` is 28;
2. the folder `miniimagenet`, a tree of pictures with one folder per class, named by its WordNet id,
   with or without folders train, val and test above them (600 pictures each in the whole set);
3. `miniimagenet84_jpeg.npz`: picture i is the JPEG file `jpeg_bytes[offsets[i]:offsets[i + 1]]`;
   `labels`, `class_names` and `wnids` as in the exchange format.

References:
    Vinyals et al., "Matching Networks for One Shot Learning", 2016: the set.
    Ravi, Larochelle, "Optimization as a Model for Few-Shot Learning", 2017: the division.
"""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmaml.common.config import RunConfig
from dmaml.common.errors import DataError
from dmaml.worker.tasks.folder import read_folder
from dmaml.worker.tasks.images import Album, ImageSource, cached, file_digest, make_album
from dmaml.worker.tasks.locate import find, find_folder, locate
from dmaml.worker.tasks.npz import read_arrays, read_npz
from dmaml.worker.tasks.published import MINIIMAGENET, divide_as_published

SMALL: Final = "miniimagenet28.npz"
FOLDER: Final = "miniimagenet"
JPEG: Final = "miniimagenet84_jpeg.npz"
_KEYS: Final = ("jpeg_bytes", "offsets", "labels", "class_names")


def miniimagenet(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of miniImageNet episodes.

    Raises:
        ConfigError: splits vinyals.
        DataError: nothing was found, it is damaged, or it has other classes.
    """
    size = config.task.image_size
    folder = find_folder(FOLDER, data_dir)
    if size == 28 and (small := find(SMALL, data_dir)) is not None:
        path, album = small, read_npz(small)
        wnids = _wnids(small, len(album.names))
    elif folder is not None:
        path, album = folder, replace(read_folder(folder, size), alphabets=None)
        wnids = [name.rpartition("/")[2] for name in album.names]
    else:
        path = locate(JPEG, data_dir, FOLDER)
        album = read_jpegs(path, size)
        wnids = _wnids(path, len(album.names))
    split = divide_as_published(wnids, MINIIMAGENET, config, path)
    return ImageSource(album, split, config.task, config.run.seed)


def read_jpegs(path: Path, size: int) -> Album:
    """Return the album of an archive of JPEG files, each made `size` pixels square.

    Raises:
        DataError: it is truncated or of another format, or has a broken picture.
    """
    key = f"jpegs {size} {file_digest(path)}"
    return cached(key, lambda: _decode(path, size))


def _decode(path: Path, size: int) -> Album:
    arrays = read_arrays(path, _KEYS)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise DataError(
            f"data file {str(path)!r} has no array {missing[0]!r}. Required {', '.join(_KEYS)} of "
            "docs/tasks.md."
        )
    data, offsets, labels, names = arrays.values()
    if offsets.shape != (len(labels) + 1,) or not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(
            f"data file {str(path)!r} required {len(labels) + 1} offsets and labels of 0 to "
            f"{len(names) - 1}, found {len(offsets)} and {labels.min()} to {labels.max()}. "
            "Write it again."
        )
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for number, (first, end) in enumerate(pairwise(offsets.tolist())):
        try:
            images[number] = _picture(data[first:end].tobytes(), size)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"data file {str(path)!r}: picture {number} of {len(labels)} (class "
                f"{str(names[labels[number]])!r}) is no JPEG file that can be read: {error}. "
                "Fetch or write it again."
            ) from None
    return make_album(images, labels.astype(np.int64), names.astype(str).tolist())


def _picture(jpeg: bytes, size: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(jpeg)) as picture:
        colours = picture.convert("RGB")
    if colours.size != (size, size):
        colours = colours.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(colours)


def _wnids(path: Path, count: int) -> list[str]:
    wnids = read_arrays(path, ("wnids",)).get("wnids")
    if wnids is None or wnids.shape != (count,):
        raise DataError(
            f"data file {str(path)!r} required `wnids`, the WordNet id of each of its {count} "
            "classes, by which miniImageNet is divided. Write it again with them."
        )
    return [str(name) for name in wnids]
