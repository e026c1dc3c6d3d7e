"""The baseline that is told each task's parameters: what could be reached at best."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker import engine as engines
from dmaml.worker import models
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation, Problem
from dmaml.worker.algorithms.episodes import Stack, stacked
from dmaml.worker.algorithms.feedforward import FeedForward
from dmaml.worker.algorithms.options import require_kind
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import TaskBatch


@final
class Oracle:
    """Regression by a network that gets the task's parameters beside x.

    Trained on the query sets by ordinary gradients. It needs no support set and does not adapt:
    the figures are the same after every step.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), section 5.1: "an oracle which receives the true amplitude and phase as input".
    """

    def __init__(self, plain: FeedForward) -> None:
        self._plain = plain

    @classmethod
    def configured(cls, config: RunConfig, problem: Problem) -> Oracle:
        """Return the baseline that a configuration describes.

        Raises:
            ConfigError: classification, or a source that does not say its tasks' parameters.
        """
        require_kind(config, problem, "regression")
        if problem.num_parameters == 0:
            raise ConfigError(
                f"algorithm {config.algorithm.name!r} is told each task's parameters, and "
                f"task.source {config.task.source!r} does not say them. Take sinusoid."
            )
        width = math.prod(problem.input_shape) + problem.num_parameters
        model = models.build(config, (width,), problem.num_outputs)
        return cls(FeedForward(config, problem.kind, Plain(config, model)))

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._plain.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the gradient of the query loss: the mean (or sum) over the batch's tasks."""
        return self._plain.contribution(params, lambda: informed(draw()), context)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures, the same after each of 0 .. `steps` steps."""
        return self._plain.evaluate(params, informed(batch), steps)

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Raise: examples do not tell the task's parameters.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "an oracle cannot predict from examples: it needs the task's parameters. "
            "Use dmaml evaluate, or another algorithm."
        )


@final
class Plain:
    """The model itself as a predictor, which ignores the support set (a `Predictor`)."""

    any_way = False

    def __init__(self, config: RunConfig, model: Model) -> None:
        self._model = model
        self._engine = engines.build(config.engine, model)
        self.chunk = self._engine.chunk

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._model.init(stream)

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters as they are."""
        return params

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the outputs `[T, Q, outputs]`; batch norm by the query set, or the support's."""
        phi = stacked(params, stack.num_tasks)
        imposed = None if joint else self._engine.forward(phi, stack.support_x)[1]
        return self._engine.forward(phi, stack.query_x, imposed)[0]


def informed(batch: TaskBatch) -> TaskBatch:
    """Return the batch with each task's parameters beside every x: `[T, k, features + P]`."""
    parameters = batch.parameters
    assert parameters is not None

    def beside(x: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = x.reshape(*x.shape[:2], -1)
        repeated = np.repeat(parameters[:, None], x.shape[1], axis=1)
        return np.concatenate([flat, repeated.astype(x.dtype)], axis=2)

    return replace(batch, support_x=beside(batch.support_x), query_x=beside(batch.query_x))
