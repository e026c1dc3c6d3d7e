"""Outer optimisers over the flat buffer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dmaml.common.layout import Flat
from dmaml.common.outer import OuterSection, resolve_outer
from dmaml.server.outer.yogi import Yogi

Arrays = dict[str, NDArray[np.float32]]


class Outer:
    """θ of one pipeline and the optimiser that moves it.

    Args:
        theta: float32 `[d]`, copied.
        config: which optimiser, with its numbers.
    """

    def __init__(self, theta: Flat, config: OuterSection) -> None:
        self._config = config
        self._theta = torch.from_numpy(np.array(theta, dtype="<f4", copy=True))
        self._optimizer = optimizer(self._theta, config)

    @property
    def theta(self) -> Flat:
        """The parameters now, float32 `[d]`; a view, changed by `step`."""
        view: Flat = self._theta.numpy()
        return view

    def step(self, gradient: Flat, lr: float) -> None:
        """Do one step of rate `lr` against `gradient`, float32 `[d]`."""
        self._optimizer.param_groups[0]["lr"] = lr
        self._theta.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        self._theta.grad = None

    def copy(self) -> Outer:
        """Return another one that is as this one is now."""
        other = Outer(self.theta, self._config)
        state = self.state()
        if state:
            other.load(state)
        return other

    def state(self) -> Arrays:
        """Return the optimiser's tensors by name (`exp_avg`, `exp_avg_sq`, `step`, ...)."""
        values = self._optimizer.state.get(self._theta, {})
        return {
            name: value.detach().numpy().copy()
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        }

    def load(self, state: Arrays) -> None:
        """Take back what `state` gave."""
        self._optimizer.state[self._theta] = {
            name: torch.from_numpy(np.array(value, copy=True)) for name, value in state.items()
        }


def optimizer(theta: torch.Tensor, config: OuterSection) -> torch.optim.Optimizer:
    """Return the optimiser of `theta`: torch's plain one where torch has it.

    What is checkpointed is its state by tensor, so that must be nothing but tensors.
    """
    config = resolve_outer(config)
    assert config.eps is not None
    assert config.weight_decay is not None
    lr, eps, decay = config.lr, config.eps, config.weight_decay
    betas = (config.beta1, config.beta2)
    match config.name:
        case "sgd":
            return torch.optim.SGD(
                [theta], lr, config.momentum, weight_decay=decay, nesterov=config.nesterov,
                foreach=False, fused=False,
            )  # fmt: skip
        case "adam":
            return torch.optim.Adam([theta], lr, betas, eps, decay, foreach=False, fused=False)
        case "adamw":
            return torch.optim.AdamW([theta], lr, betas, eps, decay, foreach=False, fused=False)
        case "adagrad":
            return torch.optim.Adagrad(
                [theta], lr, weight_decay=decay, eps=eps, foreach=False, fused=False
            )
        case "yogi":
            return Yogi([theta], lr, betas, eps, decay)
