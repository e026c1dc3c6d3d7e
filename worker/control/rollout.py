"""Trajectories: a policy acts in a family's environments, every task and trajectory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Int64, Kind, stream
from dmaml.worker.control.base import Family
from dmaml.worker.control.policy import GaussianPolicy
from dmaml.worker.models.base import Params


@dataclass(frozen=True)
class Trajectories:
    """K trajectories of each of T tasks, cut off after the last step that any of them took.

    Attributes:
        observations: float32 `[T, K, H, O]`, before the action.
        actions: float32 `[T, K, H, A]`, as drawn from the policy.
        rewards: float32 `[T, K, H]`; 0 after the end.
        mask: float32 `[T, K, H]`, 1 until the trajectory has ended, then 0.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    mask: Tensor

    def returns(self) -> Tensor:
        """Return the mean undiscounted return of each task, `[T]`."""
        return self.rewards.sum(2).mean(1)


@final
class Sampler:
    """Rolls policies out.

    A policy's action of 1 is the upper bound of the action space and -1 its lower one, where they
    are finite; the environment cuts what is beyond.

    A trajectory is a function of its seed, the number of adaptation steps before it, the task and
    the policy alone.

    Raises:
        ConfigError: spaces that are not boxes of one dimension.
    """

    def __init__(self, family: Family, policy: GaussianPolicy) -> None:
        self._family = family
        self._policy = policy
        self._environments: dict[int, VectorEnv[Any, Any, Any]] = {}
        one = self._of(1)
        observation_size(one)
        low, high = action_bounds(one)
        self._centre, self._scale = (high + low) / 2, (high - low) / 2

    def sample(
        self, phi: Params, parameters: NDArray[np.float32], seeds: Int64, step: int
    ) -> Trajectories:
        """Return one trajectory for each seed.

        Args:
            phi: `[T, *shape]` each, or `[1, *shape]`: the same policy for every task.
            parameters: of the tasks, float32 `[T, P]`.
            seeds: `[T, K]`.
            step: number of adaptation steps that φ has seen: other noise for the same seeds.
        """
        num_tasks, k = seeds.shape
        environments = self._of(seeds.size)
        seen = begin(environments, seeds, parameters)
        noise = self._noise(seeds, step)
        with torch.no_grad():
            rows = self._policy.log_std(phi).shape[0]
            deviations = noise * torch.exp(self._policy.log_std(phi))[:, :, None]
            columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
            goes_on = np.ones(seeds.size, dtype=bool)
            for time in range(self._family.horizon):
                observations = _tensor(seen).view(num_tasks, k, -1)
                means = self._policy.means(phi, observations.view(rows, -1, observations.shape[2]))
                actions = means.view(num_tasks, k, -1) + deviations[:, :, time]
                moves = self._centre + self._scale * actions.view(seeds.size, -1).numpy()
                seen, rewards, terminated, truncated, _ = environments.step(moves)
                columns.append(
                    (observations, actions, _tensor(rewards * goes_on), _tensor(goes_on))
                )
                goes_on &= ~(terminated | truncated)
                if not goes_on.any():
                    break
        both = [torch.stack([c[i] for c in columns], dim=2) for i in (0, 1)]
        single = [
            torch.stack([c[i] for c in columns], dim=1).view(num_tasks, k, -1) for i in (2, 3)
        ]
        return Trajectories(*both, *single)

    def _noise(self, seeds: Int64, step: int) -> Tensor:
        """Return standard normal numbers, float32 `[T, K, horizon, A]`."""
        shape = (self._family.horizon, self._scale.size)
        rows = [
            stream(seed, Kind.CONTROL, 1 + step).normal(*shape) for seed in seeds.ravel().tolist()
        ]
        return _tensor(np.stack(rows)).view(*seeds.shape, *shape)

    def _of(self, num_envs: int) -> VectorEnv[Any, Any, Any]:
        if num_envs not in self._environments:
            self._environments = {num_envs: self._family.make(num_envs)}  # the last one is kept
        return self._environments[num_envs]


def begin(environments: Any, seeds: Int64, parameters: NDArray[np.float32]) -> NDArray[Any]:
    """Begin a trajectory for each seed and return the first observations `[T * K, O]`.

    Args:
        environments: T * K of them, a `VectorEnv`.
        seeds: `[T, K]`.
        parameters: of the tasks, `[T, P]`.
    """
    own = np.repeat(parameters, seeds.shape[1], axis=0)
    seen, _ = environments.reset(seed=seeds.ravel().tolist(), options={"parameters": own})
    first: NDArray[Any] = seen
    return first


def observation_size(environments: VectorEnv[Any, Any, Any]) -> int:
    """Return the length of an observation.

    Raises:
        ConfigError: observations that are not vectors.
    """
    return _box("observation", environments.single_observation_space).shape[0]


def action_bounds(
    environments: VectorEnv[Any, Any, Any],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the action space's bounds, float32 `[A]` each; -1 and 1 where it has none.

    Raises:
        ConfigError: actions that are not vectors.
    """
    box = _box("action", environments.single_action_space)
    if np.isfinite(box.low).all() and np.isfinite(box.high).all():
        return box.low.astype(np.float32), box.high.astype(np.float32)
    return -np.ones(box.shape, dtype=np.float32), np.ones(box.shape, dtype=np.float32)


def _box(what: str, space: Any) -> Box:
    if isinstance(space, Box) and len(space.shape) == 1:
        return space
    raise ConfigError(
        f"the environment's {what} space is {space}; required a Box of one dimension. "
        "Wrap the environment (gymnasium.wrappers)."
    )


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
