"""The configurations of the learners beside MAML load, and can be made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig, evaluation_shape
from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Algorithm

CONFIGS: Final = Path(__file__).parents[2] / "configs"
OMNIGLOT: Final = ("5w1s", "5w5s", "20w1s", "20w5s")
PUBLISHED: Final = (
    *(f"{name}_omniglot_{shape}" for name in ("protonet", "matching", "reptile")
      for shape in OMNIGLOT),
    *(f"{name}_omniglot_{shape}" for name in ("mann", "lstm") for shape in OMNIGLOT[:2]),
    "scratch_omniglot_5w1s", "pretrain_omniglot_5w1s",
    "pretrain_sinusoid_5shot", "oracle_sinusoid_5shot",
)  # fmt: skip


def loaded(name: str) -> RunConfig:
    return configuration.resolve(configuration.load(CONFIGS / f"{name}.yaml"))


def made(config: RunConfig) -> Algorithm:
    n_way = config.task.n_way
    if config.task.source == "sinusoid":
        return algorithms.build(config, "regression", (1,), 1, 3, num_parameters=2)
    return algorithms.build(config, "classification", (1, 28, 28), n_way, 1623)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_loads_and_can_be_made(name: str) -> None:
    config = loaded(name)

    params = made(config).init(stream(1, Kind.INIT))

    assert config.algorithm.name == name.split("_", maxsplit=1)[0]
    assert config.run.name == name.replace("_", "-")
    assert sum(value.numel() for value in params.values()) > 1000


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "omniglot" in name])
def test_it_is_tested_on_the_tasks_that_its_name_says(name: str) -> None:
    n_way, k_shot = evaluation_shape(loaded(name))

    assert name.endswith(f"_{n_way}w{k_shot}s")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("reptile_omniglot_5w1s", "order", "first"),
        ("reptile_omniglot_5w1s", "inner_clip", 1.0),
        ("protonet_omniglot_5w1s", "adapt", ("head",)),
        ("pretrain_omniglot_5w1s", "multi_step_rounds", 10),
        ("lstm_omniglot_5w5s", "per", "scalar"),
    ],
)
def test_a_key_that_would_have_no_effect_is_refused(name: str, key: str, value: object) -> None:
    config = loaded(name)
    section = config.algorithm.model_copy(update={key: value})

    with pytest.raises(ConfigError, match=f"algorithm.{key} .*: {section.name} does not read it"):
        made(config.model_copy(update={"algorithm": section}))
