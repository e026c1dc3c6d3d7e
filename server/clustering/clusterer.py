"""A run's strategy with its state: γ in force, what is asked next, what a PROBE round changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, final

import numpy as np

from dmaml.common.checkpoint import CLUSTERING, GAMMA, Checkpoint, Tensors
from dmaml.common.config import RunConfig, most_pipelines
from dmaml.common.errors import DmamlError, RunFailedError
from dmaml.common.gamma import Gamma
from dmaml.common.probes import Probe
from dmaml.common.seeds import Int64
from dmaml.server import clustering
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.probing import gamma_row, rows_of_trained
from dmaml.server.core.progress import Progress

T = TypeVar("T")

TRAINED: Final = "clusterer.trained"  # the array of units that are trained on
SUM_TOLERANCE: Final = 1e-4  # of a row of γ, which is float32
NUM_SHOWN: Final = 3


@final
class Clusterer:
    """Keeps the strategy's state. `observe` runs on the numeric thread, all else on the loop.

    Attributes:
        gamma: in force.

    Raises:
        RunFailedError: the strategy, which may be the user's own code, breaks its contract.
    """

    def __init__(self, config: RunConfig, checkpoint: Checkpoint | None = None) -> None:
        self._name = config.clustering.name
        self._most = most_pipelines(config)
        self._strategy = clustering.build(config)
        self._state = state_of(checkpoint) if checkpoint else self._try(self._strategy.initial)
        self.gamma = self._try(lambda: self._strategy.route(self._state))
        self._require(self.gamma)
        self._trained = trained_of(checkpoint)
        self._staged = (self._state, self.gamma, self._trained)

    def plan(self, progress: Progress) -> Probe | None:
        """Return what is to be asked now, or None: train."""
        return self._strategy.plan(self._state, progress)

    def never_asks(self, progress: Progress, rounds: int) -> str:
        """Return a sentence if nothing is known and the run ends before anything is asked.

        Such a run trains its first pipelines on everything; it may still be made longer.
        """
        if self._name == "none" or len(self.gamma.matrix) or progress.trained >= rounds:
            return ""
        ahead = (progress._replace(trained=n) for n in range(progress.trained, rounds))
        if self._try(lambda: any(self._strategy.plan(self._state, one) for one in ahead)):
            return ""
        return (
            f"clustering {self._name!r} asks for nothing before run.rounds {rounds} are over: "
            "everything is learned as at the start. Raise run.rounds, or lower its options "
            f"({clustering.PAGE})."
        )

    def observe(self, observations: Observations) -> Gamma:
        """Make the state after a PROBE round and return its γ; in force once it is adopted."""
        state = self._try(lambda: self._strategy.observe(self._state, observations))
        gamma = self._try(lambda: self._strategy.route(state))
        self._require(gamma)
        self._require_step(gamma)
        self._staged = state, gamma, np.union1d(self._trained, observations.units)
        return gamma

    def adopt(self) -> Gamma:
        """Put in force what was observed, and return γ."""
        self._state, self.gamma, self._trained = self._staged
        return self.gamma

    def row(self) -> dict[str, Any]:
        """Return what the record keeps of the γ that was observed last."""
        _, gamma, trained = self._staged
        return gamma_row(gamma, trained)

    @property
    def expected_units(self) -> dict[int, float]:
        """Expected number of units of each active pipeline, of those that are trained on."""
        matrix = rows_of_trained(self.gamma, self._trained)
        sums = matrix.sum(axis=0, dtype=np.float64).tolist()
        return dict(zip(self.gamma.pipelines, sums, strict=True))

    def values(self) -> dict[str, Any]:
        """Return the state's JSON values."""
        return dict(self._state.values)

    def tensors(self) -> Tensors:
        """Return the state's arrays as a checkpoint names them, and γ where it has rows."""
        own = {CLUSTERING + name: array for name, array in self._state.arrays.items()}
        own |= {GAMMA: self.gamma.matrix} if len(self.gamma.matrix) else {}
        return own | ({TRAINED: self._trained} if len(self._trained) else {})

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except DmamlError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise RunFailedError(
                f"clustering {self._name!r} failed: {reason.rstrip('.')}."
            ) from error

    def _require(self, gamma: Gamma) -> None:
        matrix, pipelines = np.asarray(gamma.matrix), gamma.pipelines
        if not 1 <= len(pipelines) <= self._most:
            self._fail(
                f"{len(pipelines)} active pipelines, required 1 to {self._most} "
                "(clustering.max_pipelines)"
            )
        if list(pipelines) != sorted(set(pipelines)):
            self._fail(f"pipelines {pipelines} are not ascending")
        if sorted(p.number for p in gamma.nodes if p.is_active) != list(pipelines):
            self._fail(f"pipelines {pipelines} are not the active ones of its tree")
        if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] != len(pipelines):
            self._fail(
                f"γ is {matrix.dtype} {list(matrix.shape)} for {len(pipelines)} pipelines, "
                "required float32 [units, pipelines]"
            )
        if not len(matrix):
            return
        worst = np.abs(matrix.sum(axis=1, dtype=np.float64) - 1).max()
        if not (matrix >= 0).all() or not math.isfinite(worst) or worst > SUM_TOLERANCE:
            self._fail("a row of γ is negative or does not sum to 1")

    def _require_step(self, gamma: Gamma) -> None:
        """Raise unless a γ may follow the one in force."""
        before = self.gamma
        is_same = (before.pipelines, before.nodes) == (gamma.pipelines, gamma.nodes)
        is_same = is_same and np.array_equal(before.matrix, gamma.matrix)
        if is_same != (before.version == gamma.version) or gamma.version < before.version:
            self._fail(
                f"γ version {gamma.version} after {before.version}, though γ "
                f"{'is the same' if is_same else 'changed'}"
            )
        known = {node.number for node in before.nodes}
        parents = {node.number: node.parent for node in gamma.nodes}
        if not known <= set(parents):
            self._fail(f"pipelines {sorted(known - set(parents))[:NUM_SHOWN]} left the tree")
        for number in sorted(set(gamma.pipelines) - set(before.pipelines)):
            if number in known or number < max(known):
                self._fail(f"pipeline {number} was there before: ids are never used again")
            if parents[number] not in before.pipelines:
                self._fail(f"pipeline {number} has parent {parents[number]}, which is not active")

    def _fail(self, found: str) -> None:
        raise RunFailedError(
            f"clustering {self._name!r} breaks its contract: {found}. "
            f"Mend it ({clustering.PAGE}); nothing was committed."
        )


def trained_of(checkpoint: Checkpoint | None) -> Int64:
    """Return the units that a run is known to train on: those that observations named, sorted."""
    nothing = np.empty(0, dtype=np.int64)
    return checkpoint.tensors.get(TRAINED, nothing) if checkpoint else nothing


def state_of(checkpoint: Checkpoint) -> State:
    """Return the strategy's state that a checkpoint kept."""
    arrays = {
        name.removeprefix(CLUSTERING): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(CLUSTERING)
    }
    values: Mapping[str, Any] = checkpoint.meta["clustering"]
    return State(values, arrays)
