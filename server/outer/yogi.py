"""Yogi: Adam whose second moment moves by steps that do not depend on how far it is off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, final

import numpy as np
import torch

from dmaml.common.layout import Flat

BLOCK: Final = 1 << 16  # float32 values: eight rows of 256 KiB


@final
class Yogi(torch.optim.Optimizer):
    """Move θ against its gradient g, both float32, in step t = 1, 2, …

    ```
    g ← g + λθ
    m ← β₁ m + (1 − β₁) g
    v ← v − (1 − β₂) sign(v − g²) g²
    θ ← θ − η m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)
    ```

    Where g² is small beside v, Adam's v decays by the factor β₂ a step, and the effective rate
    η/√v soon grows; Yogi's v falls by (1 − β₂) g² only.

    Everything is elementwise float32 by numpy, one rounding per operation, block by block, so the
    bits depend neither on blocks nor on threads.

    Args:
        lr: η.
        betas: β₁, β₂.
        eps: ε. The paper's 1e-3 is large beside √v̂ of a small gradient: it bounds the rate.
        weight_decay: λ, as an L2 penalty.

    References:
        Zaheer, Reddi, Sachan, Kale, Kumar: Adaptive Methods for Nonconvex Optimization, NeurIPS
        2018, Algorithm 2. It has neither m̂ nor v̂ nor λ. With m and v from 0, m̂ and v̂ make the
        first steps those of Adam; other implementations have m̂ and v̂ too, but begin with v = 1e-6,
        which v̂ makes 1e-3 in the first step: beside that the g² of a small gradient is lost.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do one step."""
        for group in self.param_groups:
            for theta in group["params"]:
                if theta.grad is not None:
                    self._move(theta, theta.grad, group)

    def _move(self, theta: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[theta]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(theta)
            state["exp_avg_sq"] = torch.zeros_like(theta)
        state["step"] += 1
        tensors = (theta, grad, state["exp_avg"], state["exp_avg_sq"])
        rows = [tensor.numpy().reshape(-1) for tensor in tensors]
        for start in range(0, theta.numel(), BLOCK):
            block = [row[start : start + BLOCK] for row in rows]
            _move_block(*block, number=int(state["step"]), **group)


def _move_block(
    theta: Flat,
    g: Flat,
    m: Flat,
    v: Flat,
    *,
    number: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    **_: Any,
) -> None:
    beta1, beta2 = betas
    if weight_decay:
        g = g + np.float32(weight_decay) * theta
    m *= np.float32(beta1)
    m += np.float32(1 - beta1) * g
    square = g * g
    sign = np.sign(v - square)
    square *= np.float32(1 - beta2)
    square *= sign
    v -= square
    denominator = np.sqrt(v)
    denominator /= np.float32(math.sqrt(1 - beta2**number))
    denominator += np.float32(eps)
    move = m / denominator
    move *= np.float32(lr / (1 - beta1**number))
    theta -= move
