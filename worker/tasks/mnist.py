"""`mnist`: handwritten digits, 28x28 grey.

References:
    LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998: the set.
    Investigating MAML: few-shot tasks from its ten classes; see `ten`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.ten import ten_classes

FILE: Final = "mnist.npz"


def mnist(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of episodes of ten digits, the pictures of each divided in three.

    Raises:
        ConfigError: splits vinyals.
        DataError: the file was not found or is damaged, or a part of a class is empty.
    """
    return ten_classes(FILE, config, data_dir)
