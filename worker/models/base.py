"""The contract of models: pure functions of named parameters."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from dmaml.common.layout import Flat, Layout
from dmaml.common.seeds import Stream

Params = dict[str, Tensor]
# (mean, variance) of each batch norm, in the order of the layers
Statistics = list[tuple[Tensor, Tensor]]


def params_of(layout: Layout, theta: Flat) -> Params:
    """Return the named tensors of a flat buffer, as views."""
    return {name: torch.from_numpy(view) for name, view in layout.views(theta).items()}


class Model(Protocol):
    """A network without state: nothing but its parameters travels."""

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        ...

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` for `x` `[N, *input_shape]` and the batch statistics.

        A model made with `num_outputs` 0 is an embedding: it has no head and gives features.

        Batch norm normalises with the statistics of `x` itself, or with `statistics` where they
        are given (those of a support set: inductive evaluation). Must work under `torch.func`.
        """
        ...
