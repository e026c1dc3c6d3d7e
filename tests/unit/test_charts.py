"""Drawing: whatever an experiment comes to becomes two files; the same data give the same SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmaml.report.bands import Band
from dmaml.report.charts import Line, Lines, Matrix, Picture, draw

X = np.array([1.0, 2.0, 4.0])
TWO = (
    Line("one", Band(X, X / 5, X / 50, 3)),
    Line("other", Band(X, X / 8, np.zeros(3), 1), is_reference=True),
)
NUMBERS = Matrix("table", ("a", "b"), ("c", "d"), ((20.0, 70.5), (None, 30.0)), (20.0, 70.5))


@pytest.mark.parametrize(
    "panels",
    [
        (Lines("by round", "rounds", "accuracy", TWO, (0.0, 1.0)),),
        (Lines("by factor", "factor", "seconds", TWO, is_log=True, has_points=True), NUMBERS),
        (Lines("nothing was measured", "rounds", "accuracy", ()),),
        (NUMBERS,) * 4,
    ],
    ids=["lines", "both", "empty", "many"],
)
def test_a_picture_becomes_a_png_and_an_svg(panels: tuple[Lines | Matrix], tmp_path: Path) -> None:
    png, svg = draw(Picture("picture", "a title", panels), tmp_path / "new")

    assert (png.name, svg.name) == ("picture.png", "picture.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_the_same_data_give_the_same_svg(tmp_path: Path) -> None:
    picture = Picture("same", "a title", (Lines("", "x", "y", TWO), NUMBERS))

    first = draw(picture, tmp_path / "1")[1].read_bytes()

    assert draw(picture, tmp_path / "2")[1].read_bytes() == first
