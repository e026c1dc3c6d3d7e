"""Ray actors that stay from one run to the next: the hands of a sweep's lane.

An actor of `dmaml train` lives as long as its run. A sweep has many short runs, and an actor takes
seconds to start; here one process does the work of one `MetaWorker` after another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, final

import ray
from ray.exceptions import RayError

from dmaml.common.errors import RunFailedError
from dmaml.deploy.supervisor import Ended, Place
from dmaml.worker.actor import End, MetaWorker
from dmaml.worker.connection import Address

log = logging.getLogger("dmaml.deploy")

LONG_POLL_S: Final = 30.0
ORPHAN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.2
SHORT_S: Final = 0.02


class WarmWorker:
    """A process for actors, one at a time; made into a Ray actor by `Lane`."""

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir
        self._number = -1
        self._worker: MetaWorker | None = None
        self._lock = threading.Lock()

    def work(self, number: int, address: Address, log_file: Path, timeout_s: float) -> End | None:
        """Begin a run, or wait for the end of the one begun; a long poll.

        Args:
            number: of the run, from 0: a new one begins.

        Returns:
            How the work ended, or None when it did not within `timeout_s`.
        """
        with self._lock:
            if self._worker is None or number != self._number:
                self._number = number
                self._worker = MetaWorker(
                    address, ORPHAN_S, self._data_dir, log_file, log_file.stem
                )
            worker = self._worker
        return worker.wait(timeout_s)

    def stop(self) -> None:
        """Ask the actor to leave."""
        if self._worker is not None:
            self._worker.stop()

    def evaluate(self, run_dir: Path) -> dict[str, Any]:
        """Return the test figures of a run's last state, as `evaluation` says, and its digest.

        Of a mixture the test has `origins` as well: the figures of as many tasks of each source.
        Where there are units to cluster, `clusters` is what `dmaml cluster` tells.
        """
        from dmaml.deploy import cluster
        from dmaml.learner import load

        learner = load(run_dir, data_dir=self._data_dir)
        config, section = learner.config, learner.config.evaluation
        test = None
        if section.test_tasks:
            test = learner.evaluate(section.test_tasks, section.steps)
            if config.task.source == "mixed":
                test["origins"] = cluster.test_by_origin(run_dir, self._data_dir)
        is_clustered = config.clustering.name != "none"
        return {
            "version": learner.version,
            "tasks_seen": learner.tasks_seen,
            "theta_sha256": learner.theta_sha256,
            "test": test,
            "clusters": cluster.summary(run_dir, self._data_dir) if is_clustered else None,
        }


@final
class Lane:
    """The actors of one run at a time, as `Supervisor` wants them.

    Args:
        data_dir: where data files are looked for first.
        is_stopped: asked often; once it is true, waiting ends by KeyboardInterrupt.
    """

    def __init__(self, data_dir: Path | None, is_stopped: Callable[[], bool]) -> None:
        self._data_dir = data_dir
        self._is_stopped = is_stopped
        self._warm: dict[Place, Any] = {}
        self._polls: dict[Any, Place] = {}
        self._places: list[Place] = []
        self._numbers: dict[Place, int] = {}  # of pieces of work begun: a replacement is another
        self._address = Address("")
        self._logs = Path()

    def assign(self, num_actors: int, address: Address, logs: Path) -> None:
        """Say what the next run is."""
        self._places = [Place("", index) for index in range(num_actors)]
        self._address = address
        self._logs = logs

    def places(self) -> Collection[Place]:
        """Return where there should be an actor."""
        return self._places

    def start(self, place: Place) -> bool:
        """Begin the run at a place, in the process that is there or in a new one."""
        self._numbers[place] = self._numbers.get(place, -1) + 1
        self._poll(place)
        return False

    def ended(self, timeout_s: float) -> list[Ended]:
        """Wait until an actor's work ends, at most `timeout_s`; return those whose did.

        Raises:
            KeyboardInterrupt: the sweep is to stop.
        """
        if self._is_stopped():
            raise KeyboardInterrupt
        if not self._polls:
            time.sleep(min(timeout_s, SHORT_S))  # the run is over, the server about to end
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
                found.append(Ended(place, end))
        return found

    def stop(self, patience_s: float = 5.0) -> None:
        """Ask every actor at work to leave; end the process of one that does not."""
        for place in self._polls.values():
            self._warm[place].stop.remote()
        if self._polls:
            done, _ = ray.wait(list(self._polls), num_returns=len(self._polls), timeout=patience_s)
            for poll in done:
                del self._polls[poll]
        for place in self._polls.values():
            self._drop(place)
        self._polls.clear()

    def evaluate(self, run_dir: Path) -> dict[str, Any]:
        """Evaluate a run in the lane's first process; see `WarmWorker.evaluate`.

        Raises:
            RunFailedError: the process died.
            KeyboardInterrupt: the sweep is to stop.
        """
        place = Place("", 0)
        answer = self._actor(place).evaluate.remote(run_dir)
        try:
            while not ray.wait([answer], timeout=LOOK_EVERY_S)[0]:
                if self._is_stopped():
                    raise KeyboardInterrupt
            found: dict[str, Any] = ray.get(answer)
        except RayError as error:
            self._drop(place)
            cause = getattr(error, "cause", None) or error
            raise RunFailedError(f"the evaluation failed: {cause}") from None
        return found

    def close(self) -> None:
        """End every process."""
        for place in list(self._warm):
            self._drop(place)

    def _actor(self, place: Place) -> Any:
        if place not in self._warm:
            kind: Any = ray.remote(WarmWorker)
            # num_cpus 0: the sweep decides how many there are; long polls and `stop` overlap
            options = {"num_cpus": 0, "max_concurrency": 8, "max_restarts": 0}
            self._warm[place] = kind.options(**options).remote(self._data_dir)
        return self._warm[place]

    def _poll(self, place: Place) -> None:
        file = self._logs / f"actor-{place.index}.log"
        poll = self._actor(place).work.remote(
            self._numbers[place], self._address, file, LONG_POLL_S
        )
        self._polls[poll] = place

    def _drop(self, place: Place) -> None:
        ray.kill(self._warm.pop(place))
