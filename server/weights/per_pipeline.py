"""One weight generator for each pipeline: slots of different pipelines share no history."""

from __future__ import annotations

import copy
from typing import Any, final

from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma
from dmaml.common.sections import WeightsSection
from dmaml.server import weights
from dmaml.server.weights.base import WeightGenerator


@final
class PerPipeline:
    """The run's weight generators by pipeline, made when they are needed first.

    Where late answers are merged (`sync.late`), the generator is wrapped: they are discounted by
    `1 / (1 + staleness)^sync.late_discount`.
    """

    def __init__(self, config: RunConfig) -> None:
        self._section = section_of(config)
        self._generators: dict[int, WeightGenerator] = {}

    def of(self, pipeline: int) -> WeightGenerator:
        """Return a pipeline's generator."""
        if pipeline not in self._generators:
            self._generators[pipeline] = weights.build(self._section)
        return self._generators[pipeline]

    def follow(self, gamma: Gamma) -> None:
        """Give pipelines that γ has anew their parents' history; forget that of retired ones."""
        parents = {node.number: node.parent for node in gamma.nodes}
        states = self.state()
        known = set(self._generators)
        self._generators = {p: g for p, g in self._generators.items() if p in gamma.pipelines}
        for pipeline in gamma.pipelines:
            if pipeline not in known and parents[pipeline] in known:
                self.of(pipeline).load(copy.deepcopy(states[str(parents[pipeline])]))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep: pipeline -> its generator's state."""
        return {str(p): generator.state() for p, generator in self._generators.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        for pipeline, one in state.items():
            self.of(int(pipeline)).load(one)


def section_of(config: RunConfig) -> WeightsSection:
    """Return the configuration of the run's generator, wrapped where late answers are merged."""
    section, sync = config.weights, config.sync
    if sync.mode != "quorum" or sync.late != "merge" or sync.late_discount == 0:
        return section
    inner = {"name": section.name, "options": section.options}
    options = {"inner": inner, "exponent": sync.late_discount}
    return WeightsSection(name="staleness_discount", options=options)
