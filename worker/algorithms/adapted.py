"""What adaptation leaves behind: a model with fixed parameters and statistics, ready to predict."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor, nn

from dmaml.common.errors import ConfigError
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.engine.base import Engine
from dmaml.worker.models.base import Model, Params, Statistics


class Readout(Protocol):
    """A function from features to outputs that the support set has fixed."""

    def outputs(self, features: Tensor) -> Tensor:
        """Return `[N, outputs]` for features `[N, F]`."""
        ...

    def module(self) -> nn.Sequential:
        """Return layers of torch that give the probabilities `[N, n_way]`."""
        ...


@final
@dataclass(frozen=True)
class AdaptedModel:
    """A model that was adapted to one task.

    Attributes:
        model: the network.
        engine: around it.
        params: φ, `[*shape]` each.
        statistics: mean and variance of each batch norm on the support set, `[channels]` each;
            they are imposed on every query (inductive).
        readout: what follows the network; None: nothing.
    """

    model: Model
    engine: Engine
    params: Params
    statistics: Statistics
    readout: Readout | None = None

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        model: Model,
        engine: Engine,
        stack: Params,
        support_x: Tensor,
        imposed: Statistics | None = None,
    ) -> AdaptedModel:
        """Return the only task of a stack, with the statistics of its support set.

        Args:
            model: the network.
            engine: around it.
            stack: φ, `[1, *shape]` each.
            support_x: `[1, S, *input_shape]`.
            imposed: statistics `[1, channels]` to keep instead; None: the support set's.
        """
        _, statistics = engine.forward(stack, support_x, imposed)
        params = {name: value[0].detach() for name, value in stack.items()}
        return cls(model, engine, params, [(mean[0], var[0]) for mean, var in statistics])

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """Return the outputs `[N, outputs]` for `x` `[N, *input_shape]`."""
        imposed = [(mean[None], variance[None]) for mean, variance in self.statistics]
        outputs, _ = self.engine.forward(stacked(self.params, 1), x[None], imposed)
        return outputs[0] if self.readout is None else self.readout.outputs(outputs[0])

    def module(self, has_classes: bool) -> nn.Sequential:
        """Return the same as a plain module of torch: probabilities, or values of regression.

        Raises:
            ConfigError: the model has no plain form.
        """
        body = plain(self.model, self.params, self.statistics)
        if self.readout is not None:
            return nn.Sequential(OrderedDict(embedding=body, readout=self.readout.module()))
        if has_classes:
            return nn.Sequential(OrderedDict(model=body, softmax=nn.Softmax(dim=1)))
        return nn.Sequential(OrderedDict(model=body))


def plain(model: Model, params: Params, statistics: Statistics | None) -> nn.Module:
    """Return a model with these values as a plain module of torch.

    Args:
        model: the network.
        params: `[*shape]` each.
        statistics: what its batch norms impose; None: each takes those of its batch.

    Raises:
        ConfigError: the model has no method `module`.
    """
    make = getattr(model, "module", None)
    if make is None:
        raise ConfigError(
            f"model {type(model).__name__!r} has no plain form. Give it the method "
            "`module(params, statistics)` (docs/learner.md)."
        )
    made: nn.Module = make(params, statistics)
    return made.eval()
