"""The laws of every algorithm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from dmaml.common.config import RunConfig
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.base import Algorithm, Context, Contribution
from dmaml.worker.algorithms.predictions import predictions
from dmaml.worker.answers import Answerer
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import SplitName, TaskBatch
from tests.contract.algorithm_cases import CASES, Case
from tests.integration.harness import train

torch.set_num_threads(1)


@dataclass(frozen=True)
class Toy:
    """A case, and the same with query labels that say nothing."""

    case: Case
    shuffled: bool = False

    @cached_property
    def config(self) -> RunConfig:
        return self.case.config(self.shuffled)

    @cached_property
    def answerer(self) -> Answerer:
        return Answerer(self.config)

    @property
    def algorithm(self) -> Algorithm:
        return self.answerer.algorithm

    @cached_property
    def start(self) -> Params:
        return self.algorithm.init(stream(1, Kind.INIT))

    def tasks(self, kind: Kind, index: int, split: SplitName, count: int = 8) -> TaskBatch:
        source, task = self.answerer.source, self.config.task
        streams = [stream(1, kind, index, task=j) for j in range(count)]
        units = source.split(split)
        return source.sample(streams, units, task.n_way, task.k_shot, task.k_query)

    def fresh(self, index: int) -> TaskBatch:
        """Return tasks of training."""
        return self.tasks(Kind.TRAIN, index, "train", self.case.tasks)

    def contribution(self, params: Params, version: int = 0) -> Contribution:
        steps = self.config.algorithm.local_steps
        numbers = iter(range(version * steps, (version + 1) * steps))
        return self.algorithm.contribution(
            params, lambda: self.fresh(next(numbers)), context(version)
        )

    def trained(self) -> Params:
        params = {name: value.clone() for name, value in self.start.items()}
        optimiser = torch.optim.Adam(params.values(), lr=self.case.lr)
        for version in range(self.case.rounds):
            answer = self.contribution(params, version)
            for name, value in params.items():
                value.grad = answer.gradient[name]
            optimiser.step()
        return {name: value.detach() for name, value in params.items()}

    def loss(self, params: Params) -> float:
        """Return what the algorithm learns to lower, on tasks it has not seen."""
        if self.case.learns == "the pooled problem":
            return self.contribution(params, self.case.rounds).loss
        steps = self.config.algorithm.inner_steps
        batch = self.tasks(Kind.TEST, 0, "test", 50)
        metrics = self.algorithm.evaluate(params, batch, steps).metrics
        return float(metrics["mse" if self.case.regression else "loss"][:, -1].mean())


def context(version: int = 0) -> Context:
    return Context(version=version, rounds=150, stream=stream(2, Kind.TRAIN, version))


SLOW = ("mann",)  # `make slow` trains it


@pytest.fixture(params=CASES)
def toy(request: pytest.FixtureRequest) -> Toy:
    return Toy(CASES[request.param])


LEARNERS = [pytest.param(name, marks=pytest.mark.e2e) if name in SLOW else name for name in CASES]


@pytest.mark.parametrize("toy", LEARNERS, indirect=True)
def test_training_halves_the_loss(toy: Toy) -> None:
    before = toy.loss(toy.start)

    after = toy.loss(toy.trained())

    if toy.case.learns == "nothing":
        assert after == before
    else:
        assert after < before / 2


@pytest.mark.parametrize("toy", LEARNERS, indirect=True)
def test_nothing_is_learned_from_shuffled_query_labels(toy: Toy) -> None:
    senseless = Toy(toy.case, shuffled=True)
    if toy.case.learns == "the pooled problem":
        pytest.skip("support labels are learned from, too")
    targets = senseless.tasks(Kind.TEST, 0, "test", 50).query_y
    chance = targets.var(1).mean() if toy.case.regression else np.log(toy.config.task.n_way)

    after = senseless.loss(senseless.trained())

    assert after > 0.9 * chance


def test_a_contribution_has_the_parameters_names_shapes_and_figures(toy: Toy) -> None:
    answer = toy.contribution(toy.start)

    assert list(answer.gradient) == list(toy.start)
    for name, gradient in answer.gradient.items():
        assert gradient.shape == toy.start[name].shape
        assert gradient.dtype == torch.float32
        assert not gradient.requires_grad
    figures = set() if toy.case.regression else {"accuracy_before", "accuracy"}
    assert {"loss_before"} | figures <= set(answer.metrics)
    assert np.isfinite([answer.loss, *answer.metrics.values()]).all()
    assert answer.num_tasks == toy.case.tasks * toy.config.algorithm.local_steps


def test_a_contribution_is_a_pure_function(toy: Toy) -> None:
    before = {name: value.clone() for name, value in toy.start.items()}

    once = toy.contribution(toy.start)
    toy.algorithm.evaluate(toy.start, toy.tasks(Kind.TEST, 0, "test"), steps=2)
    again = toy.contribution(toy.start)

    assert all(torch.equal(once.gradient[name], again.gradient[name]) for name in before)
    assert (once.loss, once.metrics) == (again.loss, again.metrics)
    assert all(torch.equal(toy.start[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in toy.start.values())


def test_a_contribution_is_the_mean_over_its_tasks(toy: Toy) -> None:
    if toy.config.algorithm.local_steps > 1:
        pytest.skip("the second local step starts where the first one ended")
    whole = toy.fresh(0)
    halves = [part(whole, rows) for rows in (slice(0, 3), slice(3, None))]

    answers = [
        toy.algorithm.contribution(toy.start, lambda batch=batch: batch, context())
        for batch in (whole, *halves)
    ]

    for name, gradient in answers[0].gradient.items():
        shares = [answer.gradient[name] * answer.num_tasks for answer in answers[1:]]
        torch.testing.assert_close(gradient, sum(shares) / whole.num_tasks, rtol=1e-4, atol=1e-6)
    losses = [answer.loss * answer.num_tasks for answer in answers[1:]]
    assert answers[0].loss == pytest.approx(sum(losses) / whole.num_tasks, rel=1e-5)


def part(batch: TaskBatch, rows: slice) -> TaskBatch:
    arrays = {name: value[rows] for name, value in vars(batch).items() if value is not None}
    return replace(batch, **arrays)


def test_evaluation_gives_each_task_a_figure_for_every_step(toy: Toy) -> None:
    batch = toy.tasks(Kind.TEST, 0, "test")

    metrics = toy.algorithm.evaluate(toy.start, batch, steps=2).metrics

    expected = {"mse"} if toy.case.regression else {"loss", "accuracy", "accuracy_inductive"}
    assert set(metrics) >= expected
    assert {figure.shape for figure in metrics.values()} == {(8, 3)}
    assert {figure.dtype for figure in metrics.values()} == {np.dtype(np.float64)}
    assert all(np.isfinite(figure).all() for figure in metrics.values())


def test_a_prediction_does_not_depend_on_the_other_queries(toy: Toy) -> None:
    if not toy.case.predicts:
        pytest.skip("it needs more than examples")
    batch = toy.tasks(Kind.TEST, 0, "test")
    x, y, queries = (
        torch.from_numpy(a[0]) for a in (batch.support_x, batch.support_y, batch.query_x)
    )

    together = toy.algorithm.predict(toy.start, x, y, queries, steps=1)

    assert together.shape == (len(queries), 1 if toy.case.regression else toy.config.task.n_way)
    assert not together.requires_grad
    alone = toy.algorithm.predict(toy.start, x, y, queries[:1], steps=1)
    torch.testing.assert_close(alone, together[:1])


def test_predictions_for_many_tasks_are_those_for_each(toy: Toy) -> None:
    if not toy.case.predicts:
        pytest.skip("it needs more than examples")
    batch = toy.tasks(Kind.TEST, 0, "test")

    together = predictions(toy.algorithm, toy.start, batch, 2)

    assert not together.requires_grad
    assert len(together) == batch.num_tasks
    for task, found in enumerate(together):
        x, y, queries = (
            torch.from_numpy(a[task]) for a in (batch.support_x, batch.support_y, batch.query_x)
        )
        alone = toy.algorithm.predict(toy.start, x, y, queries, steps=2)
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_neither_more_actors_nor_a_restart_changes_a_bit(toy: Toy, tmp_path: Path) -> None:
    def digest(name: str, rounds: int, workers: int) -> str:
        config = replace(toy.case, tasks=2).config(
            run={"rounds": rounds}, topology={"slots": 3}, evaluation={"every": 2, "tasks": 4}
        )
        return train(config, tmp_path / name, workers)

    alone = digest("alone", rounds=4, workers=1)
    crowd = digest("crowd", rounds=4, workers=3)
    begun = digest("stopped", rounds=2, workers=1)
    resumed = digest("stopped", rounds=4, workers=2)

    assert alone == crowd == resumed
    assert (begun == alone) == (toy.case.learns == "nothing")
