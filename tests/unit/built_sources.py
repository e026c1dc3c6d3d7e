"""Task sources as a configuration names them."""

from __future__ import annotations

from typing import Any

from dmaml.common.config import RunConfig, from_mapping
from dmaml.worker.tasks import build
from dmaml.worker.tasks.images import ImageSource


def config(source: str, **task: Any) -> RunConfig:
    return from_mapping({"task": {"source": source, **task}})


def images_of(source: str, **task: Any) -> ImageSource:
    made = build(config(source, **task))
    assert isinstance(made, ImageSource)
    return made


def names(source: ImageSource, split: Any) -> list[str]:
    return sorted(source.unit_name(int(unit)) for unit in source.split(split))
