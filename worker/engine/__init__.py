"""Engines: how a stack of tasks is computed. One per file; `base.py` is the contract."""

from __future__ import annotations

from dmaml.common.memory import keep_freed_memory
from dmaml.common.sections import EngineSection
from dmaml.worker.engine.base import Engine
from dmaml.worker.engine.loop import Loop
from dmaml.worker.engine.vmap import Vmap
from dmaml.worker.models.base import Model


def build(config: EngineSection, model: Model) -> Engine:
    """Return the run's engine; `auto` is vmap."""
    keep_freed_memory()
    return Loop(model) if config.name == "loop" else Vmap(model, config.chunk)
