"""MAML for control against plain references: derivatives and outer steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev

from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.control.adaptation import Surrogate, descend, pullback, pushforward, surrogate
from dmaml.worker.control.advantages import Experience
from dmaml.worker.control.objective import Inner, Objective
from dmaml.worker.control.outer import (
    Clipped,
    PlainGradient,
    TrustRegion,
    conjugate_gradients,
    difference,
    dot,
)
from dmaml.worker.control.policy import LOG_STD, GaussianPolicy, divergence
from dmaml.worker.engine.vmap import Vmap
from dmaml.worker.models.base import Params
from dmaml.worker.models.mlp import Mlp

torch.set_num_threads(1)
T, N, ALPHA = 2, 5, 0.3
MODEL = Mlp((2,), 1, (3,))
POLICY = GaussianPolicy(MODEL, Vmap(MODEL), 1)
TRUST = TrustRegion(divergence=0.01, cg_steps=20, damping=0.0, cuts=10, cut=0.5)


def theta_of() -> Params:
    """Return parameters away from the kinks of the network, float64."""
    theta = POLICY.init(stream(1, Kind.INIT))
    return {name: value.double() + 0.05 for name, value in theta.items()}


def given(seed: int) -> Experience:
    """Return time steps of noise; the last one of each task does not count."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(random.normal(size=shape))

    weights = torch.full((T, N), 1 / (N - 1), dtype=torch.float64)
    weights[:, -1] = 0
    return Experience(draw(T, N, 2), draw(T, N, 1), draw(T, N), weights)


# --- the same, plainly: one task, one time step after another ---------------------------------


def plain_likelihood(phi: Params, s: Tensor, a: Tensor) -> Tensor:
    hidden = torch.relu(s @ phi["linear0.weight"] + phi["linear0.bias"])
    mean = hidden @ phi["linear1.weight"] + phi["linear1.bias"]
    return torch.distributions.Normal(mean, phi[LOG_STD].exp()).log_prob(a).sum()


def plain_loss(kind: Surrogate, phi: Params, old: Params, data: Experience, task: int) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i in range(N - 1):
        s, a = data.observations[task, i], data.actions[task, i]
        likelihood = plain_likelihood(phi, s, a)
        if kind == "ratio":
            likelihood = torch.exp(likelihood - plain_likelihood(old, s, a).detach())
        total = total - likelihood * data.advantages[task, i] / (N - 1)
    return total


def plain_adapted(kind: Surrogate, theta: Params, support: list[Experience], task: int) -> Params:
    phi = theta
    for data in support:
        old = {name: value.detach() for name, value in phi.items()}
        slope = grad(lambda p: plain_loss(kind, p, old, data, task))(phi)  # noqa: B023
        phi = {name: phi[name] - ALPHA * slope[name] for name in phi}
    return phi


def plain_objective(
    kind: Surrogate, theta: Params, base: Params, support: list[Experience], query: Experience
) -> Tensor:
    losses = []
    for task in range(T):
        old = {k: v.detach() for k, v in plain_adapted(kind, base, support, task).items()}
        losses.append(
            plain_loss("ratio", plain_adapted(kind, theta, support, task), old, query, task)
        )
    return torch.stack(losses).mean()


def objective_of(
    kind: Surrogate = "likelihood", num_steps: int = 1, is_second_order: bool = True
) -> tuple[Objective, Params, list[Experience], Experience]:
    """Return an objective, its θ_0, and its trajectories."""
    theta, support, query = theta_of(), [given(i) for i in range(num_steps)], given(9)
    phi = stacked(theta, T)
    for data in support:
        phi = descend(kind, POLICY, phi, data, ALPHA)[1]
    inner = Inner(kind, ALPHA, is_second_order)
    return Objective(POLICY, inner, support, query, phi), theta, support, query


def close(a: Params, b: Params, **tolerance: float) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


# --- adaptation --------------------------------------------------------------------------------


def test_the_policy_gradient_of_a_linear_policy_is_the_one_worked_by_hand() -> None:
    model = Mlp((1,), 1, ())
    policy = GaussianPolicy(model, Vmap(model), 1)
    # one task, two steps: μ = w s + b with w = 2, b = 1, σ = 0.5
    phi = {
        "linear0.weight": torch.tensor([[[2.0]]]),
        "linear0.bias": torch.tensor([[1.0]]),
        LOG_STD: torch.tensor([[0.5]]).log(),
    }
    data = Experience(
        torch.tensor([[[1.0], [3.0]]]),
        torch.tensor([[[4.0], [6.0]]]),
        torch.tensor([[2.0, -1.0]]),
        torch.tensor([[0.5, 0.5]]),
    )

    step, after = descend("likelihood", policy, phi, data, alpha=0.1)

    # a - μ = 1, -1; ∂log π/∂μ = 4, -4; ∂log π/∂log σ = (a - μ)²/σ² - 1 = 3, 3
    # -mean: w: -(4·1·2 + 4·3·1)/2 = -10; b: -(4·2 + 4·1)/2 = -6; log σ: -(3·2 - 3·1)/2 = -1.5
    assert step.gradient["linear0.weight"].item() == pytest.approx(-10)
    assert step.gradient["linear0.bias"].item() == pytest.approx(-6)
    assert step.gradient[LOG_STD].item() == pytest.approx(-1.5)
    assert after["linear0.weight"].item() == pytest.approx(3.0)
    assert after[LOG_STD].item() == pytest.approx(np.log(0.5) + 0.15)


@pytest.mark.parametrize("kind", ["likelihood", "ratio"])
def test_both_surrogates_have_the_same_gradient(kind: Surrogate) -> None:
    theta, data = theta_of(), given(1)

    step, _ = descend(kind, POLICY, stacked(theta, T), data, ALPHA)

    for task in range(T):
        expected = grad(lambda p: plain_loss("likelihood", p, p, data, task))(theta)  # noqa: B023
        close({name: value[task] for name, value in step.gradient.items()}, expected)


@pytest.mark.parametrize("kind", ["likelihood", "ratio"])
def test_pullback_and_pushforward_are_the_jacobian_of_the_adaptation(kind: Surrogate) -> None:
    theta, support = theta_of(), [given(1), given(2)]
    phi, steps = stacked(theta, T), []
    for data in support:
        step, phi = descend(kind, POLICY, phi, data, ALPHA, keeps_graph=True)
        steps.append(step)
    vector = {name: torch.randn_like(value) for name, value in phi.items()}

    pulled = pullback(steps, ALPHA, vector)
    pushed = pushforward(steps, ALPHA, vector)

    for task in range(T):
        jacobian: Any = jacrev(lambda p: plain_adapted(kind, p, support, task))(theta)  # noqa: B023
        for a in theta:
            back = sum(
                torch.tensordot(vector[b][task], jacobian[b][a], dims=vector[b][task].ndim)
                for b in theta
            )
            on = sum(
                torch.tensordot(jacobian[a][b], vector[b][task], dims=vector[b][task].ndim)
                for b in theta
            )
            torch.testing.assert_close(pulled[a][task], back)
            torch.testing.assert_close(pushed[a][task], on)


def test_the_ratio_has_the_curvature_of_the_ratio() -> None:
    theta, data = theta_of(), given(1)
    leaves = {name: value.requires_grad_() for name, value in stacked(theta, T).items()}

    values = surrogate("ratio", POLICY, leaves, data)

    for task in range(T):
        torch.testing.assert_close(values[task], plain_loss("ratio", theta, theta, data, task))


# --- the outer objective -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["likelihood", "ratio"])
@pytest.mark.parametrize("num_steps", [0, 1, 2])
def test_the_meta_gradient_is_that_of_the_literal_algorithm(
    kind: Surrogate, num_steps: int
) -> None:
    objective, theta, support, query = objective_of(kind, num_steps)

    loss, found, _ = objective.gradient(theta)

    expected = grad(lambda p: plain_objective(kind, p, theta, support, query))(theta)
    assert loss == pytest.approx(float(plain_objective(kind, theta, theta, support, query)))
    close(found, expected)


def test_first_order_takes_inner_gradients_as_constants() -> None:
    objective, theta, support, query = objective_of(is_second_order=False)

    _, found, _ = objective.gradient(theta)

    slopes = []
    for task in range(T):
        phi = {k: v.detach() for k, v in plain_adapted("likelihood", theta, support, task).items()}
        slopes.append(grad(lambda p: plain_loss("ratio", p, phi, query, task))(phi))  # noqa: B023
    close(found, {name: (slopes[0][name] + slopes[1][name]) / 2 for name in theta})


def test_the_objective_elsewhere_adapts_from_there() -> None:
    objective, theta, support, query = objective_of()
    other = {name: value + 0.02 for name, value in theta.items()}

    loss, kl = objective.at(other)

    expected = plain_objective("likelihood", other, theta, support, query)
    assert loss == pytest.approx(float(expected))
    assert kl > 0
    assert objective.at(theta)[1] == pytest.approx(0, abs=1e-12)


def plain_divergence(
    theta: Params, base: Params, support: list[Experience], query: Experience
) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for task in range(T):
        pair = []
        for start in (base, theta):
            phi = plain_adapted("likelihood", start, support, task)
            hidden = torch.relu(
                query.observations[task] @ phi["linear0.weight"] + phi["linear0.bias"]
            )
            means = hidden @ phi["linear1.weight"] + phi["linear1.bias"]
            pair += [means[None], phi[LOG_STD][None, None]]
        total = total + divergence(*pair)[0, :-1].mean() / T
    return total


def test_the_curvature_is_the_hessian_of_the_divergence_through_the_adaptation() -> None:
    objective, theta, support, query = objective_of()
    _, _, steps = objective.gradient(theta)
    vector = {name: torch.randn_like(value) for name, value in theta.items()}

    found = objective.curvature(theta, steps).times(vector)

    base = {name: value.clone() for name, value in theta.items()}
    blocks: Any = jacrev(jacrev(lambda p: plain_divergence(p, base, support, query)))(theta)
    for a in theta:
        expected = sum(torch.tensordot(blocks[a][b], vector[b], dims=vector[b].ndim) for b in theta)
        torch.testing.assert_close(found[a], expected)


# --- outer steps -------------------------------------------------------------------------------


def test_conjugate_gradients_solve_a_linear_system() -> None:
    root = torch.randn(4, 4, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(4)
    target = torch.randn(4, dtype=torch.float64)

    found = conjugate_gradients(lambda v: {"x": matrix @ v["x"]}, {"x": target}, 10)

    torch.testing.assert_close(found["x"], torch.linalg.solve(matrix, target))


def test_a_trust_region_step_lowers_the_loss_within_the_divergence() -> None:
    objective, theta, _, _ = objective_of()

    pushed, figures = TRUST(objective, theta)

    now = {name: theta[name] - pushed[name] for name in theta}
    loss, kl = objective.at(now)
    assert loss < objective.at(theta)[0]
    assert 0 < kl <= 0.01
    assert figures["divergence"] == pytest.approx(kl)
    assert figures["step_share"] in [0.5**i for i in range(10)]


def test_a_full_trust_region_step_is_the_natural_gradient_to_the_edge() -> None:
    objective, theta, _, _ = objective_of()
    _, gradient, steps = objective.gradient(theta)
    curvature = objective.curvature(theta, steps)
    small = replace(TRUST, divergence=1e-8, damping=0.1)

    pushed, figures = small(objective, theta)

    def product(v: Params) -> Params:
        curved = curvature.times(v)
        return {name: curved[name] + 0.1 * v[name] for name in v}

    assert figures["step_share"] == 1.0
    assert 0.5 * dot(pushed, product(pushed)) == pytest.approx(1e-8, rel=1e-6)
    share = (dot(pushed, pushed) / dot(gradient, gradient)) ** 0.5
    back = product(pushed)  # parallel to the gradient
    cosine = dot(back, gradient) / (dot(back, back) * dot(gradient, gradient)) ** 0.5
    assert cosine == pytest.approx(1.0, abs=1e-6)
    assert share > 0


def test_where_no_cut_will_do_nothing_is_pushed() -> None:
    objective, theta, _, _ = objective_of()

    class Worse:
        gradient, curvature = objective.gradient, objective.curvature

        def at(self, theta: Params) -> tuple[float, float]:
            return 1e9, 0.0

    pushed, figures = TRUST(Worse(), theta)  # type: ignore[arg-type]

    assert all(not value.any() for value in pushed.values())
    assert figures == {"divergence": 0.0, "step_share": 0.0}


def test_clipped_epochs_are_adam_on_the_clipped_surrogate() -> None:
    objective, theta, support, query = objective_of()
    old = [
        {k: v.detach() for k, v in plain_adapted("likelihood", theta, support, task).items()}
        for task in range(T)
    ]

    def clipped(p: Params) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for task in range(T):
            phi = plain_adapted("likelihood", p, support, task)
            for i in range(N - 1):
                s, a = query.observations[task, i], query.actions[task, i]
                before = plain_likelihood(old[task], s, a)
                ratio = torch.exp(plain_likelihood(phi, s, a) - before)
                gain = query.advantages[task, i]
                cut = ratio.clamp(0.95, 1.05)
                total = total - torch.minimum(ratio * gain, cut * gain) / (N - 1) / T
        return total

    now = {name: value.clone() for name, value in theta.items()}
    adam = torch.optim.Adam(now.values(), lr=0.01)
    for _ in range(4):
        for name, slope in grad(clipped)(now).items():
            now[name].grad = slope
        adam.step()

    pushed, figures = Clipped(epochs=4, lr=0.01, clip=0.05)(objective, theta)

    close(pushed, difference(theta, now), atol=1e-9, rtol=1e-6)
    assert figures["divergence"] > 0


def test_the_plain_gradient_is_pushed_as_it_is() -> None:
    objective, theta, _, _ = objective_of()

    pushed, figures = PlainGradient()(objective, theta)

    close(pushed, objective.gradient(theta)[1])
    assert figures == {}
