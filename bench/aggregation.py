"""How fast are the aggregation rules?

    dmaml bench aggregation [--count 32] [--mib 1] [--repeats 15]

Prints one JSON object: GB of gradients per second of processor time on one thread, the best of the
repeats, for each rule. `krum_close` is krum where float32 products leave the choice open (all
gradients near a common one that is a thousand times larger), so that they are done twice;
`numpy_median` is `numpy.median(axis=0)`, for comparison.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dmaml.bench.options import Parser, positive, whole
from dmaml.common.layout import Flat
from dmaml.common.sections import AggregationSection
from dmaml.server.aggregation import build

ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
Rules = dict[str, tuple[str, dict[str, Any]]]


def rules(count: int) -> Rules:
    """Return what is measured: label -> name and options; one in five is byzantine."""
    return {
        "mean": ("mean", {}),
        "sum": ("sum", {}),
        "median": ("median", {}),
        "trimmed_mean": ("trimmed_mean", {"fraction": 0.2}),
        "krum": ("krum", {"num_byzantine": count // 5}),
        "multi_krum": ("multi_krum", {"num_byzantine": count // 5}),
        "clip": ("clip", {"norm": 1.0}),
    }


def gradients(count: int, size: int, shared: float) -> list[Flat]:
    """Return random gradients that share a common part, float32 `[size]` each."""
    rng = np.random.default_rng(0)
    common = shared * rng.standard_normal(size)
    return [(common + rng.standard_normal(size)).astype("<f4") for _ in range(count)]


def speed(combine: Callable[[], object], num_bytes: int, repeats: int) -> float:
    """Return GB of input per second of this thread, the best of the repeats."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.thread_time()
        combine()
        seconds.append(time.thread_time() - start)
    return round(num_bytes / min(seconds[1:]) / 1e9, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print, in a process of its own where this one has more numeric threads."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser("aggregation", __doc__)
    parser.add_argument("--count", type=whole, default=32)
    parser.add_argument("--mib", type=positive, default=1.0)
    parser.add_argument("--repeats", type=whole, default=15)
    options = parser.parse_args(given)
    if not os.environ.items() >= ONE_THREAD.items():  # read when numpy is imported: start again
        command = [sys.executable, "-m", "dmaml.bench.aggregation", *given]
        os.execve(sys.executable, command, {**os.environ, **ONE_THREAD})
    size = int(options.mib * 2**18)
    num_bytes = 4 * size * options.count
    weights = np.full(options.count, 1 / options.count)
    apart, close = (gradients(options.count, size, shared) for shared in (0.0, 1e3))
    found = {}
    for label, (name, keywords) in rules(options.count).items():
        rule = build(AggregationSection(name=name, options=keywords))
        combine = partial(rule.combine, apart, weights)
        found[label] = speed(combine, num_bytes, options.repeats)
    krum = build(AggregationSection(name="krum", options={"num_byzantine": options.count // 5}))
    found["krum_close"] = speed(lambda: krum.combine(close, weights), num_bytes, options.repeats)
    stacked = np.stack(apart)
    found["numpy_median"] = speed(lambda: np.median(stacked, axis=0), num_bytes, 1)
    print(json.dumps({"count": options.count, "mib": options.mib, "gb_per_s": found}))


if __name__ == "__main__":
    main()
