"""Run directories as a server leaves them, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.checkpoint import Checkpoint, Tensors
from dmaml.common.config import RunConfig
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.rundir import CONFIG
from dmaml.worker.answers import Answerer

PICTURES: dict[str, dict[str, Any]] = {
    "task": {"source": "glyphs", "n_way": 3, "k_shot": 2, "k_query": 2},
    "model": {"name": "conv4", "width": 8},
    "algorithm": {"name": "maml", "inner_lr": 0.4, "inner_steps": 1, "tasks": 2},
    "evaluation": {"every": 0, "steps": 2, "k_query": 2, "test_tasks": 0},
}


def config_of(**sections: dict[str, Any]) -> RunConfig:
    """Return a small run on pictures, with keys of sections changed."""
    values = {name: dict(keys) for name, keys in PICTURES.items()}
    for name, keys in sections.items():
        values[name] = values.get(name, {}) | keys
    return configuration.resolve(configuration.from_mapping(values))


def saved(
    config: RunConfig,
    folder: Path,
    pipelines: int = 1,
    shake: float = 0.1,
    arrays: Tensors | None = None,
    clustering: dict[str, Any] | None = None,
) -> Path:
    """Write the directory of a run whose parameters are far from where they began.

    Args:
        arrays: what the checkpoint holds beside them.
        clustering: values of the strategy's state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(configuration.to_text(config))
    answerer = Answerer(config)
    answers = [
        answerer.answer(WorkItem(0, ItemKind.INIT, pipeline, 0, 0, 0, 0), np.empty(0), None, [])
        for pipeline in range(pipelines)
    ]
    layout = answers[0].layout
    assert layout is not None
    noise = np.random.default_rng(3)
    thetas = {
        f"theta.{p}": (one.flat + shake * noise.normal(size=one.flat.shape)).astype("<f4")
        for p, one in enumerate(answers)
    }
    meta = {
        "progress": {"version": 7, "trained": 7, "tasks_seen": 14},
        "layout": [[spec.name, list(spec.shape)] for spec in layout.tensors],
        "clustering": clustering or {},
    }
    checkpoints.write(
        folder / checkpoints.GENERATIONS[0], Checkpoint(7, thetas | (arrays or {}), meta)
    )
    return folder
