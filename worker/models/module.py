"""The user's own `torch.nn.Module` as a model: a pure function of its named parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker.models.base import Params, Statistics


@final
class ModuleModel:
    """A `torch.nn.Module` through `torch.func.functional_call`.

    Each batch norm is replaced by one that keeps no running statistics: it normalises with the
    batch, or with statistics that are imposed, in the order in which the layers are called.

    Args:
        make: returns a fresh module, `[N, *input_shape]` -> `[N, outputs]` (or features, where it
            was made with `num_outputs` 0), whose initial values come from torch's global
            generator alone.

    Raises:
        ConfigError: the module holds state or randomness that could not travel.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make
        self._tape = _Tape()
        with torch.random.fork_rng(devices=[]):
            self._module = _with_batch_statistics(make(), self._tape)
        _refuse_state(self._module)

    def init(self, stream: Stream) -> Params:
        """Return the values that the module's constructor draws, float32."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream.raw(1)[0] >> 1))
            fresh = _with_batch_statistics(self._make(), self._tape)
        return {name: value.detach().float() for name, value in fresh.named_parameters()}

    def forward(
        self, params: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the module's outputs `[N, outputs]` and the statistics of its batch norms."""
        self._tape.start(statistics)
        outputs: Tensor = functional_call(self._module, params, (x,))
        return outputs, self._tape.used

    def module(self, params: Params, statistics: Statistics | None) -> nn.Module:
        """Return the user's module with these values; its batch norms as it made them.

        Raises:
            ConfigError: a batch norm that is called more than once, or never.
        """
        with torch.random.fork_rng(devices=[]):
            fresh = self._make().eval()
        norms = {name: m for name, m in fresh.named_modules() if isinstance(m, _BatchNorm)}
        for layer in norms.values():
            layer.track_running_stats = statistics is not None
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        if statistics is not None:
            for name, (mean, variance) in zip(self._order(norms), statistics, strict=True):
                norms[name].running_mean = mean.clone()
                norms[name].running_var = variance.clone()
                norms[name].num_batches_tracked = torch.tensor(0)
        own = dict(fresh.named_parameters())
        with torch.no_grad():
            for name, value in params.items():
                own[name].copy_(value)
        return fresh

    def _order(self, norms: dict[str, _BatchNorm]) -> list[str]:
        """Return the names of the batch norms in the order of the last call."""
        names = {id(m): name for name, m in self._module.named_modules()}
        called = [names[one] for one in self._tape.called]
        if sorted(called) != sorted(norms):
            raise ConfigError(
                f"model {type(self._module).__name__!r} calls its batch norms "
                f"{sorted(norms)} in the order {called}; a plain module has one set of statistics "
                "for each. Give each call a batch norm of its own."
            )
        return called


class _Tape:
    """Statistics used by the batch norms of one call, in the order of the calls."""

    def __init__(self) -> None:
        self.start(None)

    def start(self, imposed: Statistics | None) -> None:
        self._imposed = imposed
        self.used: Statistics = []
        self.called: list[int] = []  # the layers, by id

    def next(self) -> tuple[Tensor, Tensor] | None:
        return None if self._imposed is None else self._imposed[len(self.used)]


class _BatchStatisticsNorm(nn.Module):
    """Batch norm over all dimensions but the second, without running statistics."""

    def __init__(self, replaced: _BatchNorm, tape: _Tape) -> None:
        super().__init__()
        self.weight = replaced.weight
        self.bias = replaced.bias
        self._eps = replaced.eps
        self._tape = tape

    def forward(self, x: Tensor) -> Tensor:
        self._tape.called.append(id(self))
        imposed = self._tape.next()
        if imposed is None:
            others = [d for d in range(x.dim()) if d != 1]
            mean, variance = x.mean(others), x.var(others, unbiased=False)
        else:
            mean, variance = imposed
        self._tape.used.append((mean, variance))
        shape = (-1, *(1,) * (x.dim() - 2))
        y = (x - mean.view(shape)) * torch.rsqrt(variance + self._eps).view(shape)
        return y if self.weight is None else y * self.weight.view(shape) + self.bias.view(shape)


def _with_batch_statistics(module: nn.Module, tape: _Tape) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return _BatchStatisticsNorm(module, tape)
    for name, child in module.named_children():
        setattr(module, name, _with_batch_statistics(child, tape))
    return module


def _refuse_state(module: nn.Module) -> None:
    kind = type(module).__name__
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        raise ConfigError(
            f"model {kind!r} holds the buffer {buffers[0]!r}, and nothing but parameters travels. "
            "Make it a parameter, or a constant that forward() computes."
        )
    for name, child in module.named_modules():
        if isinstance(child, _DropoutNd) and child.p > 0:
            raise ConfigError(
                f"model {kind!r} holds dropout {name!r} with p = {child.p}, and a model must be a "
                "pure function of its parameters. Remove it or set p to 0."
            )
