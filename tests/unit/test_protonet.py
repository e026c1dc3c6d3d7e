from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dmaml.common.errors import ConfigError
from dmaml.common.items import ItemKind, WorkItem
from dmaml.common.seeds import Kind, stream
from dmaml.worker import algorithms
from dmaml.worker.algorithms.protonet import class_means, squared_distances
from dmaml.worker.answers import Answerer
from dmaml.worker.models.base import Params, params_of
from dmaml.worker.tasks.base import TaskBatch
from tests.unit import toy_tasks
from tests.unit.toy_tasks import built, configured, contribution, in_float64, points, start

torch.set_num_threads(1)
NORMED = {"name": "mlp", "hidden": [5], "batch_norm": True}


def plain_features(params: Params, x: Tensor, statistics_of: Tensor) -> Tensor:
    """Return what linear, batch norm (with the statistics of other examples) and ReLU give."""
    weight = params["linear0.weight"]
    z, seen = x @ weight, statistics_of @ weight
    z = (z - seen.mean(0)) / (seen.var(0, unbiased=False) + 1e-5).sqrt()
    return (z * params["norm0.scale"] + params["norm0.shift"]).relu()


def parts_of(batch: TaskBatch, task: int) -> list[Tensor]:
    arrays = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return [torch.from_numpy(array[task]) for array in arrays]


def plain_logits(
    params: Params, batch: TaskBatch, task: int, joint: bool, population: Tensor | None = None
) -> Tensor:
    x, _, u, _ = parts_of(batch, task)
    seen = torch.cat([x, u]) if joint else x if population is None else population
    support, query = (plain_features(params, part, seen) for part in (x, u))
    labels = batch.support_y[task]
    means = [support[labels == k].mean(0) for k in range(labels.max() + 1)]
    return torch.stack([torch.stack([-((q - mean) ** 2).sum() for mean in means]) for q in query])


def test_class_means_and_distances_of_a_task_worked_by_hand() -> None:
    features = torch.tensor([[[0.0, 0.0], [4.0, 2.0], [2.0, 0.0], [6.0, 4.0]]])

    means = class_means(features, torch.tensor([[0, 1, 0, 1]]))
    distances = squared_distances(torch.tensor([[[1.0, 1.0], [5.0, 0.0]]]), means)

    assert means.tolist() == [[[1.0, 0.0], [5.0, 3.0]]]
    assert distances.tolist() == [[[1.0, 20.0], [16.0, 9.0]]]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_gradient_is_that_of_the_cross_entropy_of_the_distances(engine: str) -> None:
    algorithm = built("protonet", model=NORMED, engine={"name": engine, "chunk": 2})
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 3, 4, 2, 3)), start(algorithm)

    answer = contribution(algorithm, params, batch)

    theta = {name: value.clone().requires_grad_() for name, value in params.items()}
    losses = [
        F.cross_entropy(plain_logits(theta, batch, task, True), torch.from_numpy(y))
        for task, y in enumerate(batch.query_y)
    ]
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(loss, list(theta.values()))
    for actual, value in zip(answer.gradient.values(), expected, strict=True):
        torch.testing.assert_close(actual, value)
    assert float(answer.gradient["linear0.weight"].abs().max()) > 1e-3
    assert answer.loss == answer.metrics["loss_before"] == pytest.approx(float(loss.detach()))
    assert answer.num_tasks == 3


def test_evaluation_has_both_kinds_of_statistics_at_every_step() -> None:
    algorithm = built("protonet", model=NORMED)
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 30, 4, 2, 3)), start(algorithm)

    metrics = algorithm.evaluate(params, batch, steps=2).metrics

    for name, joint in (("accuracy", True), ("accuracy_inductive", False)):
        expected = [
            float((plain_logits(params, batch, t, joint).argmax(1).numpy() == y).mean())
            for t, y in enumerate(batch.query_y)
        ]
        np.testing.assert_allclose(metrics[name], np.array(expected)[:, None].repeat(3, 1))
    assert (metrics["accuracy"] != metrics["accuracy_inductive"]).any()


def test_a_prediction_uses_the_support_sets_statistics() -> None:
    algorithm = built("protonet", model=NORMED)
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 1, 3, 2, 3)), start(algorithm)
    arrays = (batch.support_x, batch.support_y, batch.query_x)

    outputs = algorithm.predict(params, *(torch.from_numpy(a[0]) for a in arrays), steps=1)

    torch.testing.assert_close(outputs, plain_logits(params, batch, 0, joint=False))


def test_calibrated_parameters_bring_the_statistics_of_training_tasks() -> None:
    algorithm = built("protonet", model=NORMED)
    seen = in_float64(points(stream(2, Kind.TRAIN), 5, 4, 2, 3))
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 30, 4, 2, 3)), start(algorithm)

    calibrated = algorithm.calibrated(params, seen)  # type: ignore[attr-defined]
    before, after = (algorithm.evaluate(p, batch, steps=0).metrics for p in (params, calibrated))
    predicted = algorithm.predict(calibrated, *parts_of(batch, 3)[:3], steps=0)

    x = torch.from_numpy(np.concatenate([seen.support_x, seen.query_x], axis=1)).flatten(0, 1)
    expected = [plain_logits(params, batch, task, False, x) for task in range(30)]
    answers = zip(expected, batch.query_y, strict=True)
    hits = [float((e.argmax(1).numpy() == y).mean()) for e, y in answers]
    np.testing.assert_array_equal(after["accuracy_inductive"][:, 0], hits)
    np.testing.assert_array_equal(after["accuracy"], before["accuracy"])
    assert (after["accuracy_inductive"] != before["accuracy_inductive"]).any()
    torch.testing.assert_close(predicted, expected[3])


@pytest.mark.parametrize("name", ["matching", "lstm", "mann"])
def test_other_learners_are_calibrated_too(name: str) -> None:
    algorithm = built(name, model=NORMED)
    seen = in_float64(points(stream(2, Kind.TRAIN), 5, 2, 2, 3))
    batch, params = in_float64(points(stream(1, Kind.TRAIN), 3, 2, 2, 3)), start(algorithm)
    support_x, support_y, query_x, _ = parts_of(batch, 0)

    calibrated = algorithm.calibrated(params, seen)  # type: ignore[attr-defined]
    plain = algorithm.predict(params, support_x, support_y, query_x, steps=0)
    other = algorithm.predict(calibrated, support_x, support_y, query_x, steps=0)
    contributed = contribution(algorithm, params, batch)

    assert not torch.allclose(plain, other)
    assert list(contributed.gradient) == list(params)
    assert set(params) < set(calibrated)


def test_an_actor_evaluates_with_calibrated_parameters() -> None:
    config = configured(
        "protonet",
        task={"source": "glyphs", "n_way": 3},
        model={"name": "conv4", "width": 4},
        evaluation={"steps": 0, "tasks": 4},
    )
    answerer = Answerer(config)
    init = answerer.answer(WorkItem(0, ItemKind.INIT, 0, 0, 0, 0, 0), np.empty(0, "<f4"), None, [])
    item = WorkItem(1, ItemKind.EVALUATE, 0, 0, 0, 0, 0)
    batches = answerer.draw(item)

    tables = answerer.answer(item, init.flat, init.layout, batches).tables

    assert init.layout is not None
    params = params_of(init.layout, init.flat)
    calibrated = answerer.calibrated(params)
    again = answerer.calibrated(params)
    own = answerer.algorithm.evaluate(calibrated, batches[0], 0).metrics
    np.testing.assert_array_equal(tables["accuracy_inductive"], own["accuracy_inductive"])
    assert all(torch.equal(calibrated[name], again[name]) for name in calibrated)
    assert len(calibrated) > len(params)


def test_any_number_of_classes_can_be_told_apart() -> None:
    algorithm = built("protonet", task={"n_way": 2})
    params = algorithm.init(stream(1, Kind.INIT))

    accuracy = algorithm.evaluate(params, points(stream(1, Kind.TEST), 20, 7), 0).metrics[
        "accuracy"
    ]

    assert accuracy.mean() > 2 / 7


def test_evaluation_may_have_another_n_way_where_the_algorithm_allows() -> None:
    other = {"n_way": 5}

    assert built("protonet", evaluation=other)
    with pytest.raises(ConfigError, match=r"n_way 5 with task\.n_way 2: algorithm 'maml'"):
        built("maml", evaluation=other)


def test_it_learns_and_not_from_shuffled_labels() -> None:
    algorithm = built("protonet", model={"hidden": [16]})
    before = toy_tasks.loss_of(algorithm, algorithm.init(stream(1, Kind.INIT)))

    learned = toy_tasks.meta_trained(algorithm, rounds=40, lr=0.02)
    misled = toy_tasks.meta_trained(algorithm, rounds=40, lr=0.02, shuffled=True)

    assert toy_tasks.loss_of(algorithm, learned) < before / 2
    assert toy_tasks.loss_of(algorithm, misled, shuffled=True) > 0.9 * np.log(2)


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(ConfigError, match="'protonet' is for classification"):
        algorithms.build(configured("protonet"), "regression", (2,), 1)
    with pytest.raises(ConfigError, match="no parameters as an embedding"):
        built("protonet", model={"hidden": []})
    with pytest.raises(ConfigError, match="'protonet' takes no options, found 'scale'"):
        built("protonet", algorithm={"options": {"scale": 1}})
