"""The operator's service: status, watch, pause, resume, checkpoint, drain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.common.items import RunState
from dmaml.v1 import clustering_pb2, control_pb2
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, Worker, latest, tiny, versions_of, wait_for
from tests.integration.rpc.calls import Raw

FOREVER = 10**6


def test_the_status_holds_the_resolved_configuration_where_asked(
    operator: Operator, config: RunConfig
) -> None:
    text = operator.status(include_config=True).config_json

    assert configuration.from_mapping(json.loads(text)) == config
    assert operator.status().config_json == ""


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[LiveServer, Operator]]:
    """A run that does not end by itself."""
    with LiveServer(tiny(run={"rounds": FOREVER}), tmp_path / "endless") as live:
        operator = Operator(Address(live.target), Retry(5.0))
        yield live, operator
        operator.close()


def test_a_paused_run_stands_still_until_it_is_resumed(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 2, "two rounds are done")

    paused = operator.do("pause", "to look around")

    assert paused.state == RunState.PAUSED
    assert paused.message == "to look around"
    wait_for(lambda: _holds_no_lease(operator), "every answer is in")
    still = operator.checkpoint()  # waits for a commit that is under way
    assert operator.do("pause").state == RunState.PAUSED  # repeatable
    assert operator.status().version == still.version
    assert operator.do("resume").state == RunState.RUNNING
    wait_for(lambda: operator.status().version > still.version, "the run goes on")
    assert operator.do("drain").state in (RunState.DRAINING, RunState.FINISHED)
    worker.join()
    assert operator.status().state == RunState.FINISHED


def _holds_no_lease(operator: Operator) -> bool:
    return all(worker.leases == 0 for worker in operator.status().workers)


def test_a_checkpoint_is_durable_when_the_call_returns(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 3, "three rounds are done")

    reply = operator.checkpoint()

    saved = latest(live.run_dir)
    assert saved.round >= reply.round >= 3
    assert operator.status().durable_round >= reply.round
    operator.do("drain")
    worker.join()


def test_a_checkpoint_of_an_idle_run_holds_what_it_says(
    operator: Operator, config: RunConfig, server: LiveServer
) -> None:
    Worker(config, server.target).join()

    reply = operator.checkpoint()

    assert reply.version == 6
    assert reply.theta_sha256 == operator.status().theta_sha256
    assert latest(server.run_dir).round == reply.round


def test_a_drained_run_ends_after_its_round_and_keeps_it(
    endless: tuple[LiveServer, Operator],
) -> None:
    live, operator = endless
    worker = Worker(live.config, live.target)
    wait_for(lambda: operator.status().version >= 2, "two rounds are done")

    operator.do("drain")

    worker.join()
    status = operator.status()
    assert status.state == RunState.FINISHED
    assert status.durable_round == status.round
    live.stop()
    assert versions_of(live.run_dir) == list(range(1, status.version + 1))


def test_watch_shows_the_run_until_it_is_finished(
    operator: Operator, config: RunConfig, server: LiveServer
) -> None:
    seen = []
    worker: Worker | None = None

    for status in operator.watch(every_s=60):
        seen.append(status)
        worker = worker or Worker(config, server.target)
        if status.state == RunState.FINISHED:
            break

    assert worker is not None
    worker.join()
    versions = [status.version for status in seen]
    assert seen[0].state == RunState.EMPTY
    assert versions == sorted(versions)
    assert versions[-1] == 6
    assert seen[-1].name == "tiny"
    assert seen[-1].rounds == 6
    assert seen[-1].tasks_seen == 6 * 4
    assert seen[-1].run_dir == str(server.run_dir)


@pytest.mark.parametrize("every_s", [0.0, 1e-9, -1.0, float("nan")])
def test_a_watcher_in_a_hurry_does_not_hold_up_the_server(
    raw: Raw, config: RunConfig, server: LiveServer, every_s: float
) -> None:
    watching = raw.control.Watch(control_pb2.WatchRequest(every_s=every_s), timeout=30)
    next(watching)
    gamma = raw.clustering.Watch(clustering_pb2.WatchGammaRequest(every_s=every_s), timeout=30)
    next(gamma)

    Worker(config, server.target).join()

    assert next(watching).name == "tiny"
    watching.cancel()
    gamma.cancel()
