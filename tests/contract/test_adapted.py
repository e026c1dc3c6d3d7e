"""An adapted model predicts what its algorithm predicts, also as a plain module of torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dmaml.common.errors import ConfigError
from dmaml.common.seeds import Kind, stream
from dmaml.learner import Adapted, load
from tests.contract.algorithm_cases import CASES, Case, case
from tests.unit.saved_runs import saved

torch.set_num_threads(1)
READERS = ("lstm", "mann")  # they read the support set as a sequence
CONVOLUTIONS = {
    f"{name} on {model}": replace(
        case(name), model={"name": model, "width": 6, "hidden": [], "batch_norm": False}
    )
    for name in ("maml", "protonet", "matching", "pretrain")
    for model in ("conv4", "conv4_pool", "conv2")
}
PREDICTING = {name: one for name, one in CASES.items() if one.predicts} | CONVOLUTIONS
HERE = "tests.contract.test_adapted"


class Small(torch.nn.Module):
    """A user's module: batch norms are called in another order than they are made."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.second = torch.nn.BatchNorm1d(6)
        self.first = torch.nn.BatchNorm1d(input_shape[0])
        self.body = torch.nn.Linear(input_shape[0], 6)
        self.head = torch.nn.Linear(6, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.second(self.body(self.first(x)).relu()))
        return y


OWN = {"name": f"{HERE}:Small", "hidden": [], "batch_norm": False}
PREDICTING["a module of one's own"] = replace(case("maml"), model=OWN)


@pytest.fixture(params=PREDICTING)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(one: Case, folder: Path) -> tuple[Adapted, list[torch.Tensor], torch.Tensor]:
    """Return an adapted run, the task's support set and queries, and the algorithm's own answer."""
    config = one.config()
    if one.model.get("name", "").startswith("conv"):
        task = {"source": "glyphs", "n_way": 3, "k_shot": 2, "k_query": 2, "options": {}}
        config = one.config(task=task)
    learner = load(saved(config, folder))
    task = config.task
    source = learner._answerer.source
    batch = source.sample([stream(1, Kind.TEST)], source.split("test"), task.n_way, task.k_shot, 40)
    x, y, queries = (
        torch.from_numpy(array[0]) for array in (batch.support_x, batch.support_y, batch.query_x)
    )
    answerer = learner._answerer
    params = answerer.calibrated(learner.params)
    expected = answerer.algorithm.predict(params, x, y, queries, steps=2)
    return learner.adapt(x, y, steps=2), [x, y, queries], expected


def test_it_predicts_what_the_algorithm_predicts(name: str, tmp_path: Path) -> None:
    adapted, (_, _, queries), expected = made(PREDICTING[name], tmp_path)

    found = adapted.predict(queries)

    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-5)
    if adapted.classes:
        np.testing.assert_allclose(found.probabilities, expected.softmax(1), atol=1e-5)
        assert found.labels == expected.argmax(1).tolist()
    assert np.ptp(found.values) > 0.01  # no constant


def test_the_plain_module_gives_the_same(name: str, tmp_path: Path) -> None:
    adapted, (_, _, queries), _ = made(PREDICTING[name], tmp_path)
    if name in READERS:
        with pytest.raises(ConfigError, match="no plain module"):
            adapted.module()
        return

    with torch.no_grad():
        found = adapted.module()(queries)

    expected = adapted.predict(queries)
    wanted = expected.probabilities if adapted.classes else expected.values
    rounding = 4 * np.finfo(np.float32).eps * np.abs(expected.values).max()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=max(1e-5, rounding))
