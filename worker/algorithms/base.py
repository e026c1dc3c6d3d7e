"""The contract of meta-learning algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.episodes import Kind
from dmaml.worker.control.base import Family
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

Draw = Callable[[], TaskBatch]
Steps = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What an algorithm that builds its own model must know about the tasks.

    Attributes:
        kind: what the labels are.
        input_shape: shape of one example.
        num_outputs: n_way, the width of a regression target, or that of an action.
        num_units: units of the source; the ids in a batch are below it.
        num_parameters: numbers that describe a task (`TaskBatch.parameters`); 0: not known.
        environments: of control tasks, where they come from.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    num_outputs: int
    num_units: int = 0
    num_parameters: int = 0
    environments: Family | None = None


@dataclass(frozen=True)
class Context:
    """What an algorithm may know beside its batch.

    Attributes:
        version: TRAIN rounds before this one.
        rounds: TRAIN commits of the whole run.
        stream: randomness of its own for this item.
    """

    version: int
    rounds: int
    stream: Stream


@dataclass(frozen=True)
class Contribution:
    """The answer to a TRAIN item.

    Attributes:
        gradient: ∂(mean or sum over its tasks of the query loss)/∂θ (or a pseudo-gradient),
            float32, the parameters' names and shapes.
        loss: mean query loss after adaptation.
        metrics: means over the item's tasks, by name; every method gives `loss_before`,
            classification `accuracy_before` and `accuracy` as well. `accuracy` is that of the query
            set after adaptation; figures before it are of examples not yet learned from, and may
            be the support set's where those cost no extra pass.
        num_tasks: tasks it was computed from.
    """

    gradient: Params
    loss: float
    metrics: dict[str, float]
    num_tasks: int


@dataclass(frozen=True)
class Evaluation:
    """Figures of single tasks, float64 `[tasks, steps + 1]` each, after 0 .. steps steps.

    Attributes:
        metrics: by name. Classification: `loss`, `accuracy` (transductive: batch norm over the
            query set) and `accuracy_inductive` (statistics of the support set, or of training
            tasks where the method has calibrated parameters). Regression: `mse`.
            Control: `return` and `adaptation_delta` (return minus that after 0 steps).
    """

    metrics: dict[str, Steps]


class Algorithm(Protocol):
    """A way to meta-learn. Pure: no state between items.

    A class with a class method `configured(config, problem, **options)` is made by it and builds
    its own model (an embedding, say); any other is called as `Thing(config, model, kind,
    **options)`. One whose tasks may have another n_way in evaluation than in training says so by
    the attribute `any_way = True`; one that learns control tasks, and nothing else, by
    `for_control = True`. One with a method `calibrated(params, batch)` has its parameters passed
    through it, with training tasks, before `evaluate` and `predict`: what it computes there once
    (batch norm's population statistics) need not travel.

    One whose adapted model is a model with fixed parameters has a method `adapt(params, support_x,
    support_y, steps)` that returns it, an `AdaptedModel`, such that its `outputs(query_x)` are what
    `predict` gives: it is then computed once for all queries, and can be exported. None, or no such
    method: there is none.

    One that can predict for several tasks at once has a method `predict_all(params, batch, steps)`
    that returns what `predict` gives for each task, `[tasks, N, outputs]`, up to rounding. PROBE
    rounds are then as fast as training; without it they go task by task.
    """

    def init(self, stream: Stream) -> Params:
        """Return the meta-parameters to start from, float32; a pure function of the stream."""
        ...

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the item's answer; each call of `draw` gives the next fresh batch."""
        ...

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures after 0 .. steps adaptation steps."""
        ...

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the adapted model's outputs for one task's queries, `[N, outputs]`.

        Inductive: what is predicted for one query does not depend on the others.

        Args:
            params: the meta-parameters.
            support_x: `[n_way * k_shot, *input_shape]`.
            support_y: labels int64 `[n_way * k_shot]`, or targets `[k_shot, outputs]`.
            query_x: `[N, *input_shape]`.
            steps: adaptation steps.
        """
        ...
