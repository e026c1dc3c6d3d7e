"""`navigation`: a point in the plane that must go to a goal, the toy problem of meta-RL.

At (x, y) the action (dx, dy), cut to [-limit, limit] each, moves the point; the reward is the
negative (squared) distance to the goal from where it then is. It sees its position, never the goal.

References:
    Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
    (2017), section 5.3, and github.com/cbfinn/maml_rl, maml_examples/point_env_randgoal.py;
    Rothfuss, Lee, Clavera, Asfour, Abbeel, "ProMP: Proximal meta-policy search" (2019),
    github.com/jonasrothfuss/ProMP, envs/point_envs/point_env_2d_corner.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from dmaml.common.options import choice, count
from dmaml.common.seeds import Float64, Kind, Stream, stream

Float32 = NDArray[np.float32]
CORNERS: Final = np.array([[-2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [2.0, 2.0]])


@dataclass(frozen=True)
class Preset:
    """One published version.

    Attributes:
        goals: `square` (uniform in [-0.5, 0.5]^2) or `corners` (one of (±2, ±2)).
        limit: largest step along an axis.
        start: the point begins uniformly in [-start, start]^2.
        is_squared: the reward is the negative squared distance, else the negative distance.
        tolerance: the trajectory ends where both coordinates are nearer to the goal than this;
            0: it does not.
    """

    goals: Literal["square", "corners"]
    limit: float
    start: float
    is_squared: bool
    tolerance: float


# paper: as the text of Finn et al. says. code: as their code does, and with it
# tristandeleu/pytorch-maml-rl, learnables/learn2learn (Particles2D) and lmzintgraf/cavia.
PRESETS: Final = {
    "paper": Preset("square", limit=0.1, start=0.0, is_squared=True, tolerance=0.01),
    "code": Preset("square", limit=0.1, start=0.0, is_squared=False, tolerance=0.01),
    "promp": Preset("corners", limit=0.2, start=0.2, is_squared=False, tolerance=0.0),
}


@final
class Navigation:
    """The family of goals (a `Family`).

    Args:
        preset: a name of `PRESETS`.
        horizon: time steps of a trajectory.

    Raises:
        ValueError: an unknown preset, or a horizon below 1.
    """

    num_parameters = 2  # the goal

    def __init__(self, preset: str = "paper", horizon: int = 100) -> None:
        page = "docs/reinforcement.md"
        self.preset = PRESETS[choice("preset", preset, PRESETS)]
        self.horizon = count("horizon", horizon, least=1, page=page)

    def draw(self, stream: Stream) -> Float64:
        """Return a goal, float64 `[2]`."""
        if self.preset.goals == "corners":
            corner: Float64 = CORNERS[int(stream.integers(1, len(CORNERS))[0])]
            return corner
        return stream.uniform(2, low=-0.5, high=0.5)

    def make(self, num_envs: int) -> Points:
        """Return `num_envs` points."""
        return Points(self.preset, self.horizon, num_envs)


@final
class Points(VectorEnv[Float32, Float32, NDArray[Any]]):
    """Many points at once, natively vectorised (a Gymnasium `VectorEnv`).

    Observations are positions, float32 `[num_envs, 2]`. A point at its goal stays there, at
    reward 0.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 as gymnasium

    def __init__(self, preset: Preset, horizon: int, num_envs: int) -> None:
        self._preset = preset
        self._horizon = horizon
        limit = np.full(2, preset.limit, dtype=np.float32)
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.single_action_space = spaces.Box(-limit, limit, dtype=np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._goals = np.zeros((num_envs, 2))
        self._position: Float64 = np.zeros((num_envs, 2))
        self._terminated: NDArray[np.bool_] = np.zeros(num_envs, dtype=bool)
        self._truncated: NDArray[np.bool_] = np.zeros(num_envs, dtype=bool)
        self._time = 0

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Float32, dict[str, Any]]:
        """Begin a trajectory in each point.

        Args:
            seed: one for each point, or a number from which they count up; None: 0.
            options: `parameters`, the goals `[num_envs, 2]`; without it they stay.
        """
        if options and "parameters" in options:
            self._goals = np.asarray(options["parameters"], dtype=np.float64)
        first = 0 if seed is None else seed
        seeds = range(first, first + self.num_envs) if isinstance(first, int) else first
        start = self._preset.start
        drawn = np.zeros((self.num_envs, 2))
        if start:
            own = [stream(int(s or 0), Kind.CONTROL) for s in seeds]
            drawn = np.stack([one.uniform(2, low=-start, high=start) for one in own])
        self._position, self._time = drawn, 0
        self._terminated = np.zeros(self.num_envs, dtype=bool)
        self._truncated = np.zeros(self.num_envs, dtype=bool)
        return self._seen(), {}

    def step(
        self, actions: Float32
    ) -> tuple[Float32, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Move each point by its action `[num_envs, 2]`, cut to the limit."""
        over = self._terminated | self._truncated
        limit = self._preset.limit
        moves = np.clip(np.asarray(actions, dtype=np.float64), -limit, limit)
        self._position = np.where(over[:, None], self._position, self._position + moves)
        self._time += 1
        way = self._position - self._goals
        distance = np.square(way).sum(axis=1)
        if not self._preset.is_squared:
            distance = np.sqrt(distance)
        rewards = np.where(over, 0.0, -distance)
        self._terminated = self._terminated | (
            ~self._truncated & (np.abs(way) < self._preset.tolerance).all(axis=1)
        )
        if self._time >= self._horizon:
            self._truncated = ~self._terminated
        return self._seen(), rewards, self._terminated.copy(), self._truncated.copy(), {}

    def _seen(self) -> Float32:
        return self._position.astype(np.float32)
