"""The outer objective of one item: how well θ adapts, judged on trajectories that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from dmaml.worker.algorithms.episodes import gradients, stacked
from dmaml.worker.control.adaptation import Step, Surrogate, descend, pullback, pushforward
from dmaml.worker.control.advantages import Experience
from dmaml.worker.control.policy import GaussianPolicy, divergence
from dmaml.worker.models.base import Params


@dataclass(frozen=True)
class Inner:
    """The adaptation: which surrogate, α, and whether its derivative is taken."""

    surrogate: Surrogate
    alpha: float
    is_second_order: bool


@final
class Objective:
    """L(θ) = mean over tasks of -mean_t ratio_t(φ(θ)) Â_t, and the divergence of φ(θ).

    φ(θ) takes the policy gradient steps of the support trajectories, which were sampled once; the
    ratio is π_φ(θ) / π_φ(θ_0) at the query trajectories, which π_φ(θ_0) sampled.

    Args:
        policy: the policy.
        inner: how it adapts.
        support: the experience of each adaptation step.
        query: that of the adapted policies.
        phi: φ(θ_0), the policies that sampled the query trajectories, `[T, *shape]`.

    References:
        Finn, Abbeel, Levine (2017), algorithm 3 and section 5.3 (TRPO as meta-optimiser); Schulman,
        Levine, Moritz, Jordan, Abbeel, "Trust region policy optimization" (2015), equations 12 to
        14; Schulman, Wolski, Dhariwal, Radford, Klimov, "Proximal policy optimization algorithms"
        (2017), equation 7 (the clipped one).
    """

    def __init__(
        self,
        policy: GaussianPolicy,
        inner: Inner,
        support: Sequence[Experience],
        query: Experience,
        phi: Params,
    ) -> None:
        self._policy = policy
        self._inner = inner
        self._support = support
        self._query = query
        self._num_tasks = query.weights.shape[0]
        with torch.no_grad():
            self._old_means = policy.means(phi, query.observations)
            self._old_log_std = policy.log_std(phi)
            self._old_likelihood = policy.log_likelihood(phi, query.observations, query.actions)

    def gradient(
        self, theta: Params, clip: float | None = None
    ) -> tuple[float, Params, Sequence[Step]]:
        """Return L(θ), ∂L/∂θ, and the adaptation at θ.

        Args:
            clip: ε of the clipped ratio; None: as it is.
        """
        steps, phi = self.adapted(theta, keeps_graph=self._inner.is_second_order)
        leaves = {name: value.requires_grad_() for name, value in phi.items()}
        losses = self._losses(leaves, clip)
        cotangent = gradients(losses.sum(), leaves)
        return float(losses.detach().mean()), self._pulled(steps, cotangent), steps

    @torch.no_grad()
    def at(self, theta: Params) -> tuple[float, float]:
        """Return L(θ) and the mean divergence KL(π_φ(θ_0) ‖ π_φ(θ)) over tasks and steps."""
        with torch.enable_grad():
            _, phi = self.adapted(theta)
        return float(self._losses(phi, None).mean()), float(self._divergences(phi).mean())

    def curvature(self, theta: Params, steps: Sequence[Step]) -> Curvature:
        """Return the second derivative of the divergence at θ = θ_0 as an operator.

        Args:
            steps: of `gradient(theta)`.
        """
        _, phi = self.adapted(theta)
        leaves = {name: value.requires_grad_() for name, value in phi.items()}
        slope = gradients(self._divergences(leaves).sum(), leaves, create_graph=True)
        return Curvature(self._inner, self._num_tasks, steps, Step(leaves, slope))

    def adapted(self, theta: Params, keeps_graph: bool = False) -> tuple[list[Step], Params]:
        """Return the adaptation steps at θ, and φ(θ) `[T, *shape]`."""
        phi = stacked(theta, self._num_tasks)
        steps: list[Step] = []
        for given in self._support:
            step, phi = descend(
                self._inner.surrogate, self._policy, phi, given, self._inner.alpha, keeps_graph
            )
            steps.append(step)
        return steps, phi

    def _losses(self, phi: Params, clip: float | None) -> Tensor:
        query = self._query
        likelihood = self._policy.log_likelihood(phi, query.observations, query.actions)
        ratio = torch.exp(likelihood - self._old_likelihood)
        gain = ratio * query.advantages
        if clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * query.advantages)
        return -query.mean(gain)

    def _divergences(self, phi: Params) -> Tensor:
        means = self._policy.means(phi, self._query.observations)
        log_std = self._policy.log_std(phi)
        return self._query.mean(divergence(self._old_means, self._old_log_std, means, log_std))

    def _pulled(self, steps: Sequence[Step], cotangent: Params) -> Params:
        if self._inner.is_second_order:
            cotangent = pullback(steps, self._inner.alpha, cotangent)
        return {name: value.mean(0) for name, value in cotangent.items()}


@final
class Curvature:
    """v -> mean over tasks of Jᵀ F J v, the Hessian of the mean divergence at θ_0.

    F is the divergence's own Hessian at φ(θ_0), Fisher's matrix, and J = ∂φ/∂θ. Nothing is left
    out: the divergence's gradient is zero there, so that second derivatives of φ do not count.
    With first-order adaptation J is taken for I.
    """

    def __init__(self, inner: Inner, num_tasks: int, steps: Sequence[Step], slope: Step) -> None:
        self._inner = inner
        self._num_tasks = num_tasks
        self._steps = steps if inner.is_second_order else ()
        self._slope = slope

    def times(self, vector: Params) -> Params:
        """Return the product with v, of θ's shapes."""
        tangent = pushforward(self._steps, self._inner.alpha, stacked(vector, self._num_tasks))
        slope = self._slope
        products = torch.autograd.grad(
            [slope.gradient[name] for name in tangent],
            [slope.phi[name] for name in tangent],
            [tangent[name] for name in tangent],
            retain_graph=True,
            materialize_grads=True,
        )
        cotangent = dict(zip(tangent, products, strict=True))
        pulled = pullback(self._steps, self._inner.alpha, cotangent)
        return {name: value.mean(0) for name, value in pulled.items()}
