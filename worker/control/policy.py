"""A Gaussian policy around any model."""

from __future__ import annotations

import math
from typing import Final, final

import torch
from torch import Tensor

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker.engine.base import Engine
from dmaml.worker.models.base import Model, Params

LOG_STD: Final = "log_std"
MIN_STD: Final = 1e-6


@final
class GaussianPolicy:
    """π(a | s) = N(μ(s), diag σ²), with μ the model's outputs and σ the same for every s.

    Parameters: the model's, and log_std `[A]`, the logarithm of σ. Whatever
    begins as a matrix in the model begins here by Glorot's uniform rule: a model of regression may
    begin near zero, where a policy's gradient vanishes.

    In every method a task has its own row: parameters `[T, *shape]`, observations `[T, N, O]`,
    actions and means `[T, N, A]`.

    References:
        Finn, Abbeel, Levine (2017), appendix A.2 (two hidden layers of 100, ReLU), and
        github.com/cbfinn/maml_rl, maml_minimal_gauss_mlp_policy.py (one σ, at least 1e-6).
        Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural
        networks" (2010), equation 16.
    """

    def __init__(
        self, model: Model, engine: Engine, num_actions: int, initial_std: float = 1.0
    ) -> None:
        self._model = model
        self._engine = engine
        self._num_actions = num_actions
        self._initial_log_std = math.log(initial_std)

    def init(self, stream: Stream) -> Params:
        """Return fresh parameters, float32; a pure function of the stream.

        Raises:
            ConfigError: the model has a parameter of the policy's own name.
        """
        params = {
            name: glorot(stream, value) if value.ndim == 2 else value
            for name, value in self._model.init(stream).items()
        }
        if LOG_STD in params:
            raise ConfigError(
                f"the model has a parameter {LOG_STD!r}, which is the policy's own. Rename it."
            )
        return params | {LOG_STD: torch.full((self._num_actions,), self._initial_log_std)}

    def means(self, phi: Params, observations: Tensor) -> Tensor:
        """Return μ(s) `[T, N, A]`."""
        own = {name: value for name, value in phi.items() if name != LOG_STD}
        return self._engine.forward(own, observations)[0]

    def log_std(self, phi: Params) -> Tensor:
        """Return log σ `[T, 1, A]`."""
        return phi[LOG_STD].clamp(min=math.log(MIN_STD)).unsqueeze(1)

    def log_likelihood(self, phi: Params, observations: Tensor, actions: Tensor) -> Tensor:
        """Return log π(a | s) `[T, N]`."""
        log_std = self.log_std(phi)
        z = (actions - self.means(phi, observations)) * torch.exp(-log_std)
        return -(0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(2)


def divergence(means: Tensor, log_std: Tensor, new_means: Tensor, new_log_std: Tensor) -> Tensor:
    """Return KL(N(means, e^log_std) ‖ N(new_means, e^new_log_std)) `[T, N]`.

    Args:
        means, new_means: `[T, N, A]`.
        log_std, new_log_std: `[T, 1, A]`.
    """
    way = (means - new_means) * torch.exp(-new_log_std)
    ratio = torch.exp(2 * (log_std - new_log_std))
    return (0.5 * (way.square() + ratio - 1) + new_log_std - log_std).sum(2)


def glorot(stream: Stream, like: Tensor) -> Tensor:
    """Return a matrix `[in, out]`, uniform on ±sqrt(6 / (in + out))."""
    bound = math.sqrt(6 / (like.shape[0] + like.shape[1]))
    values = stream.uniform(*like.shape, low=-bound, high=bound)
    return torch.from_numpy(values).to(like.dtype)
