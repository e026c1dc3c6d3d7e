"""`dmaml workers`: actors for a server, on any Ray cluster."""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from dmaml.common.errors import ConfigError
from dmaml.deploy.crew import Cluster, Crew
from dmaml.deploy.interrupts import interrupt_on_sigterm, undisturbed
from dmaml.worker.client import Client
from dmaml.worker.connection import Address, Retry


def work(
    address: Address, ray_address: str, count: str, orphan_s: float, data_dir: Path | None
) -> None:
    """Start actors and keep them alive until the run is done.

    Raises:
        ConfigError: `count` is neither `auto` nor a number.
        ServerUnreachableError: no server for `orphan_s`.
    """
    if count != "auto" and not (count.isdigit() and int(count)):
        raise ConfigError(f"--count {count!r}: required auto or a number of at least 1.")
    console = Console(stderr=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    interrupt_on_sigterm()
    client = Client(address, Retry(min(orphan_s, 10.0)))
    try:
        name = client.status().name
    finally:
        client.close()
    cluster = Cluster(ray_address, None if count == "auto" else int(count), None)
    interrupt_on_sigterm()  # again: Ray puts a handler of its own, which aborts, in its place
    try:
        number = max(1, cluster.num_cpus) if count == "auto" else int(count)
        console.print(f"run {name!r}: {number} actors for {address.target}", highlight=False)
        crew = Crew(number, address, orphan_s, data_dir)
        try:
            while not crew.watch(1.0):
                pass
        finally:
            with undisturbed():
                crew.stop()
    finally:
        with undisturbed():
            cluster.close()
    console.print("the run is done", highlight=False)
