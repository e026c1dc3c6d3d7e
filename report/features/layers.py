"""The layers of a plain module of torch: what each gives, and the groups that people speak of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dmaml.common.errors import ConfigError

_WEIGHTED: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NEURONS: Final = slice(2, 4)  # the third and the fourth


@final
class Layers:
    """The layers of a module in the order in which they are called.

    A *block* is a layer with a weight matrix and all that follows until the next; its name is that
    layer's. The last block is the head: its weight layer gives the scores.

    Args:
        module: in evaluation mode, every picture's outputs its own.
        example: `[1, *input_shape]`, to call it once.

    Attributes:
        names: of the blocks.

    Raises:
        ConfigError: fewer than two layers with weights.
    """

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        self._module = module
        leaves = {name: leaf for name, leaf in module.named_modules() if not list(leaf.children())}
        with torch.no_grad(), _watched(leaves) as seen:
            module(example)
        self._blocks: list[list[tuple[str, nn.Module]]] = []
        for name in seen:  # in the order in which they were called
            leaf = leaves[name]
            if isinstance(leaf, _WEIGHTED):
                self._blocks.append([])
            if self._blocks:
                self._blocks[-1].append((_last_part(name), leaf))
        if len(self._blocks) < 2:
            raise ConfigError(
                f"the network has {len(self._blocks)} layers with weights; required at least 2, "
                "an embedding and a head. Train a deeper one."
            )
        self.names = tuple(block[0][0] for block in self._blocks)

    @property
    def first_weight(self) -> Tensor:
        """The filters of the first layer, `[filters, ...]`."""
        weight = self._blocks[0][0][1].weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @property
    def neuron_layers(self) -> tuple[str, ...]:
        """The third and fourth batch norm, or the last two where there are fewer.

        Without batch norm, the weight layers before the head stand for them.
        """
        norms = [n for block in self._blocks for n, leaf in block if isinstance(leaf, _BatchNorm)]
        found = norms or list(self.names[:-1])
        return tuple(found[_NEURONS] or found[-2:])

    def blocks(self, x: Tensor) -> dict[str, Tensor]:
        """Return what each block gives, flattened, `[N, features]`; of the head its scores."""
        kept = {name: block[-1][1] for name, block in zip(self.names, self._blocks, strict=True)}
        kept[self.names[-1]] = self._blocks[-1][0][1]
        with torch.no_grad(), _watched(kept) as seen:
            self._module(x)
        return {name: seen[name].flatten(1) for name in self.names}

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the last layer, `[N, features]`."""
        return self.blocks(x)[self.names[-2]]

    def scores(self, x: Tensor) -> Tensor:
        """Return the head's scores `[N, outputs]`, differentiable in x."""
        with _watched({"head": self._blocks[-1][0][1]}) as seen:
            self._module(x)
        return seen["head"]

    def neurons(self, x: Tensor, layer: str) -> Tensor:
        """Return what the neurons of a layer give, `[N, neurons]`, differentiable in x.

        A neuron of a convolution is a channel, its activation the mean over positions.
        """
        leaf = next(leaf for block in self._blocks for name, leaf in block if name == layer)
        with _watched({layer: leaf}) as seen:
            self._module(x)
        found = seen[layer]
        return found if found.ndim == 2 else found.flatten(2).mean(2)


@contextmanager
def _watched(leaves: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that is filled with the leaves' outputs as they are called."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            seen[name] = output.clone()  # what follows may work in place

        return hook

    hooks = [leaf.register_forward_hook(keep(name)) for name, leaf in leaves.items()]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _last_part(name: str) -> str:
    return name.rsplit(".", maxsplit=1)[-1]
