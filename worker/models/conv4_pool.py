"""The four pooled blocks of miniImageNet and of prototypical and matching networks."""

from __future__ import annotations

from typing import Final, final

from torch import Tensor, nn

from dmaml.common.sections import ModelSection
from dmaml.common.seeds import Stream
from dmaml.worker.models.base import Params, Statistics
from dmaml.worker.models.pooled import PooledBlocks

_BLOCKS: Final = 4


@final
class Conv4Pool:
    """4 x [3x3 convolution, batch norm, ReLU, 2x2 max-pool], flatten, linear; see `PooledBlocks`.

    `model.width` is 32 for MAML on miniImageNet (800 features at 84 x 84), 64 for prototypical and
    matching networks (64 features at 28 x 28, 1,600 at 84 x 84).

    References:
        Vinyals et al., "Matching Networks for One Shot Learning" (2016), section 4.1 (64 filters);
        Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning" (2017), section 3.1;
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), section 5.2 (32 filters) and github.com/cbfinn/maml, whose Xavier-uniform
        convolutions and head and zero offsets are taken. We differ: batch norm's scale is learned
        and its scale and shift are adapted; convolutions have no bias, which batch norm would take
        away again; epsilon is 1e-5 (there 1e-3).
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int) -> None:
        self._blocks = PooledBlocks("conv4_pool", input_shape, num_outputs, width, _BLOCKS)

    @classmethod
    def configured(
        cls, section: ModelSection, input_shape: tuple[int, ...], num_outputs: int
    ) -> Conv4Pool:
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
