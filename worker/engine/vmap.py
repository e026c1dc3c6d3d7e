"""Tasks as one batch: the model's forward pass under `torch.func.vmap`."""

from __future__ import annotations

from typing import Final, final

from torch import Tensor
from torch.func import vmap

from dmaml.worker.models.base import Model, Params, Statistics

DEFAULT_CHUNK: Final = 8


@final
class Vmap:
    """Maps the model over a chunk of tasks.

    Only the forward pass is mapped: autograd then records batched operations, and its backward
    passes run without the cost of `torch.func` transforms.
    """

    def __init__(self, model: Model, chunk: int | None = None) -> None:
        self.chunk = DEFAULT_CHUNK if chunk is None else chunk
        self._model = model

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the model's outputs for each task; see `Engine`."""
        in_dims = (0, 0, None if statistics is None else 0)
        outputs, used = vmap(self._model.forward, in_dims)(params, x, statistics)
        return outputs, used
