"""θ of every pipeline, its optimisers, and the versions that are published."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dmaml.common.checkpoint import Checkpoint, Tensors, layout_of
from dmaml.common.errors import DivergedError, ProtocolError
from dmaml.common.gamma import Gamma
from dmaml.common.layout import Flat, Layout, norm_of
from dmaml.common.outer import OuterSection
from dmaml.server.outer import Outer


@dataclass(frozen=True)
class Snapshot:
    """One version of one pipeline's parameters: immutable, shared by all readers."""

    pipeline: int
    version: int
    digest: str
    crc32: int
    data: bytes


Snapshots = Mapping[int, Snapshot]  # by pipeline
NUM_KEPT: Final = 8  # published versions that can still be pulled in async mode


class Parameters:
    """The meta-models. `step`, `stage` and `tensors` run on the numeric thread.

    Attributes:
        snapshots: the published version of each pipeline.
        staged: the version after the last commit; published by `publish`.

    Args:
        num_kept: published versions that can still be pulled.
    """

    def __init__(self, config: OuterSection, num_kept: int = 1) -> None:
        self._config = config
        self._outers: dict[int, Outer] = {}
        self._layout: Layout | None = None
        self.snapshots: Snapshots = {}
        self.staged: Snapshots = {}
        self._kept: deque[Snapshots] = deque(maxlen=num_kept)

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
        self.stage(0)

    def step(self, pipeline: int, gradient: Flat, lr: float) -> None:
        """Do one outer step of rate `lr`.

        Raises:
            DivergedError: θ is not finite after it; then it must not be staged.
        """
        theta = self._outers[pipeline].theta
        self._outers[pipeline].step(gradient, lr)
        if not math.isfinite(norm_of(theta)):
            raise DivergedError(
                f"θ of pipeline {pipeline} holds NaN or infinity after a step of outer.name "
                f"{self._config.name!r} at rate {lr:g} along a gradient of norm "
                f"{norm_of(gradient):g}. Nothing was committed. Lower outer.lr and start a new run."
            )

    def follow(self, gamma: Gamma) -> None:
        """Open the pipelines that γ has anew, each as its parent is now; forget retired ones."""
        parents = {node.number: node.parent for node in gamma.nodes}
        before = self._outers
        self._outers = {
            p: before[p] if p in before else before[parents[p]].copy() for p in gamma.pipelines
        }

    def stage(self, version: int) -> None:
        """Make a version of the parameters of now, to be published later."""
        snapshots = {}
        for pipeline, outer in self._outers.items():
            data = outer.theta.tobytes()
            digest = hashlib.sha256(data).hexdigest()
            snapshots[pipeline] = Snapshot(pipeline, version, digest, zlib.crc32(data), data)
        self.staged = snapshots

    def publish(self, snapshots: Snapshots) -> None:
        """Make a version that was staged the one that actors are given."""
        if snapshots is not self.snapshots:
            self.snapshots = snapshots
            self._kept.append(snapshots)

    def find(self, pipeline: int, version: int) -> Snapshot | None:
        """Return one of the last versions that were published, or None."""
        for snapshots in reversed(self._kept):
            found = snapshots.get(pipeline)
            if found is not None and found.version == version:
                return found
        return None

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
        self.stage(int(checkpoint.meta["progress"]["version"]))
        self.publish(self.staged)

    def layout_json(self) -> list[Any]:
        """Return the layout as JSON values."""
        return [[spec.name, list(spec.shape)] for spec in self.layout.tensors]
