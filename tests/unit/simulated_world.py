"""Small simulated worlds for tests."""

from __future__ import annotations

from typing import Any

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.server.simulation.distributions import parse
from dmaml.server.simulation.figures import Figures
from dmaml.server.simulation.scenario import (
    Scenario,
    check,
    parse_slow,
    settings_of,
)
from dmaml.server.simulation.world import World


def config_of(mode: str, slots: int, rounds: int, *settings: str) -> RunConfig:
    """Return a configuration without evaluations, with settings on top."""
    own = ("evaluation.every=0", *settings, *settings_of(mode, slots, rounds))
    return configuration.from_text("", "test", own)


def world_of(
    mode: str = "sync",
    workers: int = 5,
    rounds: int = 10,
    slots: int | None = None,
    settings: tuple[str, ...] = (),
    slow: str = "",
    seed: int = 1,
    **times: str,
) -> World:
    """Return a world that has not begun; an item takes exactly one second unless said."""
    config = config_of(mode, slots or workers, rounds, *settings)
    texts = {"compute": "constant(1)"} | times
    drawn = {name: parse(text, name) for name, text in texts.items()}
    scenario = check(Scenario(workers, slow=parse_slow(slow), seed=seed, **drawn))
    return World(config, scenario, mode)


def run(mode: str = "sync", **keys: Any) -> Figures:
    """Return the figures of a run."""
    return world_of(mode, **keys).run()
