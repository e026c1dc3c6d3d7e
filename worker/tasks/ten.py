"""Few-shot tasks from sets of few classes: the pictures of each class are divided, not the classes.

Every class is three: its training, its validation and its test pictures. So a task of the test part
has classes that were seen in training, but never its pictures.

References:
    Investigating MAML, on MNIST and CIFAR-10: tasks drawn from ten classes, whose pictures are
    divided into training, validation and test parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Int64
from dmaml.worker.tasks.images import Album, ImageSource, cached, file_digest, make_album
from dmaml.worker.tasks.locate import locate
from dmaml.worker.tasks.npz import read_arrays, read_npz
from dmaml.worker.tasks.splits import TEST, TRAIN, VALIDATION

PARTS: Final = ("training", "validation", "test")
_VALIDATION: Final = 5  # the last fifth of a class's training pictures
_SIXTEEN, _TWENTY = 0.16, 0.20  # of all, where the file does not tell its test pictures


def ten_classes(file: str, config: RunConfig, data_dir: Path | None) -> ImageSource:
    """Return the source of a file in the exchange format, each class divided in three.

    Test pictures are those of `original_part` 1, validation the last fifth of a class's others in
    the order of the file; without `original_part` the last 20 and the 16 % before them. A unit is a
    class with one of its parts.

    Raises:
        ConfigError: `task.splits` vinyals.
        DataError: the file was not found or is damaged, or a part of a class is empty.
    """
    if config.task.splits == "vinyals":
        raise ConfigError(
            f"task.splits 'vinyals' with task.source {config.task.source!r}: it is a division of "
            "omniglot. Set task.splits to default."
        )
    path = locate(file, data_dir)
    whole = read_npz(path)  # names what is wrong with the file
    album = cached(f"parts {file_digest(path)}", lambda: _in_parts(path, whole))
    split = np.tile(np.arange(3), len(whole.names))
    return ImageSource(album, split, config.task, config.run.seed)


def _in_parts(path: Path, whole: Album) -> Album:
    arrays = read_arrays(path, ("labels", "original_part"))
    labels, originals = arrays["labels"].astype(np.int64), arrays.get("original_part")
    if originals is not None and originals.shape != labels.shape:
        raise DataError(
            f"data file {str(path)!r}: original_part required one entry for each of the "
            f"{len(labels)} pictures, found {list(originals.shape)}. Write it again."
        )
    rows = np.argsort(labels, kind="stable")  # the album's order
    sorted_parts = None if originals is None else originals[rows]
    part = _divide(labels[rows], sorted_parts)
    counts = np.bincount(labels[rows] * 3 + part, minlength=3 * len(whole.names))
    if (counts == 0).any():
        empty = int(np.flatnonzero(counts == 0)[0])
        raise DataError(
            f"data file {str(path)!r}: class {whole.names[empty // 3]!r} has no "
            f"{PARTS[empty % 3]} pictures. Take a larger sample of the set."
        )
    names = [f"{name} ({part})" for name in whole.names for part in PARTS]
    pictures = whole.images.transpose(0, 2, 3, 1)
    return make_album(pictures, labels[rows] * 3 + part, names)


def _divide(labels: Int64, originals: Int64 | None) -> Int64:
    """Return the part of each picture; `labels` are sorted."""
    part = np.full(len(labels), TRAIN, dtype=np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if originals is None:
            test = round(_TWENTY * len(own))
            validation = round(_SIXTEEN * len(own))
            part[own[len(own) - test :]] = TEST
            part[own[len(own) - test - validation : len(own) - test]] = VALIDATION
        else:
            part[own[originals[own] == 1]] = TEST
            rest = own[originals[own] != 1]
            part[rest[len(rest) - len(rest) // _VALIDATION :]] = VALIDATION
    return part
