"""Errors, time and peak memory of MAML's orders, by number of inner steps.

    dmaml bench orders [--steps 1,3,5,10] [--epsilons 0.001,0.01,0.1] [--rounds 5] [--warmup 100]

A model is meta-trained for some rounds, so that its inner steps do something. At the parameters it
then has, the meta-gradient of one batch of 8 tasks is computed in each order. Cosine and relative
error are those against `second` in float64. Time is the median of the processor's, with one thread
in float32, the orders taking turns: what else the machine does matters less to it than to a clock.
Memory is the most that tensors made by one call hold at a time, in float32.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dmaml.bench.options import Parser, finish, positive, say, whole, wholes
from dmaml.bench.trial import Values, config_of
from dmaml.common.config import RunConfig
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms, tasks
from dmaml.worker.algorithms.base import Algorithm, Context
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch, TaskSource

TASKS, MIB = 8, 1024**2
PROBLEMS: dict[str, dict[str, dict[str, Any]]] = {
    "conv4": {
        "task": {"source": "glyphs", "n_way": 5, "k_shot": 1, "k_query": 5},
        "model": {"name": "conv4", "width": 64},
        "algorithm": {"inner_lr": 0.4, "tasks": TASKS},
    },
    "sinusoid": {
        "task": {"source": "sinusoid", "n_way": 1, "k_shot": 5, "k_query": 10},
        "model": {"name": "mlp", "hidden": [40, 40]},
        "algorithm": {"inner_lr": 0.01, "tasks": TASKS},
    },
}
COLUMNS = {
    "inner_steps": "K",
    "order": "order",
    "cosine": "cosine",
    "error": "error",
    "error_float32": "float32",
    "ms": "ms",
    "mib": "MiB",
}


def algorithm_of(problem: str, **section: Any) -> tuple[RunConfig, TaskSource, Algorithm]:
    """Return a problem's configuration, task source and algorithm."""
    values: Values = PROBLEMS[problem]
    config = config_of(values, {"algorithm": {**values["algorithm"], **section}})
    source = tasks.build(config)
    outputs = source.num_outputs(config.task.n_way)
    return config, source, algorithms.build(config, source.kind, source.input_shape, outputs)


def batch_of(config: RunConfig, source: TaskSource, kind: Kind, index: int) -> TaskBatch:
    """Return a batch of training tasks."""
    task = config.task
    streams = [stream(1, kind, index, task=j) for j in range(TASKS)]
    units = source.split("train")
    return source.sample(streams, units, task.n_way, task.k_shot, task.k_query)


def meta_trained(problem: str, rounds: int) -> Params:
    """Return parameters after some rounds with one inner step and Adam."""
    config, source, maml = algorithm_of(problem)
    params = maml.init(stream(1, Kind.INIT))
    optimiser = torch.optim.Adam(params.values(), lr=0.003)
    for index in range(rounds):
        batch = batch_of(config, source, Kind.TRAIN, index)
        answer = maml.contribution(params, partial(_same, batch), context())
        for name, value in params.items():
            value.grad = answer.gradient[name]
        optimiser.step()
    return {name: value.detach() for name, value in params.items()}


def _same(batch: TaskBatch) -> TaskBatch:
    return batch


def context() -> Context:
    """Return what an algorithm may know beside its batch."""
    return Context(version=0, rounds=1, stream=stream(1, Kind.CONTEXT))


def orders(epsilons: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return what is compared, as settings by name."""
    named: dict[str, dict[str, Any]] = {
        order: {"order": order} for order in ("second", "forward_over_reverse", "first")
    }
    for epsilon in epsilons:
        settings = {"order": "finite_difference", "epsilon": epsilon}
        named[f"finite_difference {epsilon:g}"] = settings
    return named


def flat(params: Params) -> torch.Tensor:
    """Return everything as one float64 vector."""
    return torch.cat([value.double().flatten() for value in params.values()])


def compared(gradient: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """Return the cosine, and the relative error ‖g - g*‖ / ‖g*‖."""
    cosine = float(gradient @ exact / (gradient.norm() * exact.norm()))
    return cosine, float((gradient - exact).norm() / exact.norm())


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that tensors made during a call hold at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    recorded = watched.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak


def timed(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median processor milliseconds of each, in turn."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            begin = time.process_time()
            work()
            if turn:  # the first fills caches and memory
                times[name].append(time.process_time() - begin)
    return {name: 1000 * statistics.median(t) for name, t in times.items()}


def measured(
    problem: str, params: Params, steps: int, epsilons: Sequence[float], rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each order."""
    double = {name: value.double() for name, value in params.items()}
    works: dict[str, Callable[[], object]] = {}
    rows: list[dict[str, Any]] = []
    exact: torch.Tensor | None = None
    for name, settings in orders(epsilons).items():
        config, source, maml = algorithm_of(problem, inner_steps=steps, **settings)
        batch = batch_of(config, source, Kind.TEST, 0)
        works[name] = partial(maml.contribution, params, partial(_same, batch), context())
        row: dict[str, Any] = {"inner_steps": steps, "order": name}
        for suffix, values in (("", double), ("_float32", params)):
            answer = maml.contribution(values, partial(_same, batch), context())
            gradient = flat(answer.gradient)
            exact = gradient if exact is None else exact
            cosine, error = compared(gradient, exact)
            row |= {f"cosine{suffix}": cosine, f"error{suffix}": error}
        row["mib"] = round(peak_bytes(works[name]) / MIB, 2)
        rows.append(row)
    times = timed(works, rounds)
    return [row | {"ms": round(times[row["order"]], 1)} for row in rows]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as its table has it."""
    cosines = {key: f"{value:.4f}" for key, value in row.items() if key.startswith("cosine")}
    errors = {key: f"{value:.0e}" for key, value in row.items() if key.startswith("error")}
    return row | cosines | errors


def positives(text: str) -> tuple[float, ...]:
    """Return positive numbers separated by commas; argparse's `type`."""
    return tuple(positive(part) for part in text.split(","))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every order and print."""
    parser = Parser("orders", __doc__)
    parser.add_argument("--problem", choices=sorted(PROBLEMS), default="conv4")
    parser.add_argument("--steps", type=wholes, default=(1, 3, 5, 10))
    parser.add_argument("--epsilons", type=positives, default=(0.001, 0.01, 0.1))
    parser.add_argument("--rounds", type=whole, default=5)
    parser.add_argument("--warmup", type=whole, default=100)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says when it starts and stops
    say(f"meta-training {options.problem} for {options.warmup} rounds")
    params = meta_trained(options.problem, options.warmup)
    rows: list[dict[str, Any]] = []
    for steps in options.steps:
        say(f"{steps} inner step{'' if steps == 1 else 's'}")
        rows += measured(options.problem, params, steps, options.epsilons, options.rounds)
    report = {"benchmark": f"orders, {options.problem}", "tasks": TASKS, "rows": rows}
    finish(report, COLUMNS, [shown(row) for row in rows], options.json)


if __name__ == "__main__":
    main()
