"""Prototypical networks: a class is the mean of its examples' features."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.adapted import AdaptedModel
from dmaml.worker.algorithms.base import Problem
from dmaml.worker.algorithms.embedding import Embedding
from dmaml.worker.algorithms.episodes import Stack
from dmaml.worker.algorithms.feedforward import FeedForward
from dmaml.worker.algorithms.options import require_kind
from dmaml.worker.models.base import Params
from dmaml.worker.models.plain import linear


@final
class Protonet:
    """Classify by the squared Euclidean distance to the class means, in feature space.

        c_k = mean of f_θ(x) over the support examples x of class k
        p(y = k | x) = softmax_k(-|f_θ(x) - c_k|²)

    f_θ is the run's model without its head. Tasks may have any number of classes, also another
    one in evaluation than in training (the paper trains on 60).

    References:
        Snell, Swersky, Zemel, "Prototypical networks for few-shot learning" (2017), equations 1
        and 2, algorithm 1. As there, `accuracy_inductive` has population statistics in its batch
        norm (there running averages); `accuracy` has those of the episode.
    """

    any_way = True

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding
        self.chunk = embedding.chunk

    @classmethod
    def configured(cls, config: RunConfig, problem: Problem) -> FeedForward:
        """Return the algorithm that a configuration describes.

        Raises:
            ConfigError: regression, or a model without parameters.
        """
        require_kind(config, problem, "classification")
        embedding = Embedding(config, problem.input_shape)
        embedding.require_parameters(config)
        return FeedForward(config, problem.kind, cls(embedding))

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._embedding.init(stream)

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples; see `Embedding`."""
        return self._embedding.calibrated(params, x)

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the negative squared distances `[T, Q, n_way]`; see `Predictor`."""
        support, query = self._embedding.features(params, stack, joint)
        return -squared_distances(query, class_means(support, stack.support_y))

    @torch.no_grad()
    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> AdaptedModel:
        """Return the embedding with one task's class means; see `FeedForward.adapt`."""
        embedding = self._embedding.adapt(params, support_x)
        means = class_means(embedding.outputs(support_x)[None], support_y[None])
        return replace(embedding, readout=Prototypes(means[0]))


@final
@dataclass(frozen=True)
class Prototypes:
    """The class means c_k of one task, `[n_way, F]` (a `Readout`)."""

    means: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """Return the negative squared distances `[N, n_way]` of features `[N, F]`."""
        return -squared_distances(features[None], self.means[None])[0]

    def module(self) -> nn.Sequential:
        """Return a linear layer and softmax.

        With m the mean of the means, -|p - c|² = 2 p·(c - m) - (|c|² - |m|²) and a term without c,
        which softmax does not see. (With m = 0 rounding would be larger.)

        References:
            Snell, Swersky, Zemel (2017), equations 8 and 9.
        """
        means = self.means.double()
        middle = means.mean(0)
        away = means - middle
        scores = linear(2 * away.T, -(away * (means + middle)).sum(1))
        return nn.Sequential(OrderedDict(prototypes=scores, softmax=nn.Softmax(dim=1)))


def class_means(features: Tensor, y: Tensor) -> Tensor:
    """Return the mean features of each class, `[T, n_way, F]`.

    Args:
        features: `[T, S, F]`.
        y: labels int64 `[T, S]`; every class 0 .. n_way - 1 has an example.
    """
    members = F.one_hot(y).to(features.dtype).transpose(1, 2)
    return torch.bmm(members, features) / members.sum(2, keepdim=True)


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return |p - c|² of each point and centre, `[T, Q, C]`, as |p|² - 2 p·c + |c|².

    Args:
        points: `[T, Q, F]`.
        centres: `[T, C, F]`.
    """
    crossed = torch.bmm(points, centres.transpose(1, 2))
    squares = centres.square().sum(2)[:, None]
    return points.square().sum(2, keepdim=True) - 2 * crossed + squares
