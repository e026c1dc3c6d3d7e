"""A fully connected network."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from dmaml.common.sections import ModelSection
from dmaml.common.seeds import Float64, Stream
from dmaml.worker.models import plain
from dmaml.worker.models.base import Params, Statistics
from dmaml.worker.models.layers import batch_norm

_STD: Final = 0.01


@final
class Mlp:
    """Hidden layers of [linear, optional batch norm, ReLU], then a linear layer.

    Parameters, for layer i: linear{i}.weight `[in, out]`, linear{i}.bias `[out]`, with batch norm
    norm{i}.scale and norm{i}.shift in place of a hidden layer's bias (which it would take away).

    An embedding (`num_outputs` 0) ends with the last hidden layer; without hidden layers it is the
    flattened example itself.

    References:
        Finn, Abbeel, Levine (2017), section 5.1 and github.com/cbfinn/maml: weights from a normal
        of standard deviation 0.01 cut at two, biases zero. We differ: batch norm's scale is
        learned, and its scale and shift are adapted. Glorot, Bengio, "Understanding the difficulty
        of training deep feedforward neural networks" (2010), equation 16: `init: glorot`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        hidden: tuple[int, ...],
        batch_norm: bool = False,
        init: Literal["normal", "glorot"] = "normal",
    ) -> None:
        head = (num_outputs,) if num_outputs else ()
        self._sizes = (math.prod(input_shape), *hidden, *head)
        self._num_hidden = len(hidden)
        self._batch_norm = batch_norm
        self._draw = _DRAWS[init]

    @classmethod
    def configured(
        cls, section: ModelSection, input_shape: tuple[int, ...], num_outputs: int
    ) -> Mlp:
        """Return the model that a configuration describes."""
        return cls(input_shape, num_outputs, section.hidden, section.batch_norm, section.init)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        params: Params = {}
        for i in range(len(self._sizes) - 1):
            fan_in, fan_out = self._sizes[i], self._sizes[i + 1]
            weight = self._draw(stream, fan_in, fan_out)
            params[f"linear{i}.weight"] = torch.from_numpy(weight).float()
            if self._normalises(i):
                params[f"norm{i}.scale"] = torch.ones(fan_out)
                params[f"norm{i}.shift"] = torch.zeros(fan_out)
            else:
                params[f"linear{i}.bias"] = torch.zeros(fan_out)
        return params

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` for `x` `[N, *input_shape]`, and the statistics."""
        used: Statistics = []
        x = x.flatten(1)
        for i in range(len(self._sizes) - 1):
            weight = params[f"linear{i}.weight"]
            if self._normalises(i):
                imposed = None if statistics is None else statistics[i]
                scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
                x, layer = batch_norm(torch.mm(x, weight), scale, shift, imposed)
                used.append(layer)
            else:
                x = torch.addmm(params[f"linear{i}.bias"], x, weight)
            if i < self._num_hidden:
                x = x.relu()
        return x, used

    def module(self, params: Params, statistics: Statistics | None) -> nn.Sequential:
        """Return the same function as layers of torch, with these values."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i in range(len(self._sizes) - 1):
            layers[f"linear{i}"] = plain.linear(
                params[f"linear{i}.weight"], params.get(f"linear{i}.bias")
            )
            if self._normalises(i):
                moments = None if statistics is None else statistics[i]
                scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
                layers[f"norm{i}"] = plain.norm(scale, shift, moments, dimensions=1)
            if i < self._num_hidden:
                layers[f"relu{i}"] = nn.ReLU()
        return nn.Sequential(layers)

    def _normalises(self, layer: int) -> bool:
        return self._batch_norm and layer < self._num_hidden


def _normal(stream: Stream, fan_in: int, fan_out: int) -> Float64:
    return truncated_normal(stream, fan_in * fan_out).reshape(fan_in, fan_out) * _STD


def _glorot(stream: Stream, fan_in: int, fan_out: int) -> Float64:
    bound = math.sqrt(6 / (fan_in + fan_out))
    return stream.uniform(fan_in, fan_out, low=-bound, high=bound)


_DRAWS: Final = {"normal": _normal, "glorot": _glorot}


def truncated_normal(stream: Stream, count: int) -> Float64:
    """Return float64 `[count]`, standard Gaussian without the values beyond 2 (drawn again)."""
    kept = np.empty(0)
    while len(kept) < count:
        drawn = stream.normal(count)
        kept = np.concatenate([kept, drawn[np.abs(drawn) < 2]])
    return kept[:count]
