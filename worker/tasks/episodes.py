"""How episodes are drawn from classes: splits, rotations, units, and the draw itself.

A source describes its classes once (`Classes`, divided by `splits.py`); `enroll` of `roster.py`
makes the `Roster` from them (rotated classes, units with shuffled ids); `draw` chooses classes and
examples of `T` episodes, each from its own stream; `to_batch` arranges the pictures. All are pure
functions.

References:
    Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot
    Learning", 2016 (N-way k-shot episodes; rotations by multiples of 90 degrees as new classes).
    Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
    induction", 2015 (Omniglot; alphabets; background and evaluation set).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import DataError, TooFewUnitsError
from dmaml.common.seeds import Int64, Kind, Stream, stream
from dmaml.worker.tasks.base import SplitName, TaskBatch, TaskSource, Units
from dmaml.worker.tasks.roster import Classes, Roster, Unit, digest, enroll
from dmaml.worker.tasks.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    hold_out,
    number_groups,
    split_fractions,
    split_vinyals,
)

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Classes",
    "Draw",
    "Roster",
    "Unit",
    "digest",
    "draw",
    "enroll",
    "hold_out",
    "number_groups",
    "require_episode",
    "split_fractions",
    "split_vinyals",
    "to_batch",
    "turn",
]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    """The choices of `T` episodes.

    Attributes:
        classes: int64 `[T, n_way]`; column = label, in random order.
        units: int64 `[T, n_way]`, the unit of each.
        examples: int64 `[T, n_way, k]`, different numbers of 0 .. num_examples[class] - 1 in a row.
    """

    classes: Int64
    units: Units
    examples: Int64


# --- the draw -------------------------------------------------------------------------------


def draw(roster: Roster, streams: Sequence[Stream], units: Units, n_way: int, k: int) -> Draw:
    """Return the choices of one episode per stream: classes in random order, k examples of each.

    An episode depends on its own stream and on the set of allowed units only. Where units are
    alphabets, one of those with at least n_way classes is chosen, each with the same probability,
    and all of the episode's classes come from it. Where units are splits, an episode has all
    classes of one, in the source's order.

    Args:
        roster: the classes.
        streams: one per episode, used up from where they are.
        units: int64, the allowed units in any order.
        n_way: classes per episode.
        k: examples per class, support and query together.

    Raises:
        DataError: the units have too few classes, or a class too few examples.
    """
    allowed = np.unique(np.asarray(units, dtype=np.int64))
    if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < roster.num_units:
        raise ValueError(f"units must be 0 .. {roster.num_units - 1}, found {units!r}")
    allowed = _eligible(roster, allowed, n_way, k, f"the {len(allowed)} allowed units")
    shape = (len(streams), n_way)
    classes, chosen = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    examples = np.empty((*shape, k), dtype=np.int64)
    for task, one in enumerate(streams):
        chosen[task], classes[task] = _choose_classes(roster, one, allowed, n_way)
        for label, size in enumerate(roster.num_examples[classes[task]].tolist()):
            examples[task, label] = one.choice(size, k)
    return Draw(classes, chosen, examples)


def _choose_classes(
    roster: Roster, one: Stream, allowed: Units, n_way: int
) -> tuple[Int64 | int, Int64]:
    if roster.unit == "class":
        units = allowed[one.choice(len(allowed), n_way)]
        return units, roster.members[units]  # the only class of unit u is members[u]
    unit = int(allowed[one.integers(1, len(allowed))[0]])
    first, end = int(roster.starts[unit]), int(roster.starts[unit + 1])
    if roster.unit == "split":
        return unit, roster.members[first:end]
    return unit, roster.members[first + one.choice(end - first, n_way)]


def _eligible(roster: Roster, units: Units, n_way: int, k: int, where: str) -> Units:
    """Return the units that an episode can start from, or raise for too few or too small ones."""
    if roster.unit == "class":
        count, eligible = len(units), units
    else:
        sizes = roster.starts[units + 1] - roster.starts[units]
        if roster.unit == "split" and not (sizes == n_way).all():
            raise DataError(_not_all(n_way, int(sizes[sizes != n_way][0]), where))
        count, eligible = int(max(sizes, default=0)), units[sizes >= n_way]
    if count < n_way:
        raise TooFewUnitsError(_too_few(roster.unit, n_way, count, where))
    if roster.smallest[eligible].min() < k:
        raise DataError(_too_small(roster, eligible, k))
    return eligible


def _too_few(unit: Unit, n_way: int, count: int, where: str) -> str:
    if count == 0:
        return f"task.n_way is {n_way}, but there are no classes in {where}. Take other data."
    most = "classes of the largest alphabet" if unit == "alphabet" else "classes"
    return (
        f"task.n_way {n_way} exceeds the {count} {most} in {where}. "
        f"Lower task.n_way to {count} or less, or take data with more classes."
    )


def _not_all(n_way: int, count: int, where: str) -> str:
    return (
        f"task.n_way {n_way} with task.unit 'split': a task has all {count} classes of {where}. "
        f"Set task.n_way to {count}, or task.unit to class."
    )


def _too_small(roster: Roster, units: Units, k: int) -> str:
    small = [c for c in _classes_of(roster, units) if roster.num_examples[c] < k]
    worst = min(small, key=lambda c: int(roster.num_examples[c]))
    size = int(roster.num_examples[worst])
    others = f" (and {len(small) - 1} other classes have too few)" if len(small) > 1 else ""
    return (
        f"k_shot + k_query {k} exceeds the {size} examples of class "
        f"{roster.class_name(worst)!r}{others}. Lower task.k_shot, task.k_query or "
        f"evaluation.k_query to at most {size} together, or take these classes out."
    )


def _classes_of(roster: Roster, units: Units) -> Iterator[int]:
    for unit in units:
        yield from roster.members[roster.starts[unit] : roster.starts[unit + 1]].tolist()


def require_episode(
    source: TaskSource, name: SplitName, n_way: int, k_shot: int, k_query: int
) -> None:
    """Raise unless every episode of this shape can be drawn from a split; write nothing.

    A source with a `roster` is checked class by class; one with a method `require_episode` checks
    itself; of any other one episode is drawn.

    Raises:
        DataError: n_way exceeds the classes of the split, or k_shot + k_query a class.
    """
    own = getattr(source, "require_episode", None)
    if own is not None:
        own(name, n_way, k_shot, k_query)
        return
    roster = getattr(source, "roster", None)
    units = source.split(name)
    if not isinstance(roster, Roster):
        source.sample([stream(0, Kind.SOURCE)], units, n_way, k_shot, k_query)
        return
    eligible = _eligible(roster, units, n_way, k_shot + k_query, f"split {name!r}")
    if len(eligible) < len(units) and roster.unit == "alphabet":
        log.warning(
            "%d of %d alphabets of split %r have fewer than n_way %d classes and are left out",
            len(units) - len(eligible), len(units), name, n_way,
        )  # fmt: skip


# --- the batch ------------------------------------------------------------------------------


def to_batch(pictures: NDArray[Any], units: Units, k_shot: int) -> TaskBatch:
    """Return the batch of drawn examples; the first k_shot of each class are the support.

    Args:
        pictures: `[T, n_way, k_shot + k_query, *input_shape]`, uint8 (0 to 255 becomes 0 to 1) or
            float (taken as it is).
        units: int64 `[T, n_way]`.
        k_shot: support examples per class.

    Returns:
        Rows go by label, then example: row `label * k + i`.
    """
    tasks, n_way, k = pictures.shape[:3]
    support_x, query_x = (
        _to_float(part.reshape(tasks, -1, *pictures.shape[3:]))
        for part in (pictures[:, :, :k_shot], pictures[:, :, k_shot:])
    )
    support_y, query_y = (
        np.tile(np.repeat(np.arange(n_way, dtype=np.int64), count), (tasks, 1))
        for count in (k_shot, k - k_shot)
    )
    return TaskBatch(support_x, support_y, query_x, query_y, units)


def turn(pictures: NDArray[np.uint8], turns: Int64) -> None:
    """Turn the pictures of each class anticlockwise by its quarter turns, in place.

    Args:
        pictures: `[T, n_way, k, channels, S, S]`.
        turns: 0 to 3, `[T, n_way]`.
    """
    for number in (1, 2, 3):
        at = turns == number
        pictures[at] = np.rot90(pictures[at], number, axes=(-2, -1))


def _to_float(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.divide(values, np.float32(255), dtype=np.float32)
        return scaled
    return values.astype(np.float32, copy=False)
