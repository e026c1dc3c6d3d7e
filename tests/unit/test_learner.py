"""The learner: support sets and queries in any form, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dmaml.common.errors import BadInputError, ConfigError, DataError, RunDirectoryError
from dmaml.common.seeds import Kind, stream
from dmaml.learner import Learner, load
from tests.unit.saved_runs import config_of, saved

torch.set_num_threads(1)
SINUSOID: dict[str, dict[str, Any]] = {
    "task": {"source": "sinusoid", "n_way": 1, "k_shot": 5},
    "model": {"name": "mlp", "hidden": [8], "width": 64},
    "algorithm": {"inner_lr": 0.01},
}
WORDS = ("alpha", "alpha", "beta", "beta", ("a", "tuple"), ("a", "tuple"))


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return load(saved(config_of(), tmp_path_factory.mktemp("glyphs")))


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return load(saved(config_of(**SINUSOID), tmp_path_factory.mktemp("wave")))


def task(learner: Learner) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32]]:
    source, task = learner._answerer.source, learner.config.task
    one = source.sample([stream(1, Kind.TEST)], source.split("test"), task.n_way, task.k_shot, 4)
    return one.support_x[0], one.support_y[0], one.query_x[0]


def test_labels_come_back_as_they_were_given(learner: Learner) -> None:
    x, y, queries = task(learner)

    found = learner.adapt(x, WORDS).predict(queries)
    numbers = learner.adapt(x, y).predict(queries)

    assert found.classes == ("alpha", "beta", ("a", "tuple"))
    assert found.labels == [found.classes[number] for number in numbers.labels]
    assert len(set(found.labels)) > 1
    np.testing.assert_array_equal(found.probabilities, numbers.probabilities)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy,
        lambda x: x.astype(np.float64),
        lambda x: np.rint(x * 255).astype(np.uint8),
        lambda x: x[:, 0],
        lambda x: np.moveaxis(x, 1, -1),
    ],
    ids=["tensor", "float64", "uint8", "without channel", "channels last"],
)
def test_any_form_of_the_same_numbers_gives_the_same(learner: Learner, form: Any) -> None:
    x, y, queries = task(learner)

    expected = learner.adapt(x, y).predict(queries).probabilities
    found = learner.adapt(form(x), torch.from_numpy(y)).predict(form(queries)).probabilities

    np.testing.assert_array_equal(found, expected)


def test_the_steps_are_the_runs_unless_told(learner: Learner) -> None:
    x, y, queries = task(learner)

    adapted = [learner.adapt(x, y, steps=steps) for steps in (None, 2, 5)]

    assert [one.steps for one in adapted] == [2, 2, 5]
    first, second, third = (one.predict(queries).values for one in adapted)
    assert np.array_equal(first, second)
    assert not np.allclose(first, third)


def test_many_queries_are_answered_one_by_one(learner: Learner) -> None:
    x, y, queries = task(learner)
    many = np.concatenate([queries] * 30)  # more than a chunk

    adapted = learner.adapt(x, y)

    expected = np.concatenate([adapted.predict(queries).probabilities] * 30)
    np.testing.assert_allclose(adapted.predict(many).probabilities, expected, atol=1e-6)


def test_a_regression_gives_values(wave: Learner) -> None:
    x, y, queries = task(wave)

    found = wave.adapt(x, y[:, 0]).predict(queries)

    assert found.labels == []
    assert found.probabilities.shape == (4, 0)
    expected = wave._answerer.algorithm.predict(
        wave.params, torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(queries), steps=2
    )
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)


def test_the_pipeline_with_the_least_support_loss_is_taken(tmp_path: Path) -> None:
    learner = load(saved(config_of(), tmp_path / "run", pipelines=3, shake=0.3))
    x, y, _ = task(learner)

    adapted = learner.adapt(x, y, steps=0)

    losses = [learner.adapt(x, y, steps=0, pipeline=p).support_loss for p in range(3)]
    assert len(set(losses)) == 3
    assert adapted.pipeline == int(np.argmin(losses))
    assert adapted.support_loss == min(losses)
    with pytest.raises(ConfigError, match=r"pipeline 3 is unknown. Known: 0, 1, 2."):
        learner.adapt(x, y, pipeline=3)


def test_a_clone_is_independent(learner: Learner) -> None:
    x, y, queries = task(learner)
    before = learner.adapt(x, y).predict(queries).values
    twin = learner.clone()
    adapted = twin.adapt(x, y)
    copy = adapted.clone()

    for value in twin.params.values():
        value.zero_()

    np.testing.assert_array_equal(learner.adapt(x, y).predict(queries).values, before)
    np.testing.assert_array_equal(copy.predict(queries).values, before)
    copy.posterior[0] = 0.5
    assert adapted.posterior == {0: 1.0}
    assert np.abs(twin.adapt(x, y).predict(queries).values).max() < 1e-6


def test_it_adapts_where_gradients_are_off(learner: Learner) -> None:
    x, y, queries = task(learner)

    with torch.no_grad():
        found = learner.adapt(x, y).predict(queries).values

    np.testing.assert_array_equal(found, learner.adapt(x, y).predict(queries).values)


def test_an_algorithm_of_any_way_takes_another_number_of_classes(tmp_path: Path) -> None:
    config = config_of(algorithm={"name": "protonet", "inner_lr": 0.4})
    learner = load(saved(config, tmp_path / "run"))
    x, _, queries = task(learner)

    found = learner.adapt(x, list("aabbbb")).predict(queries)

    assert found.classes == ("a", "b")
    assert found.probabilities.shape == (len(queries), 2)


X = np.zeros((6, 1, 28, 28), dtype=np.float32)
NAN = np.full_like(X, np.nan)


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (X, list("aaaaaa"), "support: found 1 class, required at least 2."),
        (X, list("aabbcd"), r"found 4 classes, .* 'maml' .* exactly 3. Give 3 classes, train a"),
        (X, list("aaabbb"), r"found 2 classes, .* exactly 3."),
        (X, list("aabbc"), "support_y: required 6 labels, found 5."),
        (X, "aabbcc", "required a sequence of 6 labels, found str"),
        (X, [["a"]] * 6, "unhashable type: 'list'. Labels must be hashable"),
        (X, [float("nan")] * 6, "a label is NaN"),
        (X, None, "support_y is missing"),
        (X[:, :, :20], list("aabbcc"), r"shape \(N, 1, 28, 28\), found \(6, 1, 20, 28\)"),
        (X[:0], [], "at least one example, found none"),
        (NAN, list("aabbcc"), "infinite or NaN"),
        (X.astype(np.int64) + 255, list("aabbcc"), "numbers up to 255 as int64. Give pictures as"),
        (np.array(list("abcdef")), list("aabbcc"), "required numbers, found an array of <U1"),
    ],
)
def test_a_support_set_that_does_not_suit_is_refused(
    learner: Learner, x: Any, y: Any, sentence: str
) -> None:
    with pytest.raises(BadInputError, match=sentence):
        learner.adapt(x, y)


def test_queries_and_targets_that_do_not_suit_are_refused(learner: Learner, wave: Learner) -> None:
    x, y, _ = task(learner)

    with pytest.raises(DataError, match=r"query: required examples of shape \(N, 1, 28, 28\)"):
        learner.adapt(x, y).predict(x[:, :, :5])
    steps: Any
    for steps in (-1, 2.5, "3"):
        with pytest.raises(ConfigError, match=f"steps {steps!r}: required a whole number"):
            learner.adapt(x, y, steps=steps)
    assert learner.adapt(x, y, steps=np.int64(2)).steps == 2
    with pytest.raises(DataError, match=r"targets of shape \(5, 1\), found \(4,\)"):
        wave.adapt(np.zeros((5, 1)), np.zeros(4))
    with pytest.raises(ConfigError, match=r"which are no pictures. Give arrays to dmaml.learner"):
        wave.adapt("a/folder")


def test_what_cannot_adapt_to_examples_says_so(tmp_path: Path) -> None:
    point = config_of(
        task={"source": "navigation", "n_way": 1, "k_shot": 2},
        model={"name": "mlp", "hidden": [4], "width": 64},
        algorithm={"name": "maml_rl"},
    )
    told = config_of(**SINUSOID | {"algorithm": {"name": "oracle", "inner_lr": 0.1}})

    with pytest.raises(ConfigError, match="'maml_rl' adapts by acting in its environment"):
        load(saved(point, tmp_path / "point")).adapt(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ConfigError, match="an oracle cannot predict from examples"):
        load(saved(told, tmp_path / "told")).adapt(np.zeros((5, 1)), np.zeros(5))


def test_the_best_checkpoint_needs_a_validation(learner: Learner, tmp_path: Path) -> None:
    folder = saved(config_of(), tmp_path / "run")

    with pytest.raises(RunDirectoryError, match="no best checkpoint: it was not validated yet"):
        load(folder, which="best")
    with pytest.raises(ConfigError, match=r"'lates' is unknown. Known: latest, best\."):
        load(folder, which="lates")  # type: ignore[arg-type]
    with pytest.raises(RunDirectoryError, match="holds no run"):
        load(tmp_path / "nowhere")
