"""`dmaml repro` on the command line: the list, bad input, and one small experiment whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from dmaml.deploy.cli import run_cli
from dmaml.deploy.repro import EXPERIMENTS
from tests.integration.harness import DEADLINE_S, MARK, gone


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["byzantium"], ["unknown experiment 'byzantium'", "Did you mean 'byzantine'?"]),
        (["byzantine", "--seeds", "0"], ["--seeds", "1"]),
        (["byzantine", "--lanes", "0"], ["--lanes", "1"]),
        (["implementation_sinusoid", "--out", "file/out"], ["'file/out'", "cannot be written"]),
        (["byzantine", "--quick"], ["omniglot28.npz", "nowhere", "dmaml data fetch"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMAML_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", sys.path[:])
    Path("file").write_text("")

    code = run_cli(["repro", *arguments])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == ["file"]


def test_without_a_name_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["repro", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)["experiments"]
    assert [one["name"] for one in found] == list(EXPERIMENTS)
    assert all(one["title"] and one["shows"] for one in found)


# a process of its own (Ray), with an experiment that takes seconds in the place of a real one
SCRIPT = """
import sys
from dmaml.deploy import experiments, repro
from dmaml.deploy.cli import main
from dmaml.deploy.repro import implementation
small = (
    "model.hidden=[4]", "run.rounds=6", "evaluation.every=2", "evaluation.tasks=4",
    "evaluation.test_tasks=10",
)
one = implementation._experiment(
    "small", "A small one", "nothing", "About it.", repro.implementation.thesis.SINUSOID,
    small, "mse",
)
repro.EXPERIMENTS["small"] = one
experiments.NAMES = (*experiments.NAMES, "small")
main(sys.argv[1:])
"""


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_an_experiment_is_run_shown_and_drawn(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex

    first = repro(tmp_path, mark, "--json")
    second = repro(tmp_path, mark, "--smooth")

    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert first.stdout.count("\n") == 1
    assert (found["experiment"], found["form"], found["seeds"]) == ("small", "quick", 2)
    assert found["failed"] == {}
    assert len(found["facts"]["test"]["one worker"]) == 2
    assert [Path(path).name for path in found["pictures"]] == ["small.png", "small.svg"]
    folder = tmp_path / "runs" / "repro" / "small-quick"
    assert json.loads((folder / "small.json").read_text())["experiment"] == "small"
    assert (folder / "small.png").stat().st_size > 10_000
    assert "2 of 2 runs to do" in first.stderr
    assert second.returncode == 0, second.stderr
    assert "0 of 2 runs to do" in second.stderr
    for word in ("A small one", "adaptation steps", "About it.", "small.svg"):
        assert word in second.stdout
    assert gone(mark) == []


def repro(folder: Path, mark: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, "repro", "small", "--quick", "--seeds", "2"]
    return subprocess.run(
        [*command, *options], cwd=folder, env={**os.environ, MARK: mark}, text=True,
        capture_output=True, timeout=4 * DEADLINE_S, check=False,
    )  # fmt: skip
