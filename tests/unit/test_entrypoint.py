"""The shell scripts of the images, run with this machine's shells."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

BIN = Path(__file__).parents[2] / "deploy" / "docker" / "bin"
DEADLINE_S = 20.0
ADVICE = (
    "waiting: mend what the line above names, then: "
    "docker compose up -d --no-deps --force-recreate SERVICE\n"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux")


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / script, *arguments], env=os.environ | variables,
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


# -- hold-on-bad-input ------------------------------------------------------------------------


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start commands under `hold-on-bad-input`; kill what is left of them."""
    started = []

    def start(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", BIN / "hold-on-bad-input", *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=DEADLINE_S)


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-S", "-c", code


@pytest.mark.parametrize(
    ("code", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 3", 3), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_status_of_the_command_is_passed_on(
    hold: Callable[..., subprocess.Popen[str]], code: str, status: int
) -> None:
    process = hold("sh", "-c", f"echo out; echo err >&2; {code}")

    out, err = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == status
    assert out == "out\n"
    assert ADVICE not in err


def test_a_command_that_is_not_there_ends_with_127(
    hold: Callable[..., subprocess.Popen[str]],
) -> None:
    process = hold("no-such-command")

    _, err = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 127
    assert "no-such-command" in err


def test_arguments_are_passed_on_as_they_are(hold: Callable[..., subprocess.Popen[str]]) -> None:
    process = hold("printf", "<%s>", "two words", "", "$HOME", "*")

    assert process.communicate(timeout=DEADLINE_S) == ("<two words><><$HOME><*>", "")


def test_bad_input_is_held_with_advice_until_sigterm(
    hold: Callable[..., subprocess.Popen[str]],
) -> None:
    process = hold("sh", "-c", "echo 'the sentence' >&2; exit 2")
    assert process.stderr is not None

    said = [process.stderr.readline(), process.stderr.readline()]
    is_held = process.poll() is None
    process.send_signal(signal.SIGTERM)
    # returns at the end of the output: nothing is left that could write
    process.communicate(timeout=DEADLINE_S)

    assert said == ["the sentence\n", ADVICE]
    assert is_held
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("status", [0, 2, 7])
def test_sigterm_reaches_the_command_whose_status_is_passed_on(
    hold: Callable[..., subprocess.Popen[str]], number: signal.Signals, status: int
) -> None:
    process = hold(
        *python(
            "import signal, sys\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit({status})))\n"
            "print('ready', flush=True)\n"
            "while True: signal.pause()"
        )
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(number)
    out, err = process.communicate(timeout=DEADLINE_S)

    assert out == "told\n"
    assert err == ""
    assert process.returncode == status  # even 2: who was asked to end is not held


# -- make-token -------------------------------------------------------------------------------


def test_a_token_is_256_random_bits_that_only_its_owner_reads(tmp_path: Path) -> None:
    tokens = []
    for name in ("a", "b"):
        assert run("make-token", str(tmp_path / name)).returncode == 0
        tokens.append((tmp_path / name).read_text())

    assert all(len(token) == 65 and token.endswith("\n") for token in tokens)
    assert all(int(token, 16) for token in tokens)
    assert tokens[0] != tokens[1]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def test_a_token_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the operator\n")

    done = run("make-token", str(tmp_path / "token"))

    assert done.returncode == 0
    assert (tmp_path / "token").read_text() == "of the operator\n"


def test_an_empty_token_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "token").touch()

    run("make-token", str(tmp_path / "token"))

    assert len((tmp_path / "token").read_text()) == 65


def test_a_token_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = run("make-token", str(tmp_path / "nowhere" / "token"))

    assert done.returncode != 0
    assert "nowhere" in done.stderr


# -- node-is-healthy --------------------------------------------------------------------------


def ask_node(file: Path) -> tuple[int, str, str]:
    done = run("node-is-healthy", DMAML_HEALTH=str(file))
    return done.returncode, done.stdout, done.stderr


def test_a_node_that_said_ok_is_healthy(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("ok: 2 actors at work\n")

    assert ask_node(tmp_path / "health") == (0, "ok: 2 actors at work\n", "")


def test_a_node_that_said_something_else_is_not_and_its_sentence_is_shown(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("1 of 2 actors have joined: \\n *\n")

    assert ask_node(tmp_path / "health")[:2] == (1, "1 of 2 actors have joined: \\n *\n")


def test_a_node_that_said_ok_long_ago_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "health").write_text("ok: 2 actors at work\n")
    long_ago = time.time() - 16.0
    os.utime(tmp_path / "health", (long_ago, long_ago))

    assert ask_node(tmp_path / "health")[:2] == (1, "ok: 2 actors at work\nsilent for 15 s\n")


def test_a_node_that_said_nothing_yet_is_not_healthy(tmp_path: Path) -> None:
    assert ask_node(tmp_path / "health")[:2] == (1, "the node has not started\n")


# -- server-is-healthy ------------------------------------------------------------------------

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the image has bash")


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    """Serve `/readyz` with a status; return the port."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int) -> str:
        class Pages(Readyz):
            ready = status

        server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return str(server.server_port)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Readyz(BaseHTTPRequestHandler):
    ready: ClassVar[int]

    def do_GET(self) -> None:
        self.send_response(self.ready if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@needs_bash
@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1), (500, 1)])
def test_a_server_is_healthy_where_it_says_that_it_is_ready(
    answering: Callable[[int], str], status: int, expected: int
) -> None:
    done = run("server-is-healthy", DMAML_HTTP_PORT_INSIDE=answering(status))

    assert (done.returncode, done.stdout) == (expected, f"readyz: {status}\n")


@needs_bash
def test_a_server_that_is_not_there_is_not_healthy() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Readyz)
    server.server_close()

    done = run("server-is-healthy", DMAML_HTTP_PORT_INSIDE=str(server.server_port))

    assert done.returncode == 1


@needs_bash
def test_a_server_that_does_not_answer_is_not_healthy() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Readyz) as deaf:  # accepts, and never serves
        done = run("server-is-healthy", DMAML_HTTP_PORT_INSIDE=str(deaf.server_port))

    assert (done.returncode, done.stdout) == (1, "readyz: \n")


@pytest.mark.parametrize("script", sorted(path.name for path in BIN.iterdir()))
def test_every_script_can_be_executed(script: str) -> None:
    assert os.access(BIN / script, os.X_OK)
