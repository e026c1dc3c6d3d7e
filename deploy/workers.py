"""`dmaml workers`: actors for a server, on any Ray cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dmaml.common.errors import ConfigError, ServerUnreachableError
from dmaml.common.items import OVER, RunState
from dmaml.common.notices import WORKING, Notifier
from dmaml.deploy.crew import Cluster, Crew
from dmaml.deploy.demand import Demand
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.deploy.supervisor import Supervisor
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator, Status


@dataclass(frozen=True)
class WorkOptions:
    """How actors are started.

    Attributes:
        ray_address: `local`, `auto` or an address.
        count: `auto` or a number.
        per_node: actors on every node, or None.
        cpus: that Ray reserves for each actor, or None.
        orphan_s: give up after so long without the server, seconds.
        stay: wait for the next run when this one is done, and for a server that is away.
        data_dir: where data files are looked for first, on every node.
    """

    ray_address: str = "local"
    count: str = "auto"
    per_node: int | None = None
    cpus: float | None = None
    orphan_s: float = 60.0
    stay: bool = False
    data_dir: Path | None = None

    def demand(self) -> Demand:
        """Return how many actors there should be.

        Raises:
            ConfigError: `count` is neither `auto` nor a number, or contradicts `per_node`.
        """
        is_number = self.count.isdigit() and int(self.count) > 0
        if self.count != "auto" and not is_number:
            raise ConfigError(f"--count {self.count!r}: required auto or a number of at least 1.")
        if is_number and self.per_node is not None:
            raise ConfigError(
                f"--count {self.count} and --actors-per-node {self.per_node} contradict each "
                "other: give one of them."
            )
        return Demand(int(self.count) if is_number else None, self.per_node, self.cpus)


def work(address: Address, options: WorkOptions) -> None:
    """Start actors and keep them alive until the run is done.

    Raises:
        ConfigError: the options contradict each other.
        ServerUnreachableError: no server for `orphan_s`.
    """
    demand = options.demand()
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    interrupt_on_sigterm()
    is_ours = options.ray_address == "local"
    status = _served(address, options)
    count = demand.count if is_ours else None
    cluster = Cluster(options.ray_address, count, None)
    interrupt_on_sigterm()  # again: Ray puts a handler of its own, which aborts, in its place
    notifier = Notifier("supervisor")
    console.print(f"run {status.name!r}: actors for {address.target}", highlight=False)
    crew = Crew(cluster, demand, address, options.orphan_s, options.data_dir)
    supervisor = Supervisor(crew, is_patient=not is_ours)
    try:
        while not supervisor.watch(1.0) or options.stay:
            notifier.tell(f"{supervisor.size} actors", WORKING)
            if supervisor.is_done and _has_more(address):
                supervisor.again()
    finally:
        with undisturbed():
            supervisor.stop()
            cluster.close()
    console.print("the run is done", highlight=False)


def _served(address: Address, options: WorkOptions) -> Status:
    """Return the run that is served; with `stay`, wait for a server as long as it takes."""
    patience_s = float("inf") if options.stay else min(options.orphan_s, 10.0)
    operator = Operator(address, Retry(patience_s))
    try:
        return operator.status()
    finally:
        operator.close()


def _has_more(address: Address) -> bool:
    """Tell whether the server has a run that is not over."""
    operator = Operator(address, Retry(0.0))
    try:
        return RunState(operator.status().state) not in OVER
    except ServerUnreachableError:
        return False
    finally:
        operator.close()
