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
from dmaml.worker.tasks.splits import VINYALS, number_groups, split_fractions, split_vinyals

FILE: Final = "omniglot28.npz"


def omniglot(config: RunConfig, data_dir: Path | None = None) -> ImageSource:
    """Return the source of Omniglot episodes.

    `task.splits`: default = vinyals (1100 / 100 / 423 characters by seed); official = background
    and evaluation, a tenth of the background by seed as validation. With `unit: alphabet` whole
    alphabets are divided: default = 64 / 16 / 20 % of the 50 by seed, official as before with a
    tenth of the 30 background alphabets; vinyals divides characters and is refused.

    Raises:
        ConfigError: vinyals with unit alphabet.
        DataError: the file was not found, is damaged, or is not Omniglot.
    """
    path = locate(FILE, data_dir)
    album = read_npz(path)
    if len(album.names) != sum(VINYALS) or album.split is None or album.alphabets is None:
        raise DataError(
            f"data file {str(path)!r} required {sum(VINYALS)} classes with `split` and "
            f"`alphabets`, found {len(album.names)} classes. Run `dmaml data fetch omniglot`."
        )
    return ImageSource(album, _divide(album, config), config.task, config.run.seed)


def _divide(album: Album, config: RunConfig) -> Int64:
    task, seed = config.task, config.run.seed
    if task.splits == "official":
        return divide(album, config)
    if task.unit == "class":
        return split_vinyals(len(album.names), seed)
    if task.splits == "vinyals":
        raise ConfigError(
            "task.splits 'vinyals' with task.unit 'alphabet': it divides characters, not "
            "alphabets. Set task.splits to default or official."
        )
    names, group = number_groups(album.alphabets or ())
    return split_fractions(len(names), seed)[group]
