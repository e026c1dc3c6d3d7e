"""θ of every pipeline, its optimisers, and the versions that are published."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmaml.common.checkpoint import Checkpoint, Tensors, layout_of
from dmaml.common.config import OuterSection
from dmaml.common.errors import ProtocolError
from dmaml.common.layout import Flat, Layout
from dmaml.server.outer import Outer


@dataclass(frozen=True)
class Snapshot:
    """One version of one pipeline's parameters: immutable, shared by all readers."""

    pipeline: int
    version: int
    digest: str
    crc32: int
    data: bytes


class Parameters:
    """The meta-models. `step`, `publish` and `tensors` run on the numeric thread."""

    def __init__(self, config: OuterSection) -> None:
        self._config = config
        self._outers: dict[int, Outer] = {}
        self._layout: Layout | None = None
        self.snapshots: dict[int, Snapshot] = {}

    @property
    def is_ready(self) -> bool:
        """Whether there are parameters."""
        return self._layout is not None

    @property
    def layout(self) -> Layout:
        """The layout of every pipeline."""
        if self._layout is None:
            raise ProtocolError("the run has no parameters yet. Wait for INIT.")
        return self._layout

    @property
    def theta_sha256(self) -> str:
        """SHA-256 of the published parameters of every pipeline; "" before there are any."""
        digest = hashlib.sha256()
        snapshots = self.snapshots
        for pipeline in sorted(snapshots):
            if len(snapshots) == 1:
                return snapshots[pipeline].digest
            digest.update(snapshots[pipeline].data)
        return digest.hexdigest() if snapshots else ""

    def start(self, layout: Layout, thetas: Mapping[int, Flat]) -> None:
        """Begin with the initial parameters."""
        for flat in thetas.values():
            layout.require(flat.size)
        self._layout = layout
        self._outers = {p: Outer(flat, self._config) for p, flat in thetas.items()}
        self.publish(0)

    def step(self, pipeline: int, gradient: Flat) -> None:
        """Do one outer step."""
        self._outers[pipeline].step(gradient)

    def publish(self, version: int) -> None:
        """Make the parameters of now the ones that actors pull."""
        snapshots = {}
        for pipeline, outer in self._outers.items():
            data = outer.theta.tobytes()
            digest = hashlib.sha256(data).hexdigest()
            snapshots[pipeline] = Snapshot(pipeline, version, digest, zlib.crc32(data), data)
        self.snapshots = snapshots

    def tensors(self) -> Tensors:
        """Return a copy of everything that a checkpoint keeps."""
        out: Tensors = {}
        for pipeline, outer in self._outers.items():
            out[f"theta.{pipeline}"] = outer.theta.copy()
            for name, value in outer.state().items():
                out[f"outer.{pipeline}.{name}"] = value
        return out

    def load(self, checkpoint: Checkpoint) -> None:
        """Take back what a checkpoint kept."""
        self._layout = layout_of(checkpoint)
        for name, value in checkpoint.tensors.items():
            match = re.fullmatch(r"theta\.(\d+)", name)
            if match:
                pipeline = int(match[1])
                self._outers[pipeline] = Outer(value, self._config)
                prefix = f"outer.{pipeline}."
                state = {
                    key.removeprefix(prefix): array
                    for key, array in checkpoint.tensors.items()
                    if key.startswith(prefix)
                }
                if state:
                    self._outers[pipeline].load(state)
        self.publish(int(checkpoint.meta["progress"]["version"]))

    def layout_json(self) -> list[Any]:
        """Return the layout as JSON values."""
        return [[spec.name, list(spec.shape)] for spec in self.layout.tensors]
