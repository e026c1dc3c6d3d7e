"""What a PROBE round costs the server, by strategy.

    dmaml bench clustering [--units 10000] [--pipelines 8] [--dims 512]

Each strategy is driven from its first PROBE round on, without a network or actors: units of as many
origins as there are pipelines are drawn as its tasks would draw them, each once a round on the
average, with losses that fall with the share of their origin in a pipeline, and sketches that lie
about a centre of their origin. Timed is what the server does when a round is complete: the answers
are gathered, the strategy observes them, γ is checked, put in force and recorded. Seconds are
processor time, the longest round of each kind; scikit-learn and scipy are imported beforehand (a
server does it once).
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from dmaml.bench.options import Parser, finish, say, whole
from dmaml.common import config as configuration
from dmaml.common import frames
from dmaml.common.config import RunConfig
from dmaml.common.gamma import Gamma, columns_of
from dmaml.common.memory import keep_freed_memory
from dmaml.common.probes import Observation, Probe, ProbeKind
from dmaml.common.seeds import Int64
from dmaml.server.clustering.clusterer import Clusterer
from dmaml.server.clustering.probing import gathered
from dmaml.server.core.progress import Progress

N_WAY, K_QUERY, SLOTS = 5, 5, 4
IMPORTS = ("sklearn.cluster", "sklearn.decomposition", "scipy.sparse", "scipy.stats")
MOST_ROUNDS = 40  # PROBE rounds of a strategy
COLUMNS = {
    "strategy": "strategy", "kind": "asks for", "rounds": "rounds", "rows": "rows",
    "columns": "columns", "pipelines": "pipelines", "seconds": "s",
}  # fmt: skip


class Round(NamedTuple):
    """What one PROBE round brought and took."""

    strategy: str
    kind: str
    rows: int
    columns: int
    pipelines: int
    seconds: float


def strategies(units: int, pipelines: int, dims: int) -> dict[str, dict[str, Any]]:
    """Return what is measured: label -> section `clustering`; every unit comes once a round."""
    tasks = units // N_WAY
    steps: dict[str, Any] = {
        "meta_train_iterations": 1, "update_iterations": 4, "tasks": tasks, "bias": 1 / pipelines
    }  # fmt: skip
    mixture = {"first": "sketches", "warmup": 1, "every": 1, "cycles": 4, "dims": dims}
    mixture |= {"visits": 1.0, "split_visits": 1.0}
    grown = {"every": 1, "rows": 1, "dims": dims, "tasks": tasks}
    return {
        "gamma": {"name": "gamma", "pipelines": pipelines, "options": steps},
        "gamma, robust: median": {
            "name": "gamma", "pipelines": pipelines, "options": steps | {"robust": "median"}
        },
        "mixture": {"name": "mixture", "pipelines": pipelines, "options": mixture},
        "gradient_tree": {
            "name": "gradient_tree", "max_pipelines": pipelines, "options": grown
        },
    }  # fmt: skip


def configured(clustering: dict[str, Any]) -> RunConfig:
    """Return a run with this section."""
    task = {"n_way": N_WAY, "k_shot": 1, "k_query": K_QUERY}
    values = {"run": {"rounds": 1000}, "task": task, "clustering": clustering}
    return configuration.resolve(configuration.from_mapping(values))


@final
class Population:
    """Units of several origins, and what PROBE rounds show of them."""

    def __init__(self, units: int, origins: int, dims: int) -> None:
        self._random = np.random.default_rng(1)
        self._origin = np.arange(units) % origins
        self._centres = self._random.standard_normal((origins, dims)).astype(np.float32)

    def answers(self, probe: Probe, gamma: Gamma) -> list[Observation]:
        """Return the answers of a round's items, in slot order."""
        units, values = self._seen(probe, gamma)
        size = len(self._origin)
        per_unit = len(values) // len(units) if len(values) else 0
        return [
            Observation(size, units[one], values[one[0] * per_unit : (one[-1] + 1) * per_unit])
            for one in np.array_split(np.arange(len(units)), SLOTS)
        ]

    def _seen(self, probe: Probe, gamma: Gamma) -> tuple[Int64, NDArray[np.float32]]:
        every = np.arange(len(self._origin))
        if probe.kind is ProbeKind.UNITS:
            return every, np.empty((0, 0), dtype=np.float32)
        if probe.kind is ProbeKind.SKETCHES:
            units = self._drawn(gamma.route(every, probe.pipeline), probe.tasks)
            noise = self._random.standard_normal((len(units), probe.dims), dtype=np.float32)
            return units, self._centres[self._origin[units]] + noise
        units = self._drawn(every, probe.tasks)
        skill = self._skill(gamma)[self._origin[np.repeat(units, K_QUERY)]]
        noise = self._random.standard_normal(skill.shape, dtype=np.float32)
        return units, (2.0 - skill + 0.5 * noise).astype(np.float32)

    def _drawn(self, units: Int64, tasks: int) -> Int64:
        """Return the units of so many tasks: a random order of all, over and over."""
        count = tasks * N_WAY
        turns = [self._random.permutation(units) for _ in range(-(-count // len(units)))]
        return np.concatenate(turns)[:count].astype(np.int64)

    def _skill(self, gamma: Gamma) -> NDArray[np.float64]:
        """Return the share of each origin in each pipeline's units, `[origins, pipelines]`."""
        counts = np.ones((len(self._centres), len(gamma.pipelines)))
        if len(gamma.matrix):
            np.add.at(counts, (self._origin, columns_of(gamma.matrix)), 1.0)
        found: NDArray[np.float64] = counts / counts.sum(axis=0)
        return found


def rounds_of(label: str, config: RunConfig, population: Population) -> Iterator[Round]:
    """Drive a strategy through its PROBE rounds, a TRAIN round wherever it asks for none."""
    clusterer, trained, probes = Clusterer(config), 0, 0
    while probes < MOST_ROUNDS and trained < MOST_ROUNDS:
        probe = clusterer.plan(Progress(trained=trained, version=trained, probes=probes))
        if probe is None:
            trained += 1
            continue
        before = clusterer.gamma
        answers = population.answers(probe, before)
        start = time.process_time()
        seen = gathered(answers, probe, before.pipelines, trained)
        clusterer.observe(seen)
        clusterer.row()
        clusterer.adopt()
        seconds = time.process_time() - start
        rows, columns = seen.values.shape
        num_pipelines = max(len(before.pipelines), len(clusterer.gamma.pipelines))
        yield Round(label, probe.kind.name, rows, columns, num_pipelines, seconds)
        probes += 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser("clustering", __doc__)
    parser.add_argument("--units", type=whole, default=10_000, help="(default 10,000)")
    parser.add_argument("--pipelines", type=whole, default=8, help="(default 8)")
    parser.add_argument("--dims", type=whole, default=512, help="of a sketch (default 512)")
    given = parser.parse_args(sys.argv[1:] if arguments is None else list(arguments))
    if given.units < 10 * given.pipelines or given.pipelines < 2:
        parser.error(f"{given.units} units in {given.pipelines} pipelines: required 2, 10 in each")
    keep_freed_memory(up_to=2 * frames.MAX_UNARY_BYTES)  # as a server does
    for name in IMPORTS:
        importlib.import_module(name)
    rows = []
    for label, section in strategies(given.units, given.pipelines, given.dims).items():
        population = Population(given.units, given.pipelines, given.dims)
        found = list(rounds_of(label, configured(section), population))
        for kind in dict.fromkeys(one.kind for one in found):
            own = [one for one in found if one.kind == kind]
            longest = max(own, key=lambda one: one.seconds)
            say(f"{label}, {kind}: {longest.seconds:.3f} s")
            seconds = round(longest.seconds, 4)
            rows.append(longest._asdict() | {"rounds": len(own), "seconds": seconds})
    report = {"benchmark": "clustering", "units": given.units, "rows": rows}
    finish(report, COLUMNS, rows, given.json)


if __name__ == "__main__":
    main()
