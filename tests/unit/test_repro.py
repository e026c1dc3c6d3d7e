"""The published experiments: their runs are valid and distinct, and figures become tables."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common.errors import UnknownNameError
from dmaml.deploy.experiments import NAMES
from dmaml.deploy.repro import EXPERIMENTS, find, modes, published, robustness, slots, thesis
from dmaml.deploy.repro.command import num_lanes
from dmaml.deploy.repro.experiment import (
    CROWDED,
    Experiment,
    Form,
    Results,
    Variant,
    cells_of,
    figure,
    final_scores,
    points_between,
    validation,
)
from dmaml.deploy.sweep import (
    Cell,
    Finished,
    Measured,
    cell_of,
)
from dmaml.report.charts import Lines, Matrix
from dmaml.server import aggregation, weights

ROOT = Path(__file__).parents[2]
QUICK = Form(quick=True, seeds=2)
EACH = pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)


def measured(cell: Cell, score: float = 0.5, rounds: int = 4, stopped: str = "") -> Measured:
    """Return a finished run as it might have been."""
    config = cell.config
    steps = config.evaluation.steps + 1
    metric = "mse" if config.task.n_way == 1 else "accuracy"
    metric = "return" if config.task.source == "navigation" else metric
    per_round = config.topology.slots * config.algorithm.tasks * config.algorithm.local_steps
    rows = [
        {
            "version": n, "tasks_seen": n * per_round, "duration_s": 0.5, "norm": 1.0, "loss": 1.0,
            "at": 100 + n * 0.5, "items": [{"staleness": 0}], "metrics": {},
        }
        for n in range(1, rounds + 1)
    ]  # fmt: skip
    evaluations = [
        {"version": n, "metrics": {metric: {"mean": [score] * steps, "ci95": [0.0] * steps}}}
        for n in (2, 4)
    ]
    test = {metric: [score] * steps} if config.evaluation.test_tasks else None
    finished = Finished(
        rounds, {}, rounds, rounds * per_round, "0" * 64, test, stopped, rounds * 0.5, 1.0
    )
    return Measured(cell, Path("nowhere"), finished, rows, evaluations)


def results_of(cells: Sequence[Cell], **options: Any) -> Results:
    return Results({cell.name: measured(cell, **options) for cell in cells})


# -- the entries -----------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_every_run_of_an_experiment_is_valid_and_has_a_name_of_its_own(
    experiment: Experiment, quick: bool
) -> None:
    cells = experiment.cells(Form(quick, seeds=3))

    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.name == cell.config.run.name
        assert set(cell.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        weights.build(cell.config.weights)
        aggregation.check(cell.config)
    assert {cell.config.run.seed for cell in cells} == {1, 2, 3}


@EACH
def test_each_run_is_another_but_for_its_seed(experiment: Experiment) -> None:
    cells = experiment.cells(QUICK)

    first = [cell for cell in cells if cell.config.run.seed == 1]
    keys = {(configuration.identity(c.config), c.config.run.rounds) for c in first}
    assert len(keys) == len(first)
    assert len(cells) == 2 * len(first)


@EACH
def test_the_quick_form_is_the_smaller(experiment: Experiment) -> None:
    def work(form: Form) -> int:
        return sum(
            c.config.run.rounds * c.config.topology.slots * c.config.algorithm.tasks
            for c in experiment.cells(form)
        )

    assert work(Form(True, 3)) < work(Form(False, 3))


@EACH
def test_an_outcome_has_tables_pictures_and_json(experiment: Experiment) -> None:
    cells = experiment.cells(QUICK)
    if experiment is slots.EXPERIMENTS[0]:  # reads checkpoints: tests/integration/test_sweep.py
        cells = tuple(cell for cell in cells if cell.config.run.rounds > 1)

    outcome = experiment.outcome(QUICK, results_of(cells))

    assert outcome.tables
    for table in outcome.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert outcome.pictures
    assert all(
        panel.lines if isinstance(panel, Lines) else panel.values
        for picture in outcome.pictures
        for panel in picture.panels
    )
    json.dumps(outcome.facts)


@EACH
def test_an_outcome_without_a_single_finished_run_is_empty_and_no_error(
    experiment: Experiment,
) -> None:
    outcome = experiment.outcome(QUICK, Results({}))

    words = {cell for table in outcome.tables for row in table.rows for cell in row[1:]}
    assert words <= {"–", "", "0", *map(str, (1, 2, 4, 8, 16))}
    assert not any(re.search(r"nan|0e[-+]|0\.0| is none|: none", n) for n in outcome.notes)
    promised = {"workers_vs_tasks": 2, "byzantine": 6, "modes": 1}
    unmeasured = sum(note.count("not measured") for note in outcome.notes)
    assert unmeasured == promised.get(experiment.name, 0)


def test_equal_curves_are_claimed_only_where_all_of_them_were_measured() -> None:
    experiment = slots.EXPERIMENTS[0]
    cells = [cell for cell in experiment.cells(Form(True, 1)) if cell.config.run.rounds > 1]
    whole = {cell.name: measured(cell) for cell in cells}
    name = slots.SPLIT_SUM.cell_name(1)

    def claim(results: dict[str, Measured]) -> str:
        return experiment.outcome(Form(True, 1), Results(results)).notes[1]

    far = whole | {name: measured(whole[name].cell, score=0.52)}
    shorter = replace(whole[name], evaluations=whole[name].evaluations[:1])
    assert claim(whole).endswith(" is 0.00 points.")
    assert claim(far).endswith(" is 2.00 points.")
    assert claim({n: run for n, run in whole.items() if n != name}).endswith(" is not measured.")
    assert claim(whole | {name: shorter}).endswith(" is not measured.")


def test_a_table_with_holes_says_how_many_combinations_were_not_measured() -> None:
    experiment = robustness.EXPERIMENTS[1]
    cells = [
        c
        for c in experiment.cells(Form(True, 1))
        if not re.search("(mean|weighted|median|average)-krum-shuffled", c.name)
    ]

    notes = experiment.outcome(Form(True, 1), results_of(cells, score=0.2)).notes

    assert "(4 of 28 not measured)." in notes[1]
    assert "not measured" not in notes[2]
    assert "(4 of 28 not measured)." in notes[3]


def test_a_search_whose_rates_all_diverged_names_none_as_the_best() -> None:
    experiment = EXPERIMENTS["beta_sinusoid"]
    cells = experiment.cells(QUICK)

    outcome = experiment.outcome(QUICK, results_of(cells, score=float("nan")))

    assert outcome.notes == ()
    assert outcome.facts["best_beta"] == {}


@EACH
def test_the_configuration_beside_the_code_is_the_entry_s(experiment: Experiment) -> None:
    file = ROOT / "configs" / f"{experiment.name}.yaml"

    head = f"# {experiment.title} ({experiment.shows}).\n#\n# dmaml repro {experiment.name}\n"
    is_read = experiment in published.EXPERIMENTS  # from the very file, which has a head of its own
    assert file.read_text() == ("" if is_read else head) + experiment.config
    trained = configuration.resolve(configuration.load(file))
    first = experiment.cells(Form(False, seeds=3))[0].config
    name = trained.run.name if is_read else experiment.name
    named = first.run.model_copy(update={"name": name})
    assert trained == first.model_copy(update={"run": named})


def test_the_names_that_cost_nothing_are_those_of_the_experiments() -> None:
    assert tuple(EXPERIMENTS) == NAMES


QUICKLY = """
import sys
from dmaml.deploy.cli import run_cli
code = run_cli(sys.argv[1:])
print(sorted({"torch", "ray", "grpc"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["repro", "nosuch"], "error: unknown experiment 'nosuch'. Known: beta_miniimagenet,"),
        (["repro", "--quick"], "error: dmaml repro: options without NAME. Name one; `dmaml repro`"),
        (["repro", "--seeds", "3"], "error: dmaml repro: options without NAME."),
        (["bench", "scaling", "--simulated-task-ms", "-1"], "argument --simulated-task-ms: -1 is"),
        (["bench", "stragglers", "--slots", "1"], "error: --slots 1: one slow actor"),
    ],
)
def test_what_is_wrong_is_said_before_torch_and_ray_are_imported(
    arguments: list[str], sentence: str
) -> None:
    found = subprocess.run(
        [sys.executable, "-c", QUICKLY, *arguments], capture_output=True, text=True, check=False
    )

    assert found.returncode == 2
    assert found.stdout == "[]\n"
    assert sentence in found.stderr
    assert found.stderr.count("\n") == 1


def test_an_unknown_experiment_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        find("byzantium")

    assert "unknown experiment 'byzantium'. Did you mean 'byzantine'?" in str(caught.value)


def test_validation_steps_are_those_of_the_figures() -> None:
    steps = {
        name: {c.config.evaluation.steps for c in EXPERIMENTS[name].cells(Form(False, 1))}
        for name in (
            "implementation_omniglot", "implementation_miniimagenet", "implementation_sinusoid",
            "beta_omniglot", "beta_miniimagenet", "beta_sinusoid", "workers",
        )
    }  # fmt: skip

    assert list(steps.values()) == [{3}, {5}, {1}, {3}, {10}, {1}, {3}]


def test_timed_experiments_are_done_one_run_at_a_time() -> None:
    durations, modes = EXPERIMENTS["durations"], EXPERIMENTS["modes"]

    timed = [name for name, experiment in EXPERIMENTS.items() if experiment.is_timed]
    assert timed == ["workers", "scaling", "durations"]

    assert num_lanes(durations, durations.cells(QUICK), lanes=4) == 1
    assert num_lanes(modes, modes.cells(QUICK), lanes=4) == 4
    grown = {
        (c.config.topology.slots, c.actors)
        for c in durations.cells(QUICK)
        if c.name.startswith(("workers", "none"))
    }
    assert grown == {(n, n) for n in (1, 2, 4, 8, 16)}
    workers = EXPERIMENTS["workers"].cells(QUICK)
    assert {(c.config.topology.slots, c.actors) for c in workers} == grown


def test_accuracy_by_second_is_shown_where_slots_and_actors_grow_together() -> None:
    cells = EXPERIMENTS["workers"].cells(QUICK)

    outcome = EXPERIMENTS["workers"].outcome(QUICK, results_of(cells))

    by_second = outcome.pictures[0].panels[-1]
    assert isinstance(by_second, Lines)
    assert by_second.x_label == "training time, seconds"
    assert len(by_second.lines) == 5


@EACH
def test_untimed_seconds_are_said_to_be_of_shared_cores(experiment: Experiment) -> None:
    outcome = experiment.outcome(QUICK, Results({}))
    columns = {column for table in outcome.tables for column in table.columns}
    labels = {getattr(panel, "x_label", "") for one in outcome.pictures for panel in one.panels}

    if any("second" in label or label.endswith(", s") for label in columns | labels):
        assert experiment.is_timed or CROWDED in experiment.about


def test_every_generator_meets_every_rule_under_every_fault() -> None:
    cells = EXPERIMENTS["byzantine"].cells(Form(True, 1))

    found = {
        (c.config.weights.name, c.config.aggregation.name, c.config.faults.kind) for c in cells
    }
    generators = set(weights.GENERATORS) - {"staleness_discount"}  # in mode sync it is its inner
    assert {g for g, _, _ in found} == generators
    assert {r for _, r, _ in found} == set(aggregation.RULES)
    assert len(found) == len(cells) == 3 * len(generators) * len(aggregation.RULES)
    assert {c.config.faults.slots for c in cells} == {(), (0,)}


def test_the_table_says_which_combinations_are_within_a_point_of_the_clean_run() -> None:
    experiment = robustness.EXPERIMENTS[1]
    scores = {"mean-mean-clean": 0.70, "loss-weighted-median-scaled": 0.691}
    cells = {
        cell.name: measured(cell, scores.get(cell.name.removesuffix("-s1"), 0.4))
        for cell in experiment.cells(Form(True, 1))
    }

    facts = experiment.outcome(Form(True, 1), Results(cells)).facts

    assert facts["clean"] == pytest.approx(70.0)
    assert facts["near"][robustness.SCALED] == ["loss_weighted × median"]
    assert facts["near"][robustness.SHUFFLED] == facts["near_under_both"] == []


def test_a_stopped_run_is_shown_and_named() -> None:
    experiment = robustness.EXPERIMENTS[1]
    cells = experiment.cells(Form(True, 1))

    outcome = experiment.outcome(
        Form(True, 1), results_of(cells, score=0.2, stopped="every contribution is void")
    )

    assert any("stopped before their end" in note for note in outcome.notes)
    panel = outcome.pictures[0].panels[0]
    assert isinstance(panel, Matrix)
    assert panel.values[0][0] == pytest.approx(20.0)


# -- figures ---------------------------------------------------------------------------------------

TINY = "task: {source: sinusoid, n_way: 1}\nmodel: {name: mlp}\n"


def test_cells_go_seed_by_seed_and_settings_of_a_variant_are_on_top() -> None:
    variants = [Variant("A, β"), Variant("b  2", ("outer.lr=0.5", "run.rounds=7"))]

    cells = cells_of(TINY, variants, Form(True, 2), ("run.rounds=3",))

    assert [cell.name for cell in cells] == ["a-s1", "b-2-s1", "a-s2", "b-2-s2"]
    assert [cell.config.run.rounds for cell in cells] == [3, 7, 3, 7]
    assert [cell.config.run.seed for cell in cells] == [1, 1, 2, 2]


def test_scores_and_curves_are_read_by_step_and_by_place() -> None:
    run = measured(cell_of("one", TINY), score=2.0)

    assert final_scores([run], "mse") == [2.0]
    assert validation(run, "rounds", "mse") == ([2, 4], [2.0, 2.0])
    assert validation(run, "tasks", "mse")[0] == [2 * 4 * 8, 4 * 4 * 8]
    assert validation(run, "seconds", "mse")[0] == [1.0, 2.0]
    assert validation(run, "rounds", "accuracy") == ([], [])


@pytest.mark.parametrize(("score", "limits"), [(0.5, (0.0, 1.0)), (0.95, None)])
def test_accuracies_that_are_all_high_are_shown_close(
    score: float, limits: tuple[float, float] | None
) -> None:
    text = published.EXPERIMENTS[0].config
    cells = cells_of(text, (Variant("run"),), QUICK, ())

    panel = thesis.curves(results_of(cells, score=score), (Variant("run"),), QUICK, "rounds")

    assert panel.lines
    assert panel.y_limits == limits


def test_seconds_of_overlapping_commits_count_once() -> None:
    run = measured(cell_of("one", TINY))
    for row in run.rounds:
        row["duration_s"] = 1.5  # each begins while the two before it are in progress

    assert validation(run, "seconds", "mse")[0] == [2.0, 3.0]


def test_a_figure_has_its_interval_where_there_are_several() -> None:
    assert figure([]) == "–"
    assert figure([12.34]) == "12.3"
    assert figure([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"


TESTED = "task: {source: glyphs}\nmodel: {name: mlp}\nevaluation: {test_tasks: 1}\n"


def scored(variant: Variant, scores: dict[int, float]) -> dict[str, Measured]:
    """Return a variant's runs by name, from seed -> test accuracy."""
    cells = {seed: cell_of(variant.cell_name(seed), TESTED) for seed in scores}
    return {cells[seed].name: measured(cells[seed], score) for seed, score in scores.items()}


def test_differences_are_of_one_seed_and_without_the_seeds_that_one_variant_lacks() -> None:
    one, other = Variant("one"), Variant("other")
    results = Results(
        {**scored(one, {1: 0.50, 2: 0.71, 3: 0.92}), **scored(other, {1: 0.49, 3: 0.90, 4: 0.1})}
    )

    found = points_between(results, one, other, Form(True, seeds=4))

    assert found == pytest.approx([1.0, 2.0])
    assert [(a.cell.name, b.cell.name) for a, b in results.pairs(one, other, 3)] == [
        ("one-s1", "other-s1"),
        ("one-s3", "other-s3"),
    ]


def test_modes_are_compared_with_sync_seed_by_seed() -> None:
    # 30 points between the seeds, but each is 1 to 1.2 points below sync
    runs = {
        **scored(modes.SYNC, {1: 0.90, 2: 0.60}),
        **scored(modes.MERGE, {1: 0.89, 2: 0.588}),
        **scored(modes.ASYNC, {2: 0.59}),
    }

    outcome = EXPERIMENTS["modes"].outcome(QUICK, Results(runs))

    assert [row[4] for row in outcome.tables[0].rows] == ["", "-1.10 ± 1.27", "-1.00"]
    merged, waiting = outcome.facts["points_from_sync"].values()
    assert merged == pytest.approx({"mean": -1.1, "ci95": 1.2706}, abs=1e-3)
    assert waiting == pytest.approx({"mean": -1.0, "ci95": 0.0})
    distance = "The largest distance of a mode from sync is"
    assert outcome.notes[0] == f"{distance} 1.10 points (required: 1), on 600 test tasks × 1 seed."
    del runs[modes.ASYNC.cell_name(2)]
    missing = EXPERIMENTS["modes"].outcome(QUICK, Results(runs))
    assert missing.notes[0].startswith(f"{distance} not measured (required: 1), on 600")
    full = EXPERIMENTS["modes"].outcome(Form(False, 3), Results({}))
    assert "on 2,000 test tasks" in full.notes[0]


def test_a_table_shows_how_far_each_variant_is_from_a_chosen_one() -> None:
    one, other = Variant("one"), Variant("other")
    results = Results({**scored(one, {1: 0.5, 2: 0.7}), **scored(other, {1: 0.4, 2: 0.6})})

    table = thesis.final_table(results, (one, other), QUICK, "which", base=one)

    assert table.columns[-1] == "less one, points ± 95 %"
    assert [row[-1] for row in table.rows] == ["", "-10.00 ± 0.00"]
