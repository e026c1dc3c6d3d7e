"""`dmaml report` and `dmaml watch` on real, tiny runs: what they write, and what they refuse."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dmaml.common.rundir import RECORD, read_rows
from dmaml.deploy.cli import run_cli
from dmaml.deploy.watch import RecordReader, views
from dmaml.worker.connection import Address
from tests.integration.harness import LiveServer, Worker, tiny, train


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of regression that wrote for TensorBoard."""
    folder = tmp_path_factory.mktemp("waves") / "run"
    train(tiny(server={"tensorboard": True}), folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on pictures of noise, 10 classes a split in two alphabets."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    names = [f"alphabet {c % 2}/c{c}" for c in range(30)]
    np.savez(
        folder / "noise.npz",
        images=rng.integers(0, 256, (240, 4, 4)).astype(np.uint8),
        labels=np.repeat(np.arange(30, dtype=np.int32), 8),
        class_names=np.array(names),
        split=np.repeat(np.array([0, 1, 2], dtype=np.int8), 10),
    )
    task = {"source": f"npz:{folder / 'noise.npz'}", "n_way": 2, "k_shot": 2, "k_query": 2}
    train(tiny(task=task, evaluation={"k_query": 2, "steps": 2}), folder / "run")
    return folder / "run"


def files() -> list[Path]:
    """Return every file but those that SQLite makes where a record is read."""
    return sorted(p for p in Path().rglob("*") if not p.name.endswith(("-shm", "-wal")))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = files()

    assert run_cli([*arguments]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert files() == before
    return err


def test_the_report_of_a_run_on_pictures(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    code = run_cli(["report", str(pictures), "--out", str(out), "--tasks", "6", "--json"])

    said = json.loads(capsys.readouterr().out)
    html = (out / "report.html").read_text()
    last = read_rows(pictures, "evaluations")[-1]["metrics"]["accuracy"]
    assert code == 0
    assert said["bytes"] == (out / "report.html").stat().st_size < 5e6
    assert f"{last['mean'][-1]:.3f} ± {last['ci95'][-1]:.3f}" in html
    assert read_rows(pictures, "starts")[0]["facts"]["python"] in html
    for title in ("Learning curves", "By adaptation step", "Classes", "Hardest", "examples"):
        assert title in html
    assert "Clustering" not in html
    assert not re.search(r"https?:", html)
    assert {path.name for path in (out / "pictures").iterdir()} == set(said["pictures"])


def test_the_report_of_a_regression_shows_the_curves(waves: Path, tmp_path: Path) -> None:
    assert run_cli(["report", str(waves)]) == 0

    assert (waves / "report" / "pictures" / "fitted_curves.svg").is_file()
    assert "Hardest" not in (waves / "report" / "report.html").read_text()


def test_seeds_are_compared(waves: Path, tmp_path: Path) -> None:
    train(tiny(run={"seed": 2}), tmp_path / "two")

    assert run_cli(["report", str(waves), "two", "--out", "both"]) == 0

    html = Path("both/report.html").read_text()
    assert "bands their 95 % intervals" in html
    assert "1, 2" in html


def test_a_run_in_progress_is_reported_as_far_as_it_is(tmp_path: Path) -> None:
    train(tiny(run={"rounds": 3}), tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("rounds: 3", "rounds: 9"))
    with sqlite3.connect(tmp_path / "run" / RECORD) as db:
        db.execute("DELETE FROM worker_events")

    assert run_cli(["report", "run"]) == 0

    assert "not finished: round 3 of 9" in Path("run/report/report.html").read_text()


def test_data_that_are_gone_are_a_note_in_the_report(pictures: Path, tmp_path: Path) -> None:
    text = (pictures / "config.yaml").read_text()
    config = pictures / "config.yaml"
    config.write_text(text.replace("noise.npz", "gone.npz"))
    try:
        assert run_cli(["report", str(pictures), "--out", "out"]) == 0
    finally:
        config.write_text(text)

    html = Path("out/report.html").read_text()
    assert "Nothing here shows what the model does" in html
    assert "gone.npz" in html
    assert "Learning curves" in html


def test_what_is_no_run_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'nowhere' holds no run" in refused(capsys, "report", "nowhere")
    assert "'nowhere' holds no run" in refused(capsys, "watch", "nowhere")


def test_a_run_without_evaluations_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(evaluation={"every": 0}), tmp_path / "run")

    sentence = refused(capsys, "report", "run")

    assert "'run' has no evaluation yet: evaluation.every is 0" in sentence
    assert "dmaml train run/config.yaml --run-dir run --set evaluation.every=50" in sentence


def test_a_run_without_rounds_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveServer(tiny(), tmp_path / "run"):
        pass

    assert "has no round yet. Train first" in refused(capsys, "report", "run")


def test_a_damaged_record_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(), tmp_path / "run")
    for file in (tmp_path / "run").glob("run.sqlite*"):
        file.write_bytes(b"nothing of the kind" * 100)

    for command in ("report", "watch", "cluster"):
        assert "the record of 'run' cannot be read" in refused(capsys, command, "run")


def test_an_interrupt_while_a_report_is_written_leaves_no_half(
    waves: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def interrupt(path: Path, data: bytes) -> int:
        if "speed" in path.name:
            write(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", interrupt)

    assert run_cli(["report", str(waves), "--out", "out"]) == 130

    assert "".join(capsys.readouterr()) in ("", "interrupted\n")
    assert {path.suffix for path in files() if path.is_file()} == {".png", ".svg"}
    assert not [path for path in files() if "speed" in path.name]


def test_a_place_that_is_no_folder_is_told_before_anything_is_computed(
    waves: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    monkeypatch.setattr("dmaml.report.build.report", None)

    sentence = refused(capsys, "report", str(waves), "--out", "file/out")

    assert "report folder 'file/out' cannot be written" in sentence
    assert "Name another with --out" in sentence


def test_one_run_twice_is_one_sentence(waves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "given twice" in refused(capsys, "report", str(waves), str(waves))


def test_tensorboard_gets_every_round(waves: Path, pictures: Path) -> None:
    from tests.unit.test_scalars import events

    (path,) = (waves / "tensorboard").iterdir()
    losses = {
        event.step: value.simple_value
        for event in events(path)
        for value in event.summary.value
        if value.tag == "train/loss"
    }

    rows = read_rows(waves, "rounds")
    assert losses == pytest.approx({row["version"]: row["loss"] for row in rows}, rel=1e-6)
    assert not (pictures / "tensorboard").exists()  # off by default


def test_a_directory_is_watched_until_its_run_is_over(tmp_path: Path) -> None:
    config = tiny()
    with LiveServer(config, tmp_path / "run") as live:
        worker = Worker(config, live.target)
        *_, last = views(RecordReader(tmp_path / "run"), Address("127.0.0.1:1"))
        worker.join()

    assert last.state == "finished"
    assert (last.trained, last.rounds, last.metric) == (6, 6, "mse")


def test_a_server_is_watched_until_its_run_is_over(tmp_path: Path) -> None:
    with LiveServer(tiny(), tmp_path / "run") as live:
        worker = Worker(live.config, live.target)
        *_, last = views(None, Address(live.target))
        worker.join()

    assert last.state == "finished"
    assert last.loss[-1][0] == 6


def test_a_finished_run_is_shown_once(waves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, last = views(RecordReader(waves), Address("127.0.0.1:1"))

    assert last.state == "finished"
    assert [version for version, _ in last.validation] == [3, 6]
    assert run_cli(["watch", str(waves)]) == 0
    assert "run tiny: finished, round 6/6" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"grpc": "127.0.0.1:1"}', "[1]", "{}", "{"])
def test_a_run_whose_server_was_killed_is_shown_as_it_was_recorded(
    text: str,
    waves: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dmaml.deploy.control.PATIENCE_S", 0.1)
    monkeypatch.setattr("dmaml.deploy.watch.PATIENCE_S", 0.0)
    shutil.copytree(waves, tmp_path / "run")
    (tmp_path / "run" / "server.json").write_text(text)
    with sqlite3.connect(tmp_path / "run" / RECORD) as db:
        db.execute("DELETE FROM worker_events")

    *_, last = views(RecordReader(tmp_path / "run"), Address("127.0.0.1:1"))
    assert (last.state, last.trained) == ("without a server", 6)
    assert run_cli(["watch", "run"]) == 0
    assert "run tiny: without a server, round 6/6" in capsys.readouterr().err
