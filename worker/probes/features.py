"""Features of single units: their samples as they are, or in the model's last hidden layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.probes import Probe, ProbeKind
from dmaml.common.seeds import Int64, Kind, Stream, stream
from dmaml.worker import models
from dmaml.worker.models.base import Model, Params, Statistics
from dmaml.worker.probes.projection import narrowed
from dmaml.worker.tasks.base import TaskBatch, TaskSource

NUM_REFERENCE: Final = 128  # examples whose statistics normalise those of every unit
CHUNK: Final = 256  # examples in one forward pass


def features(
    config: RunConfig,
    source: TaskSource,
    probe: Probe,
    index: int,
    units: Int64,
    thetas: dict[int, Params],
) -> NDArray[np.float32]:
    """Return `probe.samples` rows for each unit, float32 `[len(units) * samples, columns]`.

    PIXELS: the examples, flattened; of regression, where a unit is a function, with their targets
    behind them. EMBEDDING: the model without its head at θ. Batch norm takes the statistics of
    128 examples of training units chosen at random, the same for every unit: its own would take
    away the mean that tells it from others.

    Args:
        index: number of the PROBE round; each has other samples.
        thetas: parameters by pipeline.

    Raises:
        ConfigError: an embedding of regression, which does not see the targets.
    """
    examples = [samples_of(source, config.run.seed, index, int(u), probe.samples) for u in units]
    if probe.kind is ProbeKind.PIXELS:
        rows = [flattened(source, x, y) for x, y in examples]
        width = rows[0].shape[1] if rows else 0
        whole = np.concatenate(rows) if rows else np.empty((0, width), dtype=np.float32)
    else:
        embed = Embedding(config, source, index, thetas[probe.pipeline])
        whole = embed([x for x, _ in examples])
    return narrowed(whole, config.run.seed, probe.dims)


def samples_of(
    source: TaskSource, seed: int, index: int, unit: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `count` samples of a unit, x `[count, *input_shape]`, and what goes with them, y.

    They are drawn in pairs, each from an episode of its own: the classes of an alphabet take
    turns, and a class of few examples may give one twice.
    """
    streams = pair_streams(seed, index, unit, count)
    batch = source.sample(streams, np.array([unit]), 1, 1, 1)
    x, y = pairs(batch)
    return x[:count], y[:count]


def pair_streams(seed: int, index: int, unit: int, count: int) -> list[Stream]:
    """Return the streams of a unit's pairs."""
    return [stream(seed, Kind.PROBE, index, unit + 1, pair) for pair in range((count + 1) // 2)]


def pairs(batch: TaskBatch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return support and query example of each episode in turn: x and y, `[2 T, ...]`."""
    x = np.stack([batch.support_x[:, 0], batch.query_x[:, 0]], axis=1)
    y = np.stack([batch.support_y[:, 0], batch.query_y[:, 0]], axis=1)
    return x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]).astype(np.float32)


def flattened(
    source: TaskSource, x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return examples as rows, with their targets where these are the unit's own."""
    rows = x.reshape(len(x), -1)
    return np.concatenate([rows, y.reshape(len(y), -1)], axis=1) if has_targets(source) else rows


def has_targets(source: TaskSource) -> bool:
    """Tell whether what an example is labelled with says something about its unit."""
    return source.kind == "regression"


class Embedding:
    """The run's model without its head, at θ, with fixed batch statistics."""

    def __init__(self, config: RunConfig, source: TaskSource, index: int, theta: Params) -> None:
        if has_targets(source):
            raise ConfigError(
                f"features 'embedding' with task.source {config.task.source!r}: an embedding of "
                "regression does not see the targets. Take 'pixels', or another strategy."
            )
        self._model, self._width = models.build_embedding(config, source.input_shape)
        self._params = body_of(self._model, theta)
        self._statistics = self._reference(config, source, index)

    def __call__(self, examples: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the features of all examples, float32 `[count, columns]`."""
        if not examples:
            return np.empty((0, self._width), dtype=np.float32)
        x = torch.from_numpy(np.concatenate(examples))
        with torch.no_grad():
            parts = [
                self._model.forward(self._params, rows, self._statistics)[0]
                for rows in torch.split(x, CHUNK)
            ]
        return torch.cat(parts).numpy()

    def _reference(self, config: RunConfig, source: TaskSource, index: int) -> Statistics:
        own = stream(config.run.seed, Kind.PROBE, index, 0)
        trained = source.split("train")
        chosen = trained[own.integers(NUM_REFERENCE // 2, len(trained))]
        streams = [stream(config.run.seed, Kind.PROBE, index, 0, 1 + i) for i in range(len(chosen))]
        x = [
            pairs(source.sample([one], np.array([unit]), 1, 1, 1))[0]
            for one, unit in zip(streams, chosen, strict=True)
        ]
        with torch.no_grad():
            return self._model.forward(self._params, torch.from_numpy(np.concatenate(x)))[1]


def body_of(model: Model, theta: Params) -> Params:
    """Return those of the meta-parameters that a model has; rows for each step: the first.

    Raises:
        ConfigError: one is missing or has another shape.
    """
    found: Params = {}
    for name, fresh in model.init(stream(0, Kind.INIT)).items():
        value = theta.get(name)
        if value is not None and value.shape[1:] == fresh.shape and value.dim() > fresh.dim():
            value = value[0]
        if value is None or value.shape != fresh.shape:
            raise ConfigError(
                f"the algorithm's parameters hold no {name!r} of shape {tuple(fresh.shape)}, so "
                "the model cannot be probed. Take a strategy that asks for pixels or losses."
            )
        found[name] = value
    return found
