"""What the pooled convolutional networks share: blocks, their flattened features, the head."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import final

import torch
from torch import Tensor, nn

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker.models import plain
from dmaml.worker.models.base import Params, Statistics
from dmaml.worker.models.convolution import convolve, max_pool
from dmaml.worker.models.layers import EPS, Moments, folded_batch_norm, windows_and_one


@final
class PooledBlocks:
    """Blocks of [3x3 convolution, batch norm, ReLU, 2x2 max-pool], flattened, then linear.

    Parameters, for block i and C the channels that come in:
        conv{i}.weight `[3, 3, C, width]` (row, column, in, out), norm{i}.scale, norm{i}.shift
        `[width]`, head.weight `[features, outputs]`, head.bias; features are in the order
        row, column, channel. An embedding (`num_outputs` 0) has no head and gives the features.
        Weights start Xavier-uniform, offsets zero, scales one.

    Args:
        name: of the model, for errors.
        input_shape: (channels, height, width).
        num_outputs: of the head.
        width: filters of every convolution.
        num_blocks: how many.

    Raises:
        ConfigError: examples that are no pictures, or too small to be halved so often.
    """

    def __init__(
        self,
        name: str,
        input_shape: tuple[int, ...],
        num_outputs: int,
        width: int,
        num_blocks: int,
    ) -> None:
        if len(input_shape) != 3:
            raise ConfigError(
                f"model {name!r} requires pictures (channels, height, width), found examples of "
                f"shape {tuple(input_shape)}. Set model.name to mlp, or take a source of pictures."
            )
        channels, height, wide = input_shape
        smallest = 2**num_blocks
        if min(height, wide) < smallest:
            raise ConfigError(
                f"model {name!r} halves pictures {num_blocks} times and requires {smallest} x "
                f"{smallest} pixels, found {height} x {wide}. Set model.name to conv4, or take "
                "larger pictures."
            )
        self._num_blocks = num_blocks
        self._channels = (channels, *(width,) * num_blocks)
        self._features = (height // smallest) * (wide // smallest) * width
        self._num_outputs = num_outputs

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        params: Params = {}
        for i in range(self._num_blocks):
            fan_in, fan_out = self._channels[i], self._channels[i + 1]
            params[f"conv{i}.weight"] = _xavier(stream, 3, 3, fan_in, fan_out)
            params[f"norm{i}.scale"] = torch.ones(fan_out)
            params[f"norm{i}.shift"] = torch.zeros(fan_out)
        if self._num_outputs:
            params["head.weight"] = _xavier(stream, self._features, self._num_outputs)
            params["head.bias"] = torch.zeros(self._num_outputs)
        return params

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` for `x` `[N, C, H, W]` and the batch statistics."""
        imposed = [None] * self._num_blocks if statistics is None else statistics
        y, moments = _first_block(params, x, imposed[0])
        used = [moments]
        for i in range(1, self._num_blocks):
            y, moments = _block(params, i, y, imposed[i])
            used.append(moments)
        features = y.flatten(1)
        if not self._num_outputs:
            return features, used
        return torch.addmm(params["head.bias"], features, params["head.weight"]), used

    def module(self, params: Params, statistics: Statistics | None) -> nn.Sequential:
        """Return the same function as layers of torch, with these values."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(self._num_blocks):
            moments = None if statistics is None else statistics[i]
            scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
            layers[f"conv{i}"] = plain.convolution(params[f"conv{i}.weight"], stride=1)
            layers[f"norm{i}"] = plain.norm(scale, shift, moments, dimensions=2)
            layers[f"relu{i}"] = nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        layers |= plain.flat(self._channels[-1], self._features // self._channels[-1])
        if self._num_outputs:
            layers["head"] = plain.linear(params["head.weight"], params["head.bias"])
        return nn.Sequential(layers)


def _block(params: Params, i: int, x: Tensor, imposed: Moments | None) -> tuple[Tensor, Moments]:
    """Return `[N, H, W, C]` -> `[N, H // 2, W // 2, width]` and the statistics of batch norm i.

    Pooling goes first, since everything after the convolution is monotone in each channel: it
    rises where the scale is positive. Where it is negative the filter is turned over before and
    the gain after it. So no more than the statistics needs the convolution's whole output.
    """
    scale = params[f"norm{i}.scale"]
    sign = torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
    z = convolve(x, params[f"conv{i}.weight"] * sign)
    if imposed is None:  # sums, not means: the derivative of a mean fills a whole tensor
        flat = z.flatten(0, 2)
        mean = flat.sum(0) / flat.shape[0]
        variance = (flat - mean).square().sum(0) / flat.shape[0]
    else:
        mean, variance = imposed[0] * sign, imposed[1]
    gain = scale * sign * torch.rsqrt(variance + EPS)
    y = torch.addcmul(params[f"norm{i}.shift"], max_pool(z) - mean, gain).relu()
    return y, (mean * sign, variance)


def _first_block(params: Params, x: Tensor, imposed: Moments | None) -> tuple[Tensor, Moments]:
    """Return the first block's output and statistics.

    The input is no function of the parameters and has few channels, so convolution and batch norm
    are one matrix product with its windows, and their derivative is another.
    """
    with_one = windows_and_one(x.movedim(1, -1)).flatten(0, 1)
    weight = params["conv0.weight"].flatten(0, 2)
    matrix, moments = folded_batch_norm(
        with_one[:, :-1], weight, params["norm0.scale"], params["norm0.shift"], imposed
    )
    z = torch.mm(with_one, matrix).view(x.shape[0], *x.shape[2:], -1)
    return max_pool(z).relu(), moments


def _xavier(stream: Stream, *shape: int) -> Tensor:
    """Return weights `[..., in, out]` uniform within sqrt(6 / (fan_in + fan_out))."""
    places = math.prod(shape[:-2])
    bound = math.sqrt(6 / (places * (shape[-2] + shape[-1])))
    return torch.from_numpy(stream.uniform(*shape, low=-bound, high=bound)).float()
