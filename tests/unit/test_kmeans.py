"""K-means of samples: shares of units by hand, K by silhouette, options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmaml.common.config import from_mapping, resolve
from dmaml.common.errors import ConfigError
from dmaml.common.probes import Probe, ProbeKind
from dmaml.report.scores import score
from dmaml.server import clustering
from dmaml.server.clustering.base import Clustering, Observations
from dmaml.server.clustering.kmeans import by_size, shares
from dmaml.server.core.progress import Progress
from dmaml.worker import tasks
from dmaml.worker.probes.features import features

THREE = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])


def kmeans(pipelines: int = 2, most: int | None = None, **options: Any) -> Clustering:
    section = {
        "name": "kmeans", "pipelines": pipelines, "max_pipelines": most, "options": options
    }  # fmt: skip
    return clustering.build(resolve(from_mapping({"clustering": section})))


def observed(units: list[int], values: Any, num_units: int, trained: int = 0) -> Observations:
    probe = Probe(ProbeKind.PIXELS, samples=1)
    rows = np.asarray(values, dtype=np.float32)
    return Observations(probe, trained, (0,), num_units, np.array(units), rows)


def test_clusters_are_numbered_by_size_and_then_by_appearance() -> None:
    assert by_size(np.array([2, 0, 0, 2, 1, 0])).tolist() == [1, 0, 0, 1, 2, 0]
    assert by_size(np.array([1, 0, 0, 1])).tolist() == [0, 1, 1, 0]


def test_gamma_is_the_share_of_samples_and_uniform_where_there_are_none() -> None:
    gamma = shares(np.array([3, 3, 3, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1]), 4)

    assert gamma.dtype == np.float32
    assert gamma.tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5], pytest.approx([2 / 3, 1 / 3])]


def test_the_majority_of_samples_decides_and_the_others_stay_visible() -> None:
    strategy = kmeans()
    values = [[0.0], [0.1], [9.0], [9.1], [9.2], [9.0]]

    state = strategy.observe(strategy.initial(), observed([0, 0, 0, 1, 1, 1], values, 3))

    gamma = strategy.route(state)
    assert gamma.version == 1
    assert gamma.matrix.tolist() == [pytest.approx([1 / 3, 2 / 3]), [1.0, 0.0], [0.5, 0.5]]
    assert [gamma.route(np.array([0, 1]), p).tolist() for p in (0, 1)] == [[1], [0]]


def test_centres_are_kept_in_the_order_of_the_pipelines() -> None:
    strategy = kmeans(dims=9)
    values = [[4.0, 1.0], [4.0, 3.0], [0.0, 1.0], [0.0, 3.0], [1.0, 2.0]]

    state = strategy.observe(strategy.initial(), observed([0, 1, 2, 3, 4], values, 5))

    assert state.arrays["centres"].dtype == np.float32
    assert state.arrays["centres"].tolist() == [pytest.approx([1 / 3, 2.0]), [4.0, 2.0]]
    assert (state.values["features"], state.values["dims"]) == ("pixels", 9)


def test_other_pipelines_are_opened_as_children_of_the_first() -> None:
    strategy = kmeans(3)
    values = np.repeat(THREE, 4, axis=0)

    state = strategy.observe(strategy.initial(), observed(list(range(12)), values, 12, trained=5))

    gamma = strategy.route(state)
    assert gamma.pipelines == (0, 1, 2)
    assert [(n.number, n.parent, n.opened_round) for n in gamma.tree] == [
        (0, -1, 0), (1, 0, 5), (2, 0, 5)
    ]  # fmt: skip


def test_silhouette_chooses_the_number_that_is_there() -> None:
    strategy = kmeans(1, 6, choose="silhouette")
    noise = np.random.default_rng(1).normal(size=(60, 2))
    values = np.repeat(THREE, 20, axis=0) + 0.3 * noise

    state = strategy.observe(strategy.initial(), observed(list(range(60)), values, 60))

    assert len(strategy.route(state).pipelines) == 3
    assert sorted(state.values["silhouettes"]) == ["2", "3", "4", "5", "6"]


def test_it_asks_once_and_after_the_warm_up() -> None:
    strategy = kmeans(warmup=2, features="embedding", samples=4, dims=0)
    state = strategy.initial()

    asked = [strategy.plan(state, Progress(trained=n)) for n in range(4)]
    after = strategy.observe(state, observed([0, 1], [[0.0], [1.0]], 2))

    probe = Probe(ProbeKind.EMBEDDING, samples=4)
    assert asked == [None, None, probe, probe]
    assert strategy.plan(after, Progress(trained=4)) is None


def test_adapted_weights_are_asked_for_once_the_units_are_known() -> None:
    strategy = kmeans(warmup=2, features="adapted", samples=3, dims=8)
    state, units = strategy.initial(), np.arange(11)

    asked = [strategy.plan(state, Progress(trained=n)) for n in (1, 2)]
    nothing = np.empty((0, 0), dtype=np.float32)
    seen = Observations(Probe(ProbeKind.UNITS), 2, (0,), 20, units, nothing)
    known = strategy.observe(state, seen)
    then = strategy.plan(known, Progress(trained=2))
    rows = np.repeat(units % 2, 3)[:, None] * np.ones((1, 8))
    found = strategy.observe(known, observed(np.repeat(units, 3).tolist(), rows, 20, trained=2))

    assert asked == [None, Probe(ProbeKind.UNITS)]
    assert strategy.route(known).version == 0
    assert then == Probe(ProbeKind.SKETCHES, tasks=7, dims=8)  # 3 x 11 units in tasks of 5
    assert strategy.route(found).matrix[units].argmax(axis=1).tolist() == (units % 2).tolist()
    assert found.values["features"] == "adapted"
    assert strategy.plan(found, Progress(trained=3)) is None


def test_whitened_features_show_groups_beside_columns_of_noise() -> None:
    random = np.random.default_rng(1)
    units = np.repeat(np.arange(40), 10)
    kinds = np.arange(40) % 2
    rows = np.stack([kinds[units] + 0.1 * random.normal(size=400), 9 * random.normal(size=400)], 1)
    found = {}
    for whiten in ("none", "noise"):
        strategy = kmeans(whiten=whiten)
        state = strategy.observe(strategy.initial(), observed(units, rows, 40))
        found[whiten] = score(strategy.route(state).matrix, kinds)["recovery"]

    assert found["noise"] == [1.0, 1.0]
    assert min(found["none"]) < 0.9
    assert state.values["features"] == "pixels, whitened"  # no centres of pixels


def test_glyphs_and_textures_are_told_apart_where_all_pictures_have_the_same_values() -> None:
    options = {"sources": ["glyphs", "textures"], "channels": 1, "equalise": True}
    task = {"source": "mixed", "image_size": 28, "options": options}
    kmeans = {"name": "kmeans", "pipelines": 2}
    config = resolve(from_mapping({"task": task, "clustering": kmeans}))
    source = tasks.build(config)
    strategy, units = clustering.build(config), source.split("train")[::8]
    probe = strategy.plan(strategy.initial(), Progress())
    assert probe is not None

    values = features(config, source, probe, 0, units, {})
    rows = np.repeat(units, probe.samples)
    observations = Observations(probe, 0, (0,), source.num_units, rows, values)
    gamma = strategy.route(strategy.observe(strategy.initial(), observations)).matrix

    assert source.origin is not None
    assert min(score(gamma[units], source.origin[units])["recovery"]) >= 0.99


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": "colour"}, "unknown features 'colour'"),
        ({"whiten": "all"}, "unknown whiten 'all'"),
        ({"whiten": "noise", "samples": 1}, "samples = 1 with whiten 'noise': required 2"),
        ({"samples": 0}, "samples = 0: required a whole number >= 1"),
        ({"choose": "silhouette"}, None),
        ({"pipelines": 1}, "clustering.pipelines must be 2 or more"),
        ({"pipelines": 1, "choose": "silhouette"}, "clustering.max_pipelines must be 2 or more"),
        ({"restarts": 1.5}, "restarts = 1.5"),
        ({"features": "adapted", "dims": 0}, "dims = 0: required a whole number >= 1"),
    ],
)
def test_unsuitable_options_are_one_sentence(options: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert kmeans(**options) is not None
        return
    with pytest.raises(ConfigError, match=words):
        kmeans(**options)
