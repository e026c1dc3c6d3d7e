"""`cifar_fs`: CIFAR-100 with the class division of CIFAR-FS, 64 / 16 / 20; 32x32 in colour.

References:
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: the set.
    Bertinetto et al., "Meta-learning with differentiable closed-form solvers", 2019: the division.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.locate import locate
from dmaml.worker.tasks.npz import read_npz
from dmaml.worker.tasks.published import CIFAR_FS, divide_as_published

FILE: Final = "cifar100.npz"


def cifar_fs(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of CIFAR-FS episodes.

    Superclasses are its alphabets, but they lie across the parts: `unit: alphabet` is refused.

    Raises:
        ConfigError: splits vinyals.
        DataError: the file was not found, is damaged, or has other classes.
    """
    path = locate(FILE, data_dir)
    album = read_npz(path)
    split = divide_as_published(album.names, CIFAR_FS, config, path)
    return ImageSource(album, split, config.task, config.run.seed)
