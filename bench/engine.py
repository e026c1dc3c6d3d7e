"""Tasks per second of MAML's meta-gradient, by engine, order and shape.

    dmaml bench engine [--rounds 7] [--chunks 1 2 4 8 16]

prints one JSON object to stdout and a Markdown table to stderr. The engines of a shape take
turns, so that a slower moment of the machine meets all of them; the median is reported. `plain`
is MAML as one would first write it: F.conv2d, F.batch_norm and torch.autograd.grad, task by task.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.bench.options import Parser, whole
from dmaml.common.config import from_mapping, resolve
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.base import Context
from dmaml.worker.models.base import Params
from dmaml.worker.tasks.base import TaskBatch

SHAPE, ALPHA = (1, 28, 28), 0.4
SHAPES = [  # n_way, k_shot, k_query, tasks, inner steps
    (5, 1, 1, 8, 1),
    (5, 1, 5, 8, 1),
    (5, 1, 15, 8, 1),
    (5, 1, 1, 1, 1),
    (5, 1, 1, 16, 1),
    (5, 5, 5, 8, 1),
    (20, 1, 1, 8, 1),
    (5, 1, 1, 8, 3),
]


def episodes(n_way: int, k_shot: int, k_query: int, tasks: int) -> TaskBatch:
    """Return random pictures with labels."""
    random = stream(1, Kind.TRAIN)
    sets: list[Any] = []
    for k in (k_shot, k_query):
        sets.append(random.uniform(tasks, n_way * k, *SHAPE).astype(np.float32))
        sets.append(np.tile(np.repeat(np.arange(n_way), k), (tasks, 1)))
    units = np.zeros((tasks, n_way), dtype=np.int64)
    return TaskBatch(sets[0], sets[1], sets[2], sets[3], units)


def plain_forward(params: Params, x: Tensor) -> Tensor:
    """Return conv4's outputs as a reader of the paper would write them."""
    for i in range(4):
        x = F.conv2d(x, params[f"conv{i}.weight"], stride=2, padding=1)
        scale, shift = params[f"norm{i}.scale"], params[f"norm{i}.shift"]
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    return x.mean((2, 3)) @ params["head.weight"] + params["head.bias"]


def plain(theta: Params, batch: TaskBatch, second: bool, steps: int) -> None:
    """Compute the meta-gradient task by task."""
    sets = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    for x, y, u, v in zip(*map(torch.from_numpy, sets), strict=True):
        phi = theta
        for _ in range(steps):
            loss = F.cross_entropy(plain_forward(phi, x), y)
            gradient = torch.autograd.grad(loss, list(phi.values()), create_graph=second)
            phi = {n: w - ALPHA * g for (n, w), g in zip(phi.items(), gradient, strict=True)}
        loss = F.cross_entropy(plain_forward(phi, u), v)
        torch.autograd.grad(loss, list(theta.values()))


def contenders(
    shape: tuple[int, ...], order: str, chunks: list[int]
) -> dict[str, Callable[[], object]]:
    """Return what is compared, by name."""
    n_way, k_shot, k_query, tasks, steps = shape
    batch = episodes(n_way, k_shot, k_query, tasks)
    context = Context(version=0, rounds=1, stream=stream(1, Kind.TRAIN))
    result: dict[str, Callable[[], object]] = {}
    engines = [("loop", None), *(("vmap", c) for c in chunks if c == 1 or c <= tasks)]
    for name, chunk in engines:
        values = {
            "task": {"n_way": n_way},
            "engine": {"name": name, "chunk": chunk},
            "algorithm": {"order": order, "inner_steps": steps, "inner_lr": ALPHA},
        }
        maml = algorithms.build(resolve(from_mapping(values)), "classification", SHAPE, n_way)
        theta = maml.init(stream(1, Kind.INIT))
        key = name if chunk is None else f"{name} {chunk}"
        result[key] = partial(maml.contribution, theta, lambda: batch, context)
    leaves = {
        n: (v.permute(3, 2, 0, 1).contiguous() if v.dim() == 4 else v.clone()).requires_grad_()
        for n, v in theta.items()
    }
    result["plain"] = lambda: plain(leaves, batch, order == "second", steps)
    return result


def measure(
    functions: dict[str, Callable[[], object]], tasks: int, rounds: int
) -> dict[str, float]:
    """Return tasks per second by name: the median over the rounds, in turn."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 2):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if turn >= 2:  # the first two fill caches and memory
                times[name].append(time.perf_counter() - begin)
    return {name: round(tasks / statistics.median(t), 1) for name, t in times.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every shape and print."""
    parser = Parser("engine", __doc__)
    parser.add_argument("--rounds", type=whole, default=7)
    parser.add_argument("--chunks", type=whole, nargs="+", default=[1, 2, 4, 8, 16])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    names = ["plain", "loop", *(f"vmap {c}" for c in options.chunks)]
    print(f"| way | shot | query | tasks | steps | order | {' | '.join(names)} |", file=sys.stderr)
    print("| --- " * (6 + len(names)) + "|", file=sys.stderr)
    for shape in SHAPES:
        for order in ("second", "first"):
            rates = measure(contenders(shape, order, options.chunks), shape[3], options.rounds)
            cells = [*shape, order, *(rates.get(name, "") for name in names)]
            print(f"| {' | '.join(map(str, cells))} |", file=sys.stderr, flush=True)
            keys = ("n_way", "k_shot", "k_query", "tasks", "inner_steps")
            ratios = {name: round(rate / rates["plain"], 2) for name, rate in rates.items()}
            row = dict(zip(keys, shape, strict=True)) | {"order": order}
            rows.append(row | {"tasks_per_s": rates, "times_plain": ratios})
    result = {"model": "conv4-64", "torch": torch.__version__, "threads": 1, "rows": rows}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
