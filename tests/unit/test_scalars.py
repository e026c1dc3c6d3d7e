"""What TensorBoard is given: the rows of the record, each version once, also after a resume."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from dmaml.server.scalars import Scalars, histograms_of, scalars_of

ROUND = {
    "table": "rounds", "round": 3, "version": 2, "tasks_seen": 8, "loss": 0.5,
    "metrics": {"accuracy": 0.75, "broken": float("nan")}, "norm": 1.5, "duration_s": 0.25,
    "at": 7.0,
}  # fmt: skip
EVALUATION = {
    "table": "evaluations", "round": 4, "version": 2, "split": "validation", "num_tasks": 5,
    "metrics": {"mse": {"mean": [2.0, 0.5], "ci95": [0.1, 0.1]}}, "duration_s": 1.0, "at": 8.0,
}  # fmt: skip
GAMMA = {
    "table": "gamma", "round": 5, "version": 1,
    "state": {
        "pipelines": [0, 3], "matrix": [[0.9, 0.1], [0.2, 0.8]], "entropy": 0.4,
        "expected_units": [1.1, 0.9],
    },
}  # fmt: skip


def events(path: Path) -> Iterator[Any]:
    """Yield the events of a file of records: length, its checksum, data, its checksum."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def test_a_round_gives_its_finite_figures() -> None:
    assert dict(scalars_of(ROUND)) == {
        "train/loss": 0.5, "train/gradient_norm": 1.5, "time/s": 0.25, "train/accuracy": 0.75,
    }  # fmt: skip


def test_a_void_round_has_no_loss() -> None:
    assert "train/loss" not in dict(scalars_of(ROUND | {"loss": None}))


def test_a_validation_gives_a_figure_for_each_step() -> None:
    assert dict(scalars_of(EVALUATION)) == {
        "validation/mse/after_0_steps": 2.0,
        "validation/mse/after_1_steps": 0.5,
    }


def test_gamma_gives_a_histogram_for_each_pipeline() -> None:
    found = {tag: np.flatnonzero(counts).tolist() for tag, counts in histograms_of(GAMMA)}

    assert found == {"gamma/pipeline_0": [4, 18], "gamma/pipeline_3": [2, 16]}  # of 20 bins
    assert dict(scalars_of(GAMMA)) == {
        "gamma/entropy": 0.4, "gamma/pipeline_0/expected_units": 1.1,
        "gamma/pipeline_3/expected_units": 0.9,
    }  # fmt: skip


def test_a_row_may_hold_the_counts_themselves() -> None:
    state = {"pipelines": [0, 3], "histogram": [[5, 0, 1], [1, 0, 5]]}

    found = {tag: counts.tolist() for tag, counts in histograms_of(GAMMA | {"state": state})}

    assert found == {"gamma/pipeline_0": [5, 0, 1], "gamma/pipeline_3": [1, 0, 5]}


def test_the_file_holds_the_rows_at_their_versions(tmp_path: Path) -> None:
    scalars = Scalars(tmp_path / "tensorboard", epoch=1, version=0, records=[])
    scalars.add([ROUND, EVALUATION, GAMMA])
    scalars.close()

    (path,) = (tmp_path / "tensorboard").iterdir()
    first, start, *rows = events(path)

    assert "tfevents" in path.name
    assert first.file_version == "brain.Event:2"
    assert start.session_log.status == event_pb2.SessionLog.START
    assert [(row.step, row.wall_time) for row in rows] == [(2, 7.0), (2, 8.0), (2, 0.0)]
    assert rows[0].summary.value[0].tag == "train/loss"
    assert rows[0].summary.value[0].simple_value == 0.5
    assert rows[2].summary.value[-1].histo.num == 2
    assert sum(rows[2].summary.value[-1].histo.bucket) == 2


def test_a_resumed_run_makes_tensorboard_forget_what_it_does_again(tmp_path: Path) -> None:
    Scalars(tmp_path, epoch=1, version=0, records=[]).close()
    Scalars(tmp_path, epoch=2, version=5, records=[ROUND | {"version": v} for v in (4, 5)]).close()
    Scalars(tmp_path, epoch=3, version=9, records=[]).close()

    starts = [list(events(path))[1].step for path in sorted(tmp_path.iterdir())]

    assert starts == [1, 4, 10]  # nothing before them is forgotten


@pytest.mark.parametrize("state", [{}, {"pipelines": [0], "matrix": []}])
def test_a_single_pipeline_has_no_histogram(state: dict[str, Any]) -> None:
    assert not list(histograms_of(GAMMA | {"state": state}))
