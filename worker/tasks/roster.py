"""Which classes tasks are made of: rotated classes, units with shuffled ids, and their splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmaml.common.errors import DataError
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.worker.tasks.base import SPLITS, SplitName, Units
from dmaml.worker.tasks.splits import number_groups

Unit = Literal["class", "alphabet", "split"]


@dataclass(frozen=True)
class Classes:
    """The classes of a source, before rotations and units.

    Attributes:
        names: a name for people, per class.
        num_examples: int64 `[C]`.
        split: int64 `[C]`, TRAIN, VALIDATION or TEST.
        alphabets: the group of each class, where the source has groups.
    """

    names: tuple[str, ...]
    num_examples: Int64
    split: Int64
    alphabets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Roster:
    """Every class that tasks are made of, and its unit. `C` classes, `U` units.

    With rotations, class `4 * base + r` is the base class turned by `r` quarter turns; without,
    class ids are those of the base classes.

    Attributes:
        names: per base class.
        num_turns: 4 with rotations, else 1.
        num_examples: int64 `[C]`.
        unit: what a unit is.
        unit_names: per unit.
        unit_split: int64 `[U]`, TRAIN, VALIDATION or TEST.
        members: int64 `[C]`, the classes in the order of their units; unit u holds
            `members[starts[u] : starts[u + 1]]`.
        starts: int64 `[U + 1]`.
        smallest: int64 `[U]`, examples of the smallest class of each unit.
        origin: int64 `[U]`, the alphabet of each class where units are classes and alphabets known.
    """

    names: tuple[str, ...]
    num_turns: int
    num_examples: Int64
    unit: Unit
    unit_names: tuple[str, ...]
    unit_split: Int64
    members: Int64
    starts: Int64
    smallest: Int64
    origin: Units | None

    @property
    def num_units(self) -> int:
        """Number of units U."""
        return len(self.unit_names)

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        return np.flatnonzero(self.unit_split == SPLITS.index(name)).astype(np.int64)

    def base(self, classes: Int64) -> Int64:
        """Return the base class of each class, same shape."""
        return classes // self.num_turns

    def turns(self, classes: Int64) -> Int64:
        """Return the quarter turns (0 to 3, anticlockwise) of each class, same shape."""
        return classes % self.num_turns

    def class_name(self, number: int) -> str:
        """Return a name for people of a class."""
        base, turn = divmod(number, self.num_turns)
        return _turned(self.names[base], turn)


def enroll(classes: Classes, unit: Unit, rotations: bool, seed: int) -> Roster:
    """Return the roster: rotated classes, units with ids shuffled by the seed, splits.

    A rotated class has the split (and the alphabet) of its base class.

    Raises:
        DataError: unit 'alphabet' without alphabets, or with one in two splits.
    """
    num_turns = 4 if rotations else 1
    base = np.repeat(np.arange(len(classes.names)), num_turns)
    origin = None
    if unit == "alphabet":
        names, group = _alphabets(classes)
        natural = group[base]
    elif unit == "split":
        present, natural = np.unique(classes.split[base], return_inverse=True)
        names = tuple(SPLITS[code] for code in present)
    else:
        names = tuple(_turned(name, turn) for name in classes.names for turn in range(num_turns))
        natural = np.arange(len(base))
        origin = None if classes.alphabets is None else number_groups(classes.alphabets)[1][base]
    shuffled = stream(seed, Kind.UNITS).permutation(len(names))  # unit id -> natural number
    id_of = np.argsort(shuffled)
    unit_of = id_of[natural]
    members = np.argsort(unit_of, kind="stable").astype(np.int64)
    starts = np.searchsorted(unit_of[members], np.arange(len(names) + 1)).astype(np.int64)
    num_examples = classes.num_examples[base]
    return Roster(
        names=classes.names,
        num_turns=num_turns,
        num_examples=num_examples,
        unit=unit,
        unit_names=tuple(names[i] for i in shuffled),
        unit_split=classes.split[base][members[starts[:-1]]],
        members=members,
        starts=starts,
        smallest=np.minimum.reduceat(num_examples[members], starts[:-1]),
        origin=None if origin is None else origin[members],
    )


def _alphabets(classes: Classes) -> tuple[tuple[str, ...], Int64]:
    if classes.alphabets is None:
        raise DataError(
            "task.unit 'alphabet' required a source with alphabets, found none. "
            "Set task.unit to class."
        )
    names, group = number_groups(classes.alphabets)
    for number, name in enumerate(names):
        codes = np.unique(classes.split[group == number])
        if len(codes) > 1:
            raise DataError(
                f"task.unit 'alphabet' required each alphabet in one split, found {name!r} in "
                f"{' and '.join(SPLITS[code] for code in codes)}. Set task.unit to class."
            )
    return names, group


def _turned(name: str, turn: int) -> str:
    return f"{name} turned {90 * turn}°" if turn else name


def digest(roster: Roster, content: str) -> str:
    """Return the SHA-256 of the examples' own digest and of how the roster divides them."""
    total = hashlib.sha256(content.encode())
    arrays = (roster.num_examples, roster.unit_split, roster.members, roster.starts)
    for array in arrays:
        total.update(np.ascontiguousarray(array, dtype="<i8").tobytes() + b"|")
    total.update(f"{roster.num_turns} {roster.unit}".encode())
    return total.hexdigest()
