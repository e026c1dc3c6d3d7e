"""Counter-based random streams: every number is a pure function of where it is used.

A stream is the Philox4x64-10 generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", 2011) keyed by (seed, kind) and started at counter (0, index, pipeline, task), so any
stream can be made anywhere without drawing the ones before it. Only raw 64-bit words are taken
from NumPy, which promises those across versions; the transforms below are our own.
"""

from __future__ import annotations

import enum
import math
from typing import Any, Final

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Uint64 = NDArray[np.uint64]

_MASK: Final = (1 << 64) - 1


class Kind(enum.IntEnum):
    """What a stream is for; the number is part of the key and never reused."""

    INIT = 1
    TRAIN = 2
    PROBE = 3
    EVALUATE = 4
    TEST = 5
    SPLIT = 6
    UNITS = 7
    SOURCE = 8
    SERVER = 9
    CONTEXT = 10
    SIMULATION = 11
    FAULT = 12
    CONTROL = 13
    CALIBRATE = 14
    PROJECTION = 15


class _NoEntropy(ISeedSequence):
    """Seeds a generator whose state is set anyway: asking the system for entropy takes longer."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return np.zeros(n_words, dtype=dtype)


_NO_ENTROPY: Final = _NoEntropy()
_EMPTY: Final = np.zeros(4, dtype=np.uint64)


class Stream:
    """Random numbers from one Philox counter range; not thread-safe, cheap to make."""

    def __init__(self, key: tuple[int, int], counter: tuple[int, int, int, int]) -> None:
        self._bits = np.random.Philox(_NO_ENTROPY)  # type: ignore[arg-type]  # stubs are too narrow
        self._bits.state = {
            "bit_generator": "Philox",
            "state": {"key": key, "counter": counter},  # type: ignore[typeddict-item]  # read by place
            "buffer": _EMPTY,
            "buffer_pos": len(_EMPTY),
            "has_uint32": 0,
            "uinteger": 0,
        }

    def raw(self, count: int) -> Uint64:
        """Return the next `count` raw words, uint64 `[count]`."""
        return self._bits.random_raw(count)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float64:
        """Return float64 `shape`, uniform on [low, high) with 53 random bits each."""
        words = self.raw(math.prod(shape))
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return (low + (high - low) * unit).reshape(shape)

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> Float64:
        """Return float64 `shape`, Gaussian by the Box-Muller transform."""
        count = math.prod(shape)
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return (mean + std * both).reshape(shape)

    def integers(self, count: int, high: int) -> Int64:
        """Return int64 `[count]`, uniform on 0 .. high - 1 (1 <= high <= 2**32).

        The upper 32 bits of each word are scaled by `high`; the bias is at most high / 2**32.
        """
        words = self.raw(count) >> np.uint64(32)
        return ((words * np.uint64(high)) >> np.uint64(32)).astype(np.int64)

    def permutation(self, count: int) -> Int64:
        """Return the numbers 0 .. count - 1 in random order, int64 `[count]`."""
        return np.argsort(self.raw(count), kind="stable").astype(np.int64)

    def choice(self, count: int, size: int) -> Int64:
        """Return `size` different numbers of 0 .. count - 1 in random order, int64 `[size]`.

        Raises:
            ValueError: if size > count.
        """
        if size > count:
            raise ValueError(f"cannot choose {size} different numbers of {count}")
        if size * 8 > count:
            return self.permutation(count)[:size]
        chosen: dict[int, None] = {}
        while len(chosen) < size:  # few collisions: size is at most an eighth of count
            for number in self.integers(size - len(chosen), count):
                chosen.setdefault(int(number))
        return np.fromiter(chosen, dtype=np.int64, count=size)


def stream(seed: int, kind: Kind, index: int = 0, pipeline: int = 0, task: int = 0) -> Stream:
    """Return the stream that belongs to one place of a run.

    Args:
        seed: the run's seed, 0 <= seed < 2**64.
        kind: what it is for.
        index: number of the round among those of its kind (0 for EVALUATE: the same tasks always).
        pipeline: the meta-model's id.
        task: number of the task in the round.
    """
    key = (seed & _MASK, int(kind))
    return Stream(key, (0, index & _MASK, pipeline & _MASK, task & _MASK))
