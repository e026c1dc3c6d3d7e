"""Adaptation by an optimiser of torch, step by step, for stacks of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import torch
from torch import Tensor

from dmaml.worker.algorithms.episodes import (
    Figures,
    Kind,
    Stack,
    accuracies,
    gradients,
    losses,
    measured,
)
from dmaml.worker.algorithms.options import choice
from dmaml.worker.algorithms.shuffles import ordered, own_streams, permutations
from dmaml.worker.engine.base import Engine
from dmaml.worker.models.base import Params

OPTIMIZERS: Final = ("adam", "sgd")
Minibatch = tuple[Tensor, Tensor]


@final
class FineTuning:
    """Train each task's own parameters φ on mini-batches of its examples.

    adam has β1 = 0 (no momentum: every step is towards the mini-batch at hand), β2 = 0.999 and
    ε = 1e-8, and starts fresh with each task: v_0 = 0, and

        v ← β2 v + (1 - β2) g²,  φ ← φ - α g / (√(v / (1 - β2^t)) + ε)

    Args:
        engine: around the model.
        kind: what the labels are.
        optimizer: adam or sgd.
        lr: α > 0.

    Raises:
        ValueError: another optimizer.

    References:
        Nichol, Achiam, Schulman, "On first-order meta-learning algorithms" (2018), section 6 and
        appendix A: Adam with β1 = 0 in the inner loop.
    """

    def __init__(self, engine: Engine, kind: Kind, optimizer: str, lr: float) -> None:
        choice("optimizer", optimizer, OPTIMIZERS)
        self._engine = engine
        self._kind: Kind = kind
        self._optimizer = optimizer
        self._lr = lr

    def run(
        self, phi: Params, batches: Iterator[Minibatch], steps: int
    ) -> Iterator[tuple[Params, Figures]]:
        """Yield, after each of `steps` steps, φ and its mini-batch's figures before the step.

        Args:
            phi: `[T, *shape]` each; left as they are.
            batches: x `[T, B, *input_shape]` and y of each step.
            steps: how many.
        """
        leaves = {name: value.detach().clone().requires_grad_() for name, value in phi.items()}
        optimizer = self._made(list(leaves.values()))
        for _ in range(steps):
            x, y = next(batches)
            outputs, _ = self._engine.forward(leaves, x)
            own_losses = losses(self._kind, outputs, y)
            for name, gradient in gradients(own_losses.sum(), leaves).items():
                leaves[name].grad = gradient
            optimizer.step()
            now = {name: value.detach() for name, value in leaves.items()}
            yield now, measured(self._kind, outputs, own_losses, y)

    def curves(self, phi: Params, stack: Stack, steps: int, batch_size: int | None) -> Figures:
        """Return each task's figures on its query set, `[T, steps + 1]`."""
        batches = minibatches(stack.support_x, stack.support_y, batch_size)
        columns: dict[str, list[Tensor]] = {}
        for name, column in self.scores(phi, stack).items():
            columns[name] = [column]
        for now, _ in self.run(phi, batches, steps):
            for name, column in self.scores(now, stack).items():
                columns[name].append(column)
        return {name: torch.stack(parts, dim=1) for name, parts in columns.items()}

    def adapted(
        self, phi: Params, x: Tensor, y: Tensor, steps: int, batch_size: int | None
    ) -> Params:
        """Return φ after `steps` steps on the examples."""
        for now, _ in self.run(phi, minibatches(x, y, batch_size), steps):
            phi = now
        return phi

    @torch.no_grad()
    def figures(self, phi: Params, x: Tensor, y: Tensor) -> Figures:
        """Return each task's loss (and accuracy) on some examples at φ, `[T]`."""
        outputs, _ = self._engine.forward(phi, x)
        return measured(self._kind, outputs, losses(self._kind, outputs, y), y)

    @torch.no_grad()
    def scores(self, phi: Params, stack: Stack) -> Figures:
        """Return each task's figures on its query set at φ, `[T]`."""
        outputs, normalised = self._engine.forward(phi, stack.query_x)
        query_losses = losses(self._kind, outputs, stack.query_y)
        if self._kind == "regression":
            return {"mse": query_losses}
        inductive = outputs
        if normalised:  # without batch norm the two are the same
            inductive = self.predicted(phi, stack.support_x, stack.query_x)
        return {
            "loss": query_losses,
            "accuracy": accuracies(outputs, stack.query_y),
            "accuracy_inductive": accuracies(inductive, stack.query_y),
        }

    @torch.no_grad()
    def predicted(self, phi: Params, support_x: Tensor, query_x: Tensor) -> Tensor:
        """Return the queries' outputs `[T, Q, outputs]`, batch norm by the support set."""
        _, statistics = self._engine.forward(phi, support_x)
        outputs, _ = self._engine.forward(phi, query_x, statistics)
        return outputs

    def _made(self, leaves: list[Tensor]) -> torch.optim.Optimizer:
        if self._optimizer == "sgd":
            return torch.optim.SGD(leaves, self._lr, foreach=False, fused=False)
        return torch.optim.Adam(leaves, self._lr, (0.0, 0.999), 1e-8, foreach=False, fused=False)


def minibatches(x: Tensor, y: Tensor, size: int | None) -> Iterator[Minibatch]:
    """Yield mini-batches for ever: pass after pass, each in a new random order of each task's own.

    A mini-batch may span two passes. The order is a function of the task's examples.

    Args:
        x: `[T, N, *input_shape]`.
        y: labels or targets, `[T, N, ...]`.
        size: examples of a mini-batch; None, or N or more: all of them, as they are.
    """
    count = x.shape[1]
    if size is None or size >= count:
        while True:
            yield x, y
    streams = own_streams(x, y)
    waiting = permutations(streams, count)
    while True:
        if waiting.shape[1] < size:
            waiting = torch.cat([waiting, permutations(streams, count)], dim=1)
        order, waiting = waiting[:, :size], waiting[:, size:]
        yield ordered(x, order), ordered(y, order)
