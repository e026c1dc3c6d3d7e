"""Checkpoints: one safetensors file, written atomically, in two generations."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save as save_tensors

from dmaml.common.errors import RunDirectoryError
from dmaml.common.layout import Flat, Layout, TensorSpec

GENERATIONS: Final = ("checkpoint-a.safetensors", "checkpoint-b.safetensors")
BEST: Final = "checkpoint-best.safetensors"
GAMMA: Final = "gamma"  # the matrix in force, by unit and active pipeline
CLUSTERING: Final = "clustering."  # of the strategy's arrays
FORMAT: Final = 1
_REMEDY: Final = " Use another one."
_MAX_HEADER: Final = 64 * 1024**2

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The state after `round` rounds.

    Attributes:
        tensors: θ of every pipeline (`theta.0`), optimiser states (`outer.0.exp_avg`), γ (`gamma`,
            where it has rows), arrays of the clustering strategy (`clustering.NAME`).
        meta: JSON values: progress, layout, identity, fingerprint, generator and clustering state,
            the records since the checkpoint before.
    """

    round: int
    tensors: Tensors
    meta: dict[str, Any]


def write(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint atomically and return its bytes.

    Temporary name, fsync, rename, fsync of the folder: after a crash the file is whole or as
    before.
    """
    meta = json.dumps(checkpoint.meta, sort_keys=True)
    metadata = {
        "format": str(FORMAT),
        "round": str(checkpoint.round),
        "meta": meta,
        "digest": _digest(checkpoint.round, meta, checkpoint.tensors),
    }
    data = save_tensors(checkpoint.tensors, metadata)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)
    return len(data)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint whose digest is right.

    Raises:
        RunDirectoryError: missing, torn, damaged, or of a newer format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunDirectoryError(
            f"checkpoint {str(path)!r} cannot be read: {error.strerror}."
        ) from None
    try:
        metadata, tensors = _parse(data)
        meta_text, number = metadata["meta"], int(metadata["round"])
        if int(metadata["format"]) > FORMAT:
            raise RunDirectoryError(
                f"checkpoint {str(path)!r} has format {metadata['format']}, this version reads "
                f"{FORMAT}. Use the version of dmaml that wrote it."
            )
        if int(metadata["format"]) != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}")
        if metadata["digest"] != _digest(number, meta_text, tensors):
            raise ValueError("its digest is wrong")
        return Checkpoint(number, tensors, json.loads(meta_text))
    except (KeyError, ValueError, SafetensorError) as error:
        raise RunDirectoryError(f"checkpoint {str(path)!r} is damaged: {error}.{_REMEDY}") from None


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the checkpoint with a valid digest and the highest round, and what was damaged."""
    found: list[Checkpoint] = []
    damaged: list[str] = []
    for name in GENERATIONS:
        if (folder / name).exists():
            try:
                found.append(read(folder / name))
            except RunDirectoryError as error:
                damaged.append(str(error))
    best = max(found, key=lambda checkpoint: checkpoint.round, default=None)
    if best is None and damaged:
        reasons = ", ".join(one.removesuffix(_REMEDY).rstrip(".") for one in damaged)
        raise RunDirectoryError(
            f"no checkpoint of {str(folder)!r} is whole: {reasons}. "
            "Restore one from a backup, or start in an empty run directory."
        )
    return best, damaged


def theta_sha256(thetas: Mapping[int, NDArray[np.float32]]) -> str:
    """Return the SHA-256 of the parameters of every pipeline, in the order of their ids."""
    digest = hashlib.sha256()
    for pipeline in sorted(thetas):
        digest.update(np.ascontiguousarray(thetas[pipeline], dtype="<f4").data)
    return digest.hexdigest()


def layout_of(checkpoint: Checkpoint) -> Layout:
    """Return the layout that a checkpoint keeps."""
    tensors = checkpoint.meta["layout"]
    return Layout(tuple(TensorSpec(name, tuple(shape)) for name, shape in tensors))


def thetas_of(checkpoint: Checkpoint) -> dict[int, Flat]:
    """Return θ of every pipeline of a checkpoint, float32 `[d]` each."""
    return {
        int(name.removeprefix("theta.")): np.asarray(value, dtype="<f4")
        for name, value in checkpoint.tensors.items()
        if name.startswith("theta.")
    }


def _digest(number: int, meta: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(f"{number}\n{meta}\n".encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _parse(data: bytes) -> tuple[dict[str, str], Tensors]:
    """Return metadata and tensors; safetensors' own readers drop one or the other."""
    from safetensors import deserialize

    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _MAX_HEADER):
        raise ValueError("it is cut short")
    header = json.loads(data[8 : 8 + size])
    tensors: Tensors = {}
    for name, part in deserialize(data):
        kind = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}[part["dtype"]]
        tensors[name] = np.frombuffer(part["data"], dtype=kind).reshape(part["shape"])
    return header["__metadata__"], tensors
