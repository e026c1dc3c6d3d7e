"""Named parameters as layers of torch: for models that leave dmaml."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor, nn

from dmaml.worker.models.layers import EPS, Moments

Layer = TypeVar("Layer", bound=nn.Module)


def convolution(weight: Tensor, stride: int) -> nn.Conv2d:
    """Return a 3x3 convolution of padding 1 without bias.

    Args:
        weight: `[3, 3, in, out]` (row, column, in, out).
        stride: 1 or 2.
    """
    _, _, fan_in, fan_out = weight.shape
    layer = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=False)
    return filled(layer, weight=weight.permute(3, 2, 0, 1))


def norm(scale: Tensor, shift: Tensor, moments: Moments | None, dimensions: int) -> nn.Module:
    """Return a batch norm with fixed statistics, or one that always takes its batch's.

    Args:
        scale, shift: `[C]`.
        moments: mean and biased variance `[C]` each, or None.
        dimensions: 1 after a linear layer, 2 after a convolution.
    """
    kind = nn.BatchNorm1d if dimensions == 1 else nn.BatchNorm2d
    layer = kind(len(scale), eps=EPS, track_running_stats=moments is not None)
    if moments is None:
        return filled(layer, weight=scale, bias=shift)
    mean, variance = moments
    return filled(layer, weight=scale, bias=shift, running_mean=mean, running_var=variance)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a linear layer; `weight` is `[in, out]`."""
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None)
    values = {"weight": weight.T} if bias is None else {"weight": weight.T, "bias": bias}
    return filled(layer, **values)


def flat(channels: int, positions: int) -> OrderedDict[str, nn.Module]:
    """Return layers that flatten `[N, C, H, W]` in the order row, column, channel.

    `ChannelShuffle` with C groups is just this: it turns `[C, positions]` into `[positions, C]`.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if positions > 1:
        layers["column"] = nn.Unflatten(1, (channels * positions, 1))
        layers["shuffle"] = nn.ChannelShuffle(channels)
        layers["features"] = nn.Flatten()
    return layers


def filled(layer: Layer, **values: Tensor) -> Layer:
    """Return the layer with these values."""
    state = layer.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    return layer
