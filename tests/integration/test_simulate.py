"""`dmaml simulate`: its table, its JSON, its words for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmaml.deploy.cli import run_cli
from dmaml.deploy.simulation_table import buckets

SMALL = ["simulate", "--workers", "5", "--rounds", "6", "--set", "evaluation.every=0"]
ALONE = ["--jobs", "1"]
MODES = ["sync", "quorum", "async", "sync+speculation"]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """Return the object on the last line of stdout."""
    assert run_cli([*SMALL, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_json_holds_the_figures_of_every_mode(capsys):
    found = as_json(capsys, *ALONE, "--compute", "1", "--slow", "0.2:5", "--latency", "0")

    assert list(found["modes"]) == MODES
    assert found["modes"]["sync"]["applied"] == 30
    assert found["scenario"]["compute"] == "constant(1)"
    assert (found["slots"], found["rounds"]) == (5, 6)
    assert found["modes"]["quorum"]["rounds_per_s"] > found["modes"]["sync"]["rounds_per_s"]


def test_json_is_the_same_twice_and_in_processes_of_their_own(capsys):
    rough = ("--mtbf", "exponential(30)", "--outage", "exponential(40)", "--seed", "5")

    once = as_json(capsys, *ALONE, *rough)

    assert as_json(capsys, *ALONE, *rough) == once
    assert as_json(capsys, "--jobs", "2", *rough) == once


def test_table_has_a_column_for_each_mode(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    assert run_cli([*SMALL, *ALONE, "--slow", "0.2:5"]) == 0

    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("actors: 5, slots: 5, rounds: 6, seconds an item: lognormal(1,0.3)")
    assert [mode for mode in MODES if mode in lines[2]] == MODES
    rows = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert {"rounds/s", "÷ sync", "utilisation", "straggler cost", "3 to 4"} <= {*rows}
    assert "simulated in" in err


def test_configuration_gives_what_is_not_said(capsys, tmp_path: Path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "run: {rounds: 4, seed: 9}\ntopology: {slots: 3}\nsync: {mode: quorum, quorum: 2}"
    )

    assert run_cli(["simulate", str(file), "--json", "--modes", "sync,quorum", *ALONE]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["rounds"], found["slots"], found["scenario"]["workers"]) == (4, 3, 3)
    assert found["scenario"]["seed"] == 9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--compute", "lognorm(1,2)"], "--compute: unknown distribution 'lognorm'."),
        (["--compute", ""], "--compute '': required a number of seconds"),
        (["--compute", "0"], "must be above 0"),
        (["--outage-for", "x(1)"], "--outage-for: unknown distribution 'x'."),
        (["--slow", "5"], "--slow '5': required FRACTION:FACTOR"),
        (["--modes", "asink"], "--modes: unknown mode 'asink'. Did you mean 'async'?"),
        (["--workers", "0"], "--workers"),
        (["--rounds", "1000000000"], "at most 100,000,000 items can be simulated"),
        (["--mtbf", "0"], "--mtbf '0': a time between events must be above 0"),
        (["--set", "sync.quorum=9", "--modes", "quorum"], "sync.quorum 9 exceeds topology.slots 5"),
        (["missing.yaml"], "configuration 'missing.yaml' cannot be read"),
        (["--leave", "2", *ALONE, "--modes", "sync"], "actors left (--leave). Nobody is left"),
    ],
)
def test_bad_input_is_one_sentence(capsys, arguments, sentence):
    code = run_cli([*SMALL, *arguments])

    out, err = capsys.readouterr()
    assert code == (1 if "--leave" in arguments else 2)
    assert sentence in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_no_rounds_are_not_many(capsys):
    assert run_cli(["simulate", "--set", "run.rounds=0"]) == 2

    assert "run.rounds 0: a simulation needs a round" in capsys.readouterr().err


def test_an_error_in_a_process_of_its_own_is_one_sentence(capsys):
    code = run_cli([*SMALL, "--leave", "2", "--jobs", "2"])

    out, err = capsys.readouterr()
    assert code == 1
    assert err.startswith("error: simulation: no answer is taken any more")
    assert err.count("\n") == 1
    assert out == ""


def test_buckets_of_the_histogram_cover_every_staleness_once():
    assert buckets(1) == [(0, 0), (1, 1)]
    covered = [value for low, high in buckets(20) for value in range(low, high + 1)]
    assert covered == list(range(33))
