"""Task by task: the plainest engine, and the least memory."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dmaml.worker.models.base import Model, Params, Statistics


@final
class Loop:
    """Calls the model once per task."""

    chunk = 1

    def __init__(self, model: Model) -> None:
        self._model = model

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the model's outputs for each task; see `Engine`."""
        outputs, used = [], []
        for task in range(x.shape[0]):
            own = {name: value[task] for name, value in params.items()}
            imposed = None if statistics is None else [(m[task], v[task]) for m, v in statistics]
            y, layers = self._model.forward(own, x[task], imposed)
            outputs.append(y)
            used.append(layers)
        stacked = [
            (torch.stack([m for m, _ in layer]), torch.stack([v for _, v in layer]))
            for layer in zip(*used, strict=True)
        ]
        return torch.stack(outputs), stacked
