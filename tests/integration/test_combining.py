"""Generators with a history and robust rules in a real run: the same bits as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmaml.common.config import RunConfig
from tests.integration.harness import latest, tiny, train

ROBUST = {"name": "clip", "options": {"norm": 0.5, "inner": {"name": "multi_krum"}}}
DISCOUNTED = {"name": "staleness_discount", "options": {"inner": {"name": "loss_moving_average"}}}


def config_of(rounds: int, weights: dict[str, Any], aggregation: dict[str, Any]) -> RunConfig:
    return tiny(
        run={"rounds": rounds}, topology={"slots": 5}, weights=weights, aggregation=aggregation
    )


@pytest.mark.parametrize(
    ("weights", "aggregation"),
    [
        ({"name": "loss_moving_average"}, ROBUST),
        (DISCOUNTED, {"name": "mean"}),
        ({"name": "loss_median"}, {"name": "trimmed_mean"}),
    ],
)
def test_two_actors_and_a_resumed_run_give_the_same_bits(
    weights: dict[str, Any], aggregation: dict[str, Any], tmp_path: Path
) -> None:
    expected = train(config_of(8, weights, aggregation), tmp_path / "one")

    assert train(config_of(8, weights, aggregation), tmp_path / "two", workers=2) == expected
    train(config_of(3, weights, aggregation), tmp_path / "resumed")
    assert train(config_of(8, weights, aggregation), tmp_path / "resumed") == expected
    assert latest(tmp_path / "resumed").meta["weights"] == latest(tmp_path / "one").meta["weights"]
