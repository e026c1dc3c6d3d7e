"""The point that must go to a goal, step by step by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.control.navigation import CORNERS, Navigation, Points
from dmaml.worker.tasks import build
from dmaml.worker.tasks.control import Control


def begun(preset: str, goals: list[list[float]], horizon: int = 100) -> Points:
    """Return points with these goals, at the start of a trajectory, their seeds 7, 8, ..."""
    points = Navigation(preset, horizon).make(len(goals))
    points.reset(seed=7, options={"parameters": np.array(goals, dtype=np.float32)})
    return points


def step(points: Points, *actions: list[float]) -> tuple[Any, ...]:
    return points.step(np.array(actions, dtype=np.float32))


def test_the_paper_pays_the_negative_squared_distance_after_the_move() -> None:
    points = begun("paper", [[0.3, 0.4], [0.0, -0.5]])

    seen, rewards, terminated, truncated, _ = step(points, [0.0, 0.1], [-0.05, 0.0])

    np.testing.assert_allclose(seen, [[0.0, 0.1], [-0.05, 0.0]], atol=1e-7)
    np.testing.assert_allclose(rewards, [-(0.3**2 + 0.3**2), -(0.05**2 + 0.5**2)], atol=1e-7)
    assert not terminated.any()
    assert not truncated.any()


def test_the_authors_code_pays_the_negative_distance() -> None:
    _, rewards, *_ = step(begun("code", [[0.3, 0.4]]), [0.0, 0.0])

    np.testing.assert_allclose(rewards, [-0.5], atol=1e-7)


@pytest.mark.parametrize(("preset", "limit"), [("paper", 0.1), ("code", 0.1), ("promp", 0.2)])
def test_actions_are_cut_to_the_limit(preset: str, limit: float) -> None:
    points = Navigation(preset).make(1)
    start, _ = points.reset(seed=3, options={"parameters": np.array([[2.0, -2.0]])})

    seen, *_ = step(points, [5.0, -0.15])

    np.testing.assert_allclose(seen - start, [[limit, max(-0.15, -limit)]], atol=1e-6)


def test_a_point_within_the_tolerance_on_both_axes_has_arrived_and_stays() -> None:
    points = begun("code", [[0.1, 0.0], [0.1, 0.0]])

    _, rewards, terminated, _, _ = step(points, [0.092, 0.009], [0.092, 0.011])
    seen, later, again, truncated, _ = step(points, [0.1, 0.1], [0.1, 0.1])

    assert terminated.tolist() == [True, False]
    np.testing.assert_allclose(rewards[0], -np.hypot(0.008, 0.009), atol=1e-7)  # still paid
    assert again[0]
    assert later[0] == 0.0
    assert not truncated[0]
    np.testing.assert_allclose(seen[0], [0.092, 0.009], atol=1e-7)


def test_the_horizon_ends_a_trajectory_that_has_not_arrived() -> None:
    points = begun("paper", [[0.5, 0.5]], horizon=2)

    ends = [step(points, [0.0, 0.0])[2:4] for _ in range(3)]

    assert [bool(truncated[0]) for _, truncated in ends] == [False, True, True]
    assert not any(terminated[0] for terminated, _ in ends)
    assert step(points, [0.0, 0.0])[1][0] == 0.0


def test_arrival_at_the_horizon_is_arrival() -> None:
    _, _, terminated, truncated, _ = step(begun("code", [[0.1, 0.0]], horizon=1), [0.1, 0.0])

    assert terminated[0]
    assert not truncated[0]


def test_promp_has_corners_a_random_start_and_no_arrival() -> None:
    family = Navigation("promp")
    goals = {tuple(family.draw(stream(1, Kind.TRAIN, i))) for i in range(60)}
    points = family.make(200)
    start, _ = points.reset(seed=list(range(200)), options={"parameters": np.zeros((200, 2))})

    assert goals == {tuple(corner) for corner in CORNERS}
    assert -0.2 <= start.min() < -0.15 < 0.15 < start.max() < 0.2
    assert not points.step(-start)[2].any()


def test_a_start_is_a_function_of_the_points_own_seed() -> None:
    goals = np.zeros((3, 2))
    three = Navigation("promp").make(3)
    one = Navigation("promp").make(1)

    together, _ = three.reset(seed=[5, 9, 2], options={"parameters": goals})
    alone, _ = one.reset(seed=[9], options={"parameters": goals[:1]})

    assert (together[1] == alone[0]).all()
    assert (together[0] != alone[0]).all()


def test_goals_are_uniform_in_the_square() -> None:
    goals = np.array([Navigation().draw(stream(1, Kind.TRAIN, i)) for i in range(2000)])

    assert np.abs(goals).max() <= 0.5
    np.testing.assert_allclose(goals.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(goals.var(0), 1 / 12, rtol=0.06)


def test_gymnasium_finds_what_it_expects_of_a_vector_environment() -> None:
    points = begun("paper", [[0.1, 0.1], [0.2, 0.2]])
    points.action_space.seed(1)
    seen, info = points.reset()

    assert isinstance(points, VectorEnv)
    assert points.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert points.observation_space.shape == (2, *points.single_observation_space.shape)
    assert points.action_space.shape == (2, *points.single_action_space.shape)
    assert points.observation_space.contains(seen)
    assert info == {}
    seen, rewards, terminated, truncated, info = points.step(points.action_space.sample())
    assert points.observation_space.contains(seen)
    assert rewards.shape == terminated.shape == truncated.shape == (2,)
    assert terminated.dtype == truncated.dtype == np.bool_
    assert info == {}


def test_a_trajectory_is_not_touched_by_the_one_before() -> None:
    points = begun("paper", [[0.1, 0.1]])
    first = step(points, [0.05, 0.02])
    step(points, [0.05, 0.08])
    points.reset(seed=7)

    again = step(points, [0.05, 0.02])

    assert all((a == b).all() for a, b in zip(first[:4], again[:4], strict=True))


def source(**task: Any) -> Any:
    return build(from_mapping({"task": {"source": "navigation", "n_way": 1, **task}}))


def test_the_source_gives_goals_seeds_and_beginnings() -> None:
    made = source(options={"preset": "promp"})
    assert isinstance(made, Control)
    streams = [stream(1, Kind.TRAIN, 0, 0, j) for j in range(3)]

    batch = made.sample(streams, made.split("train"), 1, 4, 2)

    assert batch.parameters.shape == (3, 2)
    assert set(np.abs(batch.parameters).ravel().tolist()) == {2.0}
    assert len(np.unique(np.concatenate([batch.support_y, batch.query_y], axis=1))) == 18
    points = made.environments.make(1)
    own = {"parameters": batch.parameters[2:]}
    begins, _ = points.reset(seed=[int(batch.support_y[2, 3])], options=own)
    assert (begins[0] == batch.support_x[2, 3]).all()
    assert made.num_outputs(1) == 2
    assert made.input_shape == (2,)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"options": {"preset": "papers"}}, "preset 'papers'.* Did you mean 'paper'"),
        ({"options": {"horizon": 0}}, "horizon = 0: required a whole number >= 1"),
        ({"options": {"goal": 1}}, "do not fit task.source 'navigation'"),
        ({"n_way": 5}, "control has no classes. Set task.n_way to 1"),
        ({"rotations": True}, "it is about pictures"),
        ({"source": "control"}, "missing a required argument: 'environment'"),
    ],
)
def test_unsuitable_settings_are_refused(task: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        source(**task)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown environment 'navigatio'\. Did you mean"):
        source(source="control", options={"environment": "navigatio"})


def test_another_preset_or_horizon_is_other_data() -> None:
    digests = {
        source(options=options).digest
        for options in ({}, {"preset": "code"}, {"preset": "promp"}, {"horizon": 50})
    }

    assert len(digests) == 4
    assert source(options={"preset": "paper", "horizon": 100}).digest == source().digest
