"""Episodes as sequences of (features, label), for learners that read them one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Stream
from dmaml.worker.algorithms.base import Problem
from dmaml.worker.algorithms.embedding import Embedding
from dmaml.worker.algorithms.episodes import Stack
from dmaml.worker.algorithms.options import choice
from dmaml.worker.algorithms.shuffles import ordered, own_streams, permutations
from dmaml.worker.models.base import Params

_PREFIX: Final = "embedding."
_EPS: Final = 1e-5  # beside a variance, as in batch norm
FEATURES: Final = ("plain", "standardised")


@dataclass(frozen=True)
class Sequence:
    """T episodes.

    Attributes:
        support: features `[T, S, F]`, in an order of each task's own.
        labels: of the same, one-hot or targets `[T, S, outputs]`.
        query: features `[T, Q, F]`.
    """

    support: Tensor
    labels: Tensor
    query: Tensor


@final
class Reader:
    """Makes sequences of stacks; knows the embedding, whose parameters begin with `embedding.`.

    The support set is read in a random order that is a function of its examples (`shuffles`), so
    that labels cannot be told from places.

    Standardised features have mean 0 and variance 1 over the support set, each by itself:
    f ← (f - mean_S f) / √(var_S f + 1e-5), queries by the support set's figures. A fresh embedding
    tells pictures apart by small differences; the same size for all of them lets a network that
    reads sequences leave chance (docs/experiments.md).

    Args:
        config: the run's.
        problem: what the tasks are.
        features: plain or standardised.

    Raises:
        ValueError: other features.

    Attributes:
        num_features: width F.
        num_outputs: width of a label.
        chunk: tasks at once.
    """

    def __init__(self, config: RunConfig, problem: Problem, features: str = "plain") -> None:
        choice("features", features, FEATURES)
        self._standardises = features == "standardised"
        self._embedding = Embedding(config, problem.input_shape)
        self._classifies = problem.kind == "classification"
        self.num_features = self._embedding.num_features
        self.num_outputs = problem.num_outputs
        self.chunk = self._embedding.chunk

    def init(self, stream: Stream) -> Params:
        """Return the embedding's fresh parameters."""
        return {f"{_PREFIX}{name}": value for name, value in self._embedding.init(stream).items()}

    def calibrated(self, params: Params, x: Tensor) -> Params:
        """Return the parameters with the statistics of these examples; see `Embedding`."""
        found = self._embedding.calibrated(self._own(params), x)
        return params | {f"{_PREFIX}{name}": value for name, value in found.items()}

    def read(self, params: Params, stack: Stack, joint: bool) -> Sequence:
        """Return the stack's sequences; see `Predictor` for `joint`."""
        support, query = self._embedding.features(self._own(params), stack, joint)
        if self._standardises:
            support, query = _standardised(support, query)
        labels = stack.support_y
        if self._classifies:
            labels = F.one_hot(labels, self.num_outputs)
        streams = own_streams(stack.support_x, stack.support_y)
        order = permutations(streams, support.shape[1])
        return Sequence(ordered(support, order), ordered(labels.to(support.dtype), order), query)

    def _own(self, params: Params) -> Params:
        return {
            name.removeprefix(_PREFIX): value
            for name, value in params.items()
            if name.startswith(_PREFIX)
        }


def _standardised(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with the support set's mean 0 and variance 1, `[T, S, F]` and `[T, Q, F]`."""
    variance, mean = torch.var_mean(support, dim=1, correction=0, keepdim=True)
    scale = torch.rsqrt(variance + _EPS)
    return (support - mean) * scale, (query - mean) * scale


def uniform(stream: Stream, *shape: int, bound: float) -> Tensor:
    """Return float32 `shape`, uniform on [-bound, bound)."""
    return torch.from_numpy(stream.uniform(*shape, low=-bound, high=bound)).float()


def lstm_bias(hidden: int) -> Tensor:
    """Return the bias of an LSTM's gates, `[4 hidden]`: 1 for the forget gate, else 0.

    The gates' order is torch's: input, forget, cell, output.
    """
    bias = np.zeros((4, hidden), dtype=np.float32)
    bias[1] = 1.0
    return torch.from_numpy(bias.reshape(-1))
