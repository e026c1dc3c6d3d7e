"""Published figures beside measured ones, and the page that shows them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.deploy.cli import run_cli
from dmaml.deploy.repro import EXPERIMENTS, find
from dmaml.deploy.repro.experiment import Form, Outcome, Results
from dmaml.deploy.repro.page import page, read_reports
from dmaml.deploy.repro.published import Claim
from dmaml.deploy.sweep import Cell, Finished, Measured

ORIGIN = {"date": "2026-01-02", "commit": "abc", "machine": "2 cores of X", "torch": "2"}


def finished(cell: Cell, test: dict[str, Any]) -> Measured:
    done = Finished(10, {}, 10, 320, "00ff", test, "", 12.5, 1.0)
    return Measured(cell, Path("run"), done, [], [])


def outcome_of(name: str, *tests: dict[str, Any]) -> Outcome:
    """Return what an experiment comes to whose seeds had these tests."""
    experiment, form = EXPERIMENTS[name], Form(False, len(tests))
    cells = experiment.cells(form)
    runs = {c.name: finished(c, test) for c, test in zip(cells, tests, strict=True)}
    return experiment.outcome(form, Results(runs))


@pytest.mark.parametrize(
    ("metric", "mean", "half", "verdict"),
    [
        ("accuracy", 98.7, 0.1, "reached"),
        ("accuracy", 98.5, 0.3, "within the interval"),
        ("accuracy", 95.2, 0.3, "3.50 short"),
        ("mse", 98.6, 0.1, "reached"),
        ("mse", 98.8, 0.2, "within the interval"),
        ("mse", 99.0, 0.1, "0.300 short"),
    ],
)
def test_a_verdict_knows_which_way_is_better(
    metric: str, mean: float, half: float, verdict: str
) -> None:
    assert Claim(98.7, -1, metric).verdict(mean, half) == verdict


def test_one_seed_has_the_interval_of_its_test_tasks() -> None:
    test = {"accuracy": [0.2, 0.9, 0.95, 0.975], "ci95": [0.0, 0.02, 0.01, 0.005]}

    line = outcome_of("maml_omniglot_5w1s", test).published[0]

    assert (line.published, line.measured) == ("98.7", "97.50 ± 0.50")
    assert line.verdict == "1.20 short"


def test_a_claim_of_inductive_accuracy_is_held_against_that() -> None:
    test = {
        "accuracy": [0.97], "ci95": [0.02],
        "inductive": {"accuracy": [0.985], "ci95": [0.004]},
    }  # fmt: skip

    outcome = outcome_of("protonet_omniglot_5w1s", test)

    assert [(o.published, o.measured) for o in outcome.published] == [("98.8", "98.50 ± 0.40")]
    assert outcome.tables[0].rows == (("0", "97.00 ± 2.00", "98.50 ± 0.40"),)


def test_a_name_may_be_written_with_dashes() -> None:
    assert find("mnist-baseline") is EXPERIMENTS["mnist_baseline"]
    with pytest.raises(UnknownNameError, match="mnist-base'"):
        find("mnist-base")


def test_several_seeds_have_the_interval_over_them() -> None:
    tests = [{"accuracy": [0.2, s, s, s], "ci95": [0.0] * 4} for s in (0.97, 0.98, 0.99)]

    line = outcome_of("maml_omniglot_5w1s", *tests).published[0]

    assert line.measured == "98.00 ± 2.48"  # 4.303 × 1 / √3
    assert line.verdict == "within the interval"


def test_each_published_step_stands_beside_the_same_step_here() -> None:
    test = {"mse": [4.0 / (step + 1) for step in range(11)], "ci95": [0.01] * 11}

    lines = outcome_of("sinusoid_5shot", test).published

    assert [line.published for line in lines] == ["0.67", "0.38", "0.35"]
    assert [line.measured for line in lines] == [
        f"{4 / (step + 1):.3f} ± 0.010" for step in (1, 5, 10)
    ]
    assert lines[0].what == "mean squared error after 1 step"


def report(name: str, folder: Path) -> None:
    """Write the report of an experiment, as `dmaml repro` does."""
    test = {"accuracy": [0.2, 0.9, 0.95, 0.99], "ci95": [0.01] * 4}
    outcome = outcome_of(name, test)
    values = {
        "experiment": name, "form": "full", "about": "Settings.", "facts": outcome.facts,
        "published": [asdict(line) for line in outcome.published], "provenance": ORIGIN,
    }  # fmt: skip
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.json").write_text(json.dumps(values))


def test_the_page_has_a_row_for_each_published_figure(tmp_path: Path) -> None:
    report("maml_omniglot_5w1s", tmp_path)
    report("fomaml_omniglot_5w1s", tmp_path)

    rows = [line for line in page(read_reports(tmp_path)).splitlines() if line.startswith("| `")]

    assert rows == [
        f"| `{name}` | full | accuracy, % | {value} | 99.00 ± 1.00 | reached | "
        "Finn and others 2017 | 320 | 12 | 2026-01-02 | abc |"
        for name, value in (("fomaml_omniglot_5w1s", 98.3), ("maml_omniglot_5w1s", 98.7))
    ]


def test_an_experiment_without_a_figure_has_no_row(tmp_path: Path) -> None:
    report("maml_omniglot_5w1s", tmp_path)
    report("fomaml_omniglot_5w1s", tmp_path)
    interrupted = tmp_path / "fomaml_omniglot_5w1s" / "fomaml_omniglot_5w1s.json"
    values = json.loads(interrupted.read_text())
    nothing = EXPERIMENTS["fomaml_omniglot_5w1s"].outcome(Form(False, 1), Results({}))
    interrupted.write_text(json.dumps(values | {"published": list(map(asdict, nothing.published))}))

    assert [one["experiment"] for one in read_reports(tmp_path)] == ["maml_omniglot_5w1s"]


def test_the_page_is_written_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report("maml_omniglot_5w1s", tmp_path / "runs")
    target = tmp_path / "results.md"

    assert run_cli(["repro", "--page", str(target), "--out", str(tmp_path / "runs")]) == 0

    assert target.read_text() == page(read_reports(tmp_path / "runs"))


def test_a_page_of_nothing_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished experiment"):
        read_reports(tmp_path)
    assert run_cli(["repro", "--page", str(tmp_path / "page.md"), "--out", str(tmp_path)]) == 2
    assert not (tmp_path / "page.md").exists()
