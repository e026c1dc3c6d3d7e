"""What a sweep keeps of a clustered run: scores, names of units, figures of each origin."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dmaml.common import checkpoint as checkpoints
from dmaml.common.config import RunConfig
from dmaml.common.errors import RunDirectoryError
from dmaml.deploy import cluster
from dmaml.learner import Learner, load
from dmaml.server import clustering
from dmaml.server.clustering import tree
from dmaml.server.clustering.kmeans import shares
from dmaml.worker import tasks
from tests.unit.saved_runs import config_of, saved

TASK = {
    "source": "mixed", "n_way": 2, "k_shot": 1, "image_size": 28,
    "options": {
        "sources": [{"source": "glyphs", "classes": 30}, {"source": "textures", "classes": 20}],
        "channels": 1,
    },
}  # fmt: skip


def clustered(folder: Path, wrong: int = 0) -> tuple[RunConfig, Path]:
    """Write a run whose γ has the origins, but for `wrong` units of the first one."""
    kmeans = {"name": "kmeans", "pipelines": 2}
    evaluation = {"steps": 1, "test_tasks": 8}
    config = config_of(task=TASK, clustering=kmeans, evaluation=evaluation)
    run = saved(config, folder, pipelines=2)
    source = tasks.build(config)
    units = source.split("train")
    assert source.origin is not None
    labels = source.origin[units]
    labels[np.flatnonzero(labels == 0)[:wrong]] = 1
    written, _ = checkpoints.load_latest(run)
    assert written is not None
    written.tensors["clustering.gamma"] = shares(units, labels, source.num_units)
    nodes, tried = tree.opened(tree.roots(1), 0, 1, 0), {"2": 0.25, "3": 0.125}
    values = {"version": 1, "tree": nodes, "silhouettes": tried}
    written.meta["clustering"] = values
    checkpoints.write(run / checkpoints.GENERATIONS[0], written)
    return config, run


def test_a_summary_has_recovery_and_the_names_of_few_units(tmp_path: Path) -> None:
    _, run = clustered(tmp_path / "run", wrong=3)

    found = cluster.summary(run, None)

    assert found["origins"] == ["glyphs", "textures"]
    assert found["recovery"] == pytest.approx([18 / 21, 1.0])
    assert [len(row["names"]) for row in found["pipelines"]] == [18, 17]
    assert all(name.startswith("glyphs: ") for name in found["pipelines"][0]["names"])
    assert found["wall_s"] == 0.0  # no record
    assert "history" not in found


def test_each_origin_is_tested_on_tasks_of_its_own(tmp_path: Path) -> None:
    config, run = clustered(tmp_path / "run")

    found = cluster.test_by_origin(run, None)

    assert list(found) == ["glyphs", "textures"]
    assert all(one["tasks"] == 8 for one in found.values())
    assert found["glyphs"]["accuracy"] != found["textures"]["accuracy"]
    options = config.task.options | {"only": {"test": "textures"}}
    task = config.task.model_copy(update={"options": options})
    checkpoint, _ = checkpoints.load_latest(run)
    assert checkpoint is not None
    alone = Learner(config.model_copy(update={"task": task}), checkpoint, None)
    assert alone.evaluate(8, 1) == found["textures"]
    assert load(run).evaluate(8, 1)["accuracy"] != found["textures"]["accuracy"]


def test_time_in_which_a_run_was_stopped_does_not_count() -> None:
    assert cluster.spans([10.0, 1000.0, 2000.0], [12.0, 15.0, 1004.0]) == 5.0 + 4.0 + 0.0
    assert cluster.spans([], []) == 0.0


def test_gamma_that_is_not_known_yet_is_even(tmp_path: Path) -> None:
    options = {"meta_train_iterations": 1, "update_iterations": 1, "cycles": 1}
    section = {"name": "gamma", "pipelines": 2, "options": options}
    config = config_of(task=TASK, clustering=section)
    run = saved(config, tmp_path / "run", pipelines=2)
    written, _ = checkpoints.load_latest(run)
    assert written is not None
    written.meta["clustering"] = dict(clustering.build(config).initial().values)
    checkpoints.write(run / checkpoints.GENERATIONS[0], written)

    found = cluster.describe(run, None)

    halves = [row["expected_units"] for row in found["pipelines"]]
    assert halves == pytest.approx([found["num_units"] / 2] * 2)
    with pytest.raises(RunDirectoryError, match="has 2 pipelines and no γ yet"):
        cluster.write_similarity(run, None, tmp_path / "similarity.csv")
    assert not (tmp_path / "similarity.csv").exists()


def test_the_silhouette_of_each_number_of_clusters_is_shown(tmp_path: Path) -> None:
    _, run = clustered(tmp_path / "run")

    found = cluster.describe(run, None)
    console = Console(width=200, record=True, file=io.StringIO())
    for part in cluster.tables(found):
        console.print(part)

    assert found["silhouettes"] == {"2": 0.25, "3": 0.125}
    assert re.search(r"silhouette of 3 clusters\W+0\.125", console.export_text())
