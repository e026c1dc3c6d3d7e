"""How classes are divided into train, validation and test: pure functions of counts and the seed.

Each returns int64 codes (TRAIN, VALIDATION or TEST), one per class or, where whole alphabets are
divided, one per alphabet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from dmaml.common.errors import DataError
from dmaml.common.seeds import Int64, Kind, stream

TRAIN, VALIDATION, TEST = range(3)  # places in base.SPLITS
VINYALS: Final = (1100, 100, 423)


def split_fractions(count: int, seed: int, what: str = "classes") -> Int64:
    """Return 64 / 16 / 20 % of `count` as train, validation, test by seed; none of them is empty.

    Raises:
        DataError: fewer than 3.
    """
    if count < 3:
        raise DataError(
            f"found {count} {what}, required at least 3: one each for train, validation and test. "
            f"Add {what}."
        )
    validation, test = max(1, round(0.16 * count)), max(1, round(0.20 * count))
    return split_sizes((count - validation - test, validation, test), seed)


def split_vinyals(count: int, seed: int) -> Int64:
    """Return Vinyals' division of Omniglot, 1100 / 100 / 423 classes by seed.

    Vinyals et al. 2016 have 1,200 training and 423 test classes; as is customary, 100 of the
    1,200 are for validation.

    Raises:
        DataError: other than 1,623 classes.
    """
    if count != sum(VINYALS):
        raise DataError(
            f"splits 'vinyals' required the {sum(VINYALS)} classes of Omniglot, found {count}. "
            "Set task.splits to default."
        )
    return split_sizes(VINYALS, seed)


def hold_out(codes: Int64, seed: int) -> Int64:
    """Return the codes with a tenth of TRAIN (at least one) made VALIDATION by seed.

    Raises:
        DataError: fewer than 2 of TRAIN.
    """
    train = np.flatnonzero(codes == TRAIN)
    if len(train) < 2:
        raise DataError(
            f"found {len(train)} training classes, required at least 2 to hold some out for "
            "validation. Add classes."
        )
    held = stream(seed, Kind.SPLIT).choice(len(train), max(1, round(len(train) / 10)))
    result = codes.copy()
    result[train[held]] = VALIDATION
    return result


def split_sizes(sizes: tuple[int, int, int], seed: int) -> Int64:
    """Return so many of each, by seed."""
    codes = np.empty(sum(sizes), dtype=np.int64)
    codes[stream(seed, Kind.SPLIT).permutation(len(codes))] = np.repeat(np.arange(3), sizes)
    return codes


def number_groups(groups: Sequence[str]) -> tuple[tuple[str, ...], Int64]:
    """Return the different groups in order of appearance, and each entry's number among them."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    return tuple(numbers), np.array([numbers[name] for name in groups], dtype=np.int64)
