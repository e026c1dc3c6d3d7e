"""γ as both sides read it: which pipeline a unit belongs to, and the tree of pipelines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Int64

ROOT: Final = -1  # the parent of a pipeline that has none


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of the run, active or not: a node of the tree.

    Attributes:
        number: its id, never given to another.
        parent: whose θ and optimiser state it began with; ROOT: its own, from INIT.
        opened_round: TRAIN rounds before it.
        is_active: whether it trains; one that was split, merged or retired does not.
    """

    number: int
    parent: int = ROOT
    opened_round: int = 0
    is_active: bool = True


@dataclass(frozen=True)
class Gamma:
    """P(unit belongs to pipeline).

    Attributes:
        version: raised whenever it changes.
        pipelines: ids of the active pipelines, the columns, ascending.
        matrix: float32 `[num_units, pipelines]`, rows sum to 1; with no rows every pipeline
            trains on all units (there is one, or the strategy knows no units yet).
        tree: every pipeline that ever was, by id; empty: the active ones, all of them roots.
        phase: the strategy's own word for what it is about, for people.
    """

    version: int
    pipelines: tuple[int, ...]
    matrix: NDArray[np.float32]
    tree: tuple[Pipeline, ...] = ()
    phase: str = "train"

    @property
    def nodes(self) -> tuple[Pipeline, ...]:
        """Every pipeline that ever was."""
        return self.tree or tuple(Pipeline(number) for number in self.pipelines)

    def route(self, units: Int64, pipeline: int) -> Int64:
        """Return those of `units` that are routed to a pipeline, in their order."""
        if not len(self.matrix):
            return units
        own: Int64 = units[columns_of(self.matrix[units]) == self.pipelines.index(pipeline)]
        return own


def columns_of(matrix: NDArray[np.float32]) -> Int64:
    """Return the column of the largest γ of each row, int64 `[rows]`; of equal ones the first."""
    columns: Int64 = matrix.argmax(axis=1).astype(np.int64)
    return columns


def entropies(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how uncertain each unit is: -Σ_p γ ln γ, nats, float64 `[units]`."""
    gamma = matrix.astype(np.float64)
    logs = np.log(gamma, out=np.zeros_like(gamma), where=gamma > 0)
    found: NDArray[np.float64] = -(gamma * logs).sum(axis=1) + 0.0
    return found


def single() -> Gamma:
    """Return the γ of a run without clustering."""
    return Gamma(0, (0,), np.zeros((0, 1), dtype=np.float32))


def digest_of_all(digests: Mapping[int, str]) -> str:
    """Return the digest of what all pipelines hold, given that of each: a single one's own."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    text = " ".join(f"{pipeline}:{digests[pipeline]}" for pipeline in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()
