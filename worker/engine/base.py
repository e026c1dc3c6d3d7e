"""The contract of engines: how the model is applied to a stack of tasks."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from dmaml.worker.models.base import Params, Statistics


class Engine(Protocol):
    """Applies a model to several tasks, each with parameters of its own.

    Algorithms are written once, for stacks of tasks, and differentiate by plain
    `torch.autograd.grad`; the engine decides how many tasks a stack holds and how the model's
    forward pass runs over them.

    Attributes:
        chunk: most tasks of a stack. It decides the order of sums, hence the bits.
    """

    chunk: int

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return outputs `[T, N, outputs]` and the statistics of each batch norm.

        Args:
            params: `[T, *shape]` each; task t is computed with its own slice t.
            x: `[T, N, *input_shape]`.
            statistics: what to impose on each batch norm, `[T, channels]` each, or None.
        """
        ...
