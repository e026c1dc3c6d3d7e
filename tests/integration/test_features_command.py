"""`dmaml report features` on real, tiny runs: what it writes, and what it refuses."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dmaml.deploy.cli import run_cli
from tests.integration.harness import tiny, train

PICTURES = (
    "classes", "cka", "curves_0", "curves_1", "features", "filters", "neurons_norm0",
    "neurons_norm1", "saliency",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A MAML run on pictures of noise, the same network trained plainly, and one of regression."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    np.savez(
        folder / "noise.npz",
        images=rng.integers(0, 256, (240, 4, 4)).astype(np.uint8),
        labels=np.repeat(np.arange(30, dtype=np.int32), 8),
        class_names=np.array([f"c{c}" for c in range(30)]),
        split=np.repeat(np.array([0, 1, 2], dtype=np.int8), 10),
    )
    same = {
        "task": {"source": f"npz:{folder / 'noise.npz'}", "n_way": 2, "k_shot": 2, "k_query": 2},
        "model": {"name": "mlp", "hidden": [8, 6], "batch_norm": True},
        "evaluation": {"k_query": 2, "steps": 1},
    }
    plain = {"name": "pretrain", "inner_lr": 0.1, "inner_steps": 0}
    train(tiny(**same), folder / "maml")
    train(tiny(**same, algorithm=plain), folder / "plain")
    train(tiny(), folder / "waves")
    return folder / "maml", folder / "plain", folder / "waves"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(["report", *arguments]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(Path().rglob("*"))
    return err


@pytest.mark.e2e
def test_one_command_makes_every_picture_and_the_same_again(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    maml, plain, _ = runs
    options = ("--against-steps", "3", "--against-lr", "0.2", "--tasks", "2", "--json")

    for out in ("one", "two"):
        command = ["report", "features", str(maml), "--against", str(plain), "--out", out]
        assert run_cli([*command, *options]) == 0

    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    html = Path("one/report.html").read_text()
    assert said["pictures"] == sorted(f"{n}.{kind}" for n in PICTURES for kind in ("png", "svg"))
    assert len(html) < 5e6
    assert not re.search(r"https?:", html)
    assert "<td>plain training</td><td>3</td>" in html  # its steps
    for name in said["pictures"]:
        one, two = (Path(out, "pictures", name).read_bytes() for out in ("one", "two"))
        assert one == two
    assert html == Path("two/report.html").read_text()


def test_a_run_by_itself_is_studied_too(runs: tuple[Path, Path, Path]) -> None:
    assert run_cli(["report", "features", str(runs[0]), "--tasks", "1", "--out", "alone"]) == 0

    assert Path("alone/pictures/cka.svg").is_file()
    assert not Path("alone/pictures/curves_1.svg").exists()


def test_bad_input_is_one_sentence_and_no_file(
    runs: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    maml, plain, waves = (str(run) for run in runs)

    assert "required one RUN, found 0" in refused(capsys, "features")
    assert "required one RUN, found 2" in refused(capsys, "features", maml, plain)
    assert "no --against" in refused(capsys, "features", maml, "--against-lr", "0.1")
    assert "for a feature study" in refused(capsys, maml, "--against", plain)
    assert "for a feature study" in refused(capsys, maml, "--steps", "0")
    assert "given twice" in refused(capsys, "features", maml, "--against", maml)
    assert "learns regression" in refused(capsys, "features", waves)
    assert "learns regression" in refused(capsys, "features", maml, "--against", waves)
    assert "steps 1001" in refused(capsys, "features", maml, "--steps", "1001")
    assert "inner_lr -1.0" in refused(
        capsys, "features", maml, "--against", plain, "--against-lr", "-1"
    )
    assert "nowhere" in refused(capsys, "features", "nowhere")
