"""The run directory: one writer, epochs, other runs, and the record after a resume."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from dmaml.common import config as configuration
from dmaml.common.checkpoint import BEST, GENERATIONS, Checkpoint, read
from dmaml.common.errors import RunDirectoryError
from dmaml.common.rundir import read_config, read_rows
from dmaml.server.storage import Storage, check_directory
from tests.unit.driven_core import config_of

CONFIG = config_of(run={"rounds": 100})


def row_of(number: int, loss: float = 0.5) -> dict:
    return {
        "table": "rounds", "round": number, "version": number, "tasks_seen": 8, "loss": loss,
        "metrics": {"accuracy": 0.5}, "weights": {"0": [1.0]}, "losses": {"0": [None]},
        "norm": 1.0, "voids": 0, "duration_s": 0.1, "timings": {}, "items": [], "at": 0.0,
    }  # fmt: skip


def state_of(number: int, rows: list[dict] | None = None) -> Checkpoint:
    meta = {"progress": {"trained": number - 1}, "records": rows or []}
    return Checkpoint(number, {"theta.0": np.full(2, number, dtype="<f4")}, meta)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_second_server_on_one_directory_is_refused(folder):
    first = Storage(folder, CONFIG)

    with pytest.raises(RunDirectoryError, match="in use by another server"):
        Storage(folder, CONFIG)

    first.close()
    Storage(folder, CONFIG).close()


def test_refused_server_raises_no_epoch(folder):
    first = Storage(folder, CONFIG)
    with pytest.raises(RunDirectoryError):
        Storage(folder, CONFIG)

    assert (folder / "epoch").read_text() == str(first.epoch)
    first.close()


def test_every_start_raises_the_epoch(folder):
    epochs = []
    for _ in range(3):
        storage = Storage(folder, CONFIG)
        epochs.append(storage.epoch)
        assert (folder / "epoch").read_text() == str(storage.epoch)
        storage.close()

    assert epochs == [1, 2, 3]


def test_damaged_epoch_is_refused_and_the_lock_is_free_again(folder):
    Storage(folder, CONFIG).close()
    (folder / "epoch").write_text("one")

    with pytest.raises(RunDirectoryError, match="required a number"):
        Storage(folder, CONFIG)

    (folder / "epoch").write_text("7")
    storage = Storage(folder, CONFIG)
    assert storage.epoch == 8
    storage.close()


def test_foreign_directory_is_refused_and_left_alone(folder):
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")

    with pytest.raises(RunDirectoryError, match=r"thesis\.tex"):
        Storage(folder, CONFIG)

    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]


def test_file_in_the_way_is_refused(folder):
    folder.write_text("")

    with pytest.raises(RunDirectoryError, match="is a file"):
        Storage(folder, CONFIG)
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        Storage(folder / "below", CONFIG)


def test_directory_of_a_start_that_was_killed_is_taken(folder):
    (folder / "logs").mkdir(parents=True)
    for name in ("lock", "config.yaml.tmp"):
        (folder / name).write_text("")

    Storage(folder, CONFIG).close()

    assert read_config(folder) == configuration.resolve(CONFIG)


def test_other_run_is_refused_with_the_differing_keys(folder):
    Storage(folder, CONFIG).close()
    before = (folder / "config.yaml").read_text()
    other = config_of(run={"seed": 2, "rounds": 9}, outer={"lr": 0.5}, evaluation={"tasks": 3})

    with pytest.raises(RunDirectoryError) as caught:
        Storage(folder, other)

    sentence = str(caught.value)
    assert "run.seed (2, not 1)" in sentence
    assert "outer.lr (0.5, not 0.001)" in sentence
    assert "rounds" not in sentence
    assert "evaluation" not in sentence
    assert (folder / "config.yaml").read_text() == before


def test_operational_keys_may_change_on_resume(folder):
    Storage(folder, CONFIG).close()
    longer = config_of(run={"rounds": 500})

    Storage(folder, longer).close()

    assert read_config(folder).run.rounds == 500


def test_length_of_the_run_may_not_change_where_the_learning_rate_depends_on_it(folder):
    outer = {"schedule": "cosine"}
    Storage(folder, config_of(run={"rounds": 100}, outer=outer)).close()

    with pytest.raises(RunDirectoryError) as caught:
        Storage(folder, config_of(run={"rounds": 500}, outer=outer))

    assert str(caught.value) == (
        f"run directory {str(folder)!r} holds another run: run.rounds (500, not 100, and "
        "outer.schedule 'cosine' depends on it). Give another --run-dir or run.name, or these "
        "values."
    )
    Storage(folder, config_of(run={"rounds": 100}, outer=outer)).close()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_run_from_before_the_schedules_goes_on(folder, name):
    config = config_of(outer={"name": name, "lr": 0.1})
    Storage(folder, config).close()
    values = yaml.safe_load((folder / "config.yaml").read_text())
    kept = ("name", "lr", "momentum", "beta1", "beta2", "eps")
    values["outer"] = {key: values["outer"][key] for key in kept}
    (folder / "config.yaml").write_text(yaml.safe_dump(values))

    Storage(folder, config).close()

    assert values["outer"]["eps"] == 1e-8
    assert read_config(folder) == configuration.resolve(config)


def test_resume_must_be_wanted(folder):
    Storage(folder, CONFIG).close()

    with pytest.raises(RunDirectoryError, match="holds a run already"):
        check_directory(folder, CONFIG, resume=False)
    assert check_directory(folder, CONFIG) == configuration.resolve(CONFIG)
    assert check_directory(folder.parent / "new", CONFIG, resume=False) is None


def test_rounds_below_the_version_are_refused_and_nothing_is_written(folder):
    storage = Storage(folder, CONFIG)
    storage.save(state_of(51), is_best=False)
    storage.close()

    with pytest.raises(RunDirectoryError, match=r"has 50 rounds, run\.rounds is 49"):
        Storage(folder, config_of(run={"rounds": 49}))

    assert read_config(folder).run.rounds == 100
    assert (folder / "epoch").read_text() == "1"
    Storage(folder, config_of(run={"rounds": 50})).close()


def test_checkpoints_take_turns_and_never_overwrite_the_latest(folder):
    storage = Storage(folder, CONFIG)
    for number in (1, 2, 3):
        storage.save(state_of(number), is_best=number == 2)
    storage.close()
    assert [read(folder / name).round for name in (*GENERATIONS, BEST)] == [3, 2, 2]

    storage = Storage(folder, CONFIG)
    storage.save(state_of(4), is_best=False)

    assert storage.latest.round == 3
    assert [read(folder / name).round for name in GENERATIONS] == [3, 4]
    storage.close()


def test_damaged_generation_is_told_and_written_over_next(folder):
    storage = Storage(folder, CONFIG)
    for number in (1, 2):
        storage.save(state_of(number), is_best=False)
    storage.close()
    (folder / GENERATIONS[1]).write_bytes(b"torn")

    storage = Storage(folder, CONFIG)
    storage.save(state_of(9), is_best=False)

    assert storage.latest.round == 1
    assert len(storage.damaged) == 1
    assert [read(folder / name).round for name in GENERATIONS] == [1, 9]
    storage.close()


def test_rows_behind_the_checkpoint_are_deleted_on_resume(folder):
    storage = Storage(folder, CONFIG)
    storage.save(state_of(3, [row_of(0), row_of(1), row_of(2)]), is_best=False)
    storage.record.add([row_of(3), row_of(4)])
    storage.close()

    Storage(folder, CONFIG).close()

    assert [row["round"] for row in read_rows(folder, "rounds")] == [0, 1, 2]


def test_rows_of_the_checkpoint_are_written_on_resume(folder, monkeypatch):
    storage = Storage(folder, CONFIG)
    storage.save(state_of(2, [row_of(0), row_of(1)]), is_best=False)
    monkeypatch.setattr(storage.record, "add", lambda rows: None)  # killed in between
    storage.save(state_of(4, [row_of(2), row_of(3, loss=0.25)]), is_best=False)
    storage.close()
    assert len(read_rows(folder, "rounds")) == 2

    Storage(folder, CONFIG).close()

    rows = read_rows(folder, "rounds")
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["loss"] == 0.25
    assert rows[3]["metrics"] == {"accuracy": 0.5}
    assert rows[3]["losses"] == {"0": [None]}


def test_rows_without_a_checkpoint_are_deleted_on_resume(folder):
    storage = Storage(folder, CONFIG)
    storage.record.add([row_of(0)])
    storage.close()

    Storage(folder, CONFIG).close()

    assert read_rows(folder, "rounds") == []


def test_worker_events_stay_on_resume_and_carry_the_epoch(folder):
    for _ in range(2):
        storage = Storage(folder, CONFIG)
        storage.events([(1.0, "1-1", "joined", "hello")])
        storage.close()

    assert [row["epoch"] for row in read_rows(folder, "worker_events")] == [1, 2]


def test_address_is_there_while_it_serves(folder):
    storage = Storage(folder, CONFIG)
    storage.announce({"grpc": "127.0.0.1:1"})
    assert "127.0.0.1:1" in (folder / "server.json").read_text()

    storage.close()

    assert not (folder / "server.json").exists()
