"""The run's model without its head, applied to episodes."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker import engine as engines
from dmaml.worker import models
from dmaml.worker.algorithms.episodes import Stack, stacked
from dmaml.worker.models.base import Params


@final
class Embedding:
    """Features of an episode's examples; all tasks share the parameters.

    Batch norm has no running averages (nothing but parameters travels), so a task's own examples
    give the statistics: those of both sets together, or of the support set alone.

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

    def features(self, params: Params, stack: Stack, joint: bool) -> tuple[Tensor, Tensor]:
        """Return the features of the support `[T, S, F]` and of the query set `[T, Q, F]`.

        Args:
            params: of the model, as `init` gave them.
            stack: T episodes; labels are not read.
            joint: batch norm over both sets together (transductive); otherwise the support set's
                statistics serve both (inductive).
        """
        phi = stacked(params, stack.num_tasks)
        if joint:
            x = torch.cat([stack.support_x, stack.query_x], dim=1)
            features, _ = self._engine.forward(phi, x)
            num_support = stack.support_x.shape[1]
            return features[:, :num_support], features[:, num_support:]
        support, statistics = self._engine.forward(phi, stack.support_x)
        query, _ = self._engine.forward(phi, stack.query_x, statistics)
        return support, query
