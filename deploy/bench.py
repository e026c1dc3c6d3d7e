"""`dmaml bench`: a benchmark's name, and its own options after it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from dmaml.common.plugins import find, known

GROUP: Final = "dmaml.benchmarks"
BENCHMARKS: Final = {
    "aggregation": "dmaml.bench.aggregation:main",
    "cluster": "dmaml.bench.cluster:main",
    "clustering": "dmaml.bench.clustering:main",
    "engine": "dmaml.bench.engine:main",
    "folders": "dmaml.bench.folders:main",
    "glyphs": "dmaml.bench.glyphs:main",
    "orders": "dmaml.bench.orders:main",
    "overhead": "dmaml.bench.overhead:main",
    "scaling": "dmaml.bench.scaling:main",
    "stragglers": "dmaml.bench.stragglers:main",
}
TITLES: Final = {
    "aggregation": "GB/s of the aggregation rules",
    "cluster": "fairness and lease delay of a cluster that is running",
    "clustering": "what a PROBE round costs the server, by strategy",
    "engine": "tasks/s of the meta-gradient by engine, order and shape",
    "folders": "accuracy of `dmaml adapt` on folders of Omniglot drawings, beside the run's own",
    "glyphs": "pictures/s of the embedded source",
    "orders": "errors, time and memory of the meta-gradient by order and inner steps",
    "overhead": "the share of a round that server and transport take",
    "scaling": "duration of a round by number of workers, epochs or tasks",
    "stragglers": "rounds/s of each mode when one actor is slow",
}


def run_benchmark(name: str, arguments: Sequence[str]) -> int:
    """Run a benchmark and return its exit code; `--help` as its name lists what there is.

    Raises:
        UnknownNameError: no such benchmark.
        DmamlError: what it ended with.
    """
    if name == "--help":
        sys.stdout.write(listing())
        return 0
    main = find("benchmark", GROUP, BENCHMARKS, name)
    try:
        main(list(arguments))
    except SystemExit as end:  # its options: help, or a sentence on stderr
        return end.code if isinstance(end.code, int) else 0
    return 0


def listing() -> str:
    """Return what `dmaml bench --help` says."""
    names = known(GROUP, BENCHMARKS)
    width = max(len(name) for name in names)
    lines = [f"  {name:{width}}  {TITLES.get(name, '')}".rstrip() for name in names]
    return "\n".join(
        [
            "Usage: dmaml bench NAME [--json] [its own options; NAME --help lists them]",
            "",
            "Measure this machine; progress goes to stderr. NAME is one of:",
            "",
            *lines,
            "",
        ]
    )
