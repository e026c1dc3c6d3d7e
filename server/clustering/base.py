"""The contract of clustering strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmaml.common.items import ItemKind

State = dict[str, Any]  # JSON values; checkpointed with θ in one file


@dataclass(frozen=True)
class Gamma:
    """P(unit belongs to pipeline).

    Attributes:
        version: raised whenever it changes.
        pipelines: ids of the active pipelines, the columns.
        matrix: float32 `[num_units, pipelines]`, rows sum to 1; with no rows every unit belongs
            to the only pipeline.
    """

    version: int
    pipelines: tuple[int, ...]
    matrix: NDArray[np.float32]


class Clustering(Protocol):
    """Decides which meta-model learns from which tasks. Pure: the state is explicit."""

    def initial(self) -> State:
        """Return the state of an empty run."""
        ...

    def plan(self, state: State) -> ItemKind:
        """Return TRAIN or PROBE: what the run does next."""
        ...

    def observe(self, state: State, observations: list[Any]) -> State:
        """Return the state after a PROBE round."""
        ...

    def route(self, state: State) -> Gamma:
        """Return γ."""
        ...
