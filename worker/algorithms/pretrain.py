"""The baseline that trains one network on all tasks together, then fine-tunes it on each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, final

import numpy as np
import torch
from torch import Tensor, nn

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker import engine as engines
from dmaml.worker import models
from dmaml.worker.algorithms.adapted import AdaptedModel, plain
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation, Problem
from dmaml.worker.algorithms.episodes import (
    Figures,
    Kind,
    Stack,
    concatenated,
    gradients,
    losses,
    measured,
    stacked,
    stacks,
)
from dmaml.worker.algorithms.finetuning import FineTuning
from dmaml.worker.algorithms.options import inner_lr
from dmaml.worker.models.base import Model, Params, Statistics
from dmaml.worker.models.plain import linear
from dmaml.worker.tasks.base import TaskBatch

_WEIGHT: Final = "classifier.weight"
_BIAS: Final = "classifier.bias"
_STD: Final = 0.01


@final
class Pretrain:
    """Ordinary training on all tasks pooled; fine-tuning on the support set at evaluation.

    Classification: one classifier over all classes of the source, trained on both sets of the
    drawn tasks, whose labels are replaced by the classes themselves (`TaskBatch.units`). For a
    task its last layer is replaced by one of n_way outputs that starts at zero, and all parameters
    are trained on. Where the label of a class is the same in every task (`task.unit` split), the
    classifier is that of the tasks themselves and keeps its last layer: ordinary supervised
    training, without a step of evaluation nothing is fine-tuned. Regression: one network for all
    functions, which learns their mean.

    Figures in training are those of this pooled problem, before = after. A step of evaluation is
    one step of the optimiser on the whole support set, at the rate `algorithm.inner_lr`.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), section 5.1: the baseline "pretrained" of regression. Chen, Liu, Kira, Wang, Huang,
        "A closer look at few-shot classification" (2019), section 3.2: Baseline; we differ:
        features are fine-tuned too, and the new layer starts at zero.
    """

    any_way = True

    def __init__(
        self, config: RunConfig, problem: Problem, model: Headed, optimizer: str = "sgd"
    ) -> None:
        self._kind: Kind = problem.kind
        self._model = model
        self._engine = engines.build(config.engine, model)
        self._tuning = FineTuning(self._engine, problem.kind, optimizer, inner_lr(config))
        self._pools = _pools(config, problem)
        self._sums_tasks = config.algorithm.task_reduction == "sum"

    @classmethod
    def configured(cls, config: RunConfig, problem: Problem, optimizer: str = "sgd") -> Pretrain:
        """Return the baseline that a configuration describes.

        Raises:
            ConfigError: units that are not classes.
            ValueError: an unsuitable option.
        """
        if problem.kind == "classification" and config.task.unit == "alphabet":
            raise ConfigError(
                f"task.unit {config.task.unit!r} with algorithm.name {config.algorithm.name!r}: it "
                "learns to tell classes apart. Set task.unit to class or split."
            )
        body, num_features = models.build_embedding(config, problem.input_shape)
        num_outputs = problem.num_units if _pools(config, problem) else problem.num_outputs
        return cls(config, problem, Headed(body, num_features, num_outputs), optimizer)

    def init(self, stream: Stream) -> Params:
        """Return the fresh parameters of the body and of the pooled problem's last layer."""
        return self._model.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the gradient of the pooled loss: the mean (or sum) over the batch's tasks."""
        batch = draw()
        theta = {name: value.detach().requires_grad_() for name, value in params.items()}
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        rows: list[Figures] = []
        for stack in self._stacks(params, self._pooled(batch)):
            x = torch.cat([stack.support_x, stack.query_x], dim=1)
            y = torch.cat([stack.support_y, stack.query_y], dim=1)
            outputs, _ = self._engine.forward(stacked(theta, stack.num_tasks), x)
            own_losses = losses(self._kind, outputs, y)
            gradient = gradients(own_losses.sum(), theta)
            total = {name: value + gradient[name] for name, value in total.items()}
            rows.append(measured(self._kind, outputs, own_losses, y))
        if not self._sums_tasks:
            total = {name: value / batch.num_tasks for name, value in total.items()}
        means = {name: float(row.mean()) for name, row in concatenated(rows).items()}
        metrics = {f"{name}_before": value for name, value in means.items()} | means
        return Contribution(total, metrics.pop("loss"), metrics, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures after 0 .. `steps` steps of fine-tuning."""
        rows = []
        for stack in self._stacks(params, batch):
            phi = self._start(params, stack.num_tasks, stack.support_y)
            rows.append(self._tuning.curves(phi, stack, steps, None))
        return Evaluation({name: row.numpy() for name, row in concatenated(rows).items()})

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the fine-tuned model's outputs for one task's queries, `[N, outputs]`."""
        return self.adapt(params, support_x, support_y, steps).outputs(query_x)

    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the outputs for every task's queries, `[tasks, N, outputs]`; see `predict`."""
        parts = []
        for stack in self._stacks(params, batch):
            x, y = stack.support_x, stack.support_y
            start = self._start(params, stack.num_tasks, y)
            phi = self._tuning.adapted(start, x, y, steps, None)
            parts.append(self._tuning.predicted(phi, x, stack.query_x))
        return torch.cat(parts)

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel:
        """Return the model after `steps` steps of fine-tuning on one task."""
        x, y = support_x[None], support_y[None]
        phi = self._tuning.adapted(self._start(params, 1, y), x, y, steps, None)
        return AdaptedModel.of(self._model, self._engine, phi, x)

    def _start(self, params: Params, num_tasks: int, support_y: Tensor) -> Params:
        """Return what fine-tuning starts from, `[T, *shape]`."""
        start = params
        if self._pools:
            n_way = int(support_y.max()) + 1
            width = params[_WEIGHT].shape[0]
            start = params | {
                _WEIGHT: params[_WEIGHT].new_zeros(width, n_way),
                _BIAS: params[_BIAS].new_zeros(n_way),
            }
        return stacked(start, num_tasks)

    def _pooled(self, batch: TaskBatch) -> TaskBatch:
        """Return the batch with classes for labels, where they mean another class in each task."""
        if not self._pools:
            return batch
        support_y, query_y = (
            np.take_along_axis(batch.units, y, axis=1) for y in (batch.support_y, batch.query_y)
        )
        return replace(batch, support_y=support_y, query_y=query_y)

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._engine.chunk, next(iter(params.values())).dtype)


def _pools(config: RunConfig, problem: Problem) -> bool:
    """Tell whether a label means another class in every task."""
    return problem.kind == "classification" and config.task.unit == "class"


@final
class Headed:
    """An embedding under a linear layer, `classifier`, that may be replaced (a `Model`)."""

    def __init__(self, body: Model, num_features: int, num_outputs: int) -> None:
        self._body = body
        self._shape = (num_features, num_outputs)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        params = self._body.init(stream)
        params[_WEIGHT] = torch.from_numpy(stream.normal(*self._shape, std=_STD)).float()
        params[_BIAS] = torch.zeros(self._shape[1])
        return params

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` and the batch statistics."""
        body = {name: value for name, value in params.items() if name not in (_WEIGHT, _BIAS)}
        features, used = self._body.forward(body, x, statistics)
        return torch.addmm(params[_BIAS], features, params[_WEIGHT]), used

    def module(self, params: Params, statistics: Statistics | None) -> nn.Sequential:
        """Return the same function as layers of torch, with these values."""
        body = {name: value for name, value in params.items() if name not in (_WEIGHT, _BIAS)}
        classifier = linear(params[_WEIGHT], params[_BIAS])
        embedding = plain(self._body, body, statistics)
        return nn.Sequential(OrderedDict(embedding=embedding, classifier=classifier))
