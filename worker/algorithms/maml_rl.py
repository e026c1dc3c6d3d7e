"""Model-agnostic meta-learning of policies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Stream
from dmaml.worker import engine as engines
from dmaml.worker import models
from dmaml.worker.algorithms.base import Context, Contribution, Draw, Evaluation, Problem
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.algorithms.options import (
    INNER_LOOP,
    choice,
    count,
    inner_lr,
    number,
    require_kind,
    require_unset,
)
from dmaml.worker.control.adaptation import SURROGATES, descend
from dmaml.worker.control.advantages import Experience, experience
from dmaml.worker.control.objective import Inner, Objective
from dmaml.worker.control.outer import Clipped, OuterStep, PlainGradient, TrustRegion
from dmaml.worker.control.policy import GaussianPolicy
from dmaml.worker.control.rollout import Sampler, Trajectories
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch


@final
class MamlRl:
    """MAML for control: learn a policy that a few policy gradient steps make good at a task.

    For a task, k_shot trajectories of π_θ (the support set) give the policy gradient step

        φ = θ + α mean_t ∂log π_θ(a_t | s_t)/∂θ Â_t

    (`inner_steps` of them, each with fresh trajectories), and k_query trajectories of π_φ the
    outer objective, whose maximum over θ is sought by `outer_step`. Â are generalised advantages
    over a linear baseline, normalised by task. φ adapts every parameter, σ too.

    All trajectories of all tasks of an item run at once; `engine.chunk` is not read.

    `loss` is minus the mean return after adaptation, `return` the return itself, both of the query
    trajectories; `loss_before` and `return_before` are of the support trajectories of π_θ.

    Args:
        config: the run's; α = `algorithm.inner_lr`; `order: first` takes ∂φ/∂θ for I.
        problem: what the source says; its environments.
        outer_step: trust_region (push θ - θ' of a TRPO step), clipped (that of PPO epochs; both
            want `outer: {name: sgd, lr: 1.0}`), or gradient (push the gradient itself).
        surrogate: of the inner step; likelihood (as published) or ratio (ProMP's low variance
            curvature).
        initial_std: σ to begin with, 1 being the upper bound of the action space.
        gamma: discount factor.
        gae_lambda: λ of the advantages.
        later_lr: α of all evaluation steps but the first, as a share of α.
        divergence, cg_steps, damping, cuts, cut: of trust_region; see `TrustRegion`.
        epochs, lr, clip: of clipped; see `Clipped`.

    Raises:
        ConfigError: the source gives no control tasks, a space that is no vector.
        ValueError: an unsuitable option.

    References:
        Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks"
        (2017), algorithm 3, section 5.3 and appendix A.2; github.com/cbfinn/maml_rl. We differ: a
        task has exactly k trajectories (there as many as fit into k times the horizon), the
        baseline is fitted to the same trajectories (`advantages.baseline`), and the outer step is
        solved for each slot by itself, the server averaging the steps.
    """

    for_control = True

    def __init__(
        self,
        config: RunConfig,
        policy: GaussianPolicy,
        sampler: Sampler,
        outer_step: OuterStep,
        inner: Inner,
        discounts: tuple[float, float],
        later_lr: float,
    ) -> None:
        self._policy = policy
        self._sampler = sampler
        self._outer_step = outer_step
        self._inner = inner
        self._discounts = discounts
        self._later_lr = later_lr
        self._inner_steps = config.algorithm.inner_steps
        self._sums_tasks = config.algorithm.task_reduction == "sum"

    @classmethod
    def configured(
        cls,
        config: RunConfig,
        problem: Problem,
        outer_step: str = "trust_region",
        surrogate: str = "likelihood",
        initial_std: float = 1.0,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        later_lr: float = 0.5,
        divergence: float = 0.01,
        cg_steps: int = 10,
        damping: float = 1e-5,
        cuts: int = 15,
        cut: float = 0.8,
        epochs: int = 5,
        lr: float = 1e-3,
        clip: float = 0.3,
    ) -> MamlRl:
        """Return the algorithm that a configuration describes; see the class."""
        require_kind(config, problem, "control")
        family = problem.environments
        if family is None:
            raise ConfigError(
                f"task.source {config.task.source!r} gives control tasks without environments. "
                "Give it the attribute environments (docs/reinforcement.md)."
            )
        steps: dict[str, OuterStep] = {
            "trust_region": TrustRegion(
                number("divergence", divergence, "> 0", _is_positive),
                count("cg_steps", cg_steps, least=1),
                number("damping", damping, ">= 0", lambda value: value >= 0),
                count("cuts", cuts, least=1),
                number("cut", cut, "between 0 and 1", lambda value: 0 < value < 1),
            ),
            "clipped": Clipped(
                count("epochs", epochs, least=1),
                number("lr", lr, "> 0", _is_positive),
                number("clip", clip, "> 0", _is_positive),
            ),
            "gradient": PlainGradient(),
        }
        chosen = choice("outer_step", outer_step, steps)
        _check(config, chosen)
        model = models.build(config, problem.input_shape, problem.num_outputs)
        std = number("initial_std", initial_std, "> 0", _is_positive)
        engine = engines.build(config.engine, model)
        policy = GaussianPolicy(model, engine, problem.num_outputs, std)
        inner = Inner(
            SURROGATES[choice("surrogate", surrogate, SURROGATES)],
            inner_lr(config),
            config.algorithm.order == "second",
        )
        discounts = (
            number("gamma", gamma, "of 0 to 1", _is_share),
            number("gae_lambda", gae_lambda, "of 0 to 1", _is_share),
        )
        later = number("later_lr", later_lr, "> 0", _is_positive)
        sampler = Sampler(family, policy)
        return cls(config, policy, sampler, steps[chosen], inner, discounts, later)

    def init(self, stream: Stream) -> Params:
        """Return the policy's fresh parameters."""
        return self._policy.init(stream)

    def contribution(self, params: Params, draw: Draw, context: Context) -> Contribution:
        """Return what the outer step pushes, from the trajectories of one batch."""
        batch = draw()
        params = {name: value.detach() for name, value in params.items()}
        phi = stacked(params, 1)
        support: list[Experience] = []
        before: Trajectories | None = None
        for step in range(self._inner_steps):
            trajectories = self._sample(phi, batch, batch.support_y, step)
            before = before or trajectories
            support.append(self._experience(trajectories))
            phi = self._adapted(_rows(phi, batch), support[-1], self._inner.alpha)
        after = self._sample(phi, batch, batch.query_y, self._inner_steps)
        query = self._experience(after)
        objective = Objective(self._policy, self._inner, support, query, _rows(phi, batch))
        pushed, figures = self._outer_step(objective, params)
        if self._sums_tasks:
            pushed = {name: value * batch.num_tasks for name, value in pushed.items()}
        gain = float(after.returns().mean())
        gain_before = float((before or after).returns().mean())
        metrics = {"loss_before": -gain_before, "return_before": gain_before, "return": gain}
        return Contribution(pushed, -gain, metrics | figures, batch.num_tasks)

    def evaluate(self, params: Params, batch: TaskBatch, steps: int) -> Evaluation:
        """Return `return` and `adaptation_delta` after 0 .. `steps` steps.

        After k steps the return is the mean over k_query new trajectories of the adapted policy,
        and `adaptation_delta` what it has gained since step 0. Each step takes k_shot new
        trajectories.
        """
        columns = [found.returns() for found in self.trajectories(params, batch, steps)]
        returns = torch.stack(columns, dim=1).double().numpy()
        return Evaluation({"return": returns, "adaptation_delta": returns - returns[:, :1]})

    def trajectories(self, params: Params, batch: TaskBatch, steps: int) -> Iterator[Trajectories]:
        """Yield the query trajectories after 0 .. `steps` steps; see `evaluate`."""
        phi = stacked({name: value.detach() for name, value in params.items()}, 1)
        for step in range(steps + 1):
            yield self._sample(phi, batch, batch.query_y, step)
            if step < steps:
                alpha = self._inner.alpha * (1.0 if step == 0 else self._later_lr)
                support = self._experience(self._sample(phi, batch, batch.support_y, step))
                phi = self._adapted(_rows(phi, batch), support, alpha)

    def predict(
        self, params: Params, support_x: Tensor, support_y: Tensor, query_x: Tensor, steps: int
    ) -> Tensor:
        """Return the adapted policy's mean actions, `[N, actions]`, 1 being the upper bound.

        Args:
            params: the meta-parameters.
            support_x: observations `[M, observation size]` of time steps that were recorded.
            support_y: `[M, actions + 1]`, the actions that were taken then, and their advantages.
            query_x: observations `[N, observation size]`.
            steps: adaptation steps, all on the same recorded time steps.
        """
        phi = stacked({name: value.detach() for name, value in params.items()}, 1)
        rows = support_y.to(support_x.dtype)[None]
        weights = torch.full(rows.shape[:2], 1 / rows.shape[1], dtype=rows.dtype)
        given = Experience(support_x[None], rows[..., :-1], rows[..., -1], weights)
        for step in range(steps):
            alpha = self._inner.alpha * (1.0 if step == 0 else self._later_lr)
            phi = self._adapted(phi, given, alpha)
        with torch.no_grad():
            return self._policy.means(phi, query_x[None])[0]

    def _sample(
        self, phi: Params, batch: TaskBatch, seeds: np.ndarray[Any, Any], step: int
    ) -> Trajectories:
        if batch.parameters is None:
            raise ConfigError(
                "the batch has no parameters, which tell the environments of its tasks apart. "
                "Let the source put them into TaskBatch.parameters (docs/reinforcement.md)."
            )
        return self._sampler.sample(phi, batch.parameters, seeds, step)

    def _experience(self, trajectories: Trajectories) -> Experience:
        return experience(trajectories, *self._discounts)

    def _adapted(self, phi: Params, given: Experience, alpha: float) -> Params:
        return descend(self._inner.surrogate, self._policy, phi, given, alpha)[1]


def _rows(phi: Params, batch: TaskBatch) -> Params:
    """Return φ with a row for each task, where all tasks share one."""
    return {name: value.expand(batch.num_tasks, *value.shape[1:]) for name, value in phi.items()}


def _check(config: RunConfig, outer_step: str) -> None:
    """Raise ValueError for settings that cannot go together, or that nothing here reads."""
    section = config.algorithm
    if section.order not in ("second", "first"):
        raise ValueError(
            f"algorithm.order {section.order!r}: maml_rl knows second and first. Set one of them."
        )
    read = ("order", "per", "initial_lr")  # rates that are learned are refused as `inner_lr`
    require_unset(config, [key for key in INNER_LOOP if key not in read])
    if config.algorithm.task_reduction == "sum" and outer_step != "gradient":
        raise ValueError(
            f"algorithm.task_reduction 'sum' with outer_step {outer_step!r}: what is pushed is a "
            "step, not a sum over tasks. Set task_reduction to mean."
        )
    if config.faults.kind == "shuffled_labels":
        raise ValueError(
            "faults.kind 'shuffled_labels' with control tasks: they have no labels. "
            "Take scaled_gradient."
        )


def _is_positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1
