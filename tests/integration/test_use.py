"""`dmaml adapt` and `dmaml export`: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from dmaml.deploy.cli import run_cli
from dmaml.learner import load
from tests.unit.saved_runs import config_of, saved

torch.set_num_threads(1)
CLASSES = ("bar", "[red]box", "ring")  # a name that rich would take for markup


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prototypical network: untrained features tell these drawings apart."""
    config = config_of(algorithm={"name": "protonet", "inner_lr": 0.4})
    return saved(config, tmp_path_factory.mktemp("run"), shake=0.0)


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAML: tied to three classes."""
    return saved(config_of(), tmp_path_factory.mktemp("tied"))


def picture(name: str, shift: int) -> Image.Image:
    """Return a drawing, black on white, 60 pixels square."""
    made = Image.new("L", (60, 60), "white")
    pen = ImageDraw.Draw(made)
    if name == "bar":
        pen.line((10 + shift, 5, 10 + shift, 55), fill=0, width=6)
    elif name == "ring":
        pen.ellipse((10 + shift, 10, 50, 50), outline=0, width=5)
    else:
        pen.rectangle((10 + shift, 10, 50, 50), fill=0)
    return made


def folder(root: Path, classes: tuple[str, ...] = CLASSES, shift: int = 0) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(2):
            picture(name, shift + number).save(root / name / f"{number}.png")
    return root


def adapted(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Return what `--json` prints."""
    assert run_cli([*map(str, words), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_pictures_are_classified_and_the_accuracy_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = folder(tmp_path / "support")
    query = folder(tmp_path / "query", shift=2)

    found = adapted(capsys, "adapt", run, "--support", support, "--query", query)

    expected = load(run).adapt(support).predict(query)
    assert found["classes"] == sorted(CLASSES)
    assert [one["label"] for one in found["queries"]] == expected.labels
    assert [one["class"] for one in found["queries"]] == sorted(CLASSES * 2)
    assert [one["file"] for one in found["queries"]] == [
        str(query / name / f"{number}.png") for name in sorted(CLASSES) for number in range(2)
    ]
    probabilities = [one["probabilities"] for one in found["queries"]]
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)
    assert found["accuracy"] == 1.0
    assert found["num_queries"] == 6


def test_a_flat_folder_has_no_accuracy_and_a_table_shows_names_as_they_are(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = folder(tmp_path / "support")
    flat = support / "[red]box"
    words = ["adapt", str(run), "--support", str(support), "--query", str(flat)]

    found = adapted(capsys, *words)
    assert run_cli(words) == 0

    shown = capsys.readouterr().out
    assert "accuracy" not in found
    assert "class" not in found["queries"][0]
    assert "[red]box: 2" in shown


def test_the_adapted_model_is_written_and_gives_what_was_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = folder(tmp_path / "support")
    query = folder(tmp_path / "query", shift=2)
    words = ("--support", support, "--query", query, "--out", "new/model.safetensors")

    found = adapted(capsys, "adapt", run, *words)
    other = adapted(capsys, "export", run, "--support", support, "--out", "other.safetensors")

    learner = load(run)
    module = learner.adapt(support).module()
    module.load_state_dict(load_file(found["out"]))
    with torch.no_grad():
        probabilities = module(learner._inputs.queries(query))
    expected = [one["probabilities"] for one in found["queries"]]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert Path(other["out"]).stat().st_size == other["bytes"]
    first, second = (load_file(path) for path in (found["out"], other["out"]))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_the_network_before_adaptation_is_written(
    tied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = adapted(capsys, "export", tied, "--out", "start.safetensors")

    state = load_file(found["out"])
    assert torch.equal(state["head.bias"], load(tied).params["head.bias"])


def test_a_run_with_several_pipelines_tells_which_one_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = saved(config_of(), tmp_path / "several", pipelines=2, shake=0.3)
    support = folder(tmp_path / "support")
    words = ("adapt", several, "--support", support, "--query", support)

    routed = adapted(capsys, *words)
    other = 1 - routed["pipeline"]
    named = adapted(capsys, *words, "--pipeline", other)
    assert run_cli([*map(str, words), "--pipeline", str(other)]) == 0
    shown = capsys.readouterr().out
    start = adapted(capsys, "export", several, "--pipeline", 1, "--out", "start.safetensors")

    assert routed["pipeline"] == load(several).adapt(support).pipeline
    assert set(routed["posterior"]) == {"0", "1"}
    assert sum(routed["posterior"].values()) == pytest.approx(1.0)
    assert (named["pipeline"], named["posterior"]) == (other, routed["posterior"])
    assert named["queries"] != routed["queries"]
    assert f"pipeline {other} (posterior 0: {routed['posterior']['0']:.3f}, 1: " in shown
    bias = load_file(start["out"])["head.bias"]
    assert torch.equal(bias, load(several).pipelines[1]["head.bias"])
    for command in ("adapt", "export"):
        asked = [command, str(several), "--support", str(support), "--pipeline", "7"]
        assert run_cli([*asked, "--out", "no.safetensors"]) == 2
        assert "pipeline 7 is unknown. Known: 0, 1." in capsys.readouterr().err


def bad_pictures(root: Path) -> Path:
    """Return a support set with a picture that is cut off."""
    folder(root)
    file = root / "bar" / "1.png"
    file.write_bytes(file.read_bytes()[:60])
    return root


def gigantic(root: Path) -> Path:
    """Return a support set with a picture of 100 million pixels."""
    Image.new("1", (10_000, 10_000)).save(folder(root) / "bar" / "2.png")
    return root


def empty(root: Path) -> Path:
    root.mkdir()
    return root


def a_file(root: Path) -> Path:
    picture("bar", 0).save(root, format="png")
    return root


BAD: dict[str, tuple[Any, str]] = {
    "no folder": (lambda root: root, "was not found"),
    "an empty folder": (empty, "holds no pictures"),
    "one class": (lambda root: folder(root, CLASSES[:1]), "found 1 class, required at least 2"),
    "a broken picture": (bad_pictures, "1.png' cannot be read"),
    "a gigantic picture": (gigantic, "2.png' has 10,000 x 10,000 pixels; at most 50,000,000"),
    "a file": (a_file, "is a file. Required a folder with a folder for each class"),
    "fewer classes": (lambda root: folder(root, CLASSES[:2]), "exactly 3. Give 3 classes"),
    "more classes": (lambda root: folder(root, (*CLASSES, "d")), "found 4 classes"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_support_set_is_one_sentence_and_no_file(
    what: str, tied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[what]
    support = str(make(tmp_path / "support"))
    before = sorted(tmp_path.rglob("*"))

    for command in ("adapt", "export"):
        arguments = [command, str(tied), "--support", support, "--out", "model.safetensors"]
        assert run_cli(arguments) == 2

        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert words in err
        assert str(tmp_path / "support") in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["adapt", "nowhere", "--support", "s", "--query", "q"], "'nowhere' holds no run"),
        (["export", "nowhere", "--out", "a.safetensors"], "'nowhere' holds no run"),
        (["export", "RUN", "--out", "a.pt"], "ends in .safetensors or .onnx"),
        (["export", "RUN", "--out", "folder.onnx"], "'folder.onnx' is a folder. Give the name"),
        (
            ["export", "RUN", "--out", "s/bar/0.png/a.safetensors"],
            "s/bar/0.png' is no folder. Give another place",
        ),
        (["export", "RUN", "--out", "a.safetensors", "--steps", "3"], "--steps without --support"),
        (["adapt", "RUN", "--support", "s"], "nothing to do"),
        (["adapt", "RUN", "--support", "s", "--query", "none"], "query: folder 'none' was not"),
        (["adapt", "RUN", "--support", "s", "--query", "other"], "has the class 'zebra'"),
        (
            ["adapt", "RUN", "--support", "s", "--query", "s", "--checkpoint", "bset"],
            "Known: latest, best",
        ),
        (
            ["adapt", "RUN", "--support", "s", "--query", "s", "--checkpoint", "best"],
            "has no best checkpoint",
        ),
    ],
)
def test_other_bad_input_is_one_sentence(
    words: list[str], sentence: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(tmp_path / "s")
    folder(tmp_path / "other", ("zebra",))
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(tmp_path.rglob("*"))

    assert run_cli([str(run) if word == "RUN" else word for word in words]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert sentence in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("when", ["fsync", "replace"])
def test_an_interrupt_while_writing_leaves_the_file_that_was_there(
    when: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    support = folder(tmp_path / "support")
    (tmp_path / "model.safetensors").write_text("what was there")
    before = sorted(tmp_path.rglob("*"))

    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"os.{when}", interrupt)
    words = ["export", str(run), "--support", str(support), "--out", "model.safetensors"]

    assert run_cli(words) == 130

    assert "".join(capsys.readouterr()) in ("", "interrupted\n")
    assert (tmp_path / "model.safetensors").read_text() == "what was there"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupt_right_after_writing_is_no_other_error(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def replace_and_interrupt(source: str, target: str) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", replace_and_interrupt)

    assert run_cli(["export", str(run), "--out", "model.safetensors"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert load_file("model.safetensors")
