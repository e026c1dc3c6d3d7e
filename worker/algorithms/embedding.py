"""The run's model without its head, applied to episodes."""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker import engine as engines
from dmaml.worker import models
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.episodes import Stack, stacked
from dmaml.worker.models.base import Params, Statistics

_POPULATION: Final = "population"  # of calibrated parameters: population{i}.mean, .variance
_MOMENTS: Final = ("mean", "variance")


@final
class Embedding:
    """Features of an episode's examples; all tasks share the parameters.

    Batch norm has no running averages: nothing but parameters travels. Statistics are those of a
    task's two sets together; in inductive evaluation those of many training tasks' examples, which
    `calibrated` computes for the parameters at hand, or of the support set alone without that.

    References:
        Wu, Johnson, "Rethinking 'batch' in BatchNorm" (2021), section 3: population statistics
        recomputed from the training set (PreciseBN) in place of running averages.

    Attributes:
        num_features: width F.
        chunk: tasks at once.
    """

    def __init__(self, config: RunConfig, input_shape: tuple[int, ...]) -> None:
        self._model, self.num_features = models.build_embedding(config, input_shape)
        self._engine = engines.build(config.engine, self._model)
        self.chunk = self._engine.chunk

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters; none where the features are the example itself."""
        return self._model.init(stream)

    def require_parameters(self, config: RunConfig) -> None:
        """Raise where there is nothing to learn.

        Raises:
            ConfigError: the model has no parameters.
        """
        if not self.init(stream(0, Kind.INIT)):
            raise ConfigError(
                f"model {config.model.name!r} has no parameters as an embedding (model.hidden "
                f"{list(config.model.hidden)}), so algorithm {config.algorithm.name!r} has nothing "
                "to learn. Give it a hidden layer."
            )

    @torch.no_grad()
    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples, for inductive evaluation.

        Args:
            params: of the model, as `init` gave them.
            x: examples of training tasks, `[N, *input_shape]`.
        """
        _, statistics = self._engine.forward(stacked(params, 1), x[None])
        found = {
            f"{_POPULATION}{number}.{name}": value[0]
            for number, moments in enumerate(statistics)
            for name, value in zip(_MOMENTS, moments, strict=True)
        }
        return params | found

    def adapt(self, params: Params, support_x: Tensor) -> AdaptedModel:
        """Return the embedding with fixed statistics, else those of the support set `[S, ...]`."""
        phi, population = _divided(params, 1)
        return AdaptedModel.of(self._model, self._engine, phi, support_x[None], population or None)

    def features(self, params: Params, stack: Stack, joint: bool) -> tuple[Tensor, Tensor]:
        """Return the features of the support `[T, S, F]` and of the query set `[T, Q, F]`.

        Args:
            params: of the model, as `init` gave them.
            stack: T episodes; labels are not read.
            joint: batch norm over both sets together (transductive); otherwise the statistics of
                `calibrated` parameters, or else the support set's, serve both (inductive).
        """
        phi, population = _divided(params, stack.num_tasks)
        if joint:
            x = torch.cat([stack.support_x, stack.query_x], dim=1)
            features, _ = self._engine.forward(phi, x)
            num_support = stack.support_x.shape[1]
            return features[:, :num_support], features[:, num_support:]
        support, statistics = self._engine.forward(phi, stack.support_x, population or None)
        query, _ = self._engine.forward(phi, stack.query_x, statistics)
        return support, query


def _divided(params: Params, num_tasks: int) -> tuple[Params, Statistics]:
    """Return the model's parameters and its population statistics, if any, for a stack of tasks."""
    every = stacked(params, num_tasks)
    own = {name: value for name, value in every.items() if not name.startswith(_POPULATION)}
    num_norms = (len(every) - len(own)) // len(_MOMENTS)
    mean, variance = _MOMENTS
    return own, [
        (every[f"{_POPULATION}{i}.{mean}"], every[f"{_POPULATION}{i}.{variance}"])
        for i in range(num_norms)
    ]
