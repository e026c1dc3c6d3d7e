"""How much better than expected an action was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from dmaml.worker.control.rollout import Trajectories

RIDGE: Final = 1e-5
EPS: Final = 1e-8


@dataclass(frozen=True)
class Experience:
    """The time steps of each task's trajectories, in one row.

    Attributes:
        observations: `[T, N, O]`.
        actions: `[T, N, A]`.
        advantages: `[T, N]`, of mean 0 and deviation 1 over the task's steps.
        weights: `[T, N]`, 1 over the number of the task's steps; 0 where there is none.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    weights: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of `[T, N]` over each task's steps, `[T]`."""
        return (values * self.weights).sum(1)


def experience(trajectories: Trajectories, gamma: float, gae_lambda: float) -> Experience:
    """Return the time steps with their advantages.

    The baseline is fitted to the same trajectories, and the advantages are normalised by task.

    Args:
        gamma: discount factor.
        gae_lambda: λ of generalised advantage estimation; 1: return minus baseline.
    """
    mask = trajectories.mask
    values = baseline(trajectories, discounted(trajectories.rewards, gamma))
    estimates = generalised_advantages(trajectories.rewards, values, gamma, gae_lambda)
    weights = (mask / mask.sum((1, 2), keepdim=True)).flatten(1)
    flat = estimates.flatten(1).double()
    mean = (flat * weights).sum(1, keepdim=True)
    variance = ((flat - mean).square() * weights).sum(1, keepdim=True)
    normalised = (flat - mean) / (variance.sqrt() + EPS)
    return Experience(
        trajectories.observations.flatten(1, 2),
        trajectories.actions.flatten(1, 2),
        normalised.to(mask.dtype),
        weights,
    )


def discounted(values: Tensor, factor: float) -> Tensor:
    """Return Σ_l factor^l values_{t+l} of each t, along the last dimension."""
    sums = torch.empty_like(values)
    following = torch.zeros_like(values[..., 0])
    for time in reversed(range(values.shape[-1])):
        following = values[..., time] + factor * following
        sums[..., time] = following
    return sums


def generalised_advantages(
    rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Return Â_t = Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ V_{t+1} - V_t, `[T, K, H]`.

    V is 0 after the end, where the horizon ends a trajectory too: the baseline knows the time.

    Args:
        rewards, values: `[T, K, H]`, 0 after the end.

    References:
        Schulman, Moritz, Levine, Jordan, Abbeel, "High-dimensional continuous control using
        generalized advantage estimation" (2016), equation 16.
    """
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
    return discounted(rewards + gamma * following - values, gamma * gae_lambda)


def baseline(trajectories: Trajectories, returns: Tensor) -> Tensor:
    """Return the expected return at each step, fitted by ridge regression, `[T, K, H]`.

    Features: s, s², t/100, (t/100)², (t/100)³ and 1, with s cut to ±10; each task has its own
    coefficients w = argmin |X w - returns|² + 1e-5 |w|², in float64.

    References:
        Duan, Chen, Houthooft, Schulman, Abbeel, "Benchmarking deep reinforcement learning for
        continuous control" (2016), appendix, "linear feature baseline"; rllab's
        linear_feature_baseline.py. We differ: rllab predicts with the fit to the batch before,
        we with the fit to this one (nothing lives between items), as pytorch-maml-rl does.
    """
    mask = trajectories.mask.flatten(1).double()[..., None]
    x = features(trajectories.observations).flatten(1, 2) * mask
    y = returns.flatten(1).double()[..., None] * mask
    ridge = RIDGE * torch.eye(x.shape[2], dtype=x.dtype)
    coefficients = torch.linalg.solve(x.mT @ x + ridge, x.mT @ y)
    fitted: Tensor = x @ coefficients
    return fitted.to(returns.dtype).view(returns.shape)


def features(observations: Tensor) -> Tensor:
    """Return the baseline's features, float64 `[T, K, H, 2 O + 4]`."""
    s = observations.double().clamp(-10, 10)
    time = torch.arange(s.shape[2], dtype=s.dtype) / 100
    times = torch.stack([time, time**2, time**3, torch.ones_like(time)], dim=1)
    return torch.cat([s, s.square(), times.expand(*s.shape[:2], -1, -1)], dim=3)
