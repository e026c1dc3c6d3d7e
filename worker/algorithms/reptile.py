"""Reptile: move towards the parameters that a task's own training ends with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker import engine as engines
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.episodes import Figures, Kind, Stack, concatenated, stacked, stacks
from dmaml.worker.algorithms.finetuning import FineTuning, minibatches
from dmaml.worker.algorithms.options import inner_lr, size
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import TaskBatch


@final
class Reptile:
    """Push θ - φ_K, the way that K = `inner_steps` steps on a task go back.

        φ_0 = θ,  φ_{k+1} = step(φ_k, mini-batch k),  contribution = mean over tasks of (θ - φ_K)

    so that `outer: {name: sgd, lr: ε}` is the paper's θ ← θ + ε mean(φ_K - θ), the batched
    version where a round has several tasks; `outer.schedule: linear` is its linear decay of ε.
    Training takes mini-batches of all of a task's examples, support and query set together;
    evaluation those of the support set alone, and scores the query set.

    `loss` and `accuracy` are of the query set at φ_K, whose examples training has therefore seen;
    the figures before adaptation are those of the first mini-batch.

    Args:
        config: the run's; α = `algorithm.inner_lr`.
        model: with a head.
        kind: what the labels are.
        batch_size: examples of a mini-batch in training; null: all at once.
        evaluation_batch_size: the same in evaluation and prediction.
        optimizer: adam (β1 = 0, as in the paper) or sgd, of the inner loop.

    Raises:
        ValueError: an unsuitable option.

    References:
        Nichol, Achiam, Schulman, "On first-order meta-learning algorithms" (2018), algorithms 1
        and 2; section 6 and github.com/openai/supervised-reptile for the inner Adam. We differ:
        Adam's second moment starts fresh with each task (there one moves on from task to task;
        here nothing lives between items).
    """

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        kind: Kind,
        batch_size: int | None = None,
        evaluation_batch_size: int | None = None,
        optimizer: str = "adam",
    ) -> None:
        self._model = model
        self._engine = engines.build(config.engine, model)
        self._tuning = FineTuning(self._engine, kind, optimizer, inner_lr(config))
        self._steps = config.algorithm.inner_steps
        self._batch_size = size("batch_size", batch_size)
        self._evaluation_batch_size = size("evaluation_batch_size", evaluation_batch_size)
        self._sums_tasks = config.algorithm.task_reduction == "sum"

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._model.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return θ - φ_K: the mean (or sum) over the batch's tasks."""
        batch = draw()
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        rows: list[Figures] = []
        for stack in self._stacks(params, batch):
            phi, figures = self._trained(params, stack)
            total = {
                name: value + (params[name] - phi[name]).sum(0) for name, value in total.items()
            }
            rows.append(figures)
        if not self._sums_tasks:
            total = {name: value / batch.num_tasks for name, value in total.items()}
        means = {name: float(row.mean()) for name, row in concatenated(rows).items()}
        return Contribution(total, means.pop("loss"), means, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures after 0 .. `steps` inner steps."""
        rows = [
            self._tuning.curves(
                stacked(params, stack.num_tasks), stack, steps, self._evaluation_batch_size
            )
            for stack in self._stacks(params, batch)
        ]
        return Evaluation({name: row.numpy() for name, row in concatenated(rows).items()})

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the adapted model's outputs for one task's queries, `[N, outputs]`."""
        return self.adapt(params, support_x, support_y, steps).outputs(query_x)

    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the outputs for every task's queries, `[tasks, N, outputs]`; see `predict`."""
        size, parts = self._evaluation_batch_size, []
        for stack in self._stacks(params, batch):
            start, x, y = stacked(params, stack.num_tasks), stack.support_x, stack.support_y
            phi = self._tuning.adapted(start, x, y, steps, size)
            parts.append(self._tuning.predicted(phi, x, stack.query_x))
        return torch.cat(parts)

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel:
        """Return the model at φ_steps of one task."""
        phi = self._tuning.adapted(
            stacked(params, 1), support_x[None], support_y[None], steps, self._evaluation_batch_size
        )
        return AdaptedModel.of(self._model, self._engine, phi, support_x[None])

    def _trained(self, params: Params, stack: Stack) -> tuple[Params, Figures]:
        """Return φ_K of each task, `[T, *shape]`, and its figures `[T]`."""
        x = torch.cat([stack.support_x, stack.query_x], dim=1)
        y = torch.cat([stack.support_y, stack.query_y], dim=1)
        phi, before = stacked(params, stack.num_tasks), Figures()
        batches = minibatches(x, y, self._batch_size)
        for now, figures in self._tuning.run(phi, batches, self._steps):
            phi, before = now, before or figures
        after = self._tuning.figures(phi, stack.query_x, stack.query_y)
        before = before or after  # without inner steps
        return phi, after | {f"{name}_before": row for name, row in before.items()}

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._engine.chunk, next(iter(params.values())).dtype)
