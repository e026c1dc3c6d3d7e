"""Each aggregation rule against its closed form on tiny tensors, and at its edges."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dmaml.common.config import from_mapping
from dmaml.common.errors import ConfigError, RunFailedError
from dmaml.common.sections import AggregationSection
from dmaml.server.aggregation import RULES, after_voids, build, check, scores
from dmaml.server.aggregation.scores import UNITS, best, bound_of, gram_matrix
from dmaml.server.aggregation.sorting import merge_exchange, middle_mean, network


def combine(name, rows, weights=None, **options):
    gradients = [np.array(row, dtype="<f4") for row in rows]
    shares = np.full(len(rows), 1 / len(rows)) if weights is None else np.array(weights)
    return build(AggregationSection(name=name, options=options)).combine(gradients, shares)


def krum_scores(gradients, num_byzantine):
    """The definition, pair by pair in float64."""
    near = len(gradients) - num_byzantine - 2
    rows = [gradient.astype(np.float64) for gradient in gradients]
    return [
        sum(sorted(((a - b) ** 2).sum() for j, b in enumerate(rows) if j != i)[:near])
        for i, a in enumerate(rows)
    ]


def random_gradients(count, size, seed=0, shared=0.0):
    rng = np.random.default_rng(seed)
    common = shared * rng.standard_normal(size)
    return [(common + rng.standard_normal(size)).astype("<f4") for _ in range(count)]


FIVE = [[1, 10], [2, 0], [3, 30], [4, -20], [100, 5]]


def test_sum_is_n_times_the_weighted_mean():
    assert combine("sum", FIVE).tolist() == [110, 25]
    assert combine("sum", FIVE[:2], [0.75, 0.25]).tolist() == [2.5, 15]


def test_median_of_an_odd_and_an_even_number():
    assert combine("median", FIVE).tolist() == [3, 5]
    assert combine("median", FIVE[:4]).tolist() == [2.5, 5]


def test_median_leaves_out_what_has_no_weight():
    assert combine("median", FIVE, [0.1, 0.7, 0.2, 0, 0]).tolist() == [2, 10]


def test_trimmed_mean_drops_both_ends_of_each_coordinate():
    assert combine("trimmed_mean", FIVE, fraction=0.2).tolist() == pytest.approx([3, 5])
    assert combine("trimmed_mean", FIVE, fraction=0.4).tolist() == [3, 5]
    assert combine("trimmed_mean", FIVE, fraction=0.1).tolist() == pytest.approx([22, 5])


def test_trimmed_mean_drops_the_share_as_written():
    rows = np.arange(100)[:, None] ** 3  # 0.29 * 100 is 28.999999999999996

    found = combine("trimmed_mean", rows, fraction=0.29)

    assert found[0] == pytest.approx(np.mean(np.arange(29, 71) ** 3), rel=1e-6)


def test_krum_takes_the_one_with_the_nearest_neighbours():
    # n 5, f 1: two neighbours; squared distances on a line 0, 1, 3, 7, 50
    # scores: 1 + 9, 1 + 4, 4 + 9, 16 + 36, 43^2 + 47^2
    assert combine("krum", [[0], [1], [3], [7], [50]]).tolist() == [1]


def test_multi_krum_weighs_the_best_ones():
    rows = [[0], [1], [3], [7], [50]]

    assert combine("multi_krum", rows).tolist() == [0.5]  # n - f - 2 = 2 of them: 0 and 1
    assert combine("multi_krum", rows, num_selected=3).tolist() == pytest.approx([4 / 3])
    assert combine("multi_krum", rows, [0.1, 0.3, 0.2, 0.2, 0.2]).tolist() == [0.75]
    assert combine("multi_krum", rows, [0, 0, 0.2, 0.2, 0.6]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("krum", {"num_byzantine": 2}),
        ("multi_krum", {"num_byzantine": 2, "num_selected": 1}),
        ("clip", {"norm": 100, "inner": {"name": "krum", "options": {"num_byzantine": 2}}}),
    ],
)
def test_a_void_contribution_is_a_byzantine_one_that_is_known(name, options):
    # n 7, f 2: with one void n 6, f 1, so three neighbours; they were two
    # scores 0: 1 + 9 + 16, 1: 1 + 4 + 9, 3: 1 + 4 + 9, 4: 1 + 9 + 16, 9: 25 + 36 + 64
    rule = build(AggregationSection(name=name, options=options))
    rows = [np.array([row], dtype="<f4") for row in (0, 1, 3, 4, 9, 50)]

    found = after_voids(rule, 1)

    assert found.num_required == 5
    assert found.combine(rows, np.full(6, 1 / 6)).tolist() == [1]
    assert after_voids(rule, 4).num_required == 3
    assert rule.num_required == 7
    with pytest.raises(RunFailedError, match="found 6"):
        rule.combine(rows, np.full(6, 1 / 6))


def test_rules_that_reckon_with_no_number_of_wrong_ones_stay_as_they_are():
    rule = build(AggregationSection(name="median"))

    assert after_voids(rule, 3) is rule


def test_clip_shortens_what_is_longer_and_nothing_else():
    # norms 5, 0.5, 10 to at most 5: the third becomes (3, 4)
    found = combine("clip", [[3, 4], [0.3, 0.4], [6, 8]], norm=5, inner={"name": "sum"})

    assert found == pytest.approx([6.3, 8.4], rel=1e-6)


def test_clip_of_one_contribution_is_that_one_clipped():
    assert combine("clip", [[6, 8]], norm=5) == pytest.approx([3, 4], rel=1e-6)


@pytest.mark.parametrize("name", ["krum", "multi_krum"])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_too_few_contributions_are_refused_with_a_sentence(name, count):
    with pytest.raises(RunFailedError, match=rf"2 f \+ 3 = 7 .* found {count} .* Lower"):
        combine(name, [[1.0]] * count, num_byzantine=2)


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "multi_krum"])
def test_one_of_five_that_pushes_minus_ten_times_its_gradient_is_not_believed(name):
    gradients = random_gradients(5, 1000, shared=3.0)
    gradients[2] = -10 * gradients[2]
    honest = np.mean([g for i, g in enumerate(gradients) if i != 2], axis=0)

    found = combine(name, gradients)

    assert np.linalg.norm(found - honest) < 0.5 * np.linalg.norm(honest)
    plain = combine("mean", gradients)
    assert np.linalg.norm(plain - honest) > 2 * np.linalg.norm(honest)


def test_a_rule_that_needs_more_slots_is_refused_before_the_run():
    inner = {"name": "multi_krum", "options": {"num_byzantine": 2}}
    section = AggregationSection(name="clip", options={"norm": 1, "inner": inner})

    with pytest.raises(ConfigError, match=r"'clip' .* needs 7 .*may have only 6\. Raise .* to 7"):
        build(section, num_slots=6)

    assert build(section, num_slots=7).num_required == 7


SELECTED = {"num_selected": 5}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"aggregation": {"name": "trimmed_mean"}}, r"= 0\.2 of 4 .* to 5, or raise .* to 0\.25,"),
        (
            {"aggregation": {"name": "trimmed_mean"}, "topology": {"slots": 2}},
            "= 0.2 of 2 .*async_batch. to 5, or take aggregation.name mean",
        ),
        (
            {"aggregation": {"name": "trimmed_mean", "options": {"fraction": 0}}},
            "trims none, .* mean. Raise aggregation.options.fraction to 0.25",
        ),
        (
            {
                "aggregation": {
                    "name": "clip",
                    "options": {"norm": 1, "inner": {"name": "trimmed_mean"}},
                },
                "topology": {"slots": 5},
                "sync": {"mode": "quorum"},
            },
            "'clip': fraction = 0.2 of 4",
        ),
        (
            {"aggregation": {"name": "trimmed_mean"}, "sync": {"mode": "async"}},
            "= 0.2 of 1 contributions",
        ),
        (
            {"aggregation": {"name": "multi_krum", "options": SELECTED}, "topology": {"slots": 5}},
            "num_selected = 5 of 5 .* leaves none out, .* to 4 or less",
        ),
    ],
)
def test_a_rule_that_would_leave_out_nothing_is_refused_before_the_run(sections, words):
    with pytest.raises(ConfigError, match=words):
        check(from_mapping(sections))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"aggregation": {"name": "trimmed_mean", "options": {"fraction": 0.25}}},
        {"aggregation": {"name": "trimmed_mean"}, "topology": {"slots": 5}},
        {
            "aggregation": {"name": "trimmed_mean"},
            "sync": {"mode": "async", "async_batch": 5},
            "topology": {"slots": 5},
        },
        {"aggregation": {"name": "multi_krum", "options": SELECTED}, "topology": {"slots": 6}},
        {"aggregation": {"name": "multi_krum"}, "topology": {"slots": 5}},
    ],
)
def test_a_rule_that_leaves_out_something_is_taken(sections):
    config = from_mapping(sections)

    check(config)

    assert config.aggregation.name in RULES


@pytest.mark.parametrize("n", range(1, 11))
def test_network_sorts_every_row_of_zeros_and_ones(n):
    # the 0-1 principle: then it sorts everything
    columns = np.array(list(product([0, 1], repeat=n))).T.copy()
    for i, j in merge_exchange(n):
        columns[[i, j]] = np.minimum(*columns[[i, j]]), np.maximum(*columns[[i, j]])

    assert (np.diff(columns, axis=0) >= 0).all()


def test_network_leaves_out_what_the_wanted_ranks_do_not_need():
    assert len(network(32, 15, 17)) < len(network(32, 0, 32)) == 191


@pytest.mark.parametrize("n", [1, 2, 3, 6, 17, 32, 33, 70])
def test_middle_mean_is_that_of_sorted_columns(n):
    gradients = random_gradients(n, 50)

    for cut in {0, (n - 1) // 4, (n - 1) // 2}:
        expected = np.sort(gradients, axis=0)[cut : n - cut].astype(np.float64).mean(axis=0)
        assert middle_mean(gradients, cut) == pytest.approx(expected, abs=1e-6)


def test_middle_mean_has_the_same_bits_in_any_order():
    gradients = random_gradients(9, 300)
    for gradient in gradients:
        gradient[::3] = np.copysign(0.0, gradient[::3])

    plain = middle_mean(gradients, 2)

    assert middle_mean(gradients[::-1], 2).tobytes() == plain.tobytes()


@pytest.mark.parametrize("shared", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("seed", range(4))
def test_best_agrees_with_the_definition(seed, shared):
    gradients = random_gradients(11, 300, seed, shared)
    gradients[3] = gradients[3] * np.float32(1e15)
    expected = sorted(np.argsort(krum_scores(gradients, 3), kind="stable")[:4].tolist())

    assert best(gradients, 3, 4) == expected


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e25, 1e37])
def test_best_does_not_depend_on_the_scale(scale):
    gradients = random_gradients(7, 100)

    assert best([g * np.float32(scale) for g in gradients], 2, 3) == best(gradients, 2, 3)


def test_ties_go_to_the_lower_slot():
    twin, other = random_gradients(2, 1000)
    gradients = [other, twin, twin.copy(), twin.copy(), twin.copy()]

    assert best(gradients, 1, 1) == [1]
    assert best(gradients, 1, 3) == [1, 2, 3]


def test_an_undecided_choice_is_made_in_float64(monkeypatch):
    asked = []
    plain = gram_matrix
    monkeypatch.setattr(
        scores, "gram_matrix", lambda rows, *given: asked.append(given[0]) or plain(rows, *given)
    )

    best(random_gradients(7, 100), 2, 1)
    assert asked == ["<f4"]
    best(random_gradients(7, 100, shared=1e5), 2, 1)
    assert asked == ["<f4", "<f4", "<f8"]


ALIKE = {  # sequential sums of like terms err the most
    "normal": lambda rng, size: rng.standard_normal(size) + 3,
    "constant": lambda rng, size: np.full(size, 0.1),
    "sign": lambda rng, size: rng.choice([-0.1, 0.1], size),
    "sorted": lambda rng, size: np.sort(np.abs(rng.standard_normal(size)))[::-1],
    "one large": lambda rng, size: np.where(np.arange(size) % 4096 == 0, 100.0, 0.01),
}


@pytest.mark.parametrize("kind", sorted(ALIKE))
@pytest.mark.parametrize("dtype", sorted(UNITS))
def test_distances_err_by_no_more_than_their_bound(dtype, kind):
    rng, size = np.random.default_rng(0), 20_000
    base = ALIKE[kind](rng, size)
    rows = [(base * (1 + 0.01 * rng.standard_normal())).astype("<f4") for _ in range(6)]
    wide = [row.astype(np.longdouble) for row in rows]
    exact = np.array([[float(((a - b) ** 2).sum()) for b in wide] for a in wide])

    gram = gram_matrix(rows, dtype)

    norms = np.diagonal(gram)[:, None] + np.diagonal(gram)[None, :]
    assert (np.abs(norms - 2 * gram - exact) <= bound_of(dtype, size) * norms).all()


@pytest.mark.parametrize("kind", sorted(ALIKE))
def test_the_choice_is_float64s_for_near_gradients_of_like_values(kind):
    rng = np.random.default_rng(1)
    base = ALIKE[kind](rng, 4096)

    for power in (4, 6, 8, 10) * 5:
        scales = 1 + 2.0**-power * rng.uniform(-1, 1, 5)
        gradients = [(base * scale).astype("<f4") for scale in scales]
        assert best(gradients, 1, 1) == [int(np.argmin(krum_scores(gradients, 1)))]


def test_bound_leaves_float32_the_choice_among_gradients_that_have_nothing_in_common():
    assert bound_of("<f4", 1 << 18) < 2.0**-15
    assert bound_of("<f8", 1 << 18) < 2.0**-40
