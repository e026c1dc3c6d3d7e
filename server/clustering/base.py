"""The contract of clustering strategies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dmaml.common.gamma import Gamma, Pipeline
from dmaml.common.probes import Probe
from dmaml.common.seeds import Int64
from dmaml.server.core.progress import Progress

__all__ = ["Clustering", "Gamma", "Observations", "Pipeline", "State"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class State:
    """What a strategy knows. Never changed in place; checkpointed with θ in one file.

    Attributes:
        values: JSON values.
        arrays: float32, float64 or int64 arrays, by a name of letters, digits and `_`.
    """

    values: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True)
class Observations:
    """What a PROBE round brought, in slot order: the same for any number of actors.

    Attributes:
        probe: what was asked for.
        trained: TRAIN rounds before it.
        pipelines: ids of the active pipelines: the columns, where LOSSES were asked for.
        num_units: units of the source; those that no observation names are not trained on.
        units: the unit of each row, int64 `[rows]`; of UNITS, which has no rows, every unit.
        values: float32 `[rows, columns]`, finite.
    """

    probe: Probe
    trained: int
    pipelines: tuple[int, ...]
    num_units: int
    units: Int64
    values: NDArray[np.float32]


class Clustering(Protocol):
    """Decides which meta-model learns from which tasks. Pure: the state is explicit.

    Made as `Thing(config, **clustering.options)`. It draws random numbers from
    `stream(config.run.seed, Kind.SERVER, ...)` alone, and is shown units by number: neither
    names nor origins.
    """

    def initial(self) -> State:
        """Return the state of an empty run; its pipelines get parameters of their own (INIT)."""
        ...

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Return what is to be asked before training goes on, or None: train.

        Asked often, and ahead of time: it must be quick. Of `progress` only `trained`, `probes`
        and `version` may be read, so that validation changes nothing.
        """
        ...

    def observe(self, state: State, observations: Observations) -> State:
        """Return the state after a PROBE round."""
        ...

    def route(self, state: State) -> Gamma:
        """Return γ and the tree of pipelines.

        `version` is raised by whatever changes `pipelines`, `matrix` or `tree`. A pipeline is
        opened by naming it: its id is larger than all before it, and it begins with θ, optimiser
        and weight generator of its parent, which was active. One that is in `tree` and not in
        `pipelines` is retired: its parameters are gone. So a split retires one and opens two; a
        merge retires one and adds its column to another's. `clustering.max_pipelines` bounds
        those that are active.
        """
        ...
