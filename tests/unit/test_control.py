"""The pieces of control against plain references: policy, trajectories, advantages."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Independent, Normal, kl_divergence

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.control.advantages import (
    baseline,
    discounted,
    experience,
    features,
    generalised_advantages,
)
from dmaml.worker.control.navigation import Navigation
from dmaml.worker.control.policy import LOG_STD, GaussianPolicy, divergence
from dmaml.worker.control.rollout import Sampler, Trajectories
from dmaml.worker.engine.vmap import Vmap
from dmaml.worker.models.base import Params
from dmaml.worker.models.mlp import Mlp

T, K, H = 2, 3, 6


def policy_of(*hidden: int) -> GaussianPolicy:
    model = Mlp((2,), 2, hidden)
    return GaussianPolicy(model, Vmap(model), 2)


def rows(policy: GaussianPolicy, num_tasks: int = T) -> Params:
    """Return parameters that differ from task to task."""
    theta = policy.init(stream(1, Kind.INIT))
    scale = 1 + 0.3 * torch.arange(num_tasks)
    return {
        name: value * scale.view(-1, *([1] * (value.ndim - 1))) + 0.1
        for name, value in stacked(theta, num_tasks).items()
    }


def noisy(lengths: list[list[int]]) -> Trajectories:
    """Return trajectories of these lengths with numbers of noise."""
    random = np.random.default_rng(1)
    mask = (np.arange(H) < np.array(lengths)[:, :, None]).astype(np.float32)
    shape = mask.shape
    draw = [random.normal(size=(*shape, width)).astype(np.float32) for width in (2, 2)]
    rewards = random.normal(size=shape).astype(np.float32) * mask
    return Trajectories(*(torch.from_numpy(a) for a in (*draw, rewards, mask)))


LENGTHS = [[6, 4, 1], [2, 6, 5]]


def test_the_likelihood_is_that_of_independent_gaussians() -> None:
    policy = policy_of(4)
    phi = rows(policy)
    observations, actions = torch.randn(T, 5, 2), torch.randn(T, 5, 2)

    found = policy.log_likelihood(phi, observations, actions)

    for task in range(T):
        own = {name: value[task] for name, value in phi.items()}
        means = Mlp((2,), 2, (4,)).forward(own, observations[task])[0]
        expected = Independent(Normal(means, own[LOG_STD].exp()), 1).log_prob(actions[task])
        torch.testing.assert_close(found[task], expected)


def test_the_divergence_is_that_of_independent_gaussians() -> None:
    means, new_means = torch.randn(T, 5, 2), torch.randn(T, 5, 2)
    log_std, new_log_std = torch.randn(T, 1, 2), torch.randn(T, 1, 2)

    found = divergence(means, log_std, new_means, new_log_std)

    p, q = (
        Independent(Normal(m, s.exp()), 1) for m, s in ((means, log_std), (new_means, new_log_std))
    )
    torch.testing.assert_close(found, kl_divergence(p, q))


def test_a_policy_begins_by_glorots_rule_with_a_deviation_of_one() -> None:
    theta = policy_of(100, 100).init(stream(1, Kind.INIT))

    bound = (6 / 200) ** 0.5
    weight = theta["linear1.weight"]
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert theta[LOG_STD].tolist() == [0.0, 0.0]
    assert not theta["linear1.bias"].any()


def test_a_models_parameter_of_the_policys_name_is_refused() -> None:
    class Named:
        def init(self, stream: Any) -> Params:
            return {LOG_STD: torch.zeros(2)}

        def forward(self, params: Params, x: Any, statistics: Any = None) -> Any:
            return x, []

    model = Named()
    with pytest.raises(ConfigError, match="parameter 'log_std', which is the policy's own"):
        GaussianPolicy(model, Vmap(model), 2).init(stream(1, Kind.INIT))


def test_trajectories_are_those_of_stepping_each_point_alone() -> None:
    family, policy = Navigation("code", horizon=8), policy_of(4)
    phi = rows(policy)
    goals = np.array([[0.05, 0.0], [0.4, -0.4]], dtype=np.float32)
    seeds = np.array([[11, 12, 13], [14, 15, 16]])

    found = Sampler(family, policy).sample(phi, goals, seeds, step=2)

    for task, k in np.ndindex(2, 3):
        points = family.make(1)
        seen, _ = points.reset(options={"parameters": goals[task : task + 1]})
        noise = stream(int(seeds[task, k]), Kind.CONTROL, 3).normal(8, 2)
        own = {name: value[task : task + 1] for name, value in phi.items()}
        total, is_over = 0.0, False
        for time in range(found.rewards.shape[2]):
            assert float(found.mask[task, k, time]) == float(not is_over)
            if is_over:
                assert float(found.rewards[task, k, time]) == 0.0
                continue
            means = policy.means(own, torch.from_numpy(seen)[None])[0, 0].numpy()
            action = means + own[LOG_STD].exp()[0].numpy() * noise[time].astype(np.float32)
            np.testing.assert_allclose(found.observations[task, k, time], seen[0], atol=1e-5)
            np.testing.assert_allclose(found.actions[task, k, time], action, atol=1e-5)
            seen, rewards, terminated, truncated, _ = points.step(0.1 * action[None])
            total += float(rewards[0])
            is_over = bool(terminated[0] or truncated[0])
        np.testing.assert_allclose(found.rewards[task, k].sum(), total, atol=1e-5)


def test_a_trajectory_does_not_depend_on_those_beside_it() -> None:
    family, policy = Navigation("promp", horizon=5), policy_of(4)
    phi = rows(policy)
    goals = np.array([[2.0, 2.0], [-2.0, 2.0]], dtype=np.float32)
    sampler = Sampler(family, policy)

    both = sampler.sample(phi, goals, np.array([[1, 2, 3], [4, 5, 6]]), 0)
    second = {name: value[1:] for name, value in phi.items()}
    alone = sampler.sample(second, goals[1:], np.array([[4, 5, 6]]), 0)

    torch.testing.assert_close(both.actions[1], alone.actions[0])
    torch.testing.assert_close(both.rewards[1], alone.rewards[0])


def test_a_policy_for_all_tasks_is_that_policy_in_each() -> None:
    policy = policy_of(4)
    sampler = Sampler(Navigation(horizon=5), policy)
    theta = policy.init(stream(1, Kind.INIT))
    goals, seeds = np.zeros((3, 2), dtype=np.float32) + 0.4, np.arange(6).reshape(3, 2)

    one = sampler.sample(stacked(theta, 1), goals, seeds, 0)
    three = sampler.sample(stacked(theta, 3), goals, seeds, 0)

    torch.testing.assert_close(one.actions, three.actions)


def test_each_step_has_noise_of_its_own() -> None:
    policy = policy_of()
    sampler = Sampler(Navigation(horizon=50), policy)
    phi = stacked({k: v * 0 for k, v in policy.init(stream(1, Kind.INIT)).items()}, 1)
    goals, seeds = np.ones((1, 2), dtype=np.float32), np.arange(20).reshape(1, 20)

    first, second = (sampler.sample(phi, goals, seeds, step).actions for step in (0, 1))

    noise = torch.stack([first.flatten(), second.flatten()])
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 0.05


def test_rollouts_end_when_every_trajectory_has() -> None:
    policy = policy_of()
    theta = policy.init(stream(1, Kind.INIT))
    still = {
        name: torch.full_like(value, -20.0 if name == LOG_STD else 0.0)
        for name, value in theta.items()
    }
    goals = np.zeros((2, 2), dtype=np.float32)  # where the points already are

    found = Sampler(Navigation(), policy).sample(
        stacked(still, 2), goals, np.arange(4).reshape(2, 2), 0
    )

    assert found.rewards.shape == (2, 2, 1)
    assert found.mask.min() == 1.0


class Other(gymnasium.vector.VectorEnv[Any, Any, Any]):
    def __init__(self, observation: Any, action: Any) -> None:
        self.single_observation_space, self.single_action_space = observation, action


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (spaces.Box(0, 1, (2,)), spaces.Discrete(3), r"action space is Discrete\(3\)"),
        (spaces.Box(0, 1, (2, 2)), spaces.Box(0, 1, (2,)), "observation space is Box"),
    ],
)
def test_spaces_that_are_no_vectors_are_refused(observation: Any, action: Any, words: str) -> None:
    class Family:
        num_parameters, horizon = 1, 1

        def draw(self, stream: Any) -> Any:
            return np.zeros(1)

        def make(self, num_envs: int) -> Any:
            return Other(observation, action)

    with pytest.raises(ConfigError, match=words):
        Sampler(Family(), policy_of())


def test_returns_are_undiscounted_means_over_the_trajectories() -> None:
    given = noisy(LENGTHS)

    expected = [float(given.rewards[task].sum()) / K for task in range(T)]

    np.testing.assert_allclose(given.returns(), expected, rtol=1e-5)


def test_discounted_sums_are_those_of_loops() -> None:
    values = noisy(LENGTHS).rewards

    found = discounted(values, 0.9)

    for task, k, time in np.ndindex(T, K, H):
        total = sum(0.9 ** (late - time) * float(values[task, k, late]) for late in range(time, H))
        assert float(found[task, k, time]) == pytest.approx(total, abs=1e-5)


def test_generalised_advantages_are_those_of_loops() -> None:
    gamma, gae_lambda = 0.9, 0.7
    given = noisy(LENGTHS)
    values = torch.randn(T, K, H) * given.mask

    found = generalised_advantages(given.rewards, values, gamma, gae_lambda)

    for task, k in np.ndindex(T, K):
        length = LENGTHS[task][k]
        v = [*values[task, k, :length].tolist(), 0.0]
        for time in range(length):
            total = 0.0
            for late in range(time, length):
                delta = float(given.rewards[task, k, late]) + gamma * v[late + 1] - v[late]
                total += (gamma * gae_lambda) ** (late - time) * delta
            assert float(found[task, k, time]) == pytest.approx(total, abs=1e-5)


def test_the_baseline_is_the_ridge_regression_of_each_tasks_steps() -> None:
    given = noisy(LENGTHS)
    returns = discounted(given.rewards, 0.9)

    found = baseline(given, returns)

    for task in range(T):
        rows_, targets = [], []
        for k, time in np.ndindex(K, H):
            if time < LENGTHS[task][k]:
                s = given.observations[task, k, time].double().numpy()
                t = time / 100
                rows_.append([*s, *s**2, t, t**2, t**3, 1.0])
                targets.append(float(returns[task, k, time]))
        x, y = np.array(rows_), np.array(targets)
        ridge = np.sqrt(1e-5) * np.eye(x.shape[1])
        w = np.linalg.lstsq(np.vstack([x, ridge]), np.append(y, np.zeros(x.shape[1])), rcond=None)[
            0
        ]
        inside = given.mask[task].bool()
        np.testing.assert_allclose(found[task][inside], x @ w, atol=1e-4)
        assert not found[task][~inside].any()


def test_the_features_cut_observations_at_ten() -> None:
    found = features(torch.tensor([[[[25.0, -3.0]], [[1.0, 2.0]]]]))

    assert found[0, 0, 0].tolist() == [10, -3, 100, 9, 0, 0, 0, 1]
    assert found.dtype == torch.float64


def test_advantages_are_normalised_by_task_over_the_steps_that_were_taken() -> None:
    found = experience(noisy(LENGTHS), 0.9, 1.0)

    for task in range(T):
        taken = found.weights[task] > 0
        assert int(taken.sum()) == sum(LENGTHS[task])
        own = found.advantages[task][taken]
        assert float(own.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(own.std(correction=0)) == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(found.mean(torch.ones(T, K * H)), torch.ones(T))
