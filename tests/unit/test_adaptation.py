"""What adapts, how fast, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmaml.common import config as configuration
from dmaml.common.checks import check
from dmaml.common.config import RunConfig, from_mapping, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm, Context
from dmaml.worker.algorithms.roles import Roles
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

torch.set_num_threads(1)
N_WAY, FEATURES = 3, 4
NAMES = ["conv0.weight", "norm0.scale", "norm0.shift", "head.weight", "head.bias"]
CONFIGS = Path(__file__).parents[2] / "configs"
PUBLISHED = sorted(
    file.stem
    for pattern in ("maml_*", "fomaml_*", "meta_sgd_*", "anil_*")
    for file in CONFIGS.glob(f"{pattern}.yaml")
)


def config_of(**section: Any) -> RunConfig:
    values = {
        "task": {"n_way": N_WAY},
        "model": {"name": "mlp", "hidden": [6], "batch_norm": True},
        "algorithm": {"inner_lr": 0.3} | section,
    }
    return resolve(check(from_mapping(values)))


def build(**section: Any) -> Algorithm:
    return algorithms.build(config_of(**section), "classification", (FEATURES,), N_WAY)


def episodes(num_tasks: int = 2) -> TaskBatch:
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(np.arange(N_WAY), 2), (num_tasks, 1))
    x, u = (rng.normal(size=(num_tasks, 2 * N_WAY, FEATURES)) for _ in range(2))
    units = np.zeros((num_tasks, N_WAY), dtype=np.int64)
    return TaskBatch(x.astype("f4"), labels, u.astype("f4"), labels, units)


def gradient_of(algorithm: Algorithm, theta: Params) -> Params:
    batch, context = episodes(), Context(0, 1, stream(1, Kind.CONTEXT))
    return algorithm.contribution(theta, lambda: batch, context).gradient


def fresh(algorithm: Algorithm) -> Params:
    return algorithm.init(stream(1, Kind.INIT))


# -- learned rates ---------------------------------------------------------------------------------

MODEL_SHAPES = {
    "linear0.weight": (4, 6), "norm0.scale": (6,), "norm0.shift": (6,), "linear1.weight": (6, 3),
    "linear1.bias": (3,),
}  # fmt: skip
RATES: dict[str, dict[str, tuple[int, ...]]] = {
    "scalar": {"all": (1,)},
    "layer": {"linear0": (1,), "norm0": (1,), "linear1": (1,)},
    "layer_step": {"linear0": (2,), "norm0": (2,), "linear1": (2,)},
    "parameter": MODEL_SHAPES,
}


@pytest.mark.parametrize("per", RATES)
def test_learned_rates_are_meta_parameters_beside_the_models(per: str) -> None:
    params = fresh(build(inner_lr="learned", initial_lr=0.2, per=per, inner_steps=2))

    shapes = {name: tuple(value.shape) for name, value in params.items()}
    rates = {f"inner_lr/{name}": shape for name, shape in RATES[per].items()}
    assert shapes == MODEL_SHAPES | rates
    assert all(float(params[name].min()) == float(params[name].max()) for name in rates)
    assert {round(float(params[name].max()), 6) for name in rates} == {0.2}
    assert {value.dtype for value in params.values()} == {torch.float32}


@pytest.mark.parametrize("per", RATES)
def test_learned_rates_begin_as_the_fixed_one(per: str) -> None:
    fixed = build(inner_steps=2)
    learned = build(inner_lr="learned", initial_lr=0.3, per=per, inner_steps=2)

    start = fresh(learned)
    by_learned, by_fixed = gradient_of(learned, start), gradient_of(fixed, fresh(fixed))

    for name, value in by_fixed.items():
        torch.testing.assert_close(by_learned[name], value)


def test_what_does_not_adapt_has_no_rate() -> None:
    params = fresh(build(inner_lr="learned", initial_lr=0.2, adapt="head", per_step="norm*"))

    rates = {name for name in params if name.startswith("inner_lr/")}
    assert rates == {"inner_lr/linear1.weight", "inner_lr/linear1.bias"}


def test_a_rate_of_zero_stops_its_layer_and_a_negative_one_turns_it_round() -> None:
    algorithm = build(inner_lr="learned", initial_lr=0.3, per="layer")
    start = fresh(algorithm)
    stopped = start | {name: 0 * start[name] for name in start if "/" in name}
    turned = start | {name: -start[name] for name in start if "/" in name}
    batch = episodes()
    known = replace(batch, query_x=batch.support_x, query_y=batch.support_y)

    down, level, up = (
        algorithm.evaluate(theta, known, steps=1).metrics["loss"].mean(0)
        for theta in (start, stopped, turned)
    )

    assert down[1] < down[0]
    assert level[1] == level[0]
    assert up[1] > up[0]


def test_steps_beyond_training_go_on_with_the_last_steps_rate_and_norms() -> None:
    algorithm = build(
        inner_lr="learned", initial_lr=0.3, per="layer_step", per_step="norm*", inner_steps=2
    )
    start = fresh(algorithm)
    first_step_only = start | {
        name: torch.tensor([0.3, 0.0]) for name in start if name.startswith("inner_lr/")
    }

    loss = algorithm.evaluate(first_step_only, episodes(), steps=4).metrics["loss"]

    assert (loss[:, 1] != loss[:, 0]).all()
    for step in (2, 3, 4):
        assert (loss[:, step] == loss[:, 1]).all()


# -- what adapts -----------------------------------------------------------------------------------


def adapted_weights(algorithm: Algorithm, theta: Params) -> Params:
    """Return the whole model at φ_1 of one task."""
    batch = episodes(1)
    roles = algorithm._loop.roles  # type: ignore[attr-defined]
    tensors = (torch.from_numpy(a) for a in (batch.support_x, batch.support_y))
    phi = roles.start(theta, 1)
    phi = algorithm._loop.adapted(theta, phi, 0, *tensors)  # type: ignore[attr-defined]
    return {
        name: value[0] for name, value in roles.model(phi, roles.shared_at(theta, 1), 1).items()
    }


def test_anil_adapts_the_head_and_meta_learns_the_rest() -> None:
    algorithm = build(adapt="head")
    theta = fresh(algorithm)

    phi = adapted_weights(algorithm, theta)
    gradient = gradient_of(algorithm, theta)

    moved = {name for name in theta if not torch.equal(phi[name], theta[name])}
    assert moved == {"linear1.weight", "linear1.bias"}
    assert {name for name, value in gradient.items() if bool(value.any())} == set(theta)


def test_norms_by_step_do_not_adapt_and_each_row_is_learned() -> None:
    algorithm = build(per_step="norm*", inner_steps=2, multi_step_rounds=10)
    theta = fresh(algorithm)

    gradient = gradient_of(algorithm, theta)

    assert theta["norm0.scale"].shape == theta["norm0.shift"].shape == (3, 6)
    assert theta["linear0.weight"].shape == (4, 6)
    assert bool(gradient["norm0.scale"].any(dim=1).all())


@pytest.mark.parametrize(
    ("adapt", "per_step", "adapted", "stepwise"),
    [
        (("*",), (), NAMES, []),
        (("head",), (), ["head.weight", "head.bias"], []),
        (("norm*", "head.bias"), (), ["norm0.scale", "norm0.shift", "head.bias"], []),
        (("*",), ("norm*",), ["conv0.weight", "head.weight", "head.bias"], NAMES[1:3]),
        (("*.weight",), ("norm0.shift",), ["conv0.weight", "head.weight"], ["norm0.shift"]),
    ],
)
def test_patterns_name_parameters_or_layers(
    adapt: tuple[str, ...], per_step: tuple[str, ...], adapted: list[str], stepwise: list[str]
) -> None:
    roles = Roles(NAMES, adapt, per_step, steps=1)

    assert (list(roles.adapted), list(roles.stepwise)) == (adapted, stepwise)
    assert list(roles.shared) == [name for name in NAMES if name not in adapted]


@pytest.mark.parametrize("key", ["adapt", "per_step"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_names(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"algorithm\.{key} 'nrom\*' .*norm0\.scale"):
        build(**{key: "nrom*"})


def test_nothing_left_to_adapt_is_refused() -> None:
    with pytest.raises(ConfigError, match="Name fewer in per_step"):
        build(adapt="norm*", per_step="norm*")


# -- what goes together ----------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "learned from nothing": ({"inner_lr": "learned"}, "Set initial_lr"),
    "no step to learn from": (
        {"inner_lr": "learned", "initial_lr": 0.1, "inner_steps": 0}, "no step would use a rate",
    ),
    "a start of a fixed rate": ({"initial_lr": 0.1}, "only learned rates read it"),
    "sharing of a fixed rate": ({"per": "layer"}, "only learned rates read it"),
    "a difference that none takes": ({"epsilon": 0.5}, "Set order to finite_difference"),
    "first order and then first order": (
        {"order": "first", "first_order_rounds": 5}, "first order in every round",
    ),
    "one step is not several": ({"multi_step_rounds": 5}, "Set inner_steps to 2 or more"),
    "nothing adapts": ({"adapt": []}, "nothing would adapt"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    section, sentence = REFUSED[name]

    with pytest.raises(ConfigError, match=sentence):
        config_of(**section)


@pytest.mark.parametrize("rate", ["fast", 0, -0.1, True, float("inf"), None])
def test_a_rate_is_a_number_above_0_or_the_word_learned(rate: object) -> None:
    with pytest.raises(ConfigError, match="required a number above 0, or learned"):
        config_of(inner_lr=rate)


# -- published configurations ----------------------------------------------------------------------


def test_published_configurations_are_found() -> None:
    assert len(PUBLISHED) == 9


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_makes_a_learner(name: str) -> None:
    config = resolve(configuration.load(CONFIGS / f"{name}.yaml"))
    if config.task.source == "sinusoid":
        kind, shape, outputs = "regression", (1,), 1
    else:
        kind, shape, outputs = "classification", (1, 28, 28), config.task.n_way

    params = fresh(algorithms.build(config, kind, shape, outputs))  # type: ignore[arg-type]

    assert config.run.name == name.replace("_", "-")
    learns_rates = config.algorithm.inner_lr == "learned"
    assert any(key.startswith("inner_lr/") for key in params) == learns_rates
