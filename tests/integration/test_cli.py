"""The command line: one sentence on bad input, one JSON object where asked, nothing written."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common import config as configuration
from dmaml.deploy import local
from dmaml.deploy.cli import run_cli
from tests.integration.harness import LiveServer, Worker, digest_of, dmaml, tiny, train

SINUSOID = [
    "task.source=sinusoid", "task.n_way=1", "task.k_shot=5", "model.name=mlp",
    "model.hidden=[8]", "evaluation.test_tasks=20",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, with the loggers and the path as before afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny(), folder)
    return folder


def sets(*settings: str) -> list[str]:
    """Return `--set` options."""
    return [word for setting in settings for word in ("--set", setting)]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Return the only line on stderr of a command that ends with `code`, without `error: `."""
    before = sorted(Path().rglob("*"))

    assert run_cli([*arguments]) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.rstrip()[-1] in ".?)"
    assert sorted(Path().rglob("*")) == before  # nothing was written
    return err.removeprefix("error: ").rstrip()


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tsk.n_way=5"], ["section 'tsk'", "Did you mean 'task'?"]),
        (["task.n_wya=5"], ["key of 'task' 'n_wya'", "Did you mean 'n_way'?"]),
        (["task.n_way=five"], ["task.n_way = 'five'", "integer", "docs/config.md"]),
        (["task.n_way=0"], ["task.n_way = 0", "greater than or equal to 1"]),
        (["outer.lr=.nan"], ["outer.lr = nan"]),
        (["outer.lr=[1"], ["outer.lr = '[1'"]),
        (["run.device=cuda"], ["run.device = 'cuda'", "'cpu'"]),
        (["server.max_inflight_bytes=1Mib2"], ["max_inflight_bytes", "64KiB"]),
        (["n_way"], ["--set 'n_way'", "section.key=value"]),
        (["topology.parts=9"], ["topology.parts 9", "algorithm.tasks 4", "Lower parts"]),
        (["clustering.pipelines=2"], ["clustering.pipelines 2", "Set pipelines to 1"]),
        (["model.name=conv5"], ["unknown model 'conv5'", "Did you mean 'conv4'?"]),
        (["algorithm.name=mmal"], ["unknown algorithm 'mmal'", "Did you mean 'maml'?"]),
        (["weights.name=medain"], ["unknown weight generator 'medain'", "'mean'", "loss_median"]),
        (["aggregation.name=krumm"], ["unknown aggregation rule 'krumm'", "Did you mean 'krum'?"]),
        (["aggregation.name=krum"], ["'krum'", "needs 5", "Raise topology.slots", "num_byzantine"]),
        (["weights.name=loss_median", "weights.options.width=-1"], ["width = -1", "> 0"]),
        (["clustering.name=nnoe"], ["unknown clustering", "'nnoe'", "Did you mean 'none'?"]),
        (["task.source=omnigloot"], ["unknown task source 'omnigloot'", "'omniglot'"]),
        (["model.name=nowhere.models:Net"], ["'nowhere.models:Net' cannot be imported"]),
        (["algorithm.name=json:Maml"], ["'json:Maml' cannot be imported"]),
        (["task.n_way=20000"], ["20000"]),
        (["task.source=npz:none.npz"], ["none.npz"]),
        (["task.source=folder:none"], ["none"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_bad_value_is_one_sentence_with_the_remedy(
    settings: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, "train", "--run-dir", "run", *sets(*settings))

    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["task.k_shot=2", "task.k_query=3"], ["task.k_shot", "task.k_query", "4"]),
        (["task.k_shot=1", "task.k_query=1", "evaluation.k_query=4"], ["k_query", "4"]),
        (["task.n_way=60", "task.k_query=1"], ["60"]),
    ],
)
def test_an_episode_larger_than_the_data_is_refused(
    settings: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _save_pictures(Path("small.npz"))

    sentence = refused(
        capsys, "train", "--run-dir", "run", *sets("task.source=npz:small.npz", *settings)
    )

    for word in words:
        assert word in sentence


def _save_pictures(path: Path) -> None:
    """Write 50 classes of 4 pictures."""
    np.savez(path, images=np.zeros((200, 28, 28), "u1"), labels=np.arange(200) // 4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_npz_is_refused(share: float, capsys: pytest.CaptureFixture[str]) -> None:
    _save_pictures(Path("whole.npz"))
    whole = Path("whole.npz").read_bytes()
    Path("torn.npz").write_bytes(whole[: int(share * len(whole))])

    sentence = refused(
        capsys, "train", "--run-dir", "run", *sets("task.source=npz:torn.npz", "task.k_query=1")
    )

    assert "torn.npz" in sentence


def test_a_missing_data_file_is_named_with_where_it_was_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DMAML_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    sentence = refused(
        capsys, "train", "--run-dir", "run", *sets("task.source=omniglot", "task.splits=vinyals")
    )

    assert str(tmp_path / "data") in sentence
    assert "dmaml data fetch" in sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["'bad.yaml' cannot be read", "No such file"]),
        ("run: {rounds: [", ["bad.yaml: not valid YAML at line 1"]),
        ("- 1\n", ["bad.yaml: required a mapping", "found list"]),
        ("run: 5\n", ["section 'run'", "found 5"]),
        (b"\xff\xfe\x00", ["'bad.yaml' cannot be read", "UTF-8"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "server"])
def test_an_unreadable_configuration_is_refused(
    command: str, text: str | bytes | None, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("bad.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())

    sentence = refused(capsys, command, "bad.yaml", "--run-dir", "run")

    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--no-such-option"], ["--no-such-option"]),
        (["train", "--workers", "0"], ["--workers", "1"]),
        (["train", "--workers", "many"], ["--workers", "valid integer"]),
        (["frobnicate"], ["'frobnicate'"]),
        (["server"], ["'config'"]),
        (["status", "--server", "nowhere"], ["--server 'nowhere'", "HOST:PORT"]),
        (["workers", "--count", "none"], ["--count 'none'", "auto"]),
        (["train", "--listen", "50051"], ["--listen '50051'", "HOST:PORT"]),
        (["train", "--http", "127.0.0.1:99999"], ["--http '127.0.0.1:99999'", "HOST:PORT"]),
        (["evaluate", "nowhere"], ["'nowhere' holds no run", "dmaml train"]),
        (["data", "path", "omnigloot"], ["omnigloot", "omniglot"]),
        (["status", "--token-file", "none"], ["--token-file 'none' cannot be read"]),
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_sentence(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = refused(capsys, *arguments)

    for word in words:
        assert word in sentence


def test_a_command_without_arguments_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli([]) == 2

    err = capsys.readouterr().err
    assert err.startswith("Usage: dmaml")
    assert "train" in err


@pytest.mark.parametrize("command", ["status", "watch", "pause", "checkpoint", "workers"])
def test_an_unreachable_server_is_one_sentence(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dmaml.deploy.control.PATIENCE_S", 0.2)
    patience = ["--orphan-s", "1"] if command == "workers" else []

    sentence = refused(capsys, command, "--server", "127.0.0.1:1", *patience, code=1)

    assert "no answer from the server at 127.0.0.1:1" in sentence
    assert sentence.endswith("Is it running, and is the address right?")


@pytest.mark.parametrize("option", ["--listen", "--http"])
@pytest.mark.parametrize("command", ["train", "server"])
def test_a_port_in_use_is_one_sentence(
    command: str, option: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(configuration.to_text(tiny()))
    with LiveServer(tiny(), tmp_path / "other") as live:
        taken = live.http.removeprefix("http://")
        free = ["--http", "127.0.0.1:0"] if option == "--listen" else ["--listen", "127.0.0.1:0"]

        code = run_cli([command, "config.yaml", "--run-dir", "run", option, taken, *free])

    err = capfd.readouterr().err
    assert code == 2
    assert err.startswith(f"error: cannot listen on '{taken}': ")
    assert err.endswith(f"another {option}.\n")
    assert err.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize("command", ["train", "server"])
def test_a_directory_of_another_run_is_refused_and_stays_as_it_is(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny(run={"seed": 7}, outer={"lr": 0.5})
    Path("other.yaml").write_text(configuration.to_text(other))
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}

    sentence = refused(capsys, command, "other.yaml", "--run-dir", str(run))

    assert "holds another run" in sentence
    assert "run.seed (7, not 1)" in sentence
    assert "outer.lr (0.5, not 0.01)" in sentence
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("command", "options", "rounds", "words"),
    [
        ("train", ["--no-resume"], 6, "holds a run already"),
        ("server", ["--no-resume"], 6, "holds a run already"),
        ("server", [], 5, "has 6 rounds, run.rounds is 5"),
    ],
)
def test_a_run_that_cannot_go_on_is_refused_and_stays_as_it_is(
    command: str,
    options: list[str],
    rounds: int,
    words: str,
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("config.yaml").write_text(configuration.to_text(tiny(run={"rounds": rounds})))
    state = (run / "config.yaml").read_text(), (run / "epoch").read_text()

    sentence = refused(capsys, command, "config.yaml", "--run-dir", str(run), *options)

    assert words in sentence
    assert ((run / "config.yaml").read_text(), (run / "epoch").read_text()) == state


def test_a_folder_with_other_files_is_not_taken_for_a_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_bytes(b"")

    sentence = refused(capsys, "train", "--run-dir", "photos", *sets(*SINUSOID))

    assert "'photos' holds other files (holiday.jpg)" in sentence


def test_listening_openly_without_a_token_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("config.yaml").write_text(configuration.to_text(tiny()))

    sentence = refused(capsys, "server", "config.yaml", "--run-dir", "run", "--listen", "0.0.0.0:0")

    assert "refused to listen on '0.0.0.0:0'" in sentence


@pytest.mark.parametrize("version", [(3, 9, 18), (2, 7, 18)])
def test_an_old_python_is_refused_before_anything_is_imported(
    version: tuple[int, ...], tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.version_info = {version!r}; sys.version = 'OLD (main)'\n"
        "import runpy; runpy.run_module('dmaml.deploy.cli', run_name='__main__')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 2
    assert done.stderr == (
        "error: Python OLD is too old: dmaml needs 3.10 or newer (3.11 is the reference).\n"
    )


# -- what is printed -----------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Return the JSON object that is all a command prints on stdout."""
    assert run_cli([*arguments]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_data_list_names_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "data", "list", "--json")

    assert {"glyphs", "sinusoid", "omniglot"} <= {source["source"] for source in found["sources"]}
    assert found["places"]
    assert run_cli(["data", "list"]) == 0
    assert "glyphs" in capsys.readouterr().out


def test_data_path_prints_where_a_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "omniglot28.npz").write_bytes(b"anything")

    assert run_cli(["data", "path", "omniglot", "--data-dir", str(tmp_path)]) == 0

    assert capsys.readouterr().out == f"{tmp_path / 'omniglot28.npz'}\n"


def test_the_operator_commands_print_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveServer(tiny(run={"rounds": 10**6}), tmp_path / "run") as live:
        server = ["--server", live.target]

        assert printed(capsys, "status", *server, "--json")["state"] == "EMPTY"
        worker = Worker(live.config, live.target)
        while printed(capsys, "status", *server, "--json")["version"] < 2:
            pass
        assert printed(capsys, "pause", *server, "--json")["state"] == "PAUSED"
        assert printed(capsys, "resume", *server, "--json")["state"] == "RUNNING"
        saved = printed(capsys, "checkpoint", *server, "--json")
        assert saved["version"] >= 2
        assert len(saved["theta_sha256"]) == 64
        assert printed(capsys, "drain", *server, "--json")["state"] in ("DRAINING", "FINISHED")
        worker.join()
        status = printed(capsys, "status", *server, "--json")
        assert printed(capsys, "watch", *server, "--json")["state"] == "FINISHED"
        assert run_cli(["status", *server]) == 0
        text = capsys.readouterr().out

    assert status["state"] == "FINISHED"
    assert status["tasks_seen"] == 4 * status["version"]
    assert all(isinstance(status[key], int) for key in ("round", "epoch", "durable_round"))
    assert "run 'tiny': finished" in text


def test_evaluate_prints_the_figures_of_a_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "evaluate", str(run), "--tasks", "30", "--steps", "2", "--json")
    again = printed(capsys, "evaluate", str(run), "--tasks", "30", "--steps", "2", "--json")

    assert found == again
    assert found["theta_sha256"] == digest_of(run)
    assert found["version"] == 6
    assert len(found["test"]["mse"]) == len(found["test"]["ci95"]) == 3
    assert found["test"]["tasks"] == 30
    assert run_cli(["evaluate", str(run), "--tasks", "30", "--checkpoint", "best"]) == 0
    assert "mse ± 95 %" in capsys.readouterr().out


def test_what_ray_prints_in_training_is_no_part_of_the_report(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "train", lambda *_: print("(raylet) WARNING: 8 workers"))
    monkeypatch.setattr("dmaml.deploy.train.interrupt_on_sigterm", lambda: None)
    config = run / "config.yaml"

    code = run_cli(["train", str(config), "--run-dir", str(run), "--json"])

    out, err = capsys.readouterr()
    assert code == 0
    assert json.loads(out)["run_dir"] == str(run)
    assert "8 workers" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "newest"], "--checkpoint 'newest' is unknown. Known: latest, best"),
        (["--split", "tets"], "'tets'"),
        (["--steps", "100000"], "100000"),
        (["--tasks", "0"], "--tasks"),
    ],
)
def test_bad_options_of_evaluate_are_refused(
    options: list[str], words: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "evaluate", str(run), *options)


def test_an_interrupt_is_a_word_and_not_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dmaml.deploy.control.run", interrupt)

    assert run_cli(["status", "--server", "127.0.0.1:1"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_server_imports_no_ray_no_worker_and_no_pictures(tmp_path: Path) -> None:
    code = (
        "import sys, dmaml.deploy.cli, dmaml.deploy.serve\n"
        "heavy = ('ray', 'dmaml.worker', 'dmaml.learner', 'matplotlib', 'sklearn', 'PIL')\n"
        "print(sorted(name for name in heavy if name in sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_command_is_installed_and_says_what_there_is(tmp_path: Path) -> None:
    done = dmaml("--help", cwd=tmp_path)

    assert done.returncode == 0
    assert done.stderr == ""
    for command in ("train", "server", "workers", "status", "evaluate", "data"):
        assert f"\n  {command} " in done.stdout
