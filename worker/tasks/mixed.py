"""`mixed`: several sources of pictures as one, made alike in size and channels.

    task:
      source: mixed
      image_size: 28
      options:
        sources: [omniglot, textures, {source: miniimagenet, rotations: true}]
        channels: 1        # grey; default: colour where any of them has it
        equalise: true     # the same pixel values in every picture
        across: false      # true: a task's classes come from all sources together
        shares: units      # tasks of a source: by the number of its units; default: equal
        only: {train: omniglot}    # the source that a split is taken from; default: all

References:
    Yao, Wei, Huang, Li, "Hierarchically Structured Meta-learning", 2019 (four sets of pictures, the
    classes of a task from one of them, each set with the same probability).
    Vuorio, Sun, Hu, Lim, "Multimodal Model-Agnostic Meta-Learning via Task-Aware Modulation",
    2019 (up to five sets of pictures, brought to one size).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, TooFewUnitsError
from dmaml.common.sections import TaskSection
from dmaml.common.seeds import Int64, Kind, Stream, stream
from dmaml.worker.tasks import episodes
from dmaml.worker.tasks.base import SplitName, TaskBatch, TaskSource, Units
from dmaml.worker.tasks.chosen import choose_classes
from dmaml.worker.tasks.images import ImageSource
from dmaml.worker.tasks.match import VERSION, match
from dmaml.worker.tasks.only import checked_only
from dmaml.worker.tasks.roster import Roster

# what an entry of `sources` may say
_OWN = ("source", "splits", "unit", "rotations", "options", "classes")
SHARES = ("equal", "units")
_SHUFFLE = 1  # index of the stream that numbers the units; 0 numbers those of the sources

log = logging.getLogger(__name__)


@final
class Mixed:
    """Tasks of several sources, each unit with its origin (a `TaskSource`).

    An entry of `sources` is what `task.source` takes, or a mapping with `source` and any of
    splits, unit, rotations (those of `task` where it has none), options, and classes (so many of
    its classes, divided anew; see `chosen`).

    Args:
        config: the run's; pictures are made `task.image_size` pixels square.
        data_dir: where data files are looked for first.
        sources: at least two.
        channels: 1 or 3; None: 3 where any source has colour.
        equalise: replace each pixel by its rank, so that neither brightness nor contrast tells
            the origins apart; see `match.equalise_ranks`.
        across: classes of a task come from all sources together; else from one of those that
            have enough classes.
        shares: which one: equal (each with the same probability) or units (in proportion to its
            allowed units, so that each unit is seen as often). Across it is always units.
        only: the source that a split's units are taken from, by the split's name.

    Raises:
        ConfigError: unsuitable options.
        DataError: what the sources raise.
    """

    kind: Literal["classification", "regression"] = "classification"

    def __init__(
        self,
        config: RunConfig,
        data_dir: Path | None = None,
        *,
        sources: Sequence[str | dict[str, Any]],
        channels: int | None = None,
        equalise: bool = False,
        across: bool = False,
        shares: str = "equal",
        only: dict[str, str] | None = None,
    ) -> None:
        entries, classes = _entries(sources, config.task)
        made = [
            _build(config, entry, count, data_dir)
            for entry, count in zip(entries, classes, strict=True)
        ]
        colours = channels or max(source.input_shape[0] for source in made)
        if colours not in (1, 3):
            raise ConfigError(f"task.options.channels {channels!r}: required 1 or 3, or null.")
        if any(entry.unit == "split" for entry in entries):
            raise ConfigError(
                "task.unit 'split' with task.source 'mixed': it is for one source. Set it to class."
            )
        if shares not in SHARES:
            raise ConfigError(f"task.options.shares {shares!r}: required {' or '.join(SHARES)}.")
        if across and any(entry.unit == "alphabet" for entry in entries):
            raise ConfigError(
                "task.options.across true with unit 'alphabet': the classes of a task then share "
                "one alphabet. Set across to false or unit to class."
            )
        self._size, self._equalise, self._across = config.task.image_size, equalise, across
        self._by_units = shares == "units"
        self.input_shape: tuple[int, ...] = (colours, self._size, self._size)
        self._sources = [self._ready(source) for source in made]
        self.origin_names = tuple(entry.source for entry in entries)
        self._only = checked_only(only, "source", self.origin_names)
        counts = [source.num_units for source in made]
        self._first = np.cumsum([0, *counts[:-1]])
        self.num_units = sum(counts)
        # unit id -> place among the units of all sources, one source after the other
        self._place = stream(config.run.seed, Kind.UNITS, _SHUFFLE).permutation(self.num_units)
        self._unit = np.argsort(self._place)  # and back
        self.origin: Units | None = np.repeat(np.arange(len(made)), counts)[self._place]
        about = f"mixed {VERSION} {self.input_shape} {equalise} {across} {config.run.seed} "
        about += "units " * self._by_units
        about += f"{classes} {sorted(self._only.items())} " * bool(any(classes) or self._only)
        self.digest = hashlib.sha256(
            (about + " ".join(s.digest for s in made)).encode()
        ).hexdigest()

    def num_outputs(self, n_way: int) -> int:
        """Return n_way."""
        return n_way

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        parts = [first + own for first, own in zip(self._first, self._splits(name), strict=True)]
        return np.sort(self._unit[np.concatenate(parts)])

    def unit_name(self, unit: int) -> str:
        """Return a name for people, such as `omniglot: Greek/character03`."""
        number = int(self._place[unit])
        source = int(np.searchsorted(self._first, number, side="right")) - 1
        name = self._sources[source].unit_name(number - int(self._first[source]))
        return f"{self.origin_names[source]}: {name}"

    def require_episode(self, name: SplitName, n_way: int, k_shot: int, k_query: int) -> None:
        """Raise DataError unless every episode of this shape can be drawn from a split.

        Warn of sources that have too few classes for any task of it.
        """
        own = self._splits(name)
        eligible = self._eligible(own, n_way)
        few = {number for number, part in enumerate(own) if len(part)} - set(eligible.tolist())
        for number in sorted(few):
            log.warning(
                "source %r of mixed is left out of split %r: its %d classes are fewer than n_way "
                "%d", self.origin_names[number], name, len(own[number]), n_way,
            )  # fmt: skip
        for number in eligible:
            ways = min(n_way, len(own[number])) if self._across else n_way
            episodes.require_episode(self._sources[number], name, ways, k_shot, k_query)

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode per stream, drawn from `units` alone.

        Raises:
            DataError: the units have too few classes or examples.
        """
        own = self._own(units)
        eligible = self._eligible(own, n_way)
        k = k_shot + k_query
        pictures = np.empty((len(streams), n_way, k, *self.input_shape), dtype=np.uint8)
        drawn = np.empty((len(streams), n_way), dtype=np.int64)
        if self._across:
            self._draw_across(streams, own, pictures, drawn, k_shot)
        else:
            sizes = [len(own[number]) if self._by_units else 1 for number in eligible]
            ends = np.cumsum(sizes)
            drawn_units = [int(one.integers(1, int(ends[-1]))[0]) for one in streams]
            chosen = eligible[np.searchsorted(ends, drawn_units, side="right")]
            for number in np.unique(chosen):
                tasks = np.flatnonzero(chosen == number)
                part = [streams[int(task)] for task in tasks]
                found = self._draw(int(number), part, own[number], n_way, (k_shot, k_query))
                pictures[tasks], drawn[tasks] = found
        return episodes.to_batch(pictures, drawn, k_shot)

    def _draw_across(
        self,
        streams: Sequence[Stream],
        own: list[Units],
        pictures: NDArray[np.uint8],
        drawn: Units,
        k_shot: int,
    ) -> None:
        n_way, k = pictures.shape[1:3]
        units = np.concatenate(own)
        source_of = np.repeat(np.arange(len(own)), [len(part) for part in own])
        for task, one in enumerate(streams):
            chosen = one.choice(len(units), n_way)
            for number in np.unique(source_of[chosen]):
                labels = np.flatnonzero(source_of[chosen] == number)
                some = units[chosen[labels]]
                shots = (k_shot, k - k_shot)
                found = self._draw(int(number), [one], some, len(labels), shots)
                pictures[task, labels], drawn[task, labels] = found[0][0], found[1][0]

    def _draw(
        self, number: int, streams: list[Stream], units: Units, n_way: int, shots: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], Units]:
        """Return matched pictures `[T, n_way, k, ...]` of one source, and their units' ids."""
        source = self._sources[number]
        batch = source.sample(streams, units, n_way, *shots)
        parts = [
            x.reshape(len(streams), n_way, k, *source.input_shape)
            for x, k in zip((batch.support_x, batch.query_x), shots, strict=True)
        ]
        exact = np.rint(np.concatenate(parts, axis=2) * 255).astype(np.uint8)
        if not isinstance(source, ImageSource):  # those were matched when they were read
            flat = exact.reshape(-1, *source.input_shape)
            exact = match(flat, self._size, self.input_shape[0], self._equalise)
        pictures = exact.reshape(len(streams), n_way, sum(shots), *self.input_shape)
        return pictures, self._unit[self._first[number] + batch.units]

    def _own(self, units: Units) -> list[Units]:
        """Return the allowed units of each source by its own ids, sorted."""
        allowed = np.unique(np.asarray(units, dtype=np.int64))
        if len(allowed) and not 0 <= allowed[0] <= allowed[-1] < self.num_units:
            raise ValueError(f"units must be 0 .. {self.num_units - 1}, found {units!r}")
        places = np.sort(self._place[allowed])
        ends = np.searchsorted(places, [*self._first[1:], self.num_units])
        parts = np.split(places, ends[:-1])
        return [part - first for part, first in zip(parts, self._first, strict=True)]

    def _eligible(self, own: list[Units], n_way: int) -> Int64:
        """Return the sources that a task can draw from, or raise where classes are too few."""
        counts = [_num_classes(s, part) for s, part in zip(self._sources, own, strict=True)]
        enough = np.flatnonzero(np.array(counts) >= (1 if self._across else n_way))
        most = sum(counts) if self._across else max(counts)
        if most < n_way or n_way < 1:
            what = "of all sources together" if self._across else "of the largest source"
            raise TooFewUnitsError(
                f"task.n_way {n_way} exceeds the {most} classes {what} in the allowed units. "
                f"Lower task.n_way to {most} or less, or take sources with more classes."
            )
        return enough.astype(np.int64)

    def _ready(self, source: TaskSource) -> TaskSource:
        channels = self.input_shape[0]
        if not isinstance(source, ImageSource):
            return source
        if source.input_shape == self.input_shape and not self._equalise:
            return source
        how = f"{VERSION} {self._size} {channels} {self._equalise}"
        return source.converted(how, lambda x: match(x, self._size, channels, self._equalise))

    def _splits(self, name: SplitName) -> list[Units]:
        """Return the units of a split of each source by its own ids."""
        only = self._only.get(name)
        return [
            source.split(name)[: None if only in (None, origin) else 0]
            for source, origin in zip(self._sources, self.origin_names, strict=True)
        ]


def _num_classes(source: TaskSource, units: Units) -> int:
    """Return how many classes a task of these units can have."""
    roster = getattr(source, "roster", None)
    if not isinstance(roster, Roster) or roster.unit == "class":
        return len(units)
    return int(max(roster.starts[units + 1] - roster.starts[units], default=0))


def _entries(
    sources: Sequence[str | dict[str, Any]], task: TaskSection
) -> tuple[list[TaskSection], list[int | None]]:
    if isinstance(sources, str) or len(sources) < 2:
        raise ConfigError(
            f"task.options.sources {sources!r}: required a list of at least two sources, such as "
            "[glyphs, textures]."
        )
    shared = {**task.model_dump(), "splits": "default", "options": {}}
    found = [_entry(source, shared) for source in sources]
    return [section for section, _ in found], [count for _, count in found]


def _entry(source: object, shared: dict[str, Any]) -> tuple[TaskSection, int | None]:
    """Return the section of an entry, and its `classes`."""
    own = {"source": source} if isinstance(source, str) else source
    if not isinstance(own, dict) or "source" not in own or not set(own) <= set(_OWN):
        raise ConfigError(
            f"task.options.sources has {source!r}: required a source's name, or a mapping with "
            f"`source` and any of {', '.join(_OWN[1:])}."
        )
    count = own.get("classes")
    own = {key: value for key, value in own.items() if key != "classes"}
    try:
        return TaskSection.model_validate(shared | own), count
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"task.options.sources has {source!r}: {first['loc']}: {first['msg']}."
        ) from None


def _build(
    config: RunConfig, entry: TaskSection, count: int | None, data_dir: Path | None
) -> TaskSource:
    from dmaml.worker.tasks import build  # the table names this module

    source = build(config.model_copy(update={"task": entry}), data_dir)
    shape = source.input_shape
    if source.kind != "classification" or len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigError(
            f"task.options.sources has {entry.source!r}, whose examples {list(shape)} are no "
            "pictures of 1 or 3 channels. Take it out: only sources of pictures can be mixed."
        )
    return source if count is None else choose_classes(source, count, config.run.seed, entry.source)
