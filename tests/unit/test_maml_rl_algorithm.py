"""The algorithm `maml_rl`: its contributions, evaluations and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker.algorithms.base import Context, Contribution
from dmaml.worker.algorithms.episodes import stacked
from dmaml.worker.algorithms.maml_rl import MamlRl
from dmaml.worker.answers import Answerer
from dmaml.worker.control.adaptation import descend
from dmaml.worker.control.advantages import Experience
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)


def config_of(**algorithm: Any) -> RunConfig:
    options = {"outer_step": "gradient"} | algorithm.pop("options", {})
    values = {
        "task": {
            "source": "navigation",
            "n_way": 1,
            "k_shot": 6,
            "k_query": 6,
            "options": {"preset": "code", "horizon": 10},
        },
        "model": {"name": "mlp", "hidden": [8]},
        "algorithm": {"name": "maml_rl", "inner_lr": 0.5, "options": options} | algorithm,
        "evaluation": {"k_query": 6},
    }
    return resolve(from_mapping(values))


def made(**algorithm: Any) -> tuple[MamlRl, Params, TaskBatch]:
    answerer = Answerer(config_of(**algorithm))
    assert isinstance(answerer.algorithm, MamlRl)
    streams = [stream(1, Kind.TRAIN, 0, 0, j) for j in range(4)]
    source = answerer.source
    batch = source.sample(streams, source.split("train"), 1, 6, 6)
    return answerer.algorithm, answerer.algorithm.init(stream(1, Kind.INIT)), batch


def contribution(learner: MamlRl, theta: Params, batch: TaskBatch) -> Contribution:
    return learner.contribution(theta, lambda: batch, Context(0, 1, stream(1, Kind.CONTEXT)))


def test_a_contribution_is_the_mean_over_its_tasks() -> None:
    learner, theta, batch = made()

    together = contribution(learner, theta, batch)
    alone = [contribution(learner, theta, part) for part in split(batch)]

    for name in theta:
        mean = torch.stack([one.gradient[name] for one in alone]).mean(0)
        torch.testing.assert_close(together.gradient[name], mean, atol=2e-5, rtol=1e-3)
    assert together.loss == pytest.approx(np.mean([one.loss for one in alone]), rel=1e-5)
    assert together.metrics["return"] == -together.loss
    assert together.metrics["return_before"] == -together.metrics["loss_before"]


def split(batch: TaskBatch) -> list[TaskBatch]:
    return [
        TaskBatch(*(value[i : i + 1] for value in vars(batch).values()))
        for i in range(batch.num_tasks)
    ]


def test_a_sum_over_tasks_is_what_it_says() -> None:
    mean, total = (
        contribution(*made(task_reduction=reduction)).gradient for reduction in ("mean", "sum")
    )

    torch.testing.assert_close(total, {name: 4 * value for name, value in mean.items()})


def test_inner_steps_take_trajectories_of_the_policy_so_far() -> None:
    learner, theta, batch = made(inner_steps=2)
    found = contribution(learner, theta, batch)

    once, *_ = made(inner_steps=1)

    assert (
        found.metrics["return_before"] == contribution(once, theta, batch).metrics["return_before"]
    )
    assert found.loss != contribution(once, theta, batch).loss


@pytest.mark.parametrize("outer_step", ["trust_region", "clipped"])
def test_a_solved_outer_step_moves_theta_and_says_how_far(outer_step: str) -> None:
    learner, theta, batch = made(options={"outer_step": outer_step})

    found = contribution(learner, theta, batch)

    assert any(value.any() for value in found.gradient.values())
    assert 0 < found.metrics["divergence"] < 0.1


def test_evaluation_gives_returns_and_what_they_gained() -> None:
    learner, theta, batch = made()

    found = learner.evaluate(theta, batch, steps=2).metrics

    assert set(found) == {"return", "adaptation_delta"}
    np.testing.assert_array_equal(
        found["adaptation_delta"], found["return"] - found["return"][:, :1]
    )
    assert found["return"].shape == (4, 3)
    alone = learner.evaluate(theta, split(batch)[2], steps=2).metrics["return"]
    np.testing.assert_allclose(alone[0], found["return"][2], rtol=1e-3)


def test_the_return_before_adaptation_does_not_depend_on_the_steps() -> None:
    learner, theta, batch = made()

    short, long = (learner.evaluate(theta, batch, steps).metrics["return"] for steps in (0, 3))

    np.testing.assert_array_equal(short[:, 0], long[:, 0])


def test_later_steps_of_an_evaluation_have_their_own_rate() -> None:
    full, theta, batch = made(options={"later_lr": 1.0})
    none, *_ = made(options={"later_lr": 1e-9})

    one, other = (made_.evaluate(theta, batch, 2).metrics["return"] for made_ in (full, none))

    np.testing.assert_array_equal(one[:, :2], other[:, :2])
    assert (one[:, 2] != other[:, 2]).any()


def test_a_prediction_adapts_to_recorded_steps() -> None:
    learner, theta, _ = made()
    seen, taken, gain = torch.randn(7, 2), torch.randn(7, 2), torch.randn(7, 1)
    queries = torch.randn(3, 2)

    before = learner.predict(theta, seen, torch.cat([taken, gain], 1), queries, steps=0)
    after = learner.predict(theta, seen, torch.cat([taken, gain], 1), queries, steps=1)

    policy = learner._policy
    data = Experience(seen[None], taken[None], gain[None, :, 0], torch.full((1, 7), 1 / 7))
    phi = descend("likelihood", policy, stacked(theta, 1), data, 0.5)[1]
    torch.testing.assert_close(after, policy.means(phi, queries[None])[0])
    torch.testing.assert_close(before, policy.means(stacked(theta, 1), queries[None])[0])


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ({"options": {"outer_step": "trpo"}}, "outer_step 'trpo' is unknown|unknown outer_step"),
        ({"options": {"surrogate": "ratios"}}, "Did you mean 'ratio'"),
        ({"options": {"gamma": 1.5}}, "gamma = 1.5: required a finite number of 0 to 1"),
        ({"options": {"divergence": 0}}, "divergence = 0: required a finite number > 0"),
        ({"options": {"cut": 1.0}}, "cut = 1.0: required a finite number between 0 and 1"),
        ({"order": "finite_difference"}, "maml_rl knows second and first"),
        (
            {"inner_lr": "learned", "initial_lr": 0.1},
            "inner_lr = 'learned': required a finite number",
        ),
        ({"adapt": "head"}, "adapt .*: maml_rl does not read it"),
        ({"options": {"initial_std": 0}}, "initial_std = 0: required a finite number > 0"),
        ({"options": {"epochs": 0}}, "epochs = 0: required a whole number >= 1"),
        ({"options": {"outer_steps": "clipped"}}, "Did you mean 'outer_step'"),
        (
            {"task_reduction": "sum", "options": {"outer_step": "clipped"}},
            "what is pushed is a step, not a sum over tasks",
        ),
    ],
)
def test_unsuitable_options_are_refused(algorithm: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Answerer(config_of(**algorithm))


def test_control_has_no_labels_to_shuffle() -> None:
    config = config_of()
    faults = config.faults.model_copy(update={"kind": "shuffled_labels", "slots": (0,)})

    with pytest.raises(ConfigError, match="control tasks: they have no labels"):
        Answerer(config.model_copy(update={"faults": faults}))


@pytest.mark.parametrize("name", ["maml", "reptile", "protonet", "lstm", "scratch", "oracle"])
def test_other_algorithms_are_not_for_control(name: str) -> None:
    config = config_of()
    other = config.algorithm.model_copy(update={"name": name, "options": {}})

    with pytest.raises(ConfigError, match=rf"'{name}' is not for control.*Take maml_rl"):
        Answerer(config.model_copy(update={"algorithm": other}))


def test_maml_rl_is_for_control_alone() -> None:
    values = {
        "task": {"source": "sinusoid", "n_way": 1},
        "model": {"name": "mlp"},
        "algorithm": {"name": "maml_rl"},
    }

    with pytest.raises(ConfigError, match=r"'maml_rl' is only for control.*gives regression"):
        Answerer(resolve(from_mapping(values)))
