"""Generators with a history and robust rules in a real run: the same bits as ever."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from tests.integration.harness import LiveServer, Worker, latest, tiny, train, wait_for

ROBUST = {"name": "clip", "options": {"norm": 0.5, "inner": {"name": "multi_krum"}}}
DISCOUNTED = {"name": "staleness_discount", "options": {"inner": {"name": "loss_moving_average"}}}


def live_status(live: LiveServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{live.http}/api/status", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


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


def test_a_generator_that_gives_nan_fails_the_run_by_its_name_and_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "class Nan:\n"
        "    def weights(self, losses, slots, staleness): return losses * float('nan')\n"
        "    def state(self): return {}\n"
        "    def load(self, state): pass\n"
    )
    (tmp_path / "nan_weights.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny(weights={"name": "nan_weights:Nan"}, evaluation={"every": 0})

    with LiveServer(config, tmp_path / "run") as live:
        worker = Worker(config, live.target)
        status = wait_for(
            lambda: (found := live_status(live))["state"] == "FAILED" and found, "the run failed"
        )
        with pytest.raises(RunFailedError, match="'nan_weights:Nan'"):
            worker.join()

    assert status["message"].startswith("weight generator 'nan_weights:Nan' must give 2 finite")
    assert not status["has_diverged"]
    assert status["version"] == 0
