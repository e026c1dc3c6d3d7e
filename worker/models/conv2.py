"""The small network of "Learning Task Similarity via Meta Learning and Model Splitting"."""

from __future__ import annotations

from typing import Final, final

from torch import Tensor, nn

from dmaml.common.sections import ModelSection
from dmaml.common.seeds import Stream
from dmaml.worker.models.base import Params, Statistics
from dmaml.worker.models.pooled import PooledBlocks

_BLOCKS: Final = 2


@final
class Conv2:
    """2 x [3x3 convolution, batch norm, ReLU, 2x2 max-pool], flatten, dense; see `PooledBlocks`.

    `model.width` is 64 in the paper: 3,136 features at 28 x 28.

    References:
        "Learning Task Similarity via Meta Learning and Model Splitting": two 3x3 convolutions of
        64 channels and a dense layer. It says no more of it, so the blocks are those of
        `conv4_pool` (batch norm, max-pool, Xavier-uniform weights).
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int) -> None:
        self._blocks = PooledBlocks("conv2", input_shape, num_outputs, width, _BLOCKS)

    @classmethod
    def configured(
        cls, section: ModelSection, input_shape: tuple[int, ...], num_outputs: int
    ) -> Conv2:
        """Return the model that a configuration describes."""
        return cls(input_shape, num_outputs, section.width)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream."""
        return self._blocks.init(stream)

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs `[N, outputs]` for `x` `[N, C, H, W]` and the batch statistics."""
        return self._blocks.forward(params, x, statistics)

    def module(self, params: Params, statistics: Statistics | None) -> nn.Sequential:
        """Return the same function as layers of torch, with these values."""
        return self._blocks.module(params, statistics)
