"""Losses of the same query samples under every pipeline, after adaptation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.worker.algorithms.base import Algorithm
from dmaml.worker.algorithms.predictions import predictions
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskSource


def query_losses(
    config: RunConfig,
    source: TaskSource,
    algorithm: Algorithm,
    thetas: dict[int, Params],
    index: int,
    numbers: range,
) -> tuple[Int64, NDArray[np.float32]]:
    """Return how well each pipeline does on the query samples of tasks from all training units.

    A task's classes are drawn from every training unit, whatever γ says; each pipeline adapts to
    its support set by `algorithm.inner_steps` steps. A sample's loss is its cross-entropy, or its
    squared error (mean over outputs); predictions are inductive (`Algorithm.predict`).

    Args:
        thetas: parameters by pipeline; columns are in ascending order.
        index: number of the PROBE round.
        numbers: of the tasks, within the round.

    Returns:
        units int64 `[tasks * n_way]`, task by task in the order of labels, and losses float32
        `[tasks * n_way * k_query, pipelines]`, k_query rows for each.
    """
    task = config.task
    units = np.empty((len(numbers), task.n_way), dtype=np.int64)
    shape = (len(numbers), task.n_way * task.k_query, len(thetas))
    losses = np.empty(shape, dtype=np.float32)
    streams = [stream(config.run.seed, Kind.PROBE, index, 0, j) for j in numbers]
    if not streams:
        return units.ravel(), losses.reshape(0, len(thetas))
    batch = source.sample(streams, source.split("train"), task.n_way, task.k_shot, task.k_query)
    units[:] = batch.units
    y = torch.from_numpy(batch.query_y)
    for column, pipeline in enumerate(sorted(thetas)):
        steps = config.algorithm.inner_steps
        outputs = predictions(algorithm, thetas[pipeline], batch, steps)
        flat = y.flatten(0, 1)
        if flat.is_floating_point():
            flat = flat.to(outputs.dtype)
        found = sample_losses(outputs.flatten(0, 1), flat).view(len(y), -1)
        if not y.is_floating_point():
            found = found.gather(1, torch.argsort(y, dim=1, stable=True))
        losses[:, :, column] = found.numpy()
    return units.ravel(), losses.reshape(-1, len(thetas))


def sample_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Return each sample's cross-entropy or squared error, `[N]`; see `episodes.losses`."""
    if y.is_floating_point():
        return (outputs - y).square().mean(1)
    return F.cross_entropy(outputs, y, reduction="none")
