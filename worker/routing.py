"""Which pipeline a task is for that no pipeline has seen: the one whose adaptation fits it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dmaml.common.seeds import Int64
from dmaml.worker.algorithms.base import Algorithm, Evaluation
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch


def evaluate(
    algorithm: Algorithm, thetas: Sequence[Params], batch: TaskBatch, steps: int
) -> Evaluation:
    """Return every task's figures under the pipeline that it is routed to; see `Algorithm`.

    Args:
        thetas: parameters of the active pipelines, in the order of their ids; with one, it is
            its evaluation.
    """
    found = [algorithm.evaluate(params, batch, steps).metrics for params in thetas]
    if len(found) == 1:
        return Evaluation(found[0])
    chosen = route(algorithm, thetas, batch, steps)
    tasks = np.arange(batch.num_tasks)
    return Evaluation(
        {name: np.stack([one[name] for one in found])[chosen, tasks] for name in found[0]}
    )


def route(algorithm: Algorithm, thetas: Sequence[Params], batch: TaskBatch, steps: int) -> Int64:
    """Return the place in `thetas` with the least support loss after `steps` steps, `[tasks]`.

    The query set is not looked at. Of equal ones the first is taken.
    """
    known = replace(batch, query_x=batch.support_x, query_y=batch.support_y)
    losses = []
    for params in thetas:
        metrics = algorithm.evaluate(params, known, steps).metrics
        losses.append(metrics["loss" if "loss" in metrics else "mse"][:, -1])
    chosen: Int64 = np.stack(losses).argmin(axis=0)
    return chosen
