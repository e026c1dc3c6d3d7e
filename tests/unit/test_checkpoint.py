"""Checkpoints: whole or detected, and the better generation wins."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dmaml.common import checkpoint as checkpoints
from dmaml.common.checkpoint import GENERATIONS, Checkpoint
from dmaml.common.errors import RunDirectoryError

META = {"layout": [["w", [2]], ["b", []]], "progress": {"version": 4}, "name": "γ"}


def example(number: int = 5) -> Checkpoint:
    tensors = {
        "theta.0": np.array([1.5, -2.5, np.nan], dtype="<f4"),
        "outer.0.step": np.array(4.0, dtype="<f4"),
        "counts": np.array([[1, 2]], dtype="<i8"),
        "history": np.zeros((0, 3), dtype="<f8"),
    }
    return Checkpoint(number, tensors, META)


def test_checkpoint_survives_its_file(tmp_path):
    path = tmp_path / GENERATIONS[0]

    size = checkpoints.write(path, example())
    back = checkpoints.read(path)

    assert size == path.stat().st_size
    assert (back.round, back.meta) == (5, META)
    assert set(back.tensors) == set(example().tensors)
    for name, value in example().tensors.items():
        assert back.tensors[name].dtype == value.dtype
        assert back.tensors[name].shape == value.shape
        assert back.tensors[name].tobytes() == value.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_cut_checkpoint_is_detected_at_every_length(tmp_path):
    path = tmp_path / GENERATIONS[0]
    checkpoints.write(path, example())
    data = path.read_bytes()

    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(RunDirectoryError, match="damaged"):
            checkpoints.read(path)


def test_flipped_byte_is_detected_wherever_it_is(tmp_path):
    path = tmp_path / GENERATIONS[0]
    checkpoints.write(path, example())
    data = path.read_bytes()

    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(RunDirectoryError):
            checkpoints.read(path)


def test_bytes_behind_the_end_are_detected(tmp_path):
    path = tmp_path / GENERATIONS[0]
    checkpoints.write(path, example())

    path.write_bytes(path.read_bytes() + b"\0\0\0\0")

    with pytest.raises(RunDirectoryError, match="damaged"):
        checkpoints.read(path)


def test_interrupted_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / GENERATIONS[0]
    checkpoints.write(path, example(5))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.write(path, example(6))

    assert checkpoints.read(path).round == 5


def test_file_is_durable_before_it_has_its_name_and_the_name_afterwards(tmp_path, monkeypatch):
    path = tmp_path / GENERATIONS[0]
    steps = []
    fsync, replace = checkpoints.os.fsync, type(path).replace
    monkeypatch.setattr(
        checkpoints.os, "fsync", lambda fd: (steps.append(("fsync", path.exists())), fsync(fd))
    )
    monkeypatch.setattr(
        type(path), "replace", lambda a, b: (steps.append(("rename", path.exists())), replace(a, b))
    )

    checkpoints.write(path, example())

    assert steps == [("fsync", False), ("rename", False), ("fsync", True)]


def test_highest_round_of_two_generations_wins(tmp_path):
    for rounds in ((5, 6), (8, 7)):
        for name, number in zip(GENERATIONS, rounds, strict=True):
            checkpoints.write(tmp_path / name, example(number))

        best, damaged = checkpoints.load_latest(tmp_path)

        assert best.round == max(rounds)
        assert damaged == []


def test_older_generation_is_used_where_the_newer_is_damaged(tmp_path):
    checkpoints.write(tmp_path / GENERATIONS[0], example(5))
    checkpoints.write(tmp_path / GENERATIONS[1], example(6))
    (tmp_path / GENERATIONS[1]).write_bytes(b"torn")

    best, damaged = checkpoints.load_latest(tmp_path)

    assert best.round == 5
    assert len(damaged) == 1
    assert GENERATIONS[1] in damaged[0]


def test_two_damaged_generations_are_an_error_and_none_is_not(tmp_path):
    assert checkpoints.load_latest(tmp_path) == (None, [])
    for name in GENERATIONS:
        (tmp_path / name).write_bytes(b"torn")

    with pytest.raises(RunDirectoryError, match=r"no checkpoint of .* is whole") as caught:
        checkpoints.load_latest(tmp_path)

    assert all(name in str(caught.value) for name in GENERATIONS)
    assert "Use another one" not in str(caught.value)  # there is none


def test_newer_format_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    checkpoints.write(tmp_path / GENERATIONS[0], example())
    monkeypatch.setattr(checkpoints, "FORMAT", 1)

    with pytest.raises(RunDirectoryError, match="has format 2, this version reads 1"):
        checkpoints.read(tmp_path / GENERATIONS[0])


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(RunDirectoryError, match="cannot be read: No such file"):
        checkpoints.read(tmp_path / "none.safetensors")


def test_theta_sha256_is_that_of_the_buffers_in_the_order_of_their_ids():
    one, ten = np.array([1.0, 2.0], dtype="<f4"), np.array([3.0], dtype="<f4")

    digest = checkpoints.theta_sha256({10: ten, 2: one})

    assert digest == hashlib.sha256(one.tobytes() + ten.tobytes()).hexdigest()


def test_layout_and_thetas_are_taken_back():
    layout = checkpoints.layout_of(example())

    assert [(spec.name, spec.shape) for spec in layout.tensors] == [("w", (2,)), ("b", ())]
    assert list(checkpoints.thetas_of(example())) == [0]
