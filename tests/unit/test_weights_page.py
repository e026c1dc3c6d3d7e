"""docs/weights.md: its tables are complete, its figures right, its example works both ways."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from dmaml.common.sections import WeightsSection
from dmaml.server import weights
from dmaml.server.aggregation import RULES
from dmaml.server.weights import GENERATORS

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the page's one block of code in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture(params=["module", "entry point"])
def name(request, tmp_path, monkeypatch) -> str:
    """How a configuration names the example."""
    code = block("python")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_weights.py").write_text(code, encoding="utf-8")
    if request.param == "module":
        return "my_weights:Wins"
    group, entry, thing = re.fullmatch(
        r'\[project\.entry-points\."(.+)"\]\n(\w+) = "(.+)"\n', block("toml")
    ).groups()
    installed = tmp_path / "my_weights-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-weights\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{entry} = {thing}\n")
    importlib.invalidate_caches()
    return entry


def test_the_example_runs_as_the_page_says(name):
    section = WeightsSection(name=name, options={"start": 2})
    generator = weights.build(section)
    losses, slots, fresh = np.array([3.0, 1.0, 2.0]), np.arange(3), np.zeros(3, dtype=np.int64)

    first = generator.weights(losses, slots, fresh)
    resumed = weights.build(section)
    resumed.load(generator.state())

    assert first == pytest.approx(np.array([2, 3, 2]) / 7)
    assert resumed.weights(losses, slots, fresh) == pytest.approx(np.array([2, 4, 2]) / 8)


def test_every_generator_and_rule_has_a_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert rows == set(GENERATORS) | set(RULES)


def test_figures_of_the_example_are_right():
    losses, slots, fresh = np.array([2.0, 3, 8, 19, 20]), np.arange(5), np.zeros(5, dtype=np.int64)
    rows = re.findall(r"^\| `(\w+)`(?:, `form: (\w+)`)? \| ((?:\.\d+ ?){5}) \|", PAGE, re.MULTILINE)

    assert len(rows) == 4
    for name, form, figures in rows:
        section = WeightsSection(name=name, options={"form": form} if form else {})
        found = weights.build(section).weights(losses, slots, fresh)
        assert found == pytest.approx([float(f) for f in figures.split()], abs=6e-4)
