"""The inner loop: a stack of tasks adapts by gradient steps on their support sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dmaml.worker.algorithms.episodes import Kind, gradients, losses
from dmaml.worker.algorithms.rates import Rates
from dmaml.worker.algorithms.roles import Roles
from dmaml.worker.engine.base import Engine
from dmaml.worker.models.base import Params, Statistics


@dataclass(frozen=True)
class Pass:
    """What a stack's tasks gave on one of their sets: outputs `[T, N, outputs]`, losses `[T]`."""

    outputs: Tensor
    losses: Tensor

    def detached(self) -> Pass:
        """Return the same without a graph."""
        return Pass(self.outputs.detach(), self.losses.detach())


@final
class InnerLoop:
    """φ_{k+1} = φ_k - α_k ∂L_S(φ_k)/∂φ_k, for T tasks at once.

    φ holds the adapted parameters, `[T, *shape]`; `shared` what all tasks have in common at φ_k,
    `[*shape]` (`Roles`). `meta` is all that is meta-learned: the model's parameters and the rates.
    """

    def __init__(self, engine: Engine, kind: Kind, roles: Roles, rates: Rates) -> None:
        self.engine = engine
        self.kind: Kind = kind
        self.roles = roles
        self.rates = rates

    def forward(
        self, phi: Params, shared: Params, x: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Statistics]:
        """Return the outputs for `x` `[T, N, *input_shape]`, and the statistics; see `Engine`."""
        params = self.roles.model(phi, shared, x.shape[0])
        return self.engine.forward(params, x, statistics)

    def measured(self, phi: Params, shared: Params, x: Tensor, y: Tensor) -> Pass:
        """Return outputs and losses, with the graph."""
        outputs, _ = self.forward(phi, shared, x)
        return Pass(outputs, losses(self.kind, outputs, y))

    def adapted(self, meta: Params, phi: Params, step: int, x: Tensor, y: Tensor) -> Params:
        """Return φ_{step + 1}, without a graph."""
        leaves = free(phi)
        found = self.measured(leaves, self.roles.shared_at(meta, step), x, y)
        gradient = gradients(found.losses.sum(), leaves)
        with torch.no_grad():
            return self.rates.step(leaves, gradient, meta, step)


def free(params: Params) -> Params:
    """Return the same values as leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in params.items()}
