"""`fungi`: photographs of fungi by species, in colour.

Taken from the folder `fungi` in the data folders (FGVCx Fungi 2018 or any other tree with one
folder per species; `task.image_size` pixels square) or else from `fungi12_28.npz`, 12 species at
28x28: too few for meta-training, a held-out domain for `mixed` and for tests of few ways.

References:
    Schroeder, Cui, "FGVCx Fungi Classification Challenge 2018".
    Yao, Wei, Huang, Li, "Hierarchically Structured Meta-learning", 2019: few-shot tasks from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.worker.tasks.folder import read_folder
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.locate import find_folder, locate
from dmaml.worker.tasks.npz import divide, read_npz

FOLDER: Final = "fungi"
FILE: Final = "fungi12_28.npz"


def fungi(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of episodes of fungi: 64 / 16 / 20 % of the species by seed.

    Raises:
        ConfigError: `task.splits` that the data do not allow.
        DataError: nothing was found, or it is damaged.
    """
    folder = find_folder(FOLDER, data_dir)
    if folder is None:
        album = read_npz(locate(FILE, data_dir, FOLDER))
    else:
        album = read_folder(folder, config.task.image_size)
    return ImageSource(album, divide(album, config), config.task, config.run.seed)
