"""The Ray side of a run: a connection to a cluster, its nodes, and the actors on them."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmaml.common.errors import RunFailedError
from dmaml.deploy.demand import Demand, Node
from dmaml.deploy.interrupts import undisturbed
from dmaml.deploy.leftovers import end_leftovers, marked
from dmaml.deploy.supervisor import Ended, Place
from dmaml.worker.actor import End, MetaWorker
from dmaml.worker.connection import Address

log = logging.getLogger("dmaml.deploy")

NAMESPACE: Final = "dmaml"
LONG_POLL_S: Final = 30.0
MAX_STARTS: Final = 3


class Cluster:
    """A Ray cluster: one of our own on this machine, or one that is there."""

    def __init__(self, ray_address: str, num_cpus: int | None, logs: Path | None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray 2.60 puts a token of its own on what it starts and says so each time
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        self.is_ours = ray_address == "local"
        self._logs = logs
        self._temporary: Path | None = None
        if not self.is_ours:
            self._connect(ray_address)
            return
        for attempt in range(1, MAX_STARTS + 1):
            try:
                self._start(num_cpus)
                return
            except Exception as error:  # Ray has no class of its own for a start that takes long
                if attempt == MAX_STARTS:
                    raise RunFailedError(
                        f"Ray did not start on this machine, {MAX_STARTS} times in a row: {error} "
                        "Is the machine overloaded, or its memory or disk full? The same command "
                        "goes on."
                    ) from error
                log.warning("Ray did not start (%s): trying once more", error)

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [
            Node(node["NodeID"], node["NodeManagerAddress"], dict(node["Resources"]))
            for node in ray.nodes()
            if node["Alive"]
        ]

    def close(self) -> None:
        """Leave the cluster; end it and keep its logs if it is our own."""
        try:
            ray.shutdown()
        finally:
            if self._temporary is not None:
                end_leftovers(self._temporary)  # those that outlive the raylet, or its start
            self._keep_logs()

    def _start(self, num_cpus: int | None) -> None:
        """Start a cluster of our own; if that fails or is interrupted, nothing of it stays."""
        self._temporary = Path(tempfile.mkdtemp(prefix="dmaml-"))
        try:
            with marked(self._temporary):
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _temp_dir=str(self._temporary),
                    _node_ip_address="127.0.0.1",  # its name; Ray binds all
                )
        except BaseException as error:
            with undisturbed():
                self.close()
            if isinstance(error, SystemExit):  # what Ray's own handler makes of SIGTERM
                raise KeyboardInterrupt from None
            raise

    def _keep_logs(self) -> None:
        if self._temporary is None:
            return
        logs = next(self._temporary.glob("session_2*/logs"), None)
        if self._logs is not None and logs is not None:
            target = self._logs / "ray"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(logs, target, ignore_dangling_symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary = None

    def _connect(self, address: str) -> None:
        try:
            ray.init(
                address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False
            )
        except (RayError, RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
            raise RunFailedError(
                f"no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, or "
                "say --ray-address local."
            ) from None


class Crew:
    """The actors of one server in one cluster; the hands of a `Supervisor`.

    In a cluster that is not ours the actors are detached and have names: they outlive whoever
    started them, and the next supervisor finds them.

    Args:
        address: the meta-model server.
        orphan_s: an actor without a server for so long ends, seconds.
        data_dir: where data files are looked for first, on every node.
        logs: folder for one file per actor, or None.
    """

    def __init__(
        self,
        cluster: Cluster,
        demand: Demand,
        address: Address,
        orphan_s: float,
        data_dir: Path | None = None,
        logs: Path | None = None,
    ) -> None:
        self._cluster = cluster
        self._demand = demand
        self._address = address
        self._arguments = (address, orphan_s, data_dir)
        self._logs = logs
        self._nodes: list[Node] = []
        self._actors: dict[Place, Any] = {}
        self._polls: dict[Any, Place] = {}

    def places(self) -> Collection[Place]:
        """Return where there should be an actor now."""
        if self._demand.count is None:
            self._nodes = self._cluster.nodes()
        return self._demand.places(self._nodes)

    def start(self, place: Place) -> bool:
        """Start an actor, or adopt the one that lives there; tell whether it was adopted."""
        found = self._living(place)
        self._actors[place] = self._new(place) if found is None else found
        self._poll(place)
        return found is not None

    def ended(self, timeout_s: float) -> list[Ended]:
        """Wait until an actor ends, at most `timeout_s`; return those that did."""
        if not self._polls:
            time.sleep(timeout_s)
            return []
        found: list[Ended] = []
        ready, _ = ray.wait(list(self._polls), num_returns=1, timeout=timeout_s)
        for poll in ready:
            place = self._polls.pop(poll)
            try:
                end: End | None = ray.get(poll)
            except RayError as error:
                log.debug("%s: %s", place, error)
                self._drop(place)
                found.append(Ended(place, None))
                continue
            if end is None:
                self._poll(place)
            else:
                self._drop(place)
                found.append(Ended(place, end))
        return found

    def stop(self, patience_s: float = 5.0) -> None:
        """Ask every actor to leave, give it a moment, then end it."""
        for actor in self._actors.values():
            actor.stop.remote()
        if self._polls:
            ray.wait(list(self._polls), num_returns=len(self._polls), timeout=patience_s)
        self._polls.clear()
        for place in list(self._actors):
            self._drop(place)

    def _living(self, place: Place) -> Any:
        """Return the actor that lives at a place, or None: only detached ones may."""
        if self._cluster.is_ours:
            return None
        try:
            return ray.get_actor(self._name(place), NAMESPACE)
        except ValueError:
            return None

    def _new(self, place: Place) -> Any:
        file = self._logs / f"actor-{place.index}.log" if self._logs is not None else None
        kind: Any = ray.remote(MetaWorker).options(**self._options(place))
        return kind.remote(*self._arguments, file, f"actor {place.index}")

    def _poll(self, place: Place) -> None:
        self._polls[self._actors[place].wait.remote(LONG_POLL_S)] = place

    def _drop(self, place: Place) -> None:
        ray.kill(self._actors.pop(place))

    def _options(self, place: Place) -> dict[str, Any]:
        options: dict[str, Any] = {
            "num_cpus": self._demand.cpus_of(self._nodes),
            "resources": self._demand.slots_of(self._nodes),
            "max_concurrency": 8,  # long polls of supervisors that died, and `stop`
            "max_restarts": 0,
        }
        if place.node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(place.node, soft=False)
        if not self._cluster.is_ours:
            options |= {
                "name": self._name(place),
                "namespace": NAMESPACE,
                "lifetime": "detached",
                "get_if_exists": True,  # another supervisor may be as quick
            }
        return options

    def _name(self, place: Place) -> str:
        server = hashlib.sha256(self._address.target.encode()).hexdigest()[:8]
        return f"{server}-{place.node[:16] or 'any'}-{place.index}"
