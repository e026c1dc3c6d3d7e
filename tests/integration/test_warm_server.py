"""One server process for several runs: one after another, a refused one, a killed one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import BadInputError, RunFailedError
from dmaml.common.rundir import read_rows
from dmaml.deploy.warm_server import WarmServer
from tests.integration.harness import Worker, digest_of, tiny, train, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WarmServer]:
    """A server that is stopped at the end."""
    one = WarmServer(tmp_path / "lane.log")
    yield one
    one.stop()


def begin(server: WarmServer, config: RunConfig, folder: Path) -> int:
    """Begin a run and return the id of the process that serves it."""
    server.begin(config, folder, folder.with_suffix(".log"))
    return int(json.loads((folder / "server.json").read_text())["pid"])


def test_one_process_serves_one_run_after_another(server: WarmServer, tmp_path: Path) -> None:
    first, second = tiny(), tiny(run={"seed": 2})
    pids = []
    for name, config in (("first", first), ("second", second)):
        pids.append(begin(server, config, tmp_path / name))
        assert server.poll() is None
        Worker(config, server.target).join()
        wait_for(lambda: server.poll() is not None, "the run is over")
        server.check()

    assert pids[0] == pids[1]
    assert server.poll() == 0
    assert digest_of(tmp_path / "second") == train(second, tmp_path / "plain")
    assert digest_of(tmp_path / "first") != digest_of(tmp_path / "second")
    for name in ("first", "second"):  # each run has a log of its own
        assert (tmp_path / f"{name}.log").read_text().count("serving run") == 1


def test_a_refused_run_is_a_sentence_and_the_next_one_is_served(
    server: WarmServer, tmp_path: Path
) -> None:
    bad = tiny(aggregation={"name": "krum"})  # needs five slots

    with pytest.raises(BadInputError, match=r"'krum' .* needs 5"):
        begin(server, bad, tmp_path / "bad")
    begin(server, tiny(), tmp_path / "good")
    Worker(tiny(), server.target).join()
    wait_for(lambda: server.poll() == 0, "the run is over")

    assert len(read_rows(tmp_path / "good", "rounds")) == 6


@pytest.mark.e2e
def test_a_killed_process_is_noticed_and_its_run_resumes_in_another(
    server: WarmServer, tmp_path: Path
) -> None:
    config = tiny(run={"rounds": 60})
    pid = begin(server, config, tmp_path / "run")
    worker = Worker(config, server.target)
    wait_for(lambda: len(read_rows(tmp_path / "run", "rounds")) >= 2, "some rounds are done")

    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: server.poll() is not None, "the death is noticed")
    killed = server.poll()
    with pytest.raises(RunFailedError, match="the server's process ended"):
        server.check()
    worker.stop()
    server.restart()
    again = Worker(config, server.target)
    again.join()
    wait_for(lambda: server.poll() == 0, "the run is over")

    assert killed == -signal.SIGKILL
    assert digest_of(tmp_path / "run") == train(config, tmp_path / "plain")


def test_stop_in_the_middle_writes_a_checkpoint(server: WarmServer, tmp_path: Path) -> None:
    config = tiny(run={"rounds": 10**6}, server={"checkpoint_every": 10**6})
    begin(server, config, tmp_path / "run")
    worker = Worker(config, server.target, orphan_s=0.5)
    wait_for(lambda: version(server) > 4, "rounds are done")

    server.stop()
    worker.stop()

    assert len(read_rows(tmp_path / "run", "rounds")) >= 2
    assert not (tmp_path / "run" / "server.json").exists()


def version(server: WarmServer) -> int:
    """Return the version of the run that is served."""
    with urlopen(f"http://{server.http}/api/status", timeout=10) as reply:
        return int(json.load(reply)["version"])
