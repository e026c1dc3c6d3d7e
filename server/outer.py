"""Outer optimisers over the flat buffer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dmaml.common.config import OuterSection
from dmaml.common.layout import Flat

Arrays = dict[str, NDArray[np.float32]]


class Outer:
    """θ of one pipeline and the optimiser that moves it: torch's plain SGD or Adam.

    Args:
        theta: float32 `[d]`, copied.
        config: which optimiser, with its rates.
    """

    def __init__(self, theta: Flat, config: OuterSection) -> None:
        self._theta = torch.from_numpy(np.array(theta, dtype="<f4", copy=True))
        self._optimizer = _optimizer(self._theta, config)

    @property
    def theta(self) -> Flat:
        """The parameters now, float32 `[d]`; a view, changed by `step`."""
        view: Flat = self._theta.numpy()
        return view

    def step(self, gradient: Flat) -> None:
        """Do one step against `gradient`, float32 `[d]`."""
        self._theta.grad = torch.from_numpy(gradient)
        self._optimizer.step()
        self._theta.grad = None

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


def _optimizer(theta: torch.Tensor, config: OuterSection) -> torch.optim.Optimizer:
    if config.name == "sgd":
        return torch.optim.SGD(
            [theta], lr=config.lr, momentum=config.momentum, foreach=False, fused=False
        )
    return torch.optim.Adam(
        [theta],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        foreach=False,
        fused=False,
    )
