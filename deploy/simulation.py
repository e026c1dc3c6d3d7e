"""`dmaml simulate`: the modes of one scenario side by side."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dmaml.common.checks import unread
from dmaml.common.config import RunConfig
from dmaml.deploy.default import load_config
from dmaml.deploy.simulation_table import table_of
from dmaml.deploy.tables import show_table
from dmaml.server.simulation import scenario as scenarios
from dmaml.server.simulation.distributions import parse
from dmaml.server.simulation.figures import Figures
from dmaml.server.simulation.scenario import Scenario
from dmaml.server.simulation.world import World

POLL_S: Final = 0.1
OPTIONAL: Final = frozenset({"mtbf", "outage", "leave", "join"})  # "" is none


@dataclass(frozen=True)
class Request:
    """What was typed; None is the configuration's own, "" is none."""

    config: Path | None
    settings: tuple[str, ...]
    workers: int | None
    rounds: int | None
    slots: int | None
    modes: str
    slow: str
    times: Mapping[str, str]
    seed: int | None
    jobs: int | None


@dataclass(frozen=True)
class Plan:
    """What is simulated: one scenario, one configuration for each mode."""

    scenario: Scenario
    runs: tuple[tuple[str, RunConfig], ...]
    slots: int
    rounds: int
    jobs: int


def plan_of(request: Request) -> Plan:
    """Return what a request asks for.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    plain = ("sync.mode=sync", *unread("sync"))  # the modes' keys: see below
    config = load_config(request.config, (*request.settings, *plain))
    workers = request.workers or request.slots or config.topology.slots
    slots = request.slots or workers
    rounds = config.run.rounds if request.rounds is None else request.rounds
    items_of_slot = config.topology.parts * config.clustering.pipelines
    scenarios.check_size(workers, slots, rounds, items_of_slot)
    times = {
        name: parse(text, f"--{name.replace('_', '-')}")
        for name, text in request.times.items()
        if text or name not in OPTIONAL
    }
    scenario = scenarios.check(
        Scenario(
            workers=workers,
            slow=scenarios.parse_slow(request.slow),
            seed=config.run.seed if request.seed is None else request.seed,
            **times,
        )
    )
    modes = scenarios.parse_modes(request.modes)
    own = [scenarios.settings_of(mode, slots, rounds) for mode in modes]
    configs = [load_config(request.config, (*request.settings, *one)) for one in own]
    runs = tuple(zip(modes, configs, strict=True))
    jobs = request.jobs or os.cpu_count() or 1
    return Plan(scenario, runs, slots, rounds, min(jobs, len(runs)))


def simulate_here(request: Request, json_output: bool) -> None:
    """Simulate every mode and print the table or the JSON object."""
    plan = plan_of(request)
    began = time.monotonic()
    console = Console(stderr=True)
    with _bars(console) as bars:
        results = run_all(plan, _show_on(bars, plan))
    took = time.monotonic() - began
    if json_output:
        sys.stdout.write(json.dumps(as_json(plan, results)) + "\n")
    else:
        out = Console()
        out.print(headline(plan), highlight=False, soft_wrap=True)
        show_table(out, table_of(results))
        sys.stdout.flush()
    console.print(f"simulated in {took:.1f} s", highlight=False)


def as_json(plan: Plan, results: list[Figures]) -> dict[str, Any]:
    """Return the figures and what they rest on as plain values; a function of the request."""
    return {
        "rounds": plan.rounds,
        "slots": plan.slots,
        "scenario": plan.scenario.plain(),
        "modes": {figures.mode: figures.plain() for figures in results},
    }


def headline(plan: Plan) -> str:
    """Return what was simulated in one line."""
    scenario = plan.scenario
    return (
        f"actors: {scenario.workers}, slots: {plan.slots}, rounds: {plan.rounds}, seconds an item: "
        f"{scenario.compute}, seed: {scenario.seed}; all times are virtual"
    )


# -- running ---------------------------------------------------------------------------------


def run_all(plan: Plan, on_rounds: Callable[[list[int]], object]) -> list[Figures]:
    """Return the figures of every mode, in order; modes run in processes of their own.

    Args:
        on_rounds: told the rounds done of every mode, now and then.
    """
    if plan.jobs == 1:
        done = [0] * len(plan.runs)
        return [_run_here(plan, number, done, on_rounds) for number in range(len(plan.runs))]
    context = multiprocessing.get_context("spawn")
    shared = context.Array("q", len(plan.runs))
    with context.Pool(plan.jobs, _prepare, (shared,)) as pool:  # leaving it ends the processes
        tasks = [
            pool.apply_async(_run_apart, (plan.scenario, config, name, number))
            for number, (name, config) in enumerate(plan.runs)
        ]
        while not all(task.ready() for task in tasks):
            on_rounds(shared[:])
            failed = [task for task in tasks if task.ready() and not task.successful()]
            if failed:
                failed[0].get()
            time.sleep(POLL_S)
        on_rounds(shared[:])
        return [task.get() for task in tasks]


def _run_here(
    plan: Plan, number: int, done: list[int], on_rounds: Callable[[list[int]], object]
) -> Figures:
    name, config = plan.runs[number]

    def note(rounds: int) -> None:
        done[number] = rounds
        on_rounds(done)

    return World(config, plan.scenario, name, note).run()


_shared: Any


def _prepare(shared: Any) -> None:
    global _shared  # noqa: PLW0603 - an array of shared memory reaches a pool only this way
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_apart(scenario: Scenario, config: RunConfig, name: str, number: int) -> Figures:
    def note(rounds: int) -> None:
        _shared[number] = rounds

    return World(config, scenario, name, note).run()


# -- showing ---------------------------------------------------------------------------------


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _show_on(bars: Progress, plan: Plan) -> Callable[[list[int]], object]:
    tasks = [bars.add_task(name, total=plan.rounds) for name, _ in plan.runs]

    def show(rounds: list[int]) -> None:
        for task, done in zip(tasks, rounds, strict=True):
            bars.update(task, completed=done)

    return show
