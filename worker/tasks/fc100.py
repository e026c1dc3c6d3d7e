"""`fc100`: CIFAR-100 divided by superclass, 60 / 20 / 20 classes; 32x32 in colour.

References:
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: the set.
    Oreshkin, Rodriguez, Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot
    learning", 2018: the division, so that no superclass is in two parts.
"""

from __future__ import annotations

from pathlib import Path

from dmaml.common.config import RunConfig
from dmaml.common.errors import DataError
from dmaml.worker.tasks.cifar_fs import FILE
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.locate import locate
from dmaml.worker.tasks.npz import read_npz
from dmaml.worker.tasks.published import FC100, divide_as_published


def fc100(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of FC100 episodes; superclasses are its alphabets.

    Raises:
        ConfigError: splits vinyals.
        DataError: the file was not found, is damaged, or has no or other superclasses.
    """
    path = locate(FILE, data_dir)
    album = read_npz(path)
    if album.alphabets is None:
        raise DataError(
            f"data file {str(path)!r} has no array `superclasses`, by which FC100 is divided. "
            "Write it again with the superclass of each class."
        )
    split = divide_as_published(album.alphabets, FC100, config, path)
    return ImageSource(album, split, config.task, config.run.seed)
