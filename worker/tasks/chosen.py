"""Some of a source's classes, divided anew: what a mixture of a wanted ratio is made of."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Final

import numpy as np

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.worker.tasks.base import TaskSource
from dmaml.worker.tasks.roster import Roster
from dmaml.worker.tasks.splits import TEST, TRAIN, VALIDATION

SHARES: Final = (0.1, 0.2)  # validation and test; 70 % are trained on
NOWHERE: Final = -1  # the split of a class that was not chosen
_CHOICE: Final = 1  # index of the stream; 0 divides the sources themselves


def choose_classes(source: TaskSource, count: int, seed: int, name: str) -> TaskSource:
    """Return a source of `count` classes of another, 70 / 10 / 20 % of them by seed.

    The other classes keep their units, which are in no split. A class and its rotations stay
    together; `count` is that without rotations.

    Args:
        source: one with a roster whose units are classes.
        name: of the source, for errors.

    Raises:
        ConfigError: another source; fewer than 10 classes, or more than there are.
    """
    roster = getattr(source, "roster", None)
    if not isinstance(roster, Roster) or roster.unit != "class":
        raise ConfigError(
            f"task.options.sources has {name!r} with classes {count!r}: only classes of pictures "
            "can be chosen. Set its unit to class, or leave classes out."
        )
    known = len(roster.names)
    if type(count) is not int or not 10 <= count <= known:
        raise ConfigError(
            f"task.options.sources has {name!r} with classes {count!r}: required 10 to {known}, "
            "the classes that it has."
        )
    codes = divide(known, count, seed)
    split = codes[roster.base(roster.members[roster.starts[:-1]])]
    found = copy.copy(source)
    found.roster = replace(roster, unit_split=split)  # type: ignore[attr-defined]
    return found


def divide(known: int, count: int, seed: int) -> Int64:
    """Return TRAIN, VALIDATION, TEST or NOWHERE for each of `known` classes, `count` chosen."""
    validation, test = (round(share * count) for share in SHARES)
    sizes = (count - validation - test, validation, test, known - count)
    codes = np.empty(known, dtype=np.int64)
    order = stream(seed, Kind.SPLIT, _CHOICE).permutation(known)
    codes[order] = np.repeat((TRAIN, VALIDATION, TEST, NOWHERE), sizes)
    return codes
