"""Clustering experiments: which runs they need, and what made-up results come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dmaml.deploy.repro import EXPERIMENTS, alphabets, clustering
from dmaml.deploy.repro.experiment import Form, Results
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.charts import Node, Tree, draw, places
from tests.unit.test_repro import measured

FULL = Form(quick=False, seeds=3)


def clusters(recovery: list[float], trials: Any = (), wall_s: float = 60.0) -> dict[str, Any]:
    rows = [
        {"pipeline": 0, "parent": None, "active": False, "units": 0},
        {"pipeline": 1, "parent": 0, "active": True, "units": 2, "names": ["Greek", "Latin"]},
        {"pipeline": 2, "parent": 0, "active": True, "units": 1, "names": ["Korean"]},
    ]
    return {
        "recovery": recovery, "pipelines": rows, "trials": list(trials), "wall_s": wall_s
    }  # fmt: skip


def run_of(cell: Cell, found: dict[str, Any] | None, score: float = 0.5, **test: Any) -> Measured:
    run = measured(cell, score)
    whole = None if run.finished.test is None else run.finished.test | test
    return replace(run, finished=replace(run.finished, clusters=found, test=whole))


def test_recovery_is_the_median_over_seeds_with_the_worst_beside_it() -> None:
    experiment = EXPERIMENTS["clustering_mixture"]
    found = {1: [0.9, 1.0], 2: [1.0, 0.8], 3: [0.99, 0.98]}
    cells = experiment.cells(FULL)
    runs = {
        cell.name: run_of(cell, clusters(found[cell.config.run.seed]))
        for cell in cells
        if cell.name.startswith(("4-to-1-s", "1-to-1"))
    }

    outcome = experiment.outcome(FULL, Results(runs))

    assert outcome.headline == {
        "recovery": [0.99, 0.98], "recovery_worst": [0.9, 0.8], "origins": list(clustering.ORIGINS)
    }  # fmt: skip
    assert outcome.facts["variants"]["4 to 1"]["runs"] == [found[1], found[2], found[3]]
    assert outcome.facts["variants"]["4 to 1, rank-equalised"]["recovery"] == []
    assert outcome.tables[0].rows[0] == (
        "4 to 1", "3", "0.990 / 0.980", "0.900 / 0.800", "2", "60 (60)"
    )  # fmt: skip
    assert outcome.published[0].verdict == "reached"
    assert outcome.published[0].published == "0.730 / 0.640"


def test_a_strategy_that_falls_short_is_said_to() -> None:
    experiment = EXPERIMENTS["clustering_kmeans"]
    runs = {
        cell.name: run_of(cell, clusters([1.0, 0.97]))
        for cell in experiment.cells(FULL)
        if cell.name.startswith("4-to-1-s")
    }

    outcome = experiment.outcome(FULL, Results(runs))

    assert outcome.published[0].verdict == "below 0.99"


@pytest.mark.parametrize("name", ["kmeans", "gamma", "mixture", "tree"])
def test_every_strategy_meets_both_ratios_and_equalised_pictures(name: str) -> None:
    cells = EXPERIMENTS[f"clustering_{name}"].cells(Form(quick=True, seeds=1))

    options = [cell.config.task.options for cell in cells[:3]]
    assert [one["sources"][0]["classes"] for one in options] == [1600, 400, 1600]
    assert [bool(one.get("equalise")) for one in options] == [False, False, True]
    assert {one["shares"] for one in options} == {"units"}


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_every_reading_of_gamma_is_run_with_rounds_enough_for_its_cycles(quick: bool) -> None:
    cells = EXPERIMENTS["clustering_gamma"].cells(Form(quick, seeds=1))

    tried: dict[str, set[object]] = {}
    for cell in cells:
        own = cell.config.clustering.options
        assert cell.config.run.rounds > own["cycles"] * own["meta_train_iterations"]
        for key in ("bound", "diff", "complement", "centre", "robust", "theta", "offset"):
            tried.setdefault(key, set()).add(own.get(key))
    assert tried == {
        "bound": {None, "phase"}, "diff": {None, "absolute"}, "complement": {None, "second"},
        "centre": {None, "min", "none"}, "robust": {None, "median", "clip"},
        "theta": {None, "shared"}, "offset": {None, 0.5},
    }  # fmt: skip
    assert len({cell.name for cell in cells}) == len(cells) == 14


def test_a_sweep_draws_a_band_for_each_origin_at_what_was_measured() -> None:
    experiment = EXPERIMENTS["clustering_bias"]
    runs = {
        cell.name: run_of(cell, clusters([cell.config.clustering.options["bias"], 0.5]))
        for cell in experiment.cells(FULL)
        if "0.65" not in cell.name
    }

    panel = experiment.outcome(FULL, Results(runs)).pictures[0].panels[0]

    assert [line.label for line in panel.lines] == list(clustering.ORIGINS)  # type: ignore[union-attr]
    band = panel.lines[0].band  # type: ignore[union-attr]
    assert band.x.tolist() == pytest.approx(band.mean.tolist()) == [0.55, 0.75, 0.85, 0.95]
    assert band.count == 3


# -- equal total tasks -----------------------------------------------------------------------------


def total_of(config: Any, size: int) -> int:
    """Return the tasks, in rounds of a single pipeline, of a run with so many pipelines."""
    options = config.clustering.options
    single = {"mixture": "warmup", "gradient_tree": "every"}.get(config.clustering.name)
    alone = config.run.rounds if config.clustering.name == "none" else options.get(single, 0)
    if config.clustering.name == "gradient_tree" and size == 4:
        alone = 2 * options["every"]  # on the average: one leaf, then two
    return int(alone + (config.run.rounds - alone) * size)


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_rows_of_two_families_have_the_same_total_of_tasks(quick: bool) -> None:
    cells = EXPERIMENTS["clustering_families"].cells(Form(quick, seeds=1))
    rows = {cell.name.removesuffix("-s1"): cell.config for cell in cells}

    totals = {
        row: total_of(rows[f"two-families-{row}"], 2)
        for row in ("one-maml", "k-means", "mixture", "tree")
    }
    assert set(totals.values()) == {rows["one-maml"].run.rounds}
    assert total_of(rows["two-families-sine-alone"], 2) == rows["one-maml"].run.rounds // 2


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
@pytest.mark.parametrize("name", ["clustering_table3", "clustering_families"])
def test_rows_have_the_same_total_of_tasks(name: str, quick: bool) -> None:
    form = Form(quick, seeds=1)
    cells = {cell.name.removesuffix("-s1"): cell.config for cell in EXPERIMENTS[name].cells(form)}
    size = 2 if name == "clustering_table3" else 4

    def total(config: Any) -> int:
        return total_of(config, size)

    mixed = total(cells.get("random-mixture") or cells["one-maml"])
    for row in {"k-means", "inference", "mixture", "tree"} & set(cells):
        assert total(cells[row]) == pytest.approx(mixed, rel=0.01)
    if size == 2:
        assert total(cells["even-mixture"]) == mixed
        even = total(cells["even-mixture-first-order"])
        assert {cells[name].algorithm.order for name in cells if name.endswith("order")} == {
            "first"
        }
        assert total(cells["k-means-first-order"]) == total(cells["mixture-first-order"]) == even
        assert total(cells["omniglot-only-first-order"]) == even // 2
        assert total(cells["omniglot-only"]) == total(cells["miniimagenet-only"]) == mixed // 2
        for row in ("omniglot-only", "miniimagenet-only", "random-mixture", "k-means", "inference",
                    "mixture", "tree"):  # fmt: skip
            assert total(cells[f"{row}-1-to-1"]) == total(cells[row])


def test_a_model_of_one_origin_is_trained_on_it_and_tested_on_the_tasks_of_all() -> None:
    form = Form(quick=True, seeds=1)
    rows = {c.name: c.config.task.options for c in EXPERIMENTS["clustering_table3"].cells(form)}

    assert rows["omniglot-only-s1"]["only"] == {"train": "omniglot"}
    assert rows["miniimagenet-only-s1"]["only"] == {"train": "miniimagenet"}
    assert rows["random-mixture-s1"]["only"] == rows["mixture-s1"]["only"] == {}
    assert rows["even-mixture-s1"]["shares"] == "equal"
    others = {one["shares"] for name, one in rows.items() if not name.startswith("even-mixture")}
    assert others == {"units"}


def test_rows_of_1_to_1_have_a_quarter_of_the_characters_and_no_even_mixture() -> None:
    rows = {
        cell.name: cell.config.task.options["sources"][0]["classes"]
        for cell in EXPERIMENTS["clustering_table3"].cells(Form(quick=True, seeds=1))
    }

    assert {name: size for name, size in rows.items() if "1-to-1" in name} == {
        f"{row}-1-to-1-s1": 400
        for row in ("omniglot-only", "miniimagenet-only", "random-mixture", "k-means", "inference",
                    "mixture", "tree")
    }  # fmt: skip
    assert {size for name, size in rows.items() if "1-to-1" not in name} == {1600}


def test_a_row_is_compared_with_those_of_its_ratio_in_the_seeds_that_both_have() -> None:
    form = Form(quick=True, seeds=3)
    experiment = EXPERIMENTS["clustering_table3"]
    score = {
        "random-mixture-1-to-1-s1": 0.9, "random-mixture-1-to-1-s3": 0.5, "random-mixture-s1": 0.1,
        "k-means-1-to-1-s2": 0.2, "k-means-1-to-1-s3": 0.6,
    }  # fmt: skip
    runs = {
        cell.name: run_of(
            cell, None,
            origins={name: {"accuracy": [0.2, score[cell.name]]} for name in clustering.ORIGINS},
        )
        for cell in experiment.cells(form) if cell.name in score
    }  # fmt: skip

    claims = experiment.outcome(form, Results(runs)).published

    assert [(one.what, one.measured) for one in claims] == [
        (f"{origin}: K-means, 1 to 1, against random mixture, 1 to 1", "+10.0 points (+10.0)")
        for origin in clustering.ORIGINS
    ]


def test_clusters_are_compared_with_models_of_one_origin_and_of_all() -> None:
    form = Form(quick=True, seeds=1)
    experiment = EXPERIMENTS["clustering_table3"]
    score = {"omniglot-only": 0.9, "miniimagenet-only": 0.4, "random-mixture": 0.7, "k-means": 0.85}
    runs = {}
    for cell in experiment.cells(form):
        own = score.get(cell.name.removesuffix("-s1"))
        if own is not None:
            of = {origin: {"accuracy": [0.2, own]} for origin in clustering.ORIGINS}
            runs[cell.name] = run_of(cell, clusters([1.0, 1.0]), origins=of)

    outcome = experiment.outcome(form, Results(runs))

    assert [(one.what, one.measured, one.verdict) for one in outcome.published] == [
        ("omniglot: K-means, against Omniglot only", "-5.0 points (-5.0)", "4.0 points below"),
        ("omniglot: K-means, against random mixture", "+15.0 points (+15.0)", "reached"),
        ("miniimagenet: K-means, against miniImageNet only", "+45.0 points (+45.0)", "reached"),
        ("miniimagenet: K-means, against random mixture", "+15.0 points (+15.0)", "reached"),
    ]
    equal = experiment.outcome(form, Results(runs | {"random-mixture-s1": runs["k-means-s1"]}))
    assert equal.published[1].verdict == "0.0 points below"  # above is wanted
    assert outcome.tables[0].rows[4][3:] == ("1.000 / 1.000", "85.0 (85.0)", "85.0 (85.0)")


def test_clustered_families_are_told_as_a_share_of_one_maml() -> None:
    score = {"maml": 2.0, "sine": 3.0, "line": 1.0, "quadratic": 1.5}  # cubic and clustered: .5
    form = Form(quick=True, seeds=1)
    experiment = EXPERIMENTS["clustering_families"]
    runs = {
        cell.name: run_of(cell, None, next((s for n, s in score.items() if n in cell.name), 0.5))
        for cell in experiment.cells(form)
    }

    outcome = experiment.outcome(form, Results(runs))
    claims = outcome.published[2:]

    assert [(one.measured, one.verdict) for one in claims] == [
        *[("0.25 (0.25)", "reached")] * 3, ("0.75 (0.75)", "above 0.5"),
        *[("0.25 (0.25)", "reached")] * 3, ("1.00 (1.00)", "above 0.5"),
    ]  # fmt: skip
    assert claims[4].what == "error of two families: K-means in that of one MAML (worst)"
    assert claims[0].what == "error of K-means in that of one MAML (worst)"
    assert claims[3].what == "error of one MAML for each family in that of one MAML (worst)"
    assert [row[-1] for row in outcome.tables[0].rows if "each family" in row[0]] == [
        "1.500 (1.500)", "2.000 (2.000)",
    ]  # fmt: skip


def test_a_share_of_one_maml_is_the_median_of_those_of_the_seeds() -> None:
    form = Form(quick=True, seeds=3)
    experiment = EXPERIMENTS["clustering_families"]
    score = {
        "two-families-one-maml-s1": 1.0, "two-families-one-maml-s2": 2.0,
        "two-families-one-maml-s3": 4.0, "two-families-mixture-s1": 0.5,
        "two-families-mixture-s2": 0.5, "two-families-mixture-s3": 3.0,
    }  # fmt: skip
    runs = {
        cell.name: run_of(cell, None, score[cell.name])
        for cell in experiment.cells(form) if cell.name in score
    }  # fmt: skip

    claims = experiment.outcome(form, Results(runs)).published

    assert [(one.measured, one.verdict) for one in claims if "mixture in that" in one.what] == [
        ("0.50 (0.75)", "reached")
    ]


def test_recovery_of_families_is_that_of_the_worst_seed() -> None:
    form = Form(quick=True, seeds=2)
    experiment = EXPERIMENTS["clustering_families"]
    found = {"two-families-mixture-s1": [1.0, 0.95], "two-families-mixture-s2": [0.92, 0.3]}
    runs = {
        cell.name: run_of(cell, clusters(found.get(cell.name, [0.9, 0.95])), 1.0)
        for cell in experiment.cells(form)
    }

    claims = [
        one for one in experiment.outcome(form, Results(runs)).published if "least" in one.what
    ]

    assert [(one.measured, one.verdict) for one in claims] == [
        ("0.900", "reached"), ("0.300", "below 0.9"),
    ]  # fmt: skip


# -- the tree --------------------------------------------------------------------------------------


def test_splits_are_marked_in_the_curve_and_leaves_named_in_the_tree() -> None:
    form = Form(quick=True, seeds=1)
    experiment = EXPERIMENTS["clustering_alphabets"]
    trials = [
        {"trained": 80, "pipeline": 0, "split": True},
        {"trained": 160, "pipeline": 1, "split": False},
    ]
    runs = {
        cell.name: run_of(cell, clusters([0.5], trials) if "with-s" in cell.name else None)
        for cell in experiment.cells(form)
    }

    outcome = experiment.outcome(form, Results(runs))

    curve, tree = (picture.panels[0] for picture in outcome.pictures)
    assert curve.marks == (80.0,)  # type: ignore[union-attr]
    assert isinstance(tree, Tree)
    assert tree.nodes == (
        Node("pipeline 0, split"),
        Node("pipeline 1: Greek, Latin", 0),
        Node("pipeline 2: Korean", 0),
    )


def test_leaves_take_rows_in_turn_and_a_parent_the_middle_of_its_children() -> None:
    nodes = (Node("root"), Node("a", 0), Node("b", 0), Node("c", 1), Node("d", 1))

    found = places(nodes)

    assert found == [(0, 0, 1.25), (1, 1, 0.5), (2, 1, 2.0), (3, 2, 0.0), (4, 2, 1.0)]


def test_a_tree_is_drawn(tmp_path: Any) -> None:
    from dmaml.report.charts import Picture

    tree = alphabets.tree_of(clusters([0.5]), "tree")

    paths = draw(Picture("tree", "", (tree,)), tmp_path)

    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_tree_that_splits_one_origin_is_counted_and_one_that_leaves_two_together_is_not() -> None:
    experiment = EXPERIMENTS["clustering_splits"]
    form = Form(quick=False, seeds=2)
    whole = {"recovery": [1.0], "pipelines": [{"pipeline": 0, "active": True}], "wall_s": 1.0}
    found = {
        "one-origin-s1": whole,
        "one-origin-s2": clusters([1.0]),
        "two-origins-s1": clusters([0.95, 1.0]),
        "two-origins-s2": clusters([0.95, 0.8]),
    }
    runs = {cell.name: run_of(cell, found[cell.name]) for cell in experiment.cells(form)}

    outcome = experiment.outcome(form, Results(runs))

    assert [row.measured for row in outcome.published] == ["1 of 2", "1 of 2"]
    assert [row.verdict for row in outcome.published] == ["missed", "missed"]


def test_the_best_strategy_is_the_one_whose_lesser_recovery_is_the_largest() -> None:
    experiment = EXPERIMENTS["clustering_styles"]
    form = Form(quick=False, seeds=1)
    found = {"mixture-s1": [0.92, 0.95], "tree-s1": [0.99, 0.6]}
    runs = {
        cell.name: run_of(cell, clusters(found.get(cell.name, [0.6, 0.5])))
        for cell in experiment.cells(form)
    }

    (row,) = experiment.outcome(form, Results(runs)).published

    assert (row.measured, row.verdict) == ("0.920", "reached")
