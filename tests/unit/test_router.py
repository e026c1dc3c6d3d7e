"""Which pipeline a new task is for: by losses and by features, and what is told of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.errors import ConfigError
from dmaml.common.gamma import Gamma
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.seeds import Kind, stream
from dmaml.learner import Learner, load
from dmaml.learner.router import Routes, summary
from dmaml.worker import routing, tasks
from dmaml.worker.algorithms.base import Algorithm, Evaluation
from dmaml.worker.discriminant import Discriminant
from dmaml.worker.models.base import Params, params_of
from dmaml.worker.probes.projection import Projection
from dmaml.worker.routing import posterior
from dmaml.worker.tasks.base import TaskBatch
from tests.unit.saved_runs import config_of, saved

torch.set_num_threads(1)
PIXELS = 784


def task(learner: Learner, split: Any = "test") -> tuple[Any, Any, Any]:
    source, shape = learner._answerer.source, learner.config.task
    one = source.sample([stream(1, Kind.TEST)], source.split(split), shape.n_way, shape.k_shot, 4)
    return one.support_x[0], one.support_y[0], one.query_x[0]


def gamma(learner: Learner, *shares: float) -> np.ndarray:
    """Return a γ whose units of training have these shares, and all others belong to the last."""
    source = learner._answerer.source
    matrix = np.zeros((source.num_units, len(shares)), dtype=np.float32)
    matrix[:, -1] = 1.0
    matrix[source.split("train")] = shares
    return matrix


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return load(saved(config_of(), tmp_path_factory.mktemp("one")))


# --- the posterior --------------------------------------------------------------------------


def test_the_posterior_is_the_share_times_the_likelihood_of_the_whole_support_set() -> None:
    found = posterior(np.array([[0.3, 0.1], [0.2, 0.2]]), 5, np.array([0.8, 0.2]))

    first = 0.8 * math.exp(-1.5), 0.2 * math.exp(-0.5)
    assert found[0].tolist() == pytest.approx([value / sum(first) for value in first])
    assert found[1].tolist() == pytest.approx([0.8, 0.2])


def test_losses_in_the_thousands_are_no_overflow() -> None:
    found = posterior(np.array([[9e3, 8e3]]), 25, np.array([0.999, 0.001]))

    assert found.tolist() == [[0.0, 1.0]]


def test_a_pipeline_that_diverged_or_that_no_unit_belongs_to_has_nothing() -> None:
    losses = np.array([[np.nan, 1.0, 0.1], [np.inf, np.nan, 0.1]])

    found = posterior(losses, 2, np.array([0.5, 0.5, 0.0]))

    assert found.tolist() == [[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]


# --- validation, which no γ routes ----------------------------------------------------------


def test_a_diverged_pipeline_answers_no_validation_task(one: Learner) -> None:
    answerer, config = one._answerer, one.config.task
    batch = answerer.source.sample(
        [stream(1, Kind.EVALUATE, index) for index in range(3)],
        answerer.source.split("validation"), config.n_way, config.k_shot, 2,
    )  # fmt: skip
    diverged = {name: torch.full_like(value, math.nan) for name, value in one.params.items()}

    alone = routing.evaluate(answerer.algorithm, [one.params], batch, 1).metrics
    beside = routing.evaluate(answerer.algorithm, [diverged, one.params], batch, 1).metrics

    assert np.isfinite(alone["loss"]).all()
    np.testing.assert_array_equal(beside["loss"], alone["loss"])


# --- by the support loss --------------------------------------------------------------------


FAMILIES: dict[str, dict[str, Any]] = {
    "task": {"source": "function_families", "n_way": 1, "options": {"functions": 250}},
    "model": {"name": "mlp", "hidden": [8]},
    "algorithm": {"inner_lr": 0.01, "inner_steps": 1},
}


def test_of_functions_the_least_support_loss_chooses_and_shares_of_training_units_are_the_prior(
    tmp_path: Path,
) -> None:
    config = configuration.resolve(configuration.from_mapping(FAMILIES))
    arrays = {"gamma": gamma(load(saved(config, tmp_path / "one")), 0.125, 0.5, 0.375)}
    learner = load(saved(config, tmp_path / "run", 3, 0.3, arrays))
    x, y, _ = task(learner)

    found = learner.adapt(x, y, steps=0)

    losses = np.array([learner.adapt(x, y, 0, number).support_loss for number in range(3)])
    weights = np.array([0.125, 0.5, 0.375]) * np.exp(-len(x) * losses)
    assert found.pipeline == losses.argmin()
    assert found.posterior == pytest.approx(dict(enumerate(weights / weights.sum())))


def test_a_pipeline_that_no_unit_is_left_to_or_that_diverged_is_not_chosen(tmp_path: Path) -> None:
    config = configuration.resolve(configuration.from_mapping(FAMILIES))
    free = load(saved(config, tmp_path / "free", 2, 0.3))
    x, y, _ = task(free)
    best = free.adapt(x, y, steps=0).pipeline
    nothing = np.full(sum(one.numel() for one in free.params.values()), np.nan, "<f4")

    for number, arrays in enumerate(
        ({"gamma": gamma(free, *np.eye(2)[1 - best])}, {f"theta.{best}": nothing})
    ):
        bound = load(saved(config, tmp_path / str(number), 2, 0.3, arrays))
        assert bound.adapt(x, y, steps=0).pipeline == 1 - best


def test_a_named_pipeline_answers_and_the_posterior_stays(tmp_path: Path) -> None:
    learner = load(saved(config_of(), tmp_path / "run", pipelines=2, shake=0.3))
    x, y, queries = task(learner)
    free = learner.adapt(x, y)

    other = learner.adapt(x, y, pipeline=1 - free.pipeline)

    assert other.pipeline == 1 - free.pipeline
    assert other.posterior == free.posterior
    assert not np.allclose(other.predict(queries).values, free.predict(queries).values)
    with pytest.raises(ConfigError, match=r"pipeline 2 is unknown. Known: 0, 1."):
        learner.module(2)


def test_a_run_with_one_pipeline_is_sure(one: Learner) -> None:
    x, y, _ = task(one)

    assert one.adapt(x, y).posterior == {0: 1.0}
    assert "routing" not in one.evaluate(tasks=2, steps=0)


# --- by features ----------------------------------------------------------------------------


def two_origins(folder: Path, **arrays: Any) -> Learner:
    """Return a run of glyphs and textures whose γ is their origin."""
    options = {
        "sources": [{"source": "glyphs", "classes": 30}, {"source": "textures", "classes": 20}],
        "channels": 1,
    }
    config = config_of(task={"source": "mixed", "image_size": 28, "options": options})
    source = tasks.build(config)
    shares = np.eye(2, dtype=np.float32)[source.origin]
    return load(saved(config, folder, 2, 0.1, {"gamma": shares, **arrays}))


def test_pictures_go_where_the_features_of_training_tasks_are_like_theirs(tmp_path: Path) -> None:
    learner = two_origins(tmp_path)

    routing = learner.evaluate(tasks=40, steps=0)["routing"]

    assert routing["by"] == "features"
    glyphs, textures = routing["origins"]
    assert min(glyphs["tasks"], textures["tasks"]) >= 5
    assert min(glyphs["shares"][0], textures["shares"][1]) > 0.9
    assert min(glyphs["posterior"][0], textures["posterior"][1]) > 0.8


def test_validation_goes_where_new_tasks_go(tmp_path: Path) -> None:
    learner = two_origins(tmp_path)
    answerer, origin = learner._answerer, learner._answerer.source.origin
    checkpoint, _ = checkpoints.load_latest(tmp_path)
    assert checkpoint is not None
    one, other = checkpoints.thetas_of(checkpoint).values()
    layout = checkpoints.layout_of(checkpoint)
    gamma = Gamma(1, (1, 2, 4), np.eye(3, dtype=np.float32)[1 + origin])  # after splits
    item = WorkItem(0, ItemKind.EVALUATE, 4, 0, 0, 0, 0)  # of any pipeline
    batches = answerer.draw(item, gamma)
    others = {2: one, 1: np.full_like(one, np.nan)}  # the first has diverged

    found = answerer.answer(item, other, layout, batches, others, gamma=gamma).tables["loss"]

    shares = origin[batches[0].units].mean(axis=1)
    is_pure = np.isin(shares, (0.0, 1.0))
    every = [params_of(layout, theta) for theta in (one, other)]
    own = routing.evaluate_under(
        answerer.algorithm, every, batches[0], 2, (shares > 0.5).astype(int)
    ).metrics["loss"]
    assert np.isclose(found, own, rtol=1e-4).all(axis=1)[is_pure].mean() > 0.9
    by_loss = answerer.answer(item, other, layout, batches, others).tables["loss"]
    is_same = np.isclose(by_loss, own, rtol=1e-4).all(axis=1)
    assert is_same[is_pure].mean() < 0.9  # support losses do not tell them
    unknown = Gamma(1, (1, 2, 4), np.zeros((0, 3), np.float32))
    as_unknown = answerer.answer(item, other, layout, batches, others, gamma=unknown).tables
    assert (as_unknown["loss"] == by_loss).all()


def test_a_task_is_adapted_under_its_own_pipeline_alone(tmp_path: Path) -> None:
    learner = two_origins(tmp_path)
    algorithm = learner._answerer.algorithm
    batch = learner._answerer.evaluation_tasks(Kind.EVALUATE, "test", range(5))
    thetas = [learner._answerer.calibrated(one) for one in learner.pipelines.values()]
    chosen = np.array([1, 0, 1, 1, 0])
    asked: list[int] = []

    class Counting:
        def evaluate(self, params: Params, part: TaskBatch, steps: int) -> Evaluation:
            asked.append(part.num_tasks)
            return algorithm.evaluate(params, part, steps)

    found = routing.evaluate_under(cast(Algorithm, Counting()), thetas, batch, 2, chosen).metrics

    assert sorted(asked) == [2, 3]
    every = [algorithm.evaluate(params, batch, 2).metrics for params in thetas]
    for name, rows in found.items():
        expected = np.stack([one[name] for one in every])[chosen, np.arange(5)]
        assert rows == pytest.approx(expected, rel=1e-4)


def test_the_discriminant_is_that_of_gaussians_with_one_covariance(tmp_path: Path) -> None:
    learner = two_origins(tmp_path)
    source, config = learner._answerer.source, learner.config
    checkpoint, _ = checkpoints.load_latest(tmp_path)
    assert checkpoint is not None
    found = Discriminant(config, source, checkpoint.tensors["gamma"], (0, 1), learner.params)
    x = task(learner)[0][None]

    phi, scale = found._described(x)[0], found._model.covariance_
    away = phi - found._model.means_
    squares = [one @ np.linalg.solve(scale, one) for one in away]
    assert np.diff(found(x)[0]) == pytest.approx(-np.diff(squares) / 2, rel=1e-6)


def test_a_pipeline_that_diverged_is_not_chosen_and_lends_no_features(tmp_path: Path) -> None:
    two = two_origins(tmp_path / "two")
    whole, _ = checkpoints.load_latest(tmp_path / "two")
    assert whole is not None
    shares = np.eye(3, dtype=np.float32)[1 + two._answerer.source.origin]
    nothing = np.full_like(checkpoints.thetas_of(whole)[0], np.nan)
    arrays = {"gamma": shares, "theta.0": nothing}
    learner = load(saved(two.config, tmp_path / "run", 3, 0.1, arrays))

    routing = learner.evaluate(tasks=40, steps=0)["routing"]

    assert routing["by"] == "features"
    glyphs, textures = routing["origins"]
    assert glyphs["shares"][0] == textures["shares"][0] == 0.0
    assert min(glyphs["shares"][1], textures["shares"][2]) > 0.9


def test_where_all_that_have_units_diverged_the_support_loss_decides(tmp_path: Path) -> None:
    two = two_origins(tmp_path / "two")
    whole, _ = checkpoints.load_latest(tmp_path / "two")
    assert whole is not None
    shares = np.tile(np.array([1.0, 0.0], "<f4"), (two._answerer.source.num_units, 1))
    shares[two._answerer.source.split("train")[:2]] = [0.0, 1.0]  # too few for a task
    nothing = np.full_like(checkpoints.thetas_of(whole)[0], np.nan)
    learner = two_origins(tmp_path / "run", **{"gamma": shares, "theta.0": nothing})

    routing = learner.evaluate(tasks=4, steps=0)["routing"]

    assert (routing["by"], routing["shares"]) == ("support_loss", [0.0, 1.0])


def test_features_that_overflow_say_nothing_and_break_nothing(tmp_path: Path) -> None:
    two_origins(tmp_path / "whole")
    whole, _ = checkpoints.load_latest(tmp_path / "whole")
    assert whole is not None
    huge = {f"theta.{p}": one * np.float32(1e30) for p, one in checkpoints.thetas_of(whole).items()}
    learner = two_origins(tmp_path / "run", **huge)
    x = np.stack([task(learner)[0], np.full((6, 1, 28, 28), 1e30, "f4")])

    found = learner._router.route(x, np.zeros((2, 6)), losses=lambda: np.zeros((2, 2)))

    assert learner._router.by == "features"
    assert np.isfinite(found.posterior).all()


def test_a_pipeline_with_too_few_units_for_a_task_is_not_chosen(tmp_path: Path) -> None:
    whole = two_origins(tmp_path / "whole")
    shares = np.tile(np.array([1.0, 0.0], "<f4"), (whole._answerer.source.num_units, 1))
    shares[whole._answerer.source.split("train")[:2]] = [0.0, 1.0]  # of three
    learner = two_origins(tmp_path / "run", gamma=shares)

    routing = learner.evaluate(tasks=10, steps=0)["routing"]

    assert (routing["by"], routing["shares"]) == ("features", [1.0, 0.0])


def clustered(folder: Path, centres: np.ndarray, dims: int = 0) -> Learner:
    arrays = {"clustering.centres": centres.astype(np.float32)}
    return load(saved(config_of(), folder, 2, 0.1, arrays, {"features": "pixels", "dims": dims}))


DARK, LIGHT = np.full(PIXELS, 0.1), np.full(PIXELS, 0.9)


@pytest.mark.parametrize(
    ("values", "pipeline", "share"),
    [
        ((0.1, 0.1, 0.2, 0.3, 0.8, 0.9), 0, 4 / 6),
        ((0.1, 0.6, 0.7, 0.9, 0.9, 0.9), 1, 1 / 6),
        ((0.0, 0.1, 0.2, 0.6, 0.6, 0.6), 0, 3 / 6),  # as many: the centre that is nearer
        ((0.4, 0.4, 0.4, 0.9, 0.9, 0.9), 1, 3 / 6),
    ],
)
@pytest.mark.parametrize("dims", [0, 16])
def test_most_support_pictures_choose_the_nearest_centre(
    values: tuple[float, ...], pipeline: int, share: float, dims: int, tmp_path: Path
) -> None:
    centres = np.stack([DARK, LIGHT]).astype(np.float32)
    seed = config_of().run.seed
    learner = clustered(tmp_path, Projection(seed, PIXELS, 16)(centres) if dims else centres, dims)
    x = np.array(values, dtype=np.float32)[:, None, None, None] * np.ones((6, 1, 28, 28), "f4")

    found = learner.adapt(x, list("aabbcc"))

    assert found.pipeline == pipeline
    assert found.posterior == pytest.approx({0: share, 1: 1 - share})


def test_evaluation_goes_the_same_way(tmp_path: Path) -> None:
    learner = clustered(tmp_path / "run", np.stack([DARK, LIGHT]))  # glyphs are dark

    found = learner.evaluate(tasks=3, steps=1)

    routing = found.pop("routing")
    assert (routing["by"], routing["tasks"], routing["shares"]) == ("centres", 3, [1.0, 0.0])
    alone = load(saved(config_of(), tmp_path / "alone"))  # the same first pipeline
    assert found == alone.evaluate(tasks=3, steps=1)
    by_loss = load(saved(config_of(), tmp_path / "by_loss", pipelines=2))
    assert by_loss.evaluate(tasks=3, steps=1)["routing"]["by"] == "support_loss"


# --- what is told ---------------------------------------------------------------------------


def test_the_summary_tells_shares_and_means_by_origin() -> None:
    rows = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]])

    found = summary(Routes((0, 3), np.array([0, 0, 1, 1]), rows), ["b", "b", "a", "b"])

    assert found["pipelines"] == [0, 3]
    assert found["shares"] == [0.5, 0.5]
    assert found["posterior"] == pytest.approx([0.5, 0.5])
    first, second = found["origins"]
    assert first == {"origin": "a", "tasks": 1, "shares": [0, 1], "posterior": [0.2, 0.8]}
    assert (second["origin"], second["tasks"]) == ("b", 3)
    assert second["shares"] == pytest.approx([2 / 3, 1 / 3])
    assert second["posterior"] == pytest.approx([0.6, 0.4])


def test_origins_are_told_and_decide_nothing(tmp_path: Path) -> None:
    options = {"sources": ["glyphs", "textures"], "channels": 1}
    config = config_of(task={"source": "mixed", "image_size": 28, "options": options})
    learner = load(saved(config, tmp_path, pipelines=2, shake=0.3))
    source = learner._answerer.source
    before = learner.evaluate(tasks=6, steps=1)

    source.origin = np.zeros_like(source.origin)
    after = learner.evaluate(tasks=6, steps=1)

    assert [row["origin"] for row in before["routing"].pop("origins")] == ["glyphs", "textures"]
    assert [row["tasks"] for row in after["routing"].pop("origins")] == [6]
    assert before == after
