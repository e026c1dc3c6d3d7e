"""A sweep of real runs: finished, failed, stopped and interrupted ones, and going on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common.rundir import read_rows
from dmaml.deploy.repro import slots
from dmaml.deploy.repro.experiment import Form, Results, cells_of
from dmaml.deploy.sweep import (
    RESULT,
    Cell,
    Finished,
    Measured,
    cell_of,
    measured,
)
from tests.integration.harness import MARK, digest_of, gone, marked, tiny, train, wait_for

# an overloaded machine takes minutes to start Ray, a server and actors; a test may do it thrice
SLOW_S = 300.0
LIMIT_S = 900
ROUNDS = 20
TEXT = configuration.to_text(
    tiny(run={"rounds": ROUNDS}, evaluation={"every": 10, "test_tasks": 20})
)
# aggregation rule clip without its norm; a β that makes every gradient infinite
BAD = "aggregation.name=clip"
DIVERGING = ("outer.name=sgd", "outer.lr=1e30")


CELLS = (
    ("one", ("run.seed=1",), 1),
    ("bad", (BAD,), 1),
    ("two-actors", ("run.seed=2",), 2),
    ("diverging", DIVERGING, 1),
)
# a process of its own: Ray leaves files open at its end, and here warnings are errors
SCRIPT = """
import json, sys
from pathlib import Path
from dmaml.deploy.sweep import cell_of, sweep
cells, num_lanes = json.loads(sys.argv[1])
text = Path("config.yaml").read_text()
ended = []
try:
    failures = sweep(
        [cell_of(name, text, tuple(settings), actors) for name, settings, actors in cells],
        Path("out"), num_lanes, None,
        lambda p: ended.append([p.cell.name, p.done, p.total, p.failure, p.finished is not None]),
    )
except KeyboardInterrupt:
    sys.exit(130)
print(json.dumps({"failures": failures, "ended": ended}))
"""


def start(
    folder: Path, text: str, cells: Any, num_lanes: int, mark: str, **environment: str
) -> subprocess.Popen[str]:
    """Begin a sweep in a folder."""
    (folder / "config.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps([cells, num_lanes])],
        cwd=folder, env={**os.environ, MARK: mark, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a sweep and return what it printed."""
    try:
        out, err = process.communicate(timeout=SLOW_S)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    found: dict[str, Any] = json.loads(out)
    return found


@dataclass(frozen=True)
class Story:
    """The same sweep twice, with one lane."""

    out: Path
    first: dict[str, Any]
    second: dict[str, Any]
    left: list[str]

    @property
    def cells(self) -> list[Cell]:
        """The sweep's cells."""
        return [cell_of(name, TEXT, settings, actors) for name, settings, actors in CELLS]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell it once: Ray takes seconds to start."""
    folder, mark = tmp_path_factory.mktemp("sweep"), uuid.uuid4().hex
    first = ended(start(folder, TEXT, CELLS, 1, mark))
    second = ended(start(folder, TEXT, CELLS, 1, mark))
    return Story(folder / "out", first, second, gone(mark))


@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S)
def test_a_failed_run_is_reported_and_the_others_go_on(story: Story) -> None:
    sentence = story.first["failures"].pop("bad")

    assert "aggregation rule 'clip' needs the option 'norm'" in sentence
    assert story.first == {
        "failures": {},
        "ended": [
            ["one", 1, 4, "", True],
            ["bad", 2, 4, sentence, False],
            ["two-actors", 3, 4, "", True],
            ["diverging", 4, 4, "", True],
        ],
    }


@pytest.mark.e2e
def test_a_second_sweep_does_only_what_is_not_finished_and_leaves_no_process(story: Story) -> None:
    assert [name for name, *_ in story.second["ended"]] == ["bad"]
    assert story.left == []


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["one", "two-actors"])
def test_a_run_of_a_sweep_has_the_bits_of_a_plain_one(
    name: str, story: Story, tmp_path: Path
) -> None:
    cell = next(cell for cell in story.cells if cell.name == name)
    plain = train(cell.config, tmp_path / "run")

    found = measured(story.cells, story.out)[name]

    assert found.finished.theta_sha256 == digest_of(story.out / name) == plain
    assert [row["version"] for row in found.rounds] == list(range(1, ROUNDS + 1))
    assert [row["version"] for row in found.evaluations] == [10, 20]
    assert found.finished.test is not None
    assert found.finished.test["tasks"] == 20
    assert found.finished.train_s > 0


@pytest.mark.e2e
def test_a_run_whose_gradients_are_not_finite_is_finished_and_says_so(story: Story) -> None:
    found = measured(story.cells, story.out)["diverging"].finished

    assert "void" in found.stopped
    assert found.version < ROUNDS
    assert found.test is not None


# -- Ctrl-C ----------------------------------------------------------------------------------------

LONG = 150
THREE = tuple((f"cell-{seed}", (f"run.seed={seed}",), 1) for seed in (1, 2, 3))


@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S)
def test_ctrl_c_leaves_no_process_and_the_same_sweep_goes_on(tmp_path: Path) -> None:
    config = tiny(run={"rounds": LONG}, evaluation={"every": 0, "test_tasks": 20})
    text, mark = configuration.to_text(config), uuid.uuid4().hex

    first = start(tmp_path, text, THREE, 2, mark)
    try:
        for cell in ("cell-1", "cell-2"):
            wait_for(lambda cell=cell: rows(tmp_path, cell) >= 2, f"{cell} is under way", SLOW_S)
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=SLOW_S)
    finally:
        first.kill()
    left = gone(mark)
    finished = list((tmp_path / "out").glob(f"*/{RESULT}"))
    again = ended(start(tmp_path, text, THREE, 2, mark))

    assert first.returncode == 130, err
    assert "Traceback" not in err
    assert left == []
    assert len(finished) < 3
    assert again["failures"] == {}
    assert len(again["ended"]) == 3 - len(finished)
    assert gone(mark) == []
    for name, _, _ in THREE:
        folder = tmp_path / "out" / name
        result = json.loads((folder / RESULT).read_text())
        versions = [row["version"] for row in read_rows(folder, "rounds")]
        assert versions == list(range(1, LONG + 1))
        assert result["theta_sha256"] == digest_of(folder)
    assert digest_of(tmp_path / "out" / "cell-1") == train(config, tmp_path / "plain")


@pytest.mark.e2e
@pytest.mark.timeout(LIMIT_S)
def test_ctrl_c_while_ray_starts_and_between_runs_leaves_no_process_and_no_file(
    tmp_path: Path,
) -> None:
    mark = uuid.uuid4().hex
    short = Path(tempfile.mkdtemp(prefix="sweep-"))  # the path of a Unix socket has 107 bytes

    def interrupt(condition: Any, what: str) -> tuple[int, str]:
        process = start(tmp_path, TEXT, THREE, 1, mark, TMPDIR=str(short))
        try:
            wait_for(condition, what, SLOW_S, pause_s=0.002)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=SLOW_S)
        finally:
            process.kill()
        assert "Traceback" not in err
        assert gone(mark) == []
        assert list(short.glob("dmaml-*")) == []
        return process.returncode, err

    def results() -> list[str]:
        return sorted(file.parent.name for file in (tmp_path / "out").glob(f"*/{RESULT}"))

    try:
        is_starting = interrupt(
            lambda: "gcs_server" in "".join(marked(mark).values()), "Ray starts"
        )
        begun = results()
        between = interrupt(lambda: "cell-1" in results(), "a run is over")
        left = [name for name, _, _ in THREE if name not in results()]
        again = ended(start(tmp_path, TEXT, THREE, 1, mark, TMPDIR=str(short)))
    finally:
        shutil.rmtree(short, ignore_errors=True)

    assert (is_starting[0], between[0]) == (130, 130), (is_starting, between)
    assert begun == []
    assert "cell-3" in left
    assert [name for name, *_ in again["ended"]] == left
    assert again["failures"] == {}
    assert gone(mark) == []


def rows(folder: Path, cell: str) -> int:
    return len(read_rows(folder / "out" / cell, "rounds"))


# -- an outcome that compares checkpoints ----------------------------------------------------------


@pytest.mark.e2e
def test_sixteen_slots_and_one_have_one_gradient_and_the_thesis_a_sixteenth(tmp_path: Path) -> None:
    form = Form(quick=True, seeds=1)
    variants = (slots.SPLIT_STEP, slots.WHOLE_STEP, *slots.SAME, slots.THESIS)
    small = (
        "task.source=glyphs", "task.splits=default", "task.rotations=false", "model.name=mlp",
        "model.hidden=[8]", "run.rounds=1", "engine.chunk=64", "evaluation.every=1",
        "evaluation.tasks=16", "evaluation.test_tasks=0",
    )  # fmt: skip
    cells = cells_of(slots.CONFIG, variants, form, small)
    results = Results({cell.name: trained(cell, tmp_path / cell.name) for cell in cells})

    facts = slots.EXPERIMENTS[0].outcome(form, results).facts

    assert 0 <= facts["gradient_difference"] < 1e-5
    assert 0 <= facts["largest_validation_difference"] < 0.02
    norms = {
        variant: results.of(variant, 1)[0].rounds[0]["norm"]
        for variant in (slots.WHOLE_SUM, slots.SPLIT_SUM, slots.THESIS)
    }
    assert norms[slots.SPLIT_SUM] == pytest.approx(norms[slots.WHOLE_SUM], rel=1e-5)
    assert 16 * norms[slots.THESIS] == pytest.approx(norms[slots.WHOLE_SUM], rel=1e-5)


def trained(cell: Cell, folder: Path) -> Measured:
    """Train a cell in threads of this process."""
    train(cell.config, folder)
    rounds, evaluations = read_rows(folder, "rounds"), read_rows(folder, "evaluations")
    finished = Finished(len(rounds), {}, len(rounds), 0, "", None, "", 0.0, 0.0)
    return Measured(cell, folder, finished, rounds, evaluations)
