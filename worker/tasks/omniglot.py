"""`omniglot`: 1,623 handwritten characters of 50 alphabets, 20 drawings of each, 28x28 grey.

References:
    Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", Science, 2015: the set; background (964) and evaluation (659 characters).
    Vinyals et al., "Matching Networks for One Shot Learning", 2016: division by character.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Int64
from dmaml.worker.tasks.images import Album, ImageSource
from dmaml.worker.tasks.locate import locate
from dmaml.worker.tasks.npz import divide, read_npz
from dmaml.worker.tasks.splits import (
    VINYALS,
    number_groups,
    split_fractions,
    split_sizes,
    split_vinyals,
)

FILE: Final = "omniglot28.npz"


def omniglot(
    config: RunConfig, data_dir: Path | None = None, training_alphabets: int | None = None
) -> ImageSource:
    """Return the source of Omniglot episodes.

    `task.splits`: default = vinyals (1100 / 100 / 423 characters by seed); official = background
    and evaluation, a tenth of the background by seed as validation. With `unit: alphabet` whole
    alphabets are divided: default = 64 / 16 / 20 % of the 50 by seed, official as before with a
    tenth of the 30 background alphabets; vinyals divides characters and is refused.

    Args:
        config: the run's.
        data_dir: where the file is looked for first.
        training_alphabets: how many whole alphabets train, by seed; a third of the others
            validates. None: as `task.splits` says.

    Raises:
        ConfigError: vinyals with unit alphabet; training_alphabets with unit class or with other
            splits than default, or that leaves none for validation or test.
        DataError: the file was not found, is damaged, or is not Omniglot.
    """
    path = locate(FILE, data_dir)
    album = read_npz(path)
    if len(album.names) != sum(VINYALS) or album.split is None or album.alphabets is None:
        raise DataError(
            f"data file {str(path)!r} required {sum(VINYALS)} classes with `split` and "
            f"`alphabets`, found {len(album.names)} classes. Run `dmaml data fetch omniglot`."
        )
    codes = _divide(album, config, training_alphabets)
    return ImageSource(album, codes, config.task, config.run.seed)


def _divide(album: Album, config: RunConfig, training_alphabets: int | None) -> Int64:
    task, seed = config.task, config.run.seed
    names, group = number_groups(album.alphabets or ())
    if training_alphabets is not None:
        return split_sizes(_sizes(config, training_alphabets, len(names)), seed)[group]
    if task.splits == "official":
        return divide(album, config)
    if task.unit == "class":
        return split_vinyals(len(album.names), seed)
    if task.splits == "vinyals":
        raise ConfigError(
            "task.splits 'vinyals' with task.unit 'alphabet': it divides characters, not "
            "alphabets. Set task.splits to default or official."
        )
    return split_fractions(len(names), seed)[group]


def _sizes(config: RunConfig, training: int, count: int) -> tuple[int, int, int]:
    """Return how many alphabets train, validate and test; raises ConfigError."""
    task, option = config.task, f"task.options.training_alphabets {training!r}"
    if task.unit != "alphabet" or task.splits != "default":
        raise ConfigError(
            f"{option} with task.unit {task.unit!r} and task.splits {task.splits!r}: it divides "
            "whole alphabets. Set task.unit to alphabet and task.splits to default."
        )
    if type(training) is not int or not 1 <= training <= count - 2:
        raise ConfigError(f"{option}: required 1 to {count - 2} of the {count} alphabets.")
    validation = max(1, (count - training) // 3)
    return training, validation, count - training - validation
