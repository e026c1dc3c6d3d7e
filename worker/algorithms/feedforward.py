"""Learners that read the support set and predict in one pass, without adaptation steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.episodes import (
    Figures,
    Kind,
    Stack,
    accuracies,
    concatenated,
    gradients,
    losses,
    measured,
    stacks,
)
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch


class Predictor(Protocol):
    """A differentiable function from a support set and queries to the queries' outputs.

    Attributes:
        any_way: whether a task may have another number of classes than those trained on.
        chunk: tasks at once; it decides the order of sums, hence the bits.
    """

    any_way: bool
    chunk: int

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        ...

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with batch statistics of training examples `[N, *input_shape]`."""
        ...

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the queries' outputs `[T, Q, outputs]`; must not read the query set's labels.

        Args:
            params: shared by all tasks.
            stack: T episodes.
            joint: batch norm over both sets of a task (transductive), or by the statistics of
                calibrated parameters, else by its support set's (inductive: no query's outputs
                depend on the other queries).
        """
        ...


@final
class FeedForward:
    """Train a predictor f on episodes: the gradient is the mean over tasks of ∂L_Q(f(S, ·))/∂θ.

    L_Q is the mean cross-entropy or squared error of a task's query set; in training batch norm
    is joint. There is nothing to adapt step by step, so `evaluate` gives the same figure after
    every step, and the figures "before" adaptation are those after it.
    """

    def __init__(self, config: RunConfig, kind: Kind, predictor: Predictor) -> None:
        self._kind: Kind = kind
        self._predictor = predictor
        self._sums_tasks = config.algorithm.task_reduction == "sum"
        self.any_way = predictor.any_way

    def init(self, stream: Stream) -> Params:
        """Return the predictor's fresh parameters."""
        return self._predictor.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the gradient of the query loss: the mean (or sum) over the batch's tasks."""
        batch = draw()
        theta = {name: value.detach().requires_grad_() for name, value in params.items()}
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        rows: list[Figures] = []
        for stack in self._stacks(params, batch):
            outputs = self._predictor.outputs(theta, stack, joint=True)
            task_losses = losses(self._kind, outputs, stack.query_y)
            gradient = gradients(task_losses.sum(), theta)
            total = {name: value + gradient[name] for name, value in total.items()}
            rows.append(measured(self._kind, outputs, task_losses, stack.query_y))
        if not self._sums_tasks:
            total = {name: value / batch.num_tasks for name, value in total.items()}
        means = {name: float(row.mean()) for name, row in concatenated(rows).items()}
        metrics = {f"{name}_before": value for name, value in means.items()} | means
        return Contribution(total, metrics.pop("loss"), metrics, batch.num_tasks)

    def calibrated(self, params: Params, batch: TaskBatch) -> Params:
        """Return the parameters with batch norm's statistics of training tasks; see `Algorithm`."""
        x = np.concatenate([batch.support_x, batch.query_x], axis=1)
        dtype = next(iter(params.values())).dtype
        return self._predictor.calibrated(params, torch.from_numpy(x).flatten(0, 1).to(dtype))

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures, the same after each of 0 .. `steps` steps."""
        rows = [self._scores(params, stack) for stack in self._stacks(params, batch)]
        return Evaluation(
            {
                name: np.repeat(row.numpy()[:, None], steps + 1, axis=1)
                for name, row in concatenated(rows).items()
            }
        )

    @torch.no_grad()
    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the outputs for one task's queries, `[N, outputs]`; `steps` changes nothing."""
        stack = Stack(support_x[None], support_y[None], query_x[None], support_y[None, :0])
        return self._predictor.outputs(params, stack, joint=False)[0]

    @torch.no_grad()
    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the outputs for every task's queries, `[tasks, N, outputs]`; see `predict`."""
        found = (
            self._predictor.outputs(params, s, joint=False) for s in self._stacks(params, batch)
        )
        return torch.cat(list(found))

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel | None:
        """Return the predictor with one task's support set in it, or None: it has no such form.

        It has one where the predictor has a method `adapt(params, support_x, support_y)`; one that
        reads the support set as a sequence has not.
        """
        own = getattr(self._predictor, "adapt", None)
        return None if own is None else own(params, support_x, support_y)

    @torch.no_grad()
    def _scores(self, params: Params, stack: Stack) -> Figures:
        outputs = self._predictor.outputs(params, stack, joint=True)
        query_losses = losses(self._kind, outputs, stack.query_y)
        if self._kind == "regression":
            return {"mse": query_losses}
        inductive = self._predictor.outputs(params, stack, joint=False)
        return {
            "loss": query_losses,
            "accuracy": accuracies(outputs, stack.query_y),
            "accuracy_inductive": accuracies(inductive, stack.query_y),
        }

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._predictor.chunk, next(iter(params.values())).dtype)
