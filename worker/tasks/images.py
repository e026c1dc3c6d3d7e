"""Pictures in memory: decoded once, kept as uint8, shared by every process of a machine.

A file or folder is decoded into an `Album`, which is written uncompressed to the user's cache and
memory-mapped from there, so that all actors of a node read the same pages. `ImageSource` draws
episodes from an album.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import ConfigError
from dmaml.common.sections import TaskSection
from dmaml.common.seeds import Int64, Stream
from dmaml.worker.tasks.base import SplitName, TaskBatch, Units
from dmaml.worker.tasks.cache import cache_dir, write_whole
from dmaml.worker.tasks.episodes import Classes, Draw, digest, draw, enroll, to_batch, turn

FORMAT: Final = 1  # raise it when decoding or the files in the cache change

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Album:
    """Decoded pictures, class by class.

    Attributes:
        images: uint8 `[N, channels, height, width]`, rows in the order of their classes.
        num_examples: int64 `[C]`; they sum to N.
        names: per class.
        split: int64 `[C]`, the source's own division (codes of `splits`), where it has one.
        alphabets: the group of each class, where the source has groups.
        content: SHA-256 of all of it, in hexadecimal.
    """

    images: NDArray[np.uint8]
    num_examples: Int64
    names: tuple[str, ...]
    split: Int64 | None
    alphabets: tuple[str, ...] | None
    content: str


def make_album(
    images: NDArray[np.uint8],
    labels: Int64,
    names: Sequence[str],
    split: Int64 | None = None,
    alphabets: Sequence[str] | None = None,
) -> Album:
    """Return the album of pictures in any order.

    Args:
        images: uint8 `[N, H, W]` or `[N, H, W, channels]`.
        labels: int64 `[N]`, 0 .. C - 1.
        names: C of them.
        split: int64 `[C]`, TRAIN, VALIDATION or TEST.
        alphabets: C of them.
    """
    planes = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    rows = np.argsort(labels, kind="stable")
    planes = np.ascontiguousarray(planes[rows])
    counts = np.bincount(labels, minlength=len(names)).astype(np.int64)
    groups = None if alphabets is None else tuple(str(name) for name in alphabets)
    codes = None if split is None else split.tolist()
    total = hashlib.sha256(json.dumps([planes.shape, counts.tolist(), codes, groups]).encode())
    total.update(planes.data)
    return Album(planes, counts, tuple(str(n) for n in names), split, groups, total.hexdigest())


# --- the cache ------------------------------------------------------------------------------


def cached(key: str, decode: Callable[[], Album]) -> Album:
    """Return the album of that key, memory-mapped; decode it where the cache does not hold it.

    Safe when several processes do so at once: each writes whole files of the same bytes. Where
    the cache cannot be written, the album stays in this process's memory and a warning says so.

    Args:
        key: digest of the source files and of everything else that decoding depends on.
        decode: gives the album; called at most once.
    """
    stem = cache_dir() / "pictures" / hashlib.sha256(f"{FORMAT} {key}".encode()).hexdigest()
    album = _open(stem)
    if album is not None:
        return album
    album = decode()
    try:
        write_whole(_pixels(stem), lambda file: np.save(file, album.images, allow_pickle=False))
        write_whole(_facts(stem), lambda file: file.write(_to_json(album)))
    except OSError as error:
        log.warning(
            "the picture cache %s cannot be written (%s): every actor holds its own %.1f MiB; "
            "set DMAML_CACHE to a folder that can",
            stem.parent,
            error.strerror or error,
            album.images.nbytes / 2**20,
        )
        return album
    return _open(stem) or album


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal, read by blocks of 1 MiB."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _pixels(stem: Path) -> Path:
    return stem.with_suffix(".npy")


def _facts(stem: Path) -> Path:
    return stem.with_suffix(".json")


def _to_json(album: Album) -> bytes:
    facts = {
        "shape": list(album.images.shape),
        "num_examples": album.num_examples.tolist(),
        "names": album.names,
        "split": None if album.split is None else album.split.tolist(),
        "alphabets": album.alphabets,
        "content": album.content,
    }
    return json.dumps(facts).encode()


def _open(stem: Path) -> Album | None:
    """Return the album that the cache holds, or None when it is absent or not whole."""
    try:
        facts: dict[str, Any] = json.loads(_facts(stem).read_bytes())
        images = np.load(_pixels(stem), mmap_mode="r", allow_pickle=False)
        counts = np.array(facts["num_examples"], dtype=np.int64)
        split = facts["split"]
        if images.dtype != np.uint8 or list(images.shape) != facts["shape"]:
            return None
        return Album(
            images=images.view(np.ndarray),  # plain indexing is quicker than memmap's own
            num_examples=counts,
            names=tuple(facts["names"]),
            split=None if split is None else np.array(split, dtype=np.int64),
            alphabets=None if facts["alphabets"] is None else tuple(facts["alphabets"]),
            content=facts["content"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- the source -----------------------------------------------------------------------------


@final
class ImageSource:
    """Episodes of pictures: `omniglot`, `npz:PATH` and `folder:PATH` (a `TaskSource`).

    Pictures are float32 in [0, 1], `[T, n_way * k, channels, height, width]`. A class with `r`
    quarter turns has its pictures turned anticlockwise as they are drawn.

    Args:
        album: the pictures.
        split: int64 `[C]`, TRAIN, VALIDATION or TEST of each class of the album.
        task: unit and rotations.
        seed: the run's.

    Raises:
        ConfigError: rotations of pictures that are not square.
        DataError: unit 'alphabet' that the album's alphabets do not allow.
    """

    kind: Literal["classification", "regression"] = "classification"

    def __init__(self, album: Album, split: Int64, task: TaskSection, seed: int) -> None:
        channels, height, width = album.images.shape[1:]
        if task.rotations and height != width:
            raise ConfigError(
                f"task.rotations required square pictures, found {height} x {width}. "
                "Set task.rotations to false."
            )
        classes = Classes(album.names, album.num_examples, split, album.alphabets)
        self.roster = enroll(classes, task.unit, task.rotations, seed)
        self._album = album
        self.images = album.images
        self.input_shape: tuple[int, ...] = (channels, height, width)
        self.num_units = self.roster.num_units
        self.origin = self.roster.origin
        self.digest = digest(self.roster, album.content)
        self._first_row = np.cumsum(album.num_examples) - album.num_examples

    def converted(
        self, how: str, convert: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> ImageSource:
        """Return the same source with other pictures of the same classes, from the cache.

        Args:
            how: says what `convert` does; with the pictures it is the key in the cache.
            convert: uint8 `[N, channels, height, width]` -> the same with other sizes.
        """
        key = f"converted {how} {self._album.content}"
        images = cached(key, lambda: replace(self._album, images=convert(self.images))).images
        other = copy.copy(self)
        other.images, other.input_shape = images, images.shape[1:]
        return other

    def num_outputs(self, n_way: int) -> int:
        """Return n_way."""
        return n_way

    def split(self, name: SplitName) -> Units:
        """Return the ids of the units of a split, int64, sorted."""
        return self.roster.split(name)

    def unit_name(self, unit: int) -> str:
        """Return a name for people."""
        return self.roster.unit_names[unit]

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode per stream, drawn from `units` alone; see `episodes.draw`.

        Raises:
            DataError: the units have too few classes or examples.
        """
        chosen = draw(self.roster, streams, units, n_way, k_shot + k_query)
        return to_batch(self._pictures(chosen), chosen.units, k_shot)

    def _pictures(self, chosen: Draw) -> NDArray[np.uint8]:
        rows = self._first_row[self.roster.base(chosen.classes)][..., None] + chosen.examples
        pictures: NDArray[np.uint8] = self.images[rows]
        if self.roster.num_turns > 1:
            turn(pictures, self.roster.turns(chosen.classes))
        return pictures
