"""Support sets and queries, from whatever a user has them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.learner.examples import Array, Label, examples, numbered, require_classes, targets
from dmaml.learner.pictures import Preparation, find_pictures
from dmaml.worker.tasks.base import TaskSource

Given: TypeAlias = Array | str | Path


@dataclass(frozen=True)
class Support:
    """One task's examples as tensors: x `[S, *input_shape]`; y int64 `[S]` or `[S, outputs]`."""

    x: Tensor
    y: Tensor


@final
class Inputs:
    """Knows what a run's network takes.

    Args:
        config: the run's.
        source: its tasks.
        any_way: whether a task may have another number of classes than in training.
    """

    def __init__(self, config: RunConfig, source: TaskSource, any_way: bool) -> None:
        self._config = config
        self._source = source
        self._any_way = any_way

    def support(self, given: Given, labels: Any) -> tuple[Support, tuple[Label, ...]]:
        """Return a support set and its classes; see `Learner.adapt`."""
        if isinstance(given, (str, Path)):
            return self._folder(Path(given), labels)
        if labels is None:
            raise ConfigError("support_y is missing: required a label (or target) per example.")
        x = examples(given, self._source.input_shape, "support")
        if self._source.kind == "regression":
            width = self._source.num_outputs(self._config.task.n_way)
            return Support(x, targets(labels, width, len(x))), ()
        classes, y = self._numbered("support", labels, len(x))
        return Support(x, y), classes

    def queries(self, given: Given) -> Tensor:
        """Return queries `[N, *input_shape]`; see `Adapted.predict`."""
        if not isinstance(given, (str, Path)):
            return examples(given, self._source.input_shape, "query")
        files = find_pictures(Path(given), "query", needs_classes=False)
        return torch.from_numpy(self._preparation().read(files.paths))

    def _folder(self, folder: Path, labels: Any) -> tuple[Support, tuple[Label, ...]]:
        if labels is not None:
            raise ConfigError(
                "support_y beside a folder of pictures: its folders are the labels. Leave "
                "support_y out."
            )
        preparation = self._preparation()
        files = find_pictures(folder, "support", needs_classes=True)
        what = f"support folder {str(folder)!r}"
        classes, y = self._numbered(what, files.labels, len(files.paths))  # before they are read
        return Support(torch.from_numpy(preparation.read(files.paths)), y), classes

    def _numbered(self, what: str, labels: Any, count: int) -> tuple[tuple[Label, ...], Tensor]:
        classes, y = numbered(labels, count)
        config = self._config
        require_classes(what, len(classes), config.task.n_way, self._any_way, config.algorithm.name)
        return classes, y

    def _preparation(self) -> Preparation:
        return Preparation.of(self._config.task, self._source)
