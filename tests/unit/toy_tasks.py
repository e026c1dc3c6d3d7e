"""Few-shot tasks that take milliseconds: points around new centres, and a number that is noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm, Context, Contribution
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

FEATURES = 3
SPREAD = (0.1, 0.1, 2.0)  # within a class; between classes 1, 1 and 0


def configured(name: str, /, **sections: dict[str, Any]) -> RunConfig:
    """Return a configuration for an algorithm; n_way 2 and a small mlp unless told."""
    values: dict[str, Any] = {
        "task": {"n_way": 2},
        "model": {"name": "mlp", "hidden": [8]},
        "engine": {"chunk": 32},
    }
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys
    values["algorithm"] = {"name": name} | values.get("algorithm", {})
    return resolve(from_mapping(values))


def built(name: str, /, num_units: int = 4, **sections: dict[str, Any]) -> Algorithm:
    """Return an algorithm for the toy tasks."""
    config = configured(name, **sections)
    return algorithms.build(config, "classification", (FEATURES,), config.task.n_way, num_units)


def points(
    random: Stream,
    num_tasks: int,
    n_way: int = 2,
    k_shot: int = 1,
    k_query: int = 2,
    shuffled: bool = False,
) -> TaskBatch:
    """Return tasks of `n_way` new centres; `shuffled`: query labels that say nothing."""
    centres = random.normal(num_tasks, n_way, 1, FEATURES) * [1, 1, 0]
    x = centres + random.normal(num_tasks, n_way, k_shot + k_query, FEATURES) * SPREAD
    support, query = (
        part.reshape(num_tasks, -1, FEATURES).astype(np.float32)
        for part in (x[:, :, :k_shot], x[:, :, k_shot:])
    )
    support_y, query_y = (
        np.tile(np.repeat(np.arange(n_way), k), (num_tasks, 1)) for k in (k_shot, k_query)
    )
    if shuffled:
        query_y = np.stack([row[random.permutation(len(row))] for row in query_y])
    units = np.zeros((num_tasks, n_way), dtype=np.int64)
    return TaskBatch(support, support_y, query, query_y, units)


def contribution(algorithm: Algorithm, params: Params, batch: TaskBatch) -> Contribution:
    """Return the answer for one batch."""
    context = Context(version=0, rounds=1, stream=stream(1, Kind.CONTEXT))
    return algorithm.contribution(params, lambda: batch, context)


def start(algorithm: Algorithm, seed: int = 1) -> Params:
    """Return parameters in float64, each of them a little off what `init` gives."""
    rng = np.random.default_rng(seed)
    params = algorithm.init(stream(seed, Kind.INIT))
    return {
        name: value.double() + 0.1 * torch.from_numpy(rng.normal(size=value.shape))
        for name, value in params.items()
    }


def in_float64(batch: TaskBatch) -> TaskBatch:
    """Return the batch with examples in float64."""
    return TaskBatch(
        batch.support_x.astype(np.float64),  # type: ignore[arg-type]
        batch.support_y,
        batch.query_x.astype(np.float64),  # type: ignore[arg-type]
        batch.query_y,
        batch.units,
        batch.parameters,
    )


def meta_trained(
    algorithm: Algorithm, rounds: int, lr: float, shuffled: bool = False, k_shot: int = 1
) -> Params:
    """Return what plain Adam makes of `rounds` contributions of 32 tasks."""
    params = algorithm.init(stream(1, Kind.INIT))
    optimiser = torch.optim.Adam(params.values(), lr=lr)
    for version in range(rounds):
        random = stream(1, Kind.TRAIN, version)
        batch = points(random, 32, k_shot=k_shot, shuffled=shuffled)
        gradient = contribution(algorithm, params, batch).gradient
        for name, value in params.items():
            value.grad = gradient[name]
        optimiser.step()
    return params


def loss_of(
    algorithm: Algorithm,
    params: Params,
    shuffled: bool = False,
    steps: int = 0,
    k_shot: int = 1,
) -> float:
    """Return the mean query loss on 100 fixed tasks after `steps` steps."""
    batch = points(stream(1, Kind.TEST), 100, k_shot=k_shot, shuffled=shuffled)
    return float(algorithm.evaluate(params, batch, steps).metrics["loss"][:, -1].mean())
