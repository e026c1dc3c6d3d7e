"""What docs/learner.md shows is what happens."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.unit.saved_runs import config_of, saved

PAGE = Path(__file__).parents[2] / "docs" / "learner.md"
torch.set_num_threads(1)


def drawing(name: str) -> np.ndarray:
    """Return a picture, black on white."""
    picture = Image.new("L", (28, 28), "white")
    pen = ImageDraw.Draw(picture)
    if name == "circle":
        pen.ellipse((5, 5, 22, 22), outline=0, width=3)
    elif name == "cross":
        pen.line((4, 14, 24, 14), fill=0, width=3)
        pen.line((14, 4, 14, 24), fill=0, width=3)
    else:
        pen.line((5, 24, 9, 4), fill=0, width=3)
    return np.asarray(picture)


def test_the_page_on_the_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(
        config_of(
            algorithm={"name": "protonet", "inner_lr": 0.4},
            model={"name": "mlp", "hidden": [16], "width": 64},
        ),
        tmp_path / "runs" / "mine",
    )
    saved(config_of(), tmp_path / "runs" / "several", pipelines=2, shake=0.3)
    (tmp_path / "my" / "query").mkdir(parents=True)
    for name in ("circle", "cross", "stroke"):
        (tmp_path / "my" / "support" / name).mkdir(parents=True)
        Image.fromarray(drawing(name)).save(tmp_path / "my" / "support" / name / "1.png")
    for number, name in enumerate(("circle", "cross", "cross", "stroke")):
        Image.fromarray(drawing(name)).resize((100, 100)).save(
            tmp_path / "my" / "query" / f"{number}.png"
        )

    failed, tried = doctest.testfile(
        str(PAGE), module_relative=False, globs={"drawing": drawing}, encoding="utf-8"
    )

    assert tried > 15
    assert failed == 0
