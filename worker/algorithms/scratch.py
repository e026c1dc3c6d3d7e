"""No meta-training: the baseline that every task is learned from the random initialisation."""

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
from dmaml.worker.algorithms.finetuning import FineTuning
from dmaml.worker.algorithms.options import inner_lr
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import TaskBatch


@final
class Scratch:
    """Train on the support set alone, from the random initialisation.

    The contribution is zero, so θ stays what `init` drew (with any outer optimiser but one that
    decays weights); `run.rounds: 0` goes straight to the test. All tasks start from the same θ. A
    step of evaluation is one step of the optimiser on the whole support set; give it as many
    (`evaluation.steps`) as training takes.

    Args:
        config: the run's; the rate is `algorithm.inner_lr`, the figures in training are those
            after `algorithm.inner_steps`.
        model: with a head.
        kind: what the labels are.
        optimizer: adam (β1 = 0; see `FineTuning`) or sgd.

    Raises:
        ValueError: an unsuitable option.
    """

    def __init__(
        self, config: RunConfig, model: Model, kind: Kind, optimizer: str = "adam"
    ) -> None:
        self._model = model
        self._engine = engines.build(config.engine, model)
        self._tuning = FineTuning(self._engine, kind, optimizer, inner_lr(config))
        self._steps = config.algorithm.inner_steps

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._model.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return zeros, and the figures before and after `inner_steps` steps."""
        batch = draw()
        rows: list[Figures] = []
        for stack in self._stacks(params, batch):
            phi = stacked(params, stack.num_tasks)
            before = self._tuning.figures(phi, stack.query_x, stack.query_y)
            phi = self._tuning.adapted(phi, stack.support_x, stack.support_y, self._steps, None)
            after = self._tuning.figures(phi, stack.query_x, stack.query_y)
            rows.append(after | {f"{name}_before": row for name, row in before.items()})
        means = {name: float(row.mean()) for name, row in concatenated(rows).items()}
        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        return Contribution(zeros, means.pop("loss"), means, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures after 0 .. `steps` steps of its training."""
        rows = [
            self._tuning.curves(stacked(params, stack.num_tasks), stack, steps, None)
            for stack in self._stacks(params, batch)
        ]
        return Evaluation({name: row.numpy() for name, row in concatenated(rows).items()})

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the trained model's outputs for one task's queries, `[N, outputs]`."""
        return self.adapt(params, support_x, support_y, steps).outputs(query_x)

    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the outputs for every task's queries, `[tasks, N, outputs]`; see `predict`."""
        parts = []
        for stack in self._stacks(params, batch):
            start, x, y = stacked(params, stack.num_tasks), stack.support_x, stack.support_y
            phi = self._tuning.adapted(start, x, y, steps, None)
            parts.append(self._tuning.predicted(phi, x, stack.query_x))
        return torch.cat(parts)

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel:
        """Return the model after `steps` steps of one task's training."""
        x = support_x[None]
        phi = self._tuning.adapted(stacked(params, 1), x, support_y[None], steps, None)
        return AdaptedModel.of(self._model, self._engine, phi, x)

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._engine.chunk, next(iter(params.values())).dtype)
