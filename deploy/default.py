"""What `dmaml train` does without a configuration: MAML on drawn characters, about a minute."""

from __future__ import annotations

from pathlib import Path

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig

CONFIG = """\
run:        {name: glyphs, seed: 1, rounds: 300}
task:       {source: glyphs, n_way: 5, k_shot: 1, k_query: 5}
model:      {name: conv4, width: 32}
algorithm:  {name: maml, order: second, inner_lr: 0.4, inner_steps: 1, tasks: 4}
topology:   {slots: 4}
outer:      {name: adam, lr: 0.003}
evaluation: {every: 50, tasks: 100, steps: 3, k_query: 5, test_tasks: 600}
"""


def load_config(file: Path | None, settings: tuple[str, ...]) -> RunConfig:
    """Return the resolved configuration of a file, or of the embedded default."""
    if file is not None:
        return configuration.resolve(configuration.load(file, settings))
    return configuration.resolve(configuration.from_text(CONFIG, "the embedded default", settings))
