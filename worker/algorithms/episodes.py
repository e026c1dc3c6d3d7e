"""Episodes as tensors, and what is measured on them. A row of a stack is one task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

Figures = dict[str, Tensor]
Kind = Literal["classification", "regression", "control"]


@dataclass(frozen=True)
class Stack:
    """A chunk of episodes: the arrays of `TaskBatch` as tensors, floats in the model's dtype."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor

    @property
    def num_tasks(self) -> int:
        """Number of episodes T."""
        return self.support_x.shape[0]


def stacks(batch: TaskBatch, chunk: int, dtype: torch.dtype) -> Iterator[Stack]:
    """Yield the batch's episodes in order, at most `chunk` at a time."""

    def tensor(array: NDArray[Any], start: int) -> Tensor:
        rows = torch.from_numpy(array[start : start + chunk])
        return rows.to(dtype) if rows.is_floating_point() else rows

    for start in range(0, batch.num_tasks, chunk):
        yield Stack(
            tensor(batch.support_x, start),
            tensor(batch.support_y, start),
            tensor(batch.query_x, start),
            tensor(batch.query_y, start),
        )


def losses(kind: Kind, outputs: Tensor, y: Tensor) -> Tensor:
    """Return each task's mean cross-entropy or mean squared error, `[T]`.

    Args:
        kind: what the labels are.
        outputs: `[T, N, outputs]`.
        y: labels int64 `[T, N]`, or targets `[T, N, outputs]` for regression.
    """
    if kind == "regression":
        return (outputs - y).square().mean((1, 2))
    flat = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none")
    return flat.view(y.shape).mean(1)


def accuracies(outputs: Tensor, y: Tensor) -> Tensor:
    """Return each task's share of examples whose largest output is the label's, `[T]`."""
    return (outputs.argmax(2) == y).to(outputs.dtype).mean(1)


def measured(kind: Kind, outputs: Tensor, own_losses: Tensor, y: Tensor) -> Figures:
    """Return each task's `loss` and, of classification, `accuracy`, without a graph, `[T]`."""
    figures = {"loss": own_losses.detach()}
    if kind == "classification":
        figures["accuracy"] = accuracies(outputs.detach(), y)
    return figures


def concatenated(rows: list[Figures]) -> Figures:
    """Return the stacks' figures one after another, in float64."""
    return {name: torch.cat([row[name] for row in rows]).double() for name in rows[0]}


def stacked(params: Params, num_tasks: int) -> Params:
    """Return views `[num_tasks, *shape]` of the parameters: every task starts from the same."""
    return {name: value.expand(num_tasks, *value.shape) for name, value in params.items()}


def gradients(loss: Tensor, params: Params, create_graph: bool = False) -> Params:
    """Return ∂loss/∂params; zeros for parameters that the loss does not depend on."""
    values = torch.autograd.grad(
        loss, list(params.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(params, values, strict=True))
