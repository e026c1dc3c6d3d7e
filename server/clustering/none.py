"""One meta-model for everything."""

from __future__ import annotations

from typing import final

from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma, single
from dmaml.common.probes import Probe
from dmaml.server.clustering.base import Observations, State
from dmaml.server.core.progress import Progress


@final
class NoClustering:
    """A single pipeline that every unit belongs to."""

    def __init__(self, config: RunConfig) -> None:
        pass

    def initial(self) -> State:
        """Return the empty state."""
        return State()

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Always train."""
        return None

    def observe(self, state: State, observations: Observations) -> State:
        """Learn nothing."""
        return state

    def route(self, state: State) -> Gamma:
        """Return the γ without rows: every unit belongs to pipeline 0."""
        return single()
