"""The feature study's computations: each against what can be worked out by hand."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmaml.common.errors import ConfigError
from dmaml.learner.task import Task
from dmaml.report.features.findings import first_filters, pool
from dmaml.report.features.gradients import ascended, roughness, saliency
from dmaml.report.features.layers import Layers
from dmaml.report.features.neurons import extremes, most_selective, selectivity
from dmaml.report.features.projections import neighbours, principal, separation
from dmaml.report.features.similarity import centred_kernel, cka, cka_matrix
from dmaml.report.features.words import marks

torch.set_num_threads(1)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def rotation(size: int) -> np.ndarray:
    return np.linalg.qr(normal(size, size, seed=7))[0]


# --- CKA ------------------------------------------------------------------------------------


def test_cka_of_a_rotated_scaled_and_shifted_matrix_is_1() -> None:
    x = normal(12, 5)

    assert cka(x, x @ rotation(5) * 3.0 - 11.0) == pytest.approx(1.0)


def test_cka_of_a_stretched_matrix_is_below_1() -> None:
    x = normal(40, 5)

    assert cka(x, x * np.array([10.0, 1.0, 1.0, 1.0, 1.0])) < 0.9


def test_cka_of_independent_features_is_near_0_where_they_outnumber_the_examples() -> None:
    x, y = normal(30, 3000), normal(30, 3000, seed=1)

    def plain(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - a.mean(0), b - b.mean(0)
        return float(np.square(b.T @ a).sum() / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)))

    assert abs(cka(x, y)) < 0.1
    assert plain(x, y) > 0.8  # what the bias would do


def test_cka_is_that_of_the_unbiased_estimator() -> None:
    """HSIC₁(K, L) as it is written in Song and others (2012), term by term."""
    n = 9
    x, y = normal(n, 3), normal(n, 4, seed=2) + normal(n, 4, seed=3)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0.0)
        np.fill_diagonal(m, 0.0)
        both = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2))
        return float((both - 2 * (k @ m).sum() / (n - 2)) / (n * (n - 3)))

    wanted = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))

    assert cka(x, y) == pytest.approx(wanted)


def test_a_kernel_is_centred_without_its_diagonal() -> None:
    kernel = centred_kernel(normal(8, 3))

    np.testing.assert_allclose(kernel.sum(0), 0, atol=1e-12)
    assert (np.diagonal(kernel) == 0).all()


def test_cka_of_a_constant_layer_is_no_number_and_too_few_examples_are_refused() -> None:
    assert np.isnan(cka(normal(6, 2), np.ones((6, 2))))
    with pytest.raises(ValueError, match="at least 4"):
        cka(normal(3, 2), normal(3, 2))
    with pytest.raises(ValueError, match="as many examples"):
        cka(normal(5, 2), normal(6, 2))


def test_rows_of_the_matrix_are_layers_before() -> None:
    x, y = centred_kernel(normal(9, 2)), centred_kernel(normal(9, 2, seed=1))

    table = cka_matrix({"a": x, "b": y}, {"c": y})

    assert table.shape == (2, 1)
    assert table[1, 0] == pytest.approx(1.0)
    assert table[0, 0] < 0.9


# --- projections ----------------------------------------------------------------------------


def test_the_principal_component_of_a_line_is_the_line() -> None:
    along = np.array([-2.0, -1.0, 0.0, 3.0])

    points, shares = principal(along[:, None] * np.array([[0.6, 0.8]]))

    np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(along), atol=1e-12)
    assert shares == pytest.approx((1.0, 0.0))


def test_features_that_never_change_have_a_place_too() -> None:
    points, shares = principal(np.ones((5, 3)))

    assert (points == 0).all()
    assert shares == (0.0, 0.0)
    assert (neighbours(np.ones((5, 3)), 0) == 0).all()


def test_t_sne_keeps_two_groups_apart_and_is_repeatable() -> None:
    features = normal(24, 6) * 0.1
    features[12:] += 5.0

    points = neighbours(features, seed=3)

    near = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(near, np.inf)
    assert ((near.argmin(1) < 12) == (np.arange(24) < 12)).all()
    np.testing.assert_array_equal(points, neighbours(features, seed=3))


def test_tight_classes_far_apart_are_separate() -> None:
    features, labels = normal(20, 3) * 0.01, np.repeat([0, 1], 10)
    features[10:] += 1.0

    assert separation(features, labels) > 0.95
    assert abs(separation(normal(20, 3), labels)) < 0.2


# --- neurons --------------------------------------------------------------------------------


def test_extremes_are_the_largest_and_the_smallest_first() -> None:
    found = extremes(np.array([0.0, 5.0, -3.0, 2.0, -9.0]), 2)

    assert found.highest == (1, 3)
    assert found.lowest == (4, 2)
    assert extremes(np.array([1.0, 0.0, 2.0]), 4).highest == (2,)  # each in one list at most


def test_selectivity_is_1_where_the_class_decides_and_0_where_it_says_nothing() -> None:
    labels = np.array([0, 0, 1, 1])
    by_class, by_picture, dead = [1.0, 1, 5, 5], [1.0, 2, 1, 2], [4.0, 4, 4, 4]
    half = [0.0, 2, 2, 4]  # between: 4·1², within: 4·1²

    share = selectivity(np.array([by_class, by_picture, dead, half]).T, labels)

    np.testing.assert_allclose(share, [1.0, 0.0, 0.0, 0.5])


def test_the_best_neurons_prefer_different_classes() -> None:
    labels = np.array([0, 1, 2])
    activations = np.array([[9.0, 8.0, 0.0, 1.0], [0.0, 0.0, 5.0, 0.0], [1.0, 0.0, 0.0, 2.0]])
    share = np.array([0.9, 0.8, 0.7, 0.1])  # they prefer classes 0, 0, 1 and 2

    assert most_selective(share, activations, labels, 3) == (0, 2, 3)
    assert most_selective(share, activations, labels, 4) == (0, 2, 3, 1)


# --- gradients ------------------------------------------------------------------------------


def test_the_saliency_of_a_linear_model_is_its_weight() -> None:
    weight = torch.tensor([[[1.0, -2.0], [0.0, 3.0]], [[-4.0, 0.5], [0.0, 1.0]]])  # 2 channels

    found = saliency(lambda x: (x * weight).sum((1, 2, 3)), torch.rand(3, 2, 2, 2))

    expected = torch.tensor([[4.0, 2.0], [0.0, 3.0]])
    assert torch.equal(found, expected.expand(3, 2, 2))


def test_ascent_finds_the_maximum_of_a_regularised_linear_score() -> None:
    weight = torch.tensor([[[0.3, -0.2], [0.1, 0.0]]])

    found = ascended(
        lambda x: (x * weight).sum((1, 2, 3)), torch.zeros(1, 1, 2, 2), l2=0.5, variation=0.0,
        steps=400, rate=0.02, bounds=None,
    )  # fmt: skip

    torch.testing.assert_close(found[0], weight / (2 * 0.5), atol=1e-3, rtol=0)


def test_ascent_raises_the_score_within_the_bounds_and_smoothly() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 1))
    start = torch.full((2, 1, 6, 6), 0.5)

    def score(x: Tensor) -> Tensor:
        found: Tensor = network(x)[:, 0]
        return found

    rough, smooth = (ascended(score, start, l2=0.0, variation=v, steps=60) for v in (0.0, 1.0))

    assert (score(rough) > score(start) + 0.04).all()
    assert (score(smooth) > score(start)).all()
    assert rough.min() >= 0
    assert rough.max() <= 1
    assert roughness(smooth) < 0.5 * roughness(rough)
    assert (start == 0.5).all()


def test_roughness_is_the_sum_of_squared_differences() -> None:
    assert roughness(torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])) == 9 + 4 + 1 + 0


# --- layers ---------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(4):
        layers[f"conv{i}"] = nn.Conv2d(1 if i == 0 else 3, 3, 3, padding=1)
        layers[f"norm{i}"] = nn.BatchNorm2d(3)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(3, 2)}
    whole = OrderedDict(model=nn.Sequential(layers), softmax=nn.Softmax(dim=1))
    return nn.Sequential(whole).eval()


def test_blocks_go_from_weights_to_weights_and_the_last_gives_the_scores() -> None:
    module, x = network(), torch.rand(5, 1, 4, 4)
    layers = Layers(module, x[:1])

    found = layers.blocks(x)

    assert layers.names == ("conv0", "conv1", "conv2", "conv3", "head")
    assert found["conv0"].shape == (5, 48)
    assert found["conv3"].shape == (5, 3)
    head = module.get_submodule("model.head")
    torch.testing.assert_close(head(layers.features(x)), layers.scores(x))
    torch.testing.assert_close(layers.scores(x).softmax(1), module(x))
    torch.testing.assert_close(found["head"], layers.scores(x))


def test_neurons_are_those_of_the_third_and_fourth_batch_norm_before_the_relu() -> None:
    module, x = network(), torch.rand(5, 1, 4, 4)
    layers = Layers(module, x[:1])

    found = layers.neurons(x, "norm3")

    assert layers.neuron_layers == ("norm2", "norm3")
    before = module.get_submodule("model")[:11](x)  # up to norm3
    torch.testing.assert_close(found, before.mean((2, 3)))
    assert found.min() < 0


def test_a_network_without_batch_norm_has_neurons_in_its_hidden_layers() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))

    layers = Layers(flat, torch.zeros(1, 1, 2, 2))

    assert layers.neuron_layers == ("1",)
    assert layers.neurons(torch.rand(3, 1, 2, 2), "1").shape == (3, 6)


def test_a_network_of_one_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="required at least 2"):
        Layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))


def test_filters_are_pictures_the_strongest_first() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        flat[1].weight.copy_(torch.arange(6.0).repeat(3, 1) * torch.tensor([[1.0], [3.0], [2.0]]))

    found = first_filters(Layers(flat, torch.zeros(1, 1, 2, 3)), (1, 2, 3))

    assert found is not None
    np.testing.assert_array_equal(found[0, 0], [[0, 3, 6], [9, 12, 15]])
    np.testing.assert_array_equal(found[:, 0, 0, 1], [3, 2, 1])
    small = first_filters(Layers(network(), torch.zeros(1, 1, 4, 4)), (1, 4, 4))
    assert small is not None
    assert small.shape == (3, 1, 3, 3)


# --- pictures and words ---------------------------------------------------------------------


def test_the_pool_has_each_picture_once_and_a_number_for_each_class() -> None:
    a, b, c = (np.full((1, 1, 2, 2), value, dtype=np.float32) for value in (0.1, 0.2, 0.3))
    y = np.array([0, 1])

    def task(names: tuple[str, ...], *x: np.ndarray) -> Task:
        return Task(names, np.concatenate(x), y, np.concatenate(x), y)

    found = pool([task(("p", "q"), a, b), task(("q", "r"), b, c)])

    np.testing.assert_array_equal(found.x[:, 0, 0, 0], np.float32([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(found.labels, [0, 1, 2])


def test_classes_of_one_character_are_their_own_letters() -> None:
    digits = marks(("7 (test)", "2 (test)"))
    others = marks(("Greek/2", "Angelic/9 turned 90°"))

    assert digits.letters == ("7", "2")
    assert digits.order == (1, 0)
    assert digits.are_names
    assert others.names == ("Greek/2", "Angelic/9 turned 90°")
    assert others.letters == ("B", "A")
    assert not others.are_names
