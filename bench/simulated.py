"""Compute replaced by a fixed sleep: what is left of a round is the system.

task:      {source: dmaml.bench.simulated:Blank}
algorithm: {name: dmaml.bench.simulated:Sleeping, options: {task_ms: 20}}
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.episodes import Kind
from dmaml.worker.algorithms.maml import Maml
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import SPLITS, SplitName, TaskBatch, Units

_CLASSES: Final = 64  # of each split


@final
class Blank:
    """Blank pictures: drawing real ones is computation, and that is what is replaced."""

    kind: Literal["classification", "regression"] = "classification"
    input_shape: tuple[int, ...] = (1, 28, 28)
    num_units = _CLASSES * len(SPLITS)
    digest = hashlib.sha256(b"dmaml.bench.simulated:Blank 1").hexdigest()
    origin: Units | None = None

    def __init__(self, config: RunConfig) -> None:
        self._n_way = config.task.n_way

    def num_outputs(self, n_way: int) -> int:
        """Return n_way."""
        return n_way

    def split(self, name: SplitName) -> Units:
        """Return the split's classes, int64 `[64]`."""
        first = SPLITS.index(name) * _CLASSES
        return np.arange(first, first + _CLASSES, dtype=np.int64)

    def unit_name(self, unit: int) -> str:
        """Return a name for people."""
        return f"blank {unit}"

    def sample(
        self, streams: Sequence[Stream], units: Units, n_way: int, k_shot: int, k_query: int
    ) -> TaskBatch:
        """Return one episode of zeros per stream; its units are drawn from the first stream."""
        places = streams[0].integers(len(streams) * n_way, len(units))

        def pictures(k: int) -> NDArray[np.float32]:
            return np.zeros((len(streams), n_way * k, *self.input_shape), dtype=np.float32)

        def labels(k: int) -> NDArray[np.int64]:
            return np.tile(np.repeat(np.arange(n_way), k), (len(streams), 1))

        sets = (pictures(k_shot), labels(k_shot), pictures(k_query), labels(k_query))
        return TaskBatch(*sets, np.unique(units)[places.reshape(-1, n_way)])


@final
class Sleeping:
    """MAML whose contribution sleeps instead of computing.

    It answers g = u θ + v with u, v uniform on [-0.01, 0.01), drawn from the item's own stream and
    moved by its tasks' units. So an answer is a pure function of the item, and a wrong version, a
    lost answer or one taken twice changes the digest of θ. How long it sleeps is no part of it.

    Args:
        task_ms: sleep for each task, milliseconds.
        slow: `{"factor": 5, "claim": PATH}`: of the processes that share the file, one at a time
            sleeps so many times longer: the first to lock it.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        kind: Kind,
        task_ms: float,
        slow: Mapping[str, Any] | None = None,
    ) -> None:
        self._maml = Maml(config, model, kind)
        self._task_s = task_ms / 1000
        self._factor = float(slow["factor"]) if slow else 1.0
        self._claim = Claim(Path(slow["claim"])) if slow else None

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._maml.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Sleep, and return the pseudo-gradient."""
        batch = draw()
        is_slow = self._claim is not None and self._claim.is_mine()
        until = time.monotonic() + batch.num_tasks * self._task_s * (self._factor if is_slow else 1)
        u, v = context.stream.uniform(2, low=-0.01, high=0.01).tolist()
        v += 1e-6 * float(batch.units.mean())
        gradient = {name: value.mul(u).add_(v) for name, value in params.items()}
        metrics = {"loss_before": 1.0, "accuracy_before": 0.0, "accuracy": 0.0}
        time.sleep(max(0.0, until - time.monotonic()))
        return Contribution(gradient, 1.0 + u, metrics, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return MAML's figures."""
        return self._maml.evaluate(params, batch, steps)

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return MAML's outputs."""
        return self._maml.predict(params, support_x, support_y, query_x, steps)


@final
class Claim:
    """A file that one process at a time may have; it is free again when that process ends.

    Attributes:
        descriptor: of the open file; the lock lives as long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor: int | None = None
        self._is_mine = False

    def is_mine(self) -> bool:
        """Take it if it is free; tell whether it is ours."""
        if self.descriptor is None:
            self.descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        if not self._is_mine:
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._is_mine = True
        return True
