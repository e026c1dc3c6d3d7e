"""Matching networks: a query's label is an attention-weighted mean of the support set's."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final, final

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
from dmaml.worker.algorithms.options import number, require_kind
from dmaml.worker.models.base import Params
from dmaml.worker.models.plain import linear

_LEAST: Final = 1e-30  # of a probability, so that its logarithm is finite


@final
class Matching:
    """Attend to the support set by cosine similarity.

        a(x, x_i) = softmax_i(s cos(f_θ(x), f_θ(x_i))),  p(y = k | x) = Σ_i a(x, x_i) [y_i = k]

    f_θ is the run's model without its head, for both sets alike, and s = `scale`. Outputs are
    log p. Tasks may have any number of classes, also another one in evaluation than in training.

    Args:
        embedding: f_θ.
        scale: s > 0. 1 is the paper's: p is then nearly flat (at most 0.65 of five classes).

    References:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching networks for one shot
        learning" (2016), equation 1 and section 2.1.1. Without the full context embeddings of
        section 2.1.2. We differ by `scale`.
    """

    any_way = True

    def __init__(self, embedding: Embedding, scale: float) -> None:
        self._embedding = embedding
        self._scale = scale
        self.chunk = embedding.chunk

    @classmethod
    def configured(cls, config: RunConfig, problem: Problem, scale: float = 1.0) -> FeedForward:
        """Return the algorithm that a configuration describes.

        Raises:
            ConfigError: regression, or a model without parameters.
            ValueError: a scale that is no number > 0.
        """
        require_kind(config, problem, "classification")
        scale = number("scale", scale, "> 0", lambda value: value > 0)
        embedding = Embedding(config, problem.input_shape)
        embedding.require_parameters(config)
        return FeedForward(config, problem.kind, cls(embedding, scale))

    def init(self, stream: Stream) -> Params:
        """Return the model's fresh parameters."""
        return self._embedding.init(stream)

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples; see `Embedding`."""
        return self._embedding.calibrated(params, x)

    def outputs(self, params: Params, stack: Stack, joint: bool) -> Tensor:
        """Return the log probabilities `[T, Q, n_way]`; see `Predictor`."""
        support, query = self._embedding.features(params, stack, joint)
        return attended(query, support, stack.support_y, self._scale)

    @torch.no_grad()
    def adapt(self, params: Params, support_x: Tensor, support_y: Tensor) -> AdaptedModel:
        """Return the embedding with one task's support set; see `FeedForward.adapt`."""
        embedding = self._embedding.adapt(params, support_x)
        support = embedding.outputs(support_x)
        return replace(embedding, readout=Attention(support, support_y, self._scale))


@final
@dataclass(frozen=True)
class Attention:
    """One task's support set in feature space (a `Readout`).

    Attributes:
        support: `[S, F]`.
        labels: int64 `[S]`.
        scale: s.
    """

    support: Tensor
    labels: Tensor
    scale: float

    def outputs(self, features: Tensor) -> Tensor:
        """Return the log probabilities `[N, n_way]` of features `[N, F]`."""
        return attended(features[None], self.support[None], self.labels[None], self.scale)[0]

    def module(self) -> nn.Sequential:
        """Return four layers: RMS norm (√F times the unit vector), cosines, softmax, labels."""
        num_features = self.support.shape[1]
        unit = F.normalize(self.support, dim=1) * (self.scale / math.sqrt(num_features))
        rows = F.one_hot(self.labels).to(unit.dtype)
        return nn.Sequential(
            OrderedDict(
                normalize=nn.RMSNorm(num_features, eps=_LEAST, elementwise_affine=False),
                cosines=linear(unit.T, None),
                softmax=nn.Softmax(dim=1),
                labels=linear(rows, None),
            )
        )


def attended(query: Tensor, support: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Return the log probabilities `[T, Q, n_way]` of features `[T, Q, F]`.

    Args:
        query: `[T, Q, F]`.
        support: `[T, S, F]`.
        labels: of the support set, int64 `[T, S]`.
        scale: s.
    """
    attention = (scale * cosines(query, support)).softmax(2)
    rows = F.one_hot(labels).to(attention.dtype)
    return torch.bmm(attention, rows).clamp_min(_LEAST).log()


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between each row of `a` `[T, N, F]` and `b` `[T, M, F]`.

    The cosine with a row of zeros is 0.
    """
    return torch.bmm(F.normalize(a, dim=2), F.normalize(b, dim=2).transpose(1, 2))
