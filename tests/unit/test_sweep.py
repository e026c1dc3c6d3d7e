"""The sweep without a run: which results count, which cells and folders are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, RunDirectoryError
from dmaml.deploy.sweep import (
    RESULT,
    Finished,
    cell_of,
    read_finished,
    require_writable,
    sweep,
)

TINY = "task: {source: sinusoid, n_way: 1}\nmodel: {name: mlp}\n"


def config_of(folder: Path, config: RunConfig) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(configuration.to_text(config))


def test_a_result_counts_only_for_its_own_run(tmp_path: Path) -> None:
    cell = cell_of("one", TINY, ("run.rounds=4",))
    evaluation = cell.config.evaluation.model_dump(mode="json")
    config_of(tmp_path / "one", cell.config)
    file = tmp_path / "one" / RESULT
    values = {
        "rounds": 4, "evaluation": evaluation, "version": 4, "tasks_seen": 8, "theta_sha256": "",
        "test": None, "stopped": "", "train_s": 1.0, "test_s": 1.0,
    }  # fmt: skip

    assert read_finished(cell, tmp_path) is None
    file.write_text(json.dumps(values))
    assert read_finished(cell, tmp_path) == Finished(**values)
    others = ("run.rounds=5", "outer.lr=0.5", "evaluation.test_tasks=7")
    for setting in others:
        other = cell_of("one", TINY, ("run.rounds=4", setting))
        assert read_finished(other, tmp_path) is None, setting
    file.write_text('{"rounds": 4')
    assert read_finished(cell, tmp_path) is None


def test_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    cell = cell_of("one", TINY)

    with pytest.raises(ConfigError, match="two cells of one name"):
        sweep([cell, cell], tmp_path, 1, None)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunDirectoryError) as caught:
        require_writable(tmp_path / "file" / "out")

    assert "cannot be written: Not a directory. Give another --out." in str(caught.value)


def test_a_sweep_with_nothing_to_do_starts_nothing(tmp_path: Path) -> None:
    assert sweep([], tmp_path, 2, None) == {}
