"""Letters for the classes of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmaml.report.tasks import letter


@dataclass(frozen=True)
class Marks:
    """How the classes of a task are called in pictures.

    Attributes:
        names: by label.
        letters: by label: the name itself where all are one character.
        order: the labels in the order of the names.
    """

    names: tuple[str, ...]
    letters: tuple[str, ...]
    order: tuple[int, ...]

    @property
    def are_names(self) -> bool:
        """Whether the letters say all."""
        return self.names == self.letters


def marks(names: Sequence[str]) -> Marks:
    """Return letters for classes, in the order of their names.

    What all names end with after a space is left out: `7 (test)` is `7`.
    """
    ends = {name.partition(" ")[1:] for name in names}
    short = tuple(name.partition(" ")[0] if len(ends) == 1 else name for name in names)
    order = tuple(sorted(range(len(short)), key=lambda label: short[label]))
    if all(len(name) == 1 for name in short):
        return Marks(short, short, order)
    return Marks(short, tuple(letter(order.index(label)) for label in range(len(short))), order)
