"""What a meta-model answers to the queries of many tasks."""

from __future__ import annotations

import torch
from torch import Tensor

from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.algorithms.episodes import stacks
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch


def predictions(algorithm: Algorithm, params: Params, batch: TaskBatch, steps: int) -> Tensor:
    """Return the adapted models' outputs for the queries, `[tasks, N, outputs]`; inductive.

    By the algorithm's `predict_all`, or task by task where it has none.

    Args:
        batch: at least one task; labels of the queries are not read.
        steps: adaptation steps.
    """
    together = getattr(algorithm, "predict_all", None)
    if together is not None:
        found: Tensor = together(params, batch, steps)
        return found
    dtype = next(iter(params.values())).dtype
    return torch.stack(
        [
            algorithm.predict(params, one.support_x[0], one.support_y[0], one.query_x[0], steps)
            for one in stacks(batch, 1, dtype)
        ]
    )
