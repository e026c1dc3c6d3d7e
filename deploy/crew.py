"""The Ray side of a run: a connection to a cluster, and actors that are kept alive."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from dmaml.common.errors import CapacityError, DmamlError, RunFailedError
from dmaml.worker.actor import MetaWorker
from dmaml.worker.connection import Address

log = logging.getLogger("dmaml.deploy")

MAX_DEATHS: Final = 5  # of one place in the crew, one soon after the other
LONG_LIFE_S: Final = 60.0  # an actor that lived so long did not die of its start


class Cluster:
    """A Ray cluster: one of our own on this machine, or one that is there."""

    def __init__(self, ray_address: str, num_cpus: int | None, logs: Path | None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._logs = logs
        self._temporary: Path | None = None
        if ray_address != "local":
            self._connect(ray_address)
            return
        for attempt in (1, 2):
            self._temporary = Path(tempfile.mkdtemp(prefix="dmaml-"))
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _temp_dir=str(self._temporary),
                    _node_ip_address="127.0.0.1",  # its name; Ray binds all
                )
                return
            except (RayError, RuntimeError, ConnectionError, TimeoutError) as error:
                self.close()
                if attempt == 2:
                    raise RunFailedError(f"Ray did not start on this machine: {error}") from error
                log.warning("Ray did not start (%s): trying once more", error)

    @property
    def num_cpus(self) -> int:
        """CPUs of the whole cluster."""
        return int(ray.cluster_resources().get("CPU", 0))

    def close(self) -> None:
        """Leave the cluster; end it and keep its logs if it is our own."""
        try:
            ray.shutdown()
        finally:
            self._keep_logs()

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
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (RayError, RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
            raise RunFailedError(
                f"no Ray cluster at {address!r} ({error}). Start one with `ray start --head`, or "
                "say --ray-address local."
            ) from None


class Crew:
    """A fixed number of actors; one that dies is replaced.

    Args:
        count: how many.
        address: the meta-model server.
        orphan_s: an actor without a server for so long ends, seconds.
        data_dir: where data files are looked for first, on every node.
        logs: folder for one file per actor, or None.
        cpus: CPUs that Ray reserves for each.
    """

    def __init__(
        self,
        count: int,
        address: Address,
        orphan_s: float,
        data_dir: Path | None = None,
        logs: Path | None = None,
        cpus: float = 1.0,
    ) -> None:
        self._arguments = (address, orphan_s, data_dir)
        self._logs = logs
        self._cpus = cpus
        self._actors: dict[int, Any] = {}
        self._runs: dict[Any, int] = {}
        self._deaths = dict.fromkeys(range(count), 0)
        self._started_at: dict[int, float] = {}
        for place in range(count):
            self._start(place)

    @property
    def size(self) -> int:
        """Actors that are at work."""
        return len(self._runs)

    def watch(self, timeout_s: float) -> bool:
        """Replace actors that died; return True once every actor has ended.

        Raises:
            DmamlError: what an actor ended with.
            CapacityError: one place died `MAX_DEATHS` times.
        """
        if not self._runs:
            return True
        ended, _ = ray.wait(list(self._runs), num_returns=1, timeout=timeout_s)
        for run in ended:
            place = self._runs.pop(run)
            try:
                ray.get(run)
            except RayActorError:
                self._replace(place)
            except RayTaskError as error:
                raise _cause(error) from None
        return not self._runs

    def stop(self, patience_s: float = 5.0) -> None:
        """Ask every actor to leave, give it a moment, then end it."""
        asked = [actor.stop.remote() for actor in self._actors.values()]
        try:
            ray.get(asked, timeout=patience_s)
            if self._runs:
                ray.wait(list(self._runs), num_returns=len(self._runs), timeout=patience_s)
        except (RayError, GetTimeoutError) as error:
            log.info("an actor did not answer the request to stop: %s", error)
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._runs.clear()

    def _start(self, place: int) -> None:
        file = self._logs / f"actor-{place}.log" if self._logs is not None else None
        remote: Any = ray.remote(MetaWorker)
        kind = remote.options(num_cpus=self._cpus, max_concurrency=2, max_restarts=0)
        actor = kind.remote(*self._arguments, file)
        self._actors[place] = actor
        self._runs[actor.run.remote()] = place
        self._started_at[place] = time.monotonic()

    def _replace(self, place: int) -> None:
        has_lived = time.monotonic() - self._started_at[place] >= LONG_LIFE_S
        self._deaths[place] = 1 if has_lived else self._deaths[place] + 1
        if self._deaths[place] >= MAX_DEATHS:
            raise CapacityError(
                f"actor {place} died {MAX_DEATHS} times. Is there enough memory? Its log is "
                f"{self._logs / f'actor-{place}.log' if self._logs else 'in the Ray session'}."
            )
        log.warning("actor %d died: a new one takes its place", place)
        self._start(place)


def _cause(error: RayTaskError) -> BaseException:
    cause = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, DmamlError):
        return cause
    return RunFailedError(f"an actor failed with {type(cause).__name__}: {cause}")
