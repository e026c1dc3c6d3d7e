"""docs/tasks.md and the configurations: every source is there, and what is written is true."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.worker.tasks import SOURCES, build, parse
from dmaml.worker.tasks.base import SPLITS, TaskSource
from dmaml.worker.tasks.episodes import require_episode
from dmaml.worker.tasks.locate import find

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FILES = {
    **{"omniglot": "omniglot28.npz", "cifar_fs": "cifar100.npz", "fc100": "cifar100.npz"},
    **{"cifar10": "cifar10.npz", "mnist": "mnist.npz", "fungi": "fungi12_28.npz"},
    "miniimagenet": "miniimagenet84_jpeg.npz",
    "npz:miniimagenet28.npz": "miniimagenet28.npz",
}
DATA = os.environ.get("DMAML_DATA", "")


def require_buildable(config: RunConfig) -> None:
    """Build the source, where its file is here, and ask for the episodes of a run."""
    parse(config.task.source)
    file = FILES.get(config.task.source)
    if file is not None and find(file) is None:
        pytest.skip(f"needs {file} in $DMAML_DATA")
    source, task = build(config), config.task
    require_episode(source, "train", task.n_way, task.k_shot, task.k_query)
    for split in ("validation", "test"):
        require_episode(source, split, task.n_way, task.k_shot, config.evaluation.k_query)


def sizes(**task: Any) -> list[int]:
    file = FILES.get(task["source"])
    if file is not None and not Path(DATA, file).is_file():
        pytest.skip(f"needs {file} in $DMAML_DATA")
    source: TaskSource = build(configuration.from_mapping({"task": task}))
    return [len(source.split(name)) for name in SPLITS]


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("source: ")[1][:12])
def test_every_example_of_the_page_can_be_run(text: str) -> None:
    require_buildable(configuration.from_text(text, "docs/tasks.md"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_configuration_can_be_run(file: Path) -> None:
    require_buildable(configuration.load(file))


def test_every_source_has_an_example_or_a_page() -> None:
    shown = {configuration.from_text(text, "page").task.source for text in EXAMPLES}

    assert set(SOURCES) - {"npz", "folder"} == shown
    assert all(f"`{name}" in PAGE for name in SOURCES)


def test_the_links_of_the_page_lead_somewhere() -> None:
    anchors = {re.sub(r"\W+", "-", line.lower()) for line in re.findall(r"^## (.*)$", PAGE, re.M)}

    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        assert (ROOT / "docs" / path).exists(), target
        assert path or anchor in anchors, target
    for config in re.findall(r"`(configs/\w+\.yaml)`", PAGE):
        assert (ROOT / config).is_file(), config


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"source": "glyphs", "unit": "alphabet"}, "38 / 10 / 12"),
        ({"source": "textures", "unit": "alphabet"}, "30 / 8 / 10"),
        ({"source": "function_families", "n_way": 1}, "2,560 / 640 / 800"),
        ({"source": "omniglot"}, "1,100 / 100 / 423"),
        ({"source": "omniglot", "splits": "official"}, "868 / 96 / 659"),
        ({"source": "omniglot", "unit": "alphabet"}, "32 / 8 / 10"),
        ({"source": "omniglot", "unit": "alphabet", "splits": "official"}, "27 / 3 / 20"),
        (
            {"source": "omniglot", "unit": "alphabet", "options": {"training_alphabets": 35}},
            "35 / 5 / 10",
        ),
        ({"source": "miniimagenet"}, "64 / 16 / 20"),
        ({"source": "cifar_fs"}, "64 / 16 / 20"),
        ({"source": "fc100"}, "60 / 20 / 20"),
        ({"source": "fc100", "unit": "alphabet"}, "12 / 4 / 4"),
        ({"source": "mnist"}, "10 / 10 / 10"),
        ({"source": "fungi", "n_way": 2}, "8 / 2 / 2"),
    ],
    ids=str,
)
def test_the_splits_have_the_sizes_that_the_page_says(task: dict[str, Any], expected: str) -> None:
    assert " / ".join(f"{size:,}" for size in sizes(**task)) == expected
    assert expected in " ".join(PAGE.split())
