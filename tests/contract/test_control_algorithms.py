"""The laws of algorithms, for those of control tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper

from dmaml.common.config import from_mapping, resolve
from dmaml.common.plugins import find
from dmaml.common.seeds import Float64, Kind, Stream, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Context
from dmaml.worker.answers import Answerer
from dmaml.worker.control.navigation import Navigation
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
NUM_TASKS, K, STEPS = 8, 10, 30

# options, and the outer optimiser that goes with them
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "gradient": ({"options": {"outer_step": "gradient"}}, "adam"),
    "first order": ({"options": {"outer_step": "gradient"}, "order": "first"}, "adam"),
    "ratio": ({"options": {"outer_step": "gradient", "surrogate": "ratio"}}, "adam"),
    "clipped": ({"options": {"outer_step": "clipped", "lr": 0.01}}, "sgd"),
    "trust_region": ({"options": {"outer_step": "trust_region", "divergence": 0.05}}, "sgd"),
    "local steps": (
        {"options": {"outer_step": "trust_region", "divergence": 0.05}}
        | {"local_steps": 2, "local_lr": 1.0},
        "sgd",
    ),
}


class Restless:
    """A family whose points have a goal of their own in each trajectory: nothing to adapt to."""

    num_parameters, horizon = 2, 12

    def draw(self, stream: Stream) -> Float64:
        return np.zeros(2)

    def make(self, num_envs: int) -> RestlessPoints:
        return RestlessPoints(Navigation(horizon=self.horizon).make(num_envs))


class RestlessPoints(VectorWrapper):
    """Takes the goals from the seeds, whatever the task."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        own = [stream(s, Kind.CONTROL).uniform(2, low=-0.5, high=0.5) for s in seed]
        return self.env.reset(seed=seed, options={"parameters": np.array(own)})


def built(name: str, **task: Any) -> tuple[Answerer, str]:
    algorithm, optimiser = CASES[name]
    values = {
        "task": {"source": "navigation", "n_way": 1, "options": {"horizon": 12}} | task,
        "model": {"name": "mlp", "hidden": [16]},
        "algorithm": {"name": "maml_rl", "inner_lr": 0.5} | algorithm,
    }
    return Answerer(resolve(from_mapping(values))), optimiser


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Answerer, str]:
    return built(request.param)


def drawing(answerer: Answerer, index: int, kind: Kind = Kind.TRAIN) -> Callable[[], TaskBatch]:
    """Return a `draw` that gives fresh tasks at each call, the same ones for an index."""
    calls = iter(range(100))
    source = answerer.source

    def draw() -> TaskBatch:
        place = 100 * index + next(calls)
        streams = [stream(1, kind, place, 0, j) for j in range(NUM_TASKS)]
        return source.sample(streams, source.split("train"), 1, K, K)

    return draw


def context() -> Context:
    return Context(0, STEPS, stream(1, Kind.CONTEXT))


def gain(answerer: Answerer, theta: Params) -> float:
    """Return by how much a step of adaptation raises the return, over new tasks."""
    found = [
        answerer.algorithm.evaluate(theta, drawing(answerer, i, Kind.TEST)(), 1).metrics
        for i in range(4)
    ]
    return float(np.mean([one["adaptation_delta"][:, 1].mean() for one in found]))


def test_every_algorithm_of_control_is_tested() -> None:
    table = algorithms.ALGORITHMS
    things = {name: find("algorithm", algorithms.GROUP, table, name) for name in table}

    for_control = {n for n, thing in things.items() if getattr(thing, "for_control", False)}

    assert for_control == {"maml_rl"}


def meta_train(answerer: Answerer, optimiser: str, num_steps: int = STEPS) -> Params:
    theta = answerer.algorithm.init(stream(1, Kind.INIT))
    adam = torch.optim.Adam(theta.values(), lr=0.01)
    for index in range(num_steps):
        draw = drawing(answerer, index)
        found = answerer.algorithm.contribution(theta, draw, context())
        if optimiser == "adam":
            for name, value in theta.items():
                value.grad = found.gradient[name]
            adam.step()
        else:
            theta = {name: value - found.gradient[name] for name, value in theta.items()}
    return theta


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("first order", "trust_region")
        else pytest.param(name, marks=pytest.mark.e2e)
        for name in CASES
    ],
)
def test_meta_training_makes_adaptation_worth_more(name: str) -> None:
    answerer, optimiser = built(name)
    before = gain(answerer, answerer.algorithm.init(stream(1, Kind.INIT)))

    theta = meta_train(answerer, optimiser, STEPS // 2 if name == "local steps" else STEPS)

    assert gain(answerer, theta) > 1.4 * before


def test_where_there_is_nothing_to_adapt_to_adaptation_stays_worthless() -> None:
    place = f"{__name__}:Restless"
    answerer, optimiser = built("gradient", source="control", options={"environment": place})
    known, _ = built("gradient")

    theta = meta_train(answerer, optimiser)

    assert gain(answerer, theta) < 0.5 * gain(known, known.algorithm.init(stream(1, Kind.INIT)))


def test_a_contribution_has_the_parameters_names_shapes_and_figures(
    case: tuple[Answerer, str],
) -> None:
    answerer, _ = case
    theta = answerer.algorithm.init(stream(1, Kind.INIT))

    found = answerer.algorithm.contribution(theta, drawing(answerer, 0), context())

    assert list(found.gradient) == list(theta)
    for name, gradient in found.gradient.items():
        assert gradient.shape == theta[name].shape
        assert gradient.dtype == torch.float32
        assert not gradient.requires_grad
    assert {"loss_before", "return_before", "return"} <= set(found.metrics)
    assert np.isfinite([found.loss, *found.metrics.values()]).all()
    assert found.num_tasks % NUM_TASKS == 0


def test_a_contribution_is_a_pure_function(case: tuple[Answerer, str]) -> None:
    answerer, _ = case
    theta = answerer.algorithm.init(stream(1, Kind.INIT))
    before = {name: value.clone() for name, value in theta.items()}

    once = answerer.algorithm.contribution(theta, drawing(answerer, 0), context())
    answerer.algorithm.evaluate(theta, drawing(answerer, 0, Kind.TEST)(), steps=2)
    again = answerer.algorithm.contribution(theta, drawing(answerer, 0), context())

    assert all(torch.equal(once.gradient[name], again.gradient[name]) for name in theta)
    assert (once.loss, once.metrics) == (again.loss, again.metrics)
    assert all(torch.equal(theta[name], before[name]) for name in theta)
    assert not any(value.requires_grad for value in theta.values())


def test_evaluation_gives_each_task_a_figure_for_every_step(case: tuple[Answerer, str]) -> None:
    answerer, _ = case
    theta = answerer.algorithm.init(stream(1, Kind.INIT))

    metrics = answerer.algorithm.evaluate(theta, drawing(answerer, 0)(), steps=2).metrics

    assert set(metrics) == {"return", "adaptation_delta"}
    assert {figure.shape for figure in metrics.values()} == {(NUM_TASKS, 3)}
    assert {figure.dtype for figure in metrics.values()} == {np.dtype(np.float64)}
    assert not metrics["adaptation_delta"][:, 0].any()


def test_a_prediction_does_not_depend_on_the_other_queries(case: tuple[Answerer, str]) -> None:
    answerer, _ = case
    theta = answerer.algorithm.init(stream(1, Kind.INIT))
    seen, recorded, queries = torch.randn(5, 2), torch.randn(5, 3), torch.randn(4, 2)

    together = answerer.algorithm.predict(theta, seen, recorded, queries, steps=1)

    assert together.shape == (4, 2)
    alone = answerer.algorithm.predict(theta, seen, recorded, queries[:1], 1)
    torch.testing.assert_close(alone, together[:1])
