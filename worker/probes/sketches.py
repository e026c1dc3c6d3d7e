"""Which way each unit pulls θ: random projections of adaptation gradients, body only."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import TooFewUnitsError
from dmaml.common.probes import Probe
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.worker import models
from dmaml.worker.algorithms.episodes import stacks
from dmaml.worker.algorithms.inner_loop import free
from dmaml.worker.algorithms.roles import HEAD, layer_of
from dmaml.worker.models.base import Model, Params
from dmaml.worker.probes.features import body_of
from dmaml.worker.probes.losses import sample_losses
from dmaml.worker.probes.projection import Projection
from dmaml.worker.tasks.base import TaskSource

CHUNK: Final = 64  # tasks whose pictures are held at a time


def sketches(
    config: RunConfig,
    source: TaskSource,
    probe: Probe,
    thetas: dict[int, Params],
    index: int,
    own: Int64,
    numbers: range,
) -> tuple[Int64, NDArray[np.float32]]:
    """Return the adaptation gradient of every class of tasks, projected.

    For a task and its label c, with S_c the support samples of c,

        g_c = ∂(mean of the losses of S_c at θ, were their label 0)/∂θ_body

    computed with the whole support set (batch norm sees all of it). The head is left out: its
    rows are permuted with the labels. So are the gradients through it: over all labels they sum
    to nearly nothing (those of the outputs are p - e_c, and p is about 1 / n_way), which is why
    each class is taken as the first of its task. Measured after 80 rounds on glyphs + textures,
    the origins are 0.4 (Reptile) and 0.0 (MAML) standard deviations of a row apart with the drawn
    labels, and 4.3 to 6.4 and 0.6 to 1.0 among the rows of one label. The mean of a unit's rows
    over rounds is its direction.

    Args:
        probe: whose θ, and how many columns.
        index: number of the PROBE round.
        own: the units that tasks are drawn from; too few for a task: there are no rows.
        numbers: of the tasks, within the round.

    Returns:
        units int64 `[rows]` and float32 `[rows, probe.dims]`, a row for each task and label.
    """
    model = models.build(config, source.input_shape, source.num_outputs(config.task.n_way))
    params = body_of(model, thetas[probe.pipeline])
    body = [name for name in params if layer_of(name) != head_of(params)]
    width = sum(params[name].numel() for name in body)
    project = Projection(config.run.seed, width, probe.dims)
    task = config.task
    streams = [stream(config.run.seed, Kind.PROBE, index, probe.pipeline, j) for j in numbers]
    empty = np.empty(0, dtype=np.int64), np.empty((0, probe.dims), dtype=np.float32)
    if not streams:
        return empty
    units, rows = [], []
    for first in range(0, len(streams), CHUNK):
        some = streams[first : first + CHUNK]
        try:
            batch = source.sample(some, own, task.n_way, task.k_shot, task.k_query)
        except TooFewUnitsError:
            return empty
        units.append(batch.units.ravel())
        rows += [
            project(gradients_of_classes(model, params, body, one.support_x[0], one.support_y[0]))
            for one in stacks(batch, 1, torch.float32)
        ]
    return np.concatenate(units), np.concatenate(rows)


def gradients_of_classes(
    model: Model, params: Params, body: list[str], x: Tensor, y: Tensor
) -> NDArray[np.float32]:
    """Return the gradient of each class's mean loss by the body, float32 `[n_way, d_body]`.

    Args:
        x, y: the support set; a class is taken as label 0, targets of regression are one class.
    """
    leaves = free(params)
    is_regression = y.is_floating_point()
    labels = torch.zeros(len(y), dtype=torch.long) if is_regression else y
    losses = sample_losses(model.forward(leaves, x)[0], y if is_regression else labels * 0)
    rows = []
    for label in range(int(labels.max()) + 1):
        found = torch.autograd.grad(
            losses[labels == label].mean(),
            [leaves[name] for name in body],
            retain_graph=True,
            materialize_grads=True,
        )
        rows.append(torch.cat([part.flatten() for part in found]))
    return torch.stack(rows).numpy()


def head_of(params: Params) -> str:
    """Return the name of the layer that gives the outputs: `head`, or else the last."""
    layers = [layer_of(name) for name in params]
    return HEAD if HEAD in layers else layers[-1]
