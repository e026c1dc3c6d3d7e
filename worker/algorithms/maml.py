"""Model-agnostic meta-learning: exact, first order, by differences; MAML++, Meta-SGD and ANIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import final

import torch
from torch import Tensor

from dmaml.common.adaptation import AdaptationSection
from dmaml.common.config import RunConfig
from dmaml.common.seeds import Kind as StreamKind
from dmaml.common.seeds import Stream, stream
from dmaml.worker import engine as engines
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation
from dmaml.worker.algorithms.clipping import Clipped
from dmaml.worker.algorithms.episodes import (
    Figures,
    Kind,
    Stack,
    accuracies,
    concatenated,
    losses,
    measured,
    stacks,
)
from dmaml.worker.algorithms.inner_loop import InnerLoop, Pass
from dmaml.worker.algorithms.products import by_central_differences, forward_over_reverse
from dmaml.worker.algorithms.rates import Rates, rates_of
from dmaml.worker.algorithms.recursion import MetaGradient, recursed
from dmaml.worker.algorithms.roles import Roles
from dmaml.worker.algorithms.unrolled import unrolled
from dmaml.worker.models.base import Model, Params
from dmaml.worker.tasks.base import TaskBatch

Order = Callable[[InnerLoop, Params, Stack, tuple[float, ...]], MetaGradient]


@final
class Maml:
    """MAML: learn parameters θ from which a few gradient steps solve a task.

    For a task with support set S and query set Q

        φ_0 = θ,  φ_{k+1} = φ_k - α ∂L_S(φ_k)/∂φ_k,   meta-gradient ∂L_Q(φ_K)/∂θ

    with α = `inner_lr`, K = `inner_steps` and L the mean cross-entropy or squared error; with
    `inner_reduction: sum_over_ways` L_S is n_way (of the configuration) times that mean. With
    `inner_clip` a task's gradient is shortened to that norm first (`Clipped`).
    `order` says how the meta-gradient is computed: `second` (`unrolled`), `forward_over_reverse`
    and `finite_difference` (`recursed` with a product of `products`), or `first`, where inner
    gradients are constants and it is ∂L_Q/∂φ at φ_K. Learned rates are in `rates`, parameters
    that do not adapt or differ by step in `roles`. With `multi_step_rounds` the meta-gradient is
    that of Σ_k w_k L_Q(φ_k) (`step_weights`).

    The figures before adaptation (`loss_before`, `accuracy_before`) are those of the *support*
    set at θ, which the first inner step computes anyway: θ has seen neither set of a fresh task,
    so both sets estimate the same number, and a pass over the query set would be dear
    (docs/performance.md). With no inner steps they are the query set's. `loss_before` is the mean
    whatever the reduction, and `loss` that after the last step whatever the weights.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), equation 1 and algorithm 2. First order: section 5.2 there, and Nichol, Achiam,
        Schulman, "On first-order meta-learning algorithms" (2018), section 2.
    """

    def __init__(self, config: RunConfig, model: Model, kind: Kind) -> None:
        section = config.algorithm
        names = model.init(stream(0, StreamKind.INIT))
        roles = Roles(names, section.adapt, section.per_step, section.inner_steps)
        self._model = model
        self._kind: Kind = kind
        self._section = section
        self._engine = engines.build(config.engine, model)
        self._loop = InnerLoop(self._engine, kind, roles, _rates(config))
        self._sums_tasks = section.task_reduction == "sum"

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters, and the rates where they are learned."""
        params = self._model.init(stream)
        rates = self._loop.rates.init({name: params[name] for name in self._loop.roles.adapted})
        return self._loop.roles.init(params) | rates

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return the meta-gradient over one batch: the mean (or sum) over its tasks."""
        batch = draw()
        order = _order(self._section, context.version)
        weights = step_weights(self._section, context.version)
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        rows: list[Figures] = []
        for stack in self._stacks(params, batch):
            found = order(self._loop, params, stack, weights)
            total = {name: value + found.gradient[name] for name, value in total.items()}
            rows.append(self._figures(found, stack))
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
        return self.adapt(params, support_x, support_y, steps).outputs(query_x)

    def predict_all(self, params: Params, batch: TaskBatch, steps: int) -> Tensor:
        """Return the outputs for every task's queries, `[tasks, N, outputs]`; see `predict`."""
        parts = [self._predicted(params, stack, steps) for stack in self._stacks(params, batch)]
        return torch.cat(parts)

    def adapt(
        self, params: Params, support_x: Tensor, support_y: Tensor, steps: int
    ) -> AdaptedModel:
        """Return the model at φ_steps of one task."""
        x, y = support_x[None], support_y[None]
        phi = self._loop.roles.start(params, 1)
        for step in range(steps):
            phi = self._loop.adapted(params, phi, step, x, y)
        shared = self._loop.roles.shared_at(params, steps)
        whole = self._loop.roles.model(phi, shared, 1)
        return AdaptedModel.of(self._model, self._engine, whole, x)

    def _predicted(self, params: Params, stack: Stack, steps: int) -> Tensor:
        phi = self._loop.roles.start(params, stack.num_tasks)
        for step in range(steps):
            phi = self._loop.adapted(params, phi, step, stack.support_x, stack.support_y)
        shared = self._loop.roles.shared_at(params, steps)
        with torch.no_grad():
            _, statistics = self._loop.forward(phi, shared, stack.support_x)
            outputs, _ = self._loop.forward(phi, shared, stack.query_x, statistics)
        return outputs

    def _figures(self, found: MetaGradient, stack: Stack) -> Figures:
        """Return each task's figures before and after adaptation, `[T]`."""
        if found.support is None:
            before = self._measured(found.query, stack.query_y, "_before")
        else:
            before = self._measured(found.support, stack.support_y, "_before")
        return before | self._measured(found.query, stack.query_y)

    def _curves(self, params: Params, stack: Stack, steps: int) -> Figures:
        """Return each task's figures `[T, steps + 1]`."""
        phi = self._loop.roles.start(params, stack.num_tasks)
        columns: dict[str, list[Tensor]] = {}
        for step in range(steps + 1):
            shared = self._loop.roles.shared_at(params, step)
            for name, column in self._scores(phi, shared, stack).items():
                columns.setdefault(name, []).append(column)
            if step < steps:
                phi = self._loop.adapted(params, phi, step, stack.support_x, stack.support_y)
        return {name: torch.stack(parts, dim=1) for name, parts in columns.items()}

    @torch.no_grad()
    def _scores(self, phi: Params, shared: Params, stack: Stack) -> Figures:
        outputs, normalised = self._loop.forward(phi, shared, stack.query_x)
        query_losses = losses(self._kind, outputs, stack.query_y)
        if self._kind == "regression":
            return {"mse": query_losses}
        inductive = outputs
        if normalised:  # without batch norm the two are the same
            _, statistics = self._loop.forward(phi, shared, stack.support_x)
            inductive, _ = self._loop.forward(phi, shared, stack.query_x, statistics)
        return {
            "loss": query_losses,
            "accuracy": accuracies(outputs, stack.query_y),
            "accuracy_inductive": accuracies(inductive, stack.query_y),
        }

    def _measured(self, found: Pass, y: Tensor, suffix: str = "") -> Figures:
        figures = measured(self._kind, found.outputs, found.losses, y)
        return {f"{name}{suffix}": row for name, row in figures.items()}

    def _stacks(self, params: Params, batch: TaskBatch) -> Iterator[Stack]:
        return stacks(batch, self._engine.chunk, next(iter(params.values())).dtype)


def _rates(config: RunConfig) -> Rates:
    """Return what the inner steps are taken with."""
    rates, limit = rates_of(config), config.algorithm.inner_clip
    return rates if limit is None else Clipped(rates, limit)


def step_weights(section: AdaptationSection, version: int) -> tuple[float, ...]:
    """Return w_0 .. w_K, the weight of the query loss at each φ_k, in a TRAIN round.

        w_0 = 0,  w_k = (1 - version / multi_step_rounds) / K for 0 < k < K,  Σ w = 1

    and from round `multi_step_rounds` on w_K = 1 alone.

    References:
        Antoniou, Edwards, Storkey, "How to train your MAML" (2019), section 4. We differ: their
        code keeps the earlier steps at no less than 0.03/K until the annealing is over; here they
        fall to 0.
    """
    steps, rounds = section.inner_steps, section.multi_step_rounds
    share = (1 - version / rounds) / steps if version < rounds else 0.0
    earlier = max(steps - 1, 0)
    return (*(0.0,) * min(steps, 1), *(share,) * earlier, 1.0 - share * earlier)


def _order(section: AdaptationSection, version: int) -> Order:
    if section.order == "first" or version < section.first_order_rounds:
        return partial(recursed, product=None)
    if section.order == "second":
        return unrolled
    if section.order == "forward_over_reverse":
        return partial(recursed, product=forward_over_reverse)
    return partial(recursed, product=by_central_differences(section.epsilon))
