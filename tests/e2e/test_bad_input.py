"""Bad input in containers: a sentence in the log of the service concerned, and `unhealthy`."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.compose import Compose, docker, wait

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
UNHEALTHY_S = 120.0  # start_period and three failures


@dataclass(frozen=True)
class Case:
    """One thing that is wrong, whom it concerns, and what must be said."""

    name: str
    container: str
    said: tuple[str, ...]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the containers may read: configurations, and no data."""
    found = tmp_path_factory.mktemp("bad")
    found.chmod(0o755)
    (found / "data").mkdir(mode=0o755)
    (found / "omniglot.yaml").write_text(
        "run: {name: bad, rounds: 5}\ntask: {source: omniglot}\ntopology: {slots: 2}\n"
    )
    return found


@pytest.fixture(scope="module")
def cases(folder: Path) -> Iterator[list[Case]]:
    """Start everything that is wrong at once: docker takes a minute to call it unhealthy."""
    shared = {"DMAML_CONFIG_DIR": str(folder), "DMAML_DATA": str(folder / "data")}
    config = Compose("dmaml-bad-config", shared | {"DMAML_CONFIG": "missing.yaml"})
    memory = Compose("dmaml-bad-memory", shared | {"DMAML_WORKER_MEMORY": "600m"})
    shm = Compose("dmaml-bad-shm", shared | {"DMAML_SHM_SIZE": "64m"})
    server = Compose("dmaml-bad-server", shared | {"DMAML_SERVER_MEMORY": "128m"})
    data = Compose("dmaml-bad-data", shared | {"DMAML_CONFIG": "omniglot.yaml"})
    projects = [config, memory, server, shm, data]
    for project in projects:
        project.down()
    try:
        for project in (config, server):
            project.run("up", "-d", "--no-build", "server")
        for project in (memory, shm):
            project.run("up", "-d", "--no-build", "token")
            project.run("up", "-d", "--no-build", "--no-deps", "worker")
        data.run("up", "-d", "--no-build")
        stranger = f"{data.name}-stranger"
        data.run(
            "run", "-d", "--no-deps", "--name", stranger,
            "--volume", f"{_older(folder)}:{_metadata()}:ro", "worker",
        )  # fmt: skip
        yield [
            Case("config", config.container("server"), ("/configs/missing.yaml", "No such file")),
            Case("memory", memory.container("worker"), ("needs 1000 MiB, there are 600 MiB",)),
            Case("server", server.container("server"), ("needs 400 MiB, there are 128 MiB",)),
            Case("shm", shm.container("worker"), ("/dev/shm needs 88 MiB, there are 64 MiB",)),
            Case("data", data.container("worker"), ("omniglot28.npz", "dmaml data fetch")),
            Case("version", stranger, ("this node has dmaml 0.0.9, the server 0.1.0",)),
        ]
    finally:
        for project in projects:
            project.down()


@pytest.mark.parametrize("name", ["config", "memory", "server", "shm", "data", "version"])
def test_the_sentence_is_in_the_log_and_the_container_unhealthy(
    cases: list[Case], name: str
) -> None:
    case = next(case for case in cases if case.name == name)

    wait(lambda: _health(case.container) == "unhealthy", f"{name}: unhealthy", UNHEALTHY_S)

    log = _log(case.container)
    for words in case.said:
        assert words in log, log


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        project = Compose("dmaml-bad-port", {"DMAML_HTTP_PORT": port})
        try:
            said = project.run("up", "-d", "--no-build", "server", check=False)
        finally:
            project.down()

    assert f"127.0.0.1:{port}" in said or f"port {port}" in said


def _health(container: str) -> str:
    state = json.loads(docker("inspect", "--format", "{{json .State}}", container))
    return str(state.get("Health", {}).get("Status", ""))


def _log(container: str) -> str:
    command = ["docker", "logs", container]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, **streams, text=True, check=True).stdout


def _metadata() -> str:
    script = "import importlib.metadata as m; print(m.distribution('dmaml')._path / 'METADATA')"
    return docker(
        "run", "--rm", "--entrypoint", "python3", "dmaml-worker:0.1.0", "-c", script
    ).strip()


def _older(folder: Path) -> Path:
    """Write the metadata of another version."""
    file = folder / "METADATA"
    file.write_text("Metadata-Version: 2.1\nName: dmaml\nVersion: 0.0.9\n")
    file.chmod(0o644)
    return file
