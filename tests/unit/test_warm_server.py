"""A server process that hangs at its start, in a sweep's lane."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import RunFailedError
from dmaml.deploy import warm_server
from dmaml.deploy.warm_server import WarmServer


@pytest.fixture(autouse=True)
def hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a process that never says a word in the server's place."""
    monkeypatch.setattr(warm_server, "COMMAND", ("sleep", "60"))
    monkeypatch.setattr(warm_server, "LOOK_EVERY_S", 0.005)


def test_server_that_hangs_at_its_start_is_ended_and_named(tmp_path: Path) -> None:
    server = WarmServer(tmp_path / "lane-0.log", start_s=0.02)

    with pytest.raises(RunFailedError, match=r"not serve within 0.02 s .*lane-0.log, .*server.log"):
        server.begin(RunConfig(), tmp_path / "run", tmp_path / "server.log")

    assert server._process is None


def test_ctrl_c_does_not_wait_for_the_server_to_serve(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    server = WarmServer(tmp_path / "lane-0.log", lambda: next(looks))

    with pytest.raises(KeyboardInterrupt):
        server.begin(RunConfig(), tmp_path / "run", tmp_path / "server.log")
    server.stop()

    assert server._process is None
