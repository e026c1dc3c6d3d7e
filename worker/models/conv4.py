"""Finn's convolutional network for Omniglot."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, final

import torch
from torch import Tensor, nn

from dmaml.common.errors import ConfigError
from dmaml.common.sections import ModelSection
from dmaml.common.seeds import Stream
from dmaml.worker.models import plain
from dmaml.worker.models.base import Params, Statistics
from dmaml.worker.models.layers import Moments, batch_norm, folded_batch_norm, out_size, patches

_LAYERS: Final = 4
_HEAD_STD: Final = 0.01


@final
class Conv4:
    """4 x [3x3 convolution of stride 2, batch norm, ReLU], mean over positions, linear.

    Parameters, for i = 0 .. 3 and C the channels that come in:
        conv{i}.weight `[3, 3, C, width]` (row, column, in, out, as in Finn's code),
        norm{i}.scale, norm{i}.shift `[width]`, head.weight `[width, outputs]`, head.bias.

    An embedding (`num_outputs` 0) has no head: its features are the last layer's, flattened.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), section 5.2 and github.com/cbfinn/maml. As there: Xavier-uniform convolutions and
        zero offsets. We differ: the head starts with a deviation of 0.01 (there 1: at a mean
        inner loss and alpha 0.4, 4,800 Omniglot tasks then gave .66 after one step, against .81);
        batch norm's scale is learned and its scale and shift are adapted (there the scale is fixed
        and the offset only meta-trained); convolutions have no bias, which batch norm would take
        away again; padding is 1 on every side (there 0 before and 1 after where the size is even);
        epsilon is 1e-5 (there 1e-3).
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int) -> None:
        if len(input_shape) != 3:
            raise ConfigError(
                f"model 'conv4' requires pictures (channels, height, width), found examples of "
                f"shape {tuple(input_shape)}. Set model.name to mlp, or take a source of pictures."
            )
        self._sizes = [input_shape[1:]]
        for _ in range(_LAYERS):
            self._sizes.append((out_size(self._sizes[-1][0]), out_size(self._sizes[-1][1])))
        self._channels = (input_shape[0], *(width,) * _LAYERS)
        self._num_outputs = num_outputs

    @classmethod
    def configured(
        cls, section: ModelSection, input_shape: tuple[int, ...], num_outputs: int
    ) -> Conv4:
        """Return the model that a configuration describes."""
        return cls(input_shape, num_outputs, section.width)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        params: Params = {}
        for i in range(_LAYERS):
            fan_in, fan_out = self._channels[i], self._channels[i + 1]
            bound = math.sqrt(6 / (9 * fan_in + 9 * fan_out))
            weight = stream.uniform(3, 3, fan_in, fan_out, low=-bound, high=bound)
            params[f"conv{i}.weight"] = torch.from_numpy(weight).float()
            params[f"norm{i}.scale"] = torch.ones(fan_out)
            params[f"norm{i}.shift"] = torch.zeros(fan_out)
        if self._num_outputs:
            head = stream.normal(self._channels[-1], self._num_outputs, std=_HEAD_STD)
            params["head.weight"] = torch.from_numpy(head).float()
            params["head.bias"] = torch.zeros(self._num_outputs)
        return params

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` for `x` `[N, C, H, W]` and the batch statistics."""
        imposed = [None] * _LAYERS if statistics is None else statistics
        windows, moments = self._first(params, x, imposed[0])
        used = [moments]
        for i in range(1, _LAYERS):
            num, places, size = windows.shape
            z = torch.mm(windows.view(num * places, size), params[f"conv{i}.weight"].flatten(0, 2))
            scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
            z, moments = batch_norm(z, scale, shift, imposed[i])
            used.append(moments)
            y = z.relu().view(num, *self._sizes[i + 1], -1)
            if i + 1 < _LAYERS:
                windows = patches(y)
        if not self._num_outputs:
            return y.flatten(1), used
        features = y.flatten(1, 2).sum(1) / y.shape[1:3].numel()
        return torch.addmm(params["head.bias"], features, params["head.weight"]), used

    def module(self, params: Params, statistics: Statistics | None) -> nn.Sequential:
        """Return the same function as layers of torch, with these values."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(_LAYERS):
            moments = None if statistics is None else statistics[i]
            scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
            layers[f"conv{i}"] = plain.convolution(params[f"conv{i}.weight"], stride=2)
            layers[f"norm{i}"] = plain.norm(scale, shift, moments, dimensions=2)
            layers[f"relu{i}"] = nn.ReLU()
        if not self._num_outputs:
            height, width = self._sizes[-1]
            return nn.Sequential(layers | plain.flat(self._channels[-1], height * width))
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["head"] = plain.linear(params["head.weight"], params["head.bias"])
        return nn.Sequential(layers)

    def _first(self, params: Params, x: Tensor, imposed: Moments | None) -> tuple[Tensor, Moments]:
        """Return the second layer's windows on the first layer's output, and its statistics.

        The input is no function of the parameters and its windows are small, so the first layer is
        computed once for each window of the second that looks at it (2.25 times as often). Then
        no derivative has to gather or scatter its output, by far the largest of the network.
        """
        windows = patches(x.movedim(1, -1))
        weight = params["conv0.weight"].flatten(0, 2)
        matrix, moments = folded_batch_norm(
            windows.flatten(0, 1), weight, params["norm0.scale"], params["norm0.shift"], imposed
        )
        with_one = torch.cat([windows, torch.ones_like(windows[..., :1])], dim=2)
        num, _, size = with_one.shape
        twice = patches(with_one.view(num, *self._sizes[1], size))  # padding is zero, its one too
        places = twice.shape[1]
        y = torch.mm(twice.view(num * places * 9, size), matrix).relu_()  # in place: it is large
        return y.view(num, places, -1), moments
