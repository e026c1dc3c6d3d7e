"""The contract of families of environments."""

from __future__ import annotations

from typing import Protocol

from gymnasium.vector import VectorEnv

from dmaml.common.seeds import Float64, Stream


class Family(Protocol):
    """Environments that differ by a few numbers, the parameters of a task.

    Attributes:
        num_parameters: how many numbers P tell a task apart.
        horizon: time steps after which a trajectory ends at the latest.
    """

    num_parameters: int
    horizon: int

    def draw(self, stream: Stream) -> Float64:
        """Return one task's parameters, float64 `[P]`; a pure function of the stream."""
        ...

    def make(self, num_envs: int) -> VectorEnv:
        """Return a Gymnasium vector environment of `num_envs` members.

        Its observation and action spaces are boxes of one dimension. It is used like this:

        - `reset(seed=[...], options={"parameters": float32 [num_envs, P]})` begins a trajectory in
          each member, of the task in the member's own row; whatever is random in it is a function
          of the member's own seed (int64 >= 0), so that neither the number of members nor what was
          done before changes a trajectory.
        - `step(actions)` of float32 `[num_envs, action size]`. A member that has terminated or
          was truncated is not reset: it gives reward 0 and goes on saying so.
        """
        ...
