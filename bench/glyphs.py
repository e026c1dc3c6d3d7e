"""Measure how fast `glyphs` draws: `dmaml bench glyphs` prints one JSON object.

Everything runs on one thread; NumPy's elementwise operations start no others.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence

from dmaml.bench.options import Parser
from dmaml.common.config import RunConfig
from dmaml.common.seeds import Kind, stream
from dmaml.worker.tasks import alphabets
from dmaml.worker.tasks.glyphs import NOISE, Glyphs, draw

PICTURES = 4096
TASKS = 32
REPEATS = 7


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of REPEATS calls after a first one."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print pictures per second of drawing alone and of whole episodes, and the time to start."""
    Parser("glyphs", __doc__).parse_args(arguments)
    start = time.perf_counter()
    alphabets.characters()
    first_s = time.perf_counter() - start
    source = Glyphs(RunConfig())
    classes = stream(1, Kind.TEST).integers(PICTURES, len(source.characters))
    noise = stream(2, Kind.TEST).uniform(PICTURES, NOISE)
    drawing = seconds(lambda: draw(source.characters, classes, noise))
    train = source.split("train")

    def episodes(tasks: int) -> float:
        """Return pictures per second of 5-way 1-shot episodes with 5 query examples a class."""
        return (
            30
            * tasks
            / seconds(
                lambda: source.sample(
                    [stream(3, Kind.TEST, task=task) for task in range(tasks)], train, 5, 1, 5
                )
            )
        )

    report = {
        "pictures_per_s": round(PICTURES / drawing),
        "pictures_per_s_in_episodes": round(episodes(TASKS)),
        "pictures_per_s_in_single_episodes": round(episodes(1)),
        "table_s": round(first_s, 3),
        "num_characters": len(source.characters),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
