"""Benchmarks: shapes, figures and digests. Nothing is measured here."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.bench import phases, scaling, stragglers
from dmaml.bench.simulated import Claim
from dmaml.bench.trial import Trial, config_of, plain_digest, settled, simulated
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, RunFailedError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.deploy.bench import BENCHMARKS, TITLES
from dmaml.deploy.cli import run_cli
from dmaml.worker.answers import Answer, Answerer

SMALL = {
    "run": {"rounds": 3},
    "task": {"n_way": 5, "k_shot": 1, "k_query": 1},
    "model": {"name": "conv4", "width": 4},
    "algorithm": {"tasks": 2},
    "topology": {"slots": 3},
    "evaluation": {"every": 0, "test_tasks": 0},
    "server": {"checkpoint_every": 1},
}


def small(**options: Any) -> RunConfig:
    """Return a small run whose tasks sleep no time."""
    return config_of(SMALL, simulated(0.0, **options))


def row(at: float, seen: int, *items: tuple[str, float, float], version: int = 0) -> dict[str, Any]:
    """Return a round of the record: items are (worker, when its computation began, its end)."""
    return {
        "at": at,
        "version": version,
        "tasks_seen": seen,
        "timings": {"commit_s": 0.002},
        "items": [
            {"worker_id": w, "computed_at": end, "compute_s": end - start, "sample_s": 0.0}
            for w, start, end in items
        ],
    }


# -- computation replaced by a sleep -------------------------------------------------------------


def answer(config: RunConfig, slot: int = 0, version: int = 0, index: int = 0) -> Answer:
    answerer = Answerer(config)
    first = answerer.answer(WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0), np.empty(0), None, [])
    theta = first.flat + np.float32(version)
    item = WorkItem(1, ItemKind.TRAIN, 0, slot, 0, index, version)
    return answerer.answer(item, theta, first.layout, answerer.draw(item))


def test_a_sleeping_task_answers_the_same_whoever_is_asked_and_however_slow(tmp_path):
    quick = answer(small())
    slow = answer(small(slow={"factor": 2.0, "claim": str(tmp_path / "claim")}))

    np.testing.assert_array_equal(quick.flat, slow.flat)
    assert quick.loss == slow.loss
    assert np.isfinite(quick.flat).all()
    assert quick.num_tasks == 2


@pytest.mark.parametrize("other", [{"slot": 1}, {"version": 1}, {"index": 1}])
def test_another_item_or_version_has_another_answer(other):
    assert not np.array_equal(answer(small()).flat, answer(small(), **other).flat)


def test_the_sleep_is_that_of_its_tasks_and_longer_for_the_slow_one(tmp_path, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("dmaml.bench.simulated.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("dmaml.bench.simulated.time.sleep", slept.append)

    answer(config_of(SMALL, simulated(20.0)))
    claim = {"factor": 5.0, "claim": str(tmp_path / "claim")}
    answer(config_of(SMALL, simulated(20.0, slow=claim)))

    assert slept == pytest.approx([0.04, 0.2])


def test_one_process_at_a_time_is_the_slow_one(tmp_path):
    first, second = Claim(tmp_path / "claim"), Claim(tmp_path / "claim")
    others = [first.is_mine(), second.is_mine(), first.is_mine(), second.is_mine()]
    os.close(first.descriptor)  # as if its process ended

    assert others == [True, False, True, False]
    assert second.is_mine()


def test_the_plain_run_does_not_sleep_and_slots_change_its_digest(tmp_path):
    slow = {"factor": 1e9, "claim": str(tmp_path / "claim")}
    fewer = config_of(SMALL, simulated(0.0), {"topology": {"slots": 2}})

    digest = plain_digest(config_of(SMALL, simulated(1e9, slow=slow)))

    assert digest == plain_digest(small())
    assert digest != plain_digest(fewer)


# -- what is read from the record ----------------------------------------------------------------


def test_the_phases_of_a_round_add_up_to_it():
    before = row(9.0, 0, ("a", 8.0, 10.0), ("b", 8.0, 9.5))
    now = row(12.0, 0, ("a", 10.25, 12.0), ("b", 10.75, 12.5))

    parts = phases.phases(before, now)

    assert parts == {"turnaround": 0.25, "hand_out": 0.5, "compute": 1.75}
    assert sum(parts.values()) == 12.5 - 10.0  # from last end to last end


def test_sampling_counts_as_computation():
    before = row(0.0, 0, ("a", 0.0, 1.0))
    now = row(0.0, 0, ("a", 2.0, 3.0))
    now["items"][0]["sample_s"] = 0.5

    assert phases.phases(before, now) == {"turnaround": 0.5, "hand_out": 0.0, "compute": 1.5}


def test_medians_do_not_see_one_bad_round():
    rounds = [row(float(at), 0, ("a", at, at + 0.5)) for at in (0, 1, 2, 9, 10, 11)]

    assert phases.durations(rounds) == [1.0, 1.0, 7.0, 1.0, 1.0]
    assert phases.spread_of(phases.durations(rounds)) == {"median": 1.0, "mean": 2.2, "max": 7.0}
    expected = {"turnaround": 500.0, "hand_out": 0.0, "compute": 500.0, "commit": 2.0}
    assert phases.median_phases(rounds) == expected


def ten_rounds(*joined_at: float) -> Trial:
    """Return a run whose round n was committed at second n, by one actor of those that came."""
    rounds = [row(float(n), 32 * n, ("a", 0, 1)) for n in range(10)]
    return Trial(rounds, list(joined_at), "digest", wall_s=1.0)


def test_rounds_count_once_the_last_actor_came_and_warmed_up():
    trial = ten_rounds(-1.0, 2.5)

    assert settled(trial, actors=2, skipped=4) == trial.rounds[7:]
    assert phases.tasks_per_s(trial.rounds[7:]) == 32.0


@pytest.mark.parametrize("actors", [2, 3])
def test_too_few_rounds_are_an_error_with_the_remedy(actors):
    with pytest.raises(RunFailedError, match=f"{actors} actors .* Raise --rounds"):
        settled(ten_rounds(-1.0, 5.0), actors, skipped=3)


def test_durations_are_relative_to_the_smallest_ratio():
    assert phases.relative_percent({16: 0.7, 1: 0.5}) == {"1": 100.0, "16": 140.0}


# -- scaling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "shapes"),
    [
        ("workers", [(1, 1, 1, 32), (16, 16, 1, 32)]),
        ("epochs", [(1, 1, 1, 32), (1, 1, 16, 32)]),
        ("tasks", [(1, 1, 1, 32), (1, 1, 1, 512)]),
    ],
)
def test_one_factor_grows_and_so_do_the_seen_tasks(factor, shapes):
    rows = scaling.points(factor, (1, 16), 32)

    assert [(p.slots, p.actors, p.epochs, p.tasks) for p in rows] == shapes
    assert [p.seen_tasks for p in rows] == [32, 512]


def options(**values: Any) -> Namespace:
    """Return the options of a benchmark that shall not run anything."""
    given = {
        "simulated_task_ms": 20.0, "factor": "workers", "rounds": 2, "repeats": 1, "tasks": 2,
        "source": "glyphs", "slots": 2, "slow_factor": 5.0, "folder": None, "data_dir": None,
    }  # fmt: skip
    return Namespace(**given | values)


def test_a_row_becomes_a_run_of_that_shape():
    point = scaling.Point(4, slots=4, actors=4, epochs=2, tasks=8)

    config = scaling.config_for(point, options(rounds=10))

    assert (config.topology.slots, config.algorithm.local_steps, config.algorithm.tasks) == (
        4,
        2,
        8,
    )
    assert config.algorithm.options == {"task_ms": 20.0}
    assert config.server.checkpoint_every == 1
    assert (config.model.name, config.model.width) == ("conv4", 64)
    assert scaling.config_for(point, options(simulated_task_ms=None)).algorithm.name == "maml"


def trial_of(seconds: float, digest: str, actors: int, tasks: int = 2) -> Trial:
    """Return what a run of 12 rounds of so many seconds would leave."""
    workers = [f"w{number}" for number in range(actors)]
    rounds = [
        row(
            n * seconds, n * tasks * actors,
            *((worker, n * seconds, n * seconds + 0.8 * seconds) for worker in workers),
            version=n,
        )
        for n in range(12)
    ]  # fmt: skip
    for one in rounds:
        for item in one["items"]:
            item |= {"pull_s": 0.0, "wait_s": 0.0}
    return Trial(rounds, [-1.0] * actors, digest, wall_s=1.0)


def test_the_table_is_relative_to_one_worker(monkeypatch):
    def run(config: RunConfig, actors: int, *_: Any) -> Trial:
        return trial_of(1.0 if actors == 1 else 1.05, f"digest of {actors}", actors)

    monkeypatch.setattr(scaling, "run_trial", run)
    monkeypatch.setattr(scaling, "plain_digest", lambda c: f"digest of {c.topology.slots}")

    report = scaling.measured(scaling.points("workers", (1, 16), 2), options(repeats=3))

    assert report["relative_duration_percent"] == {"1": 100.0, "16": 105.0}
    assert [len(point["runs"]) for point in report["points"]] == [3, 3]
    assert report["points"][1]["tasks_per_s"] == pytest.approx(32 / 1.05, abs=0.01)
    assert json.loads(json.dumps(report)) == report


def test_real_computation_gives_tasks_per_second_and_the_ratio(monkeypatch):
    def run(config: RunConfig, actors: int, *_: Any) -> Trial:
        return trial_of(2.0 / actors, "one digest", actors)

    monkeypatch.setattr(scaling, "run_trial", run)
    rows = [scaling.Point(actors, 2, actors, 1, 2) for actors in (1, 2)]

    report = scaling.measured(rows, options(simulated_task_ms=None))

    assert report["tasks_per_s"] == {"1": 2.0, "2": 4.0}
    assert report["speedup"] == {"1": 1.0, "2": 2.0}


@pytest.mark.parametrize("task_ms", [20.0, None])
def test_another_digest_is_an_error(monkeypatch, task_ms):
    digests = iter(["one", "another"])
    monkeypatch.setattr(
        scaling, "run_trial", lambda config, actors, *_: trial_of(1.0, next(digests), actors)
    )
    monkeypatch.setattr(scaling, "plain_digest", lambda config: "one")
    rows = [scaling.Point(actors, 2, actors, 1, 2) for actors in (1, 2)]

    with pytest.raises(RunFailedError, match="digest another, required one"):
        scaling.measured(rows, options(simulated_task_ms=task_ms))


# -- stragglers ----------------------------------------------------------------------------------


def test_each_leg_changes_mode_and_speculation_only():
    legs = stragglers.legs(slots=5)

    assert legs["sync"].sync == {"mode": "sync"}
    assert legs["quorum"].sync == {"mode": "quorum", "quorum": 4}
    assert legs["quorum-merge"].sync["late"] == "merge"
    assert legs["async"].sync == {"mode": "async", "window": 3}
    assert [name for name, leg in legs.items() if leg.server["speculation"]] == ["speculation"]
    assert [name for name, leg in legs.items() if leg.is_exact] == ["sync", "speculation"]


@pytest.mark.parametrize(("asked", "chosen"), [("", 5), ("async", 2), ("sync", 1)])
def test_sync_is_always_among_the_legs(asked, chosen):
    found = stragglers.chosen(options(slots=5, legs=asked))

    assert found[0].name == "sync"
    assert len(found) == chosen


def test_a_round_is_as_many_answers_as_slots():
    sync = trial_of(1.0, "d", actors=5)
    quorum = replace(
        sync, rounds=[r | {"tasks_seen": r["tasks_seen"] * 4 / 5} for r in sync.rounds]
    )
    each = replace(sync, rounds=[r | {"tasks_seen": r["version"] * 2} for r in sync.rounds])

    rates = [stragglers.figures(one, options(slots=5)) for one in (sync, quorum, each)]

    assert [rate["rounds_per_s"] for rate in rates] == [1.0, 0.8, 0.2]
    assert [rate["versions_per_s"] for rate in rates] == [1.0, 1.0, 1.0]
    assert [rate["answers_per_version"] for rate in rates] == [5, 4, 1]


# -- the command ---------------------------------------------------------------------------------


def test_every_benchmark_has_a_title_and_takes_its_own_arguments(capsys):
    assert set(BENCHMARKS) == set(TITLES)
    for name, path in BENCHMARKS.items():
        module, _, function = path.partition(":")
        with pytest.raises(SystemExit) as end:
            getattr(importlib.import_module(module), function)(["--help"])

        assert end.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: dmaml bench {name} ")
        assert "--json" in out


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_name_the_benchmarks_are_listed(arguments, capsys):
    assert run_cli(["bench", *arguments]) == 0

    out = capsys.readouterr().out
    for name in BENCHMARKS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scalin"], ["unknown benchmark 'scalin'", "Did you mean 'scaling'?"]),
        (["scaling", "--ratios", "1,x"], ["--ratios", "'1,x'", "bench scaling --help"]),
        (["scaling", "--simulated-task-ms", "0"], ["--simulated-task-ms", "not positive"]),
        (["scaling", "--factor", "slots"], ["--factor", "'slots'", "workers"]),
        (["scaling", "--source", "omnigloot"], ["unknown task source", "'omniglot'"]),
        (["stragglers", "--legs", "snc"], ["unknown leg 'snc'", "Did you mean 'sync'?"]),
        (["stragglers", "--slots", "1"], ["--slots 1"]),
    ],
)
def test_bad_usage_is_one_sentence(arguments, words, capsys):
    assert run_cli(["bench", *arguments]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_an_unknown_key_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr(stragglers, "run_trial", None)
    leg = stragglers.Leg("sync", {"mod": "sync"})

    with pytest.raises(ConfigError, match="'mod'"):
        stragglers.measured([leg], options())


def test_a_script_is_the_same_benchmark():
    script = Path(__file__).parents[2] / "bench" / "scaling.py"

    done = subprocess.run(
        [sys.executable, str(script), "--tasks", "0"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: argument --tasks: 0 is not positive")
