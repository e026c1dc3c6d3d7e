"""One meta-model for everything."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from dmaml.common.config import ClusteringSection
from dmaml.common.items import ItemKind
from dmaml.server.clustering.base import Gamma, State


@final
class NoClustering:
    """A single pipeline that every unit belongs to."""

    def __init__(self, config: ClusteringSection) -> None:
        pass

    def initial(self) -> State:
        """Return the empty state."""
        return {}

    def plan(self, state: State) -> ItemKind:
        """Always train."""
        return ItemKind.TRAIN

    def observe(self, state: State, observations: list[Any]) -> State:
        """Learn nothing."""
        return state

    def route(self, state: State) -> Gamma:
        """Return the γ without rows: every unit belongs to pipeline 0."""
        return Gamma(0, (0,), np.zeros((0, 1), dtype=np.float32))
