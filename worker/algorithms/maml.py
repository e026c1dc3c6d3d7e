"""Model-agnostic meta-learning, exact and first order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker import engine as engines
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.episodes import (
    Figures,
    Kind,
    Stack,
    accuracies,
    concatenated,
    gradients,
    losses,
    stacked,
    stacks,
)
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import TaskBatch


@final
class Maml:
    """MAML: learn parameters θ from which a few gradient steps solve a task.

    For a task with support set S and query set Q

        φ_0 = θ,  φ_{k+1} = φ_k - α ∂L_S(φ_k)/∂φ_k,   meta-gradient ∂L_Q(φ_K)/∂θ

    with α = `inner_lr`, K = `inner_steps` and L the mean cross-entropy or squared error; with
    `inner_reduction: sum_over_ways` L_S is n_way (of the configuration) times that mean.
    `order: first` takes inner gradients as constants: the meta-gradient is then ∂L_Q/∂φ at φ_K.

    The figures before adaptation (`loss_before`, `accuracy_before`) are those of the *support*
    set at θ, which the first inner step computes anyway: θ has seen neither set of a fresh task,
    so both sets estimate the same number, and a pass over the query set would be dear
    (docs/performance.md). With no inner steps they are the query set's. `loss_before` is the mean
    whatever the reduction.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), equation 1 and algorithm 2. First order: section 5.2 there, and Nichol, Achiam,
        Schulman, "On first-order meta-learning algorithms" (2018), section 2.
    """

    def __init__(self, config: RunConfig, model: Model, kind: Kind) -> None:
        algorithm = config.algorithm
        sums_ways = algorithm.inner_reduction == "sum_over_ways"
        self._model = model
        self._engine = engines.build(config.engine, model)
        self._kind: Kind = kind
        self._alpha = algorithm.inner_lr * (config.task.n_way if sums_ways else 1)
        self._inner_steps = algorithm.inner_steps
        self._second_order = algorithm.order == "second"
        self._sums_tasks = algorithm.task_reduction == "sum"

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._model.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the meta-gradient over one batch: the mean (or sum) over its tasks."""
        batch = draw()
        theta = {name: value.detach().requires_grad_() for name, value in params.items()}
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        rows: list[Figures] = []
        for stack in self._stacks(params, batch):
            loss, figures = self._meta_loss(theta, stack)
            gradient = gradients(loss, theta)
            total = {name: value + gradient[name] for name, value in total.items()}
            rows.append(figures)
        if not self._sums_tasks:
            total = {name: value / batch.num_tasks for name, value in total.items()}
        means = {name: float(row.mean()) for name, row in concatenated(rows).items()}
        return Contribution(total, means.pop("loss"), means, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return every task's figures after 0 .. `steps` adaptation steps."""
        rows = [self._curves(params, stack, steps) for stack in self._stacks(params, batch)]
        return Evaluation({name: row.numpy() for name, row in concatenated(rows).items()})

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the adapted model's outputs for one task's queries, `[N, outputs]`.

        Batch norm takes the support set's statistics (inductive): what is predicted for one query
        does not depend on the others.
        """
        x, y = support_x[None], support_y[None]
        phi = stacked(params, 1)
        for _ in range(steps):
            phi = self._adapted(phi, x, y)
        with torch.no_grad():
            _, statistics = self._engine.forward(phi, x)
            outputs, _ = self._engine.forward(phi, query_x[None], statistics)
        return outputs[0]

    def _meta_loss(self, theta: Params, stack: Stack) -> tuple[Tensor, Figures]:
        """Return Σ_t L_Q(φ_K) of the stack's tasks t, and each task's figures `[T]`."""
        phi = stacked(theta, stack.num_tasks)
        before: Figures = {}
        for _ in range(self._inner_steps):
            phi, outputs, support_losses = self._step(phi, stack.support_x, stack.support_y)
            before = before or self._measured(outputs, stack.support_y, support_losses, "_before")
        outputs, _ = self._engine.forward(phi, stack.query_x)
        query_losses = losses(self._kind, outputs, stack.query_y)
        before = before or self._measured(outputs, stack.query_y, query_losses, "_before")
        return query_losses.sum(), before | self._measured(outputs, stack.query_y, query_losses)

    def _step(self, phi: Params, x: Tensor, y: Tensor) -> tuple[Params, Tensor, Tensor]:
        """Return φ - α ∂L_S/∂φ of each task, and the outputs and losses at φ."""
        outputs, _ = self._engine.forward(phi, x)
        support_losses = losses(self._kind, outputs, y)
        gradient = gradients(support_losses.sum(), phi, create_graph=self._second_order)
        return descended(phi, gradient, self._alpha), outputs, support_losses

    def _adapted(self, phi: Params, x: Tensor, y: Tensor) -> Params:
        """Return φ after one step, without a graph."""
        leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
        outputs, _ = self._engine.forward(leaves, x)
        gradient = gradients(losses(self._kind, outputs, y).sum(), leaves)
        with torch.no_grad():
            return descended(leaves, gradient, self._alpha)

    def _curves(self, params: Params, stack: Stack, steps: int) -> Figures:
        """Return each task's figures `[T, steps + 1]`."""
        phi = stacked(params, stack.num_tasks)
        columns: dict[str, list[Tensor]] = {}
        for step in range(steps + 1):
            for name, column in self._scores(phi, stack).items():
                columns.setdefault(name, []).append(column)
            if step < steps:
                phi = self._adapted(phi, stack.support_x, stack.support_y)
        return {name: torch.stack(parts, dim=1) for name, parts in columns.items()}

    @torch.no_grad()
    def _scores(self, phi: Params, stack: Stack) -> Figures:
        outputs, normalised = self._engine.forward(phi, stack.query_x)
        query_losses = losses(self._kind, outputs, stack.query_y)
        if self._kind == "regression":
            return {"mse": query_losses}
        inductive = outputs
        if normalised:  # without batch norm the two are the same
            _, statistics = self._engine.forward(phi, stack.support_x)
            inductive, _ = self._engine.forward(phi, stack.query_x, statistics)
        return {
            "loss": query_losses,
            "accuracy": accuracies(outputs, stack.query_y),
            "accuracy_inductive": accuracies(inductive, stack.query_y),
        }

    def _measured(self, outputs: Tensor, y: Tensor, values: Tensor, suffix: str = "") -> Figures:
        figures = {f"loss{suffix}": values.detach()}
        if self._kind == "classification":
            figures[f"accuracy{suffix}"] = accuracies(outputs.detach(), y)
        return figures

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._engine.chunk, next(iter(params.values())).dtype)


def descended(phi: Params, gradient: Params, alpha: float) -> Params:
    """Return φ - α gradient."""
    return {name: value.sub(gradient[name], alpha=alpha) for name, value in phi.items()}
