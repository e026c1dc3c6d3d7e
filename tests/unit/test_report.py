"""Reports: each section is a function of rows or of a model's answers; the page needs nothing."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.learner.learner import Paths
from dmaml.report.binned import binned
from dmaml.report.classes import alphabet_of, base_of, per_class, scores
from dmaml.report.comparison import comparison, settings_of
from dmaml.report.contributions import contribution_weights
from dmaml.report.curves import learning_curves
from dmaml.report.document import PAGE, PICTURES, document, write
from dmaml.report.gamma import Node, clusters, lineage, places
from dmaml.report.names import names_of
from dmaml.report.probe import Episode
from dmaml.report.provenance import provenance, summary
from dmaml.report.record import RunRecord, validation
from dmaml.report.regression import fitted_curves
from dmaml.report.section import Section, Table
from dmaml.report.speed import phase_seconds, speed
from dmaml.report.steps import by_step
from dmaml.report.tasks import examples, hardest
from dmaml.report.trajectories import trajectories
from tests.unit.driven_core import config_of


def round_row(version: int, **changes: Any) -> dict[str, Any]:
    item = {"slot": 0, "wait_s": 0.1, "pull_s": 0.0, "sample_s": 0.1, "compute_s": 0.4}
    return {
        "round": version, "version": version, "tasks_seen": 8 * version, "loss": 1 / version,
        "metrics": {"loss_before": 1.6, "accuracy_before": 0.2, "accuracy": 1 - 0.5 / version},
        "weights": {"0": [0.25, 0.75]}, "losses": {"0": [0.3, None]}, "norm": 1.0, "voids": 0,
        "duration_s": 0.5, "timings": {"commit_s": 0.01}, "items": [item], "at": 100.0 + version,
    } | changes  # fmt: skip


def evaluation_row(version: int, accuracy: float) -> dict[str, Any]:
    figures = {"mean": [0.2, accuracy], "ci95": [0.01, 0.02]}
    return {
        "round": version, "version": version, "split": "validation", "num_tasks": 50,
        "metrics": {"accuracy": figures, "accuracy_inductive": figures, "loss": figures},
        "duration_s": 1.0, "at": 100.5 + version,
    }  # fmt: skip


def record_of(config: RunConfig | None = None, folder: str = "run", **changes: Any) -> RunRecord:
    return replace(
        RunRecord(
            Path(folder), config or config_of(run={"rounds": 4}),
            [round_row(version) for version in range(1, 5)],
            [evaluation_row(2, 0.75), evaluation_row(4, 0.875)], [], [], [], None,
        ),
        **changes,
    )  # fmt: skip


def episode_of(number: int, right: int, shape: tuple[int, ...] = (1, 4, 4)) -> Episode:
    """Two classes, four queries, of which `right` are named rightly after adaptation."""
    rng = np.random.default_rng(number)
    labels = np.array([0, 0, 1, 1])
    named = np.where(np.arange(4) < right, labels, 1 - labels)
    after = np.full((4, 2), 0.1, dtype=np.float32)
    after[np.arange(4), named] = 0.9
    pictures = rng.random((6, *shape), dtype=np.float32)
    return Episode(
        number, ("Greek/1", "Latin/2 turned 90°"), pictures[:2], np.array([0, 1]), pictures[2:],
        labels, {0: np.full((4, 2), 0.5, dtype=np.float32), 3: after},
    )  # fmt: skip


def cells(section: Section) -> list[tuple[str, ...]]:
    return [row for table in section.tables for row in table.rows]


# --- sections of the record ---------------------------------------------------------------------


def test_the_tables_hold_the_figures_of_the_rows() -> None:
    record = record_of()

    assert ("4", "0.875 ± 0.020", "0.875 ± 0.020") in cells(learning_curves(record))
    assert ("1", "0.875 ± 0.020", "0.875 ± 0.020") in cells(by_step(record))
    shown = dict(cells(summary(record)))
    assert shown["tasks seen"] == "32"
    assert shown["last validation, accuracy after 1 step"] == "0.875 ± 0.020 (50 tasks)"
    assert shown["training"] == "2 s, 16.0 tasks/s"  # four rounds of half a second


def test_a_run_that_was_gone_on_with_is_not_over() -> None:
    finished = {"event": "finished", "at": 104.5, "epoch": 1, "message": ""}
    joined = {"event": "joined", "at": 110.0, "epoch": 2, "message": ""}

    assert record_of(events=[finished]).is_over
    assert not record_of(events=[joined]).is_over
    rounds = [round_row(version) for version in range(1, 9)]
    assert not record_of(events=[finished, joined], rounds=rounds).is_over


def test_a_method_without_steps_has_no_section_about_them() -> None:
    row = evaluation_row(4, 0.9)
    for means in ([0.9], [0.9, 0.9, 0.9]):  # one that steps do not change has none either
        row["metrics"] = {"accuracy": {"mean": means, "ci95": [0.01] * len(means)}}

        assert by_step(record_of(evaluations=[row])) is None


def test_a_method_that_does_not_adapt_in_training_has_one_training_line() -> None:
    figures = {"loss_before": 0.5, "accuracy_before": 0.75, "accuracy": 0.75}
    plain = [round_row(version, loss=0.5, metrics=figures) for version in range(1, 5)]

    for rounds, wanted in (
        (plain, ["training"]),
        (None, ["before adaptation", "after adaptation"]),
    ):
        record = record_of() if rounds is None else record_of(rounds=rounds)
        for axis in learning_curves(record).figures[0].figure.axes:
            labels = [line.get_label() for line in axis.lines if line.get_label()[0] != "_"]
            assert labels == wanted


def test_time_is_divided_by_phase_and_void_rounds_have_none() -> None:
    rounds = [round_row(1), round_row(2, items=[])]

    table = phase_seconds(rounds)

    np.testing.assert_allclose(table[0], [0.1, 0.0, 0.1, 0.4])
    assert np.isnan(table[1]).all()
    shares = {row[0]: row[2] for row in cells(speed(record_of(rounds=rounds)))}
    assert shares["computing"] == "66.7 %"


def test_one_slot_has_no_section_about_weights() -> None:
    assert contribution_weights(record_of()) is not None
    assert contribution_weights(record_of(config_of(topology={"slots": 1}))) is None


def test_provenance_names_what_was_recorded_and_what_was_not() -> None:
    starts = [{"epoch": 1, "at": 0.0, "facts": {"commit": "abc123", "python": "3.11.4"}}]

    known = cells(provenance(record_of(starts=starts)))
    unknown = cells(provenance(record_of()))

    assert ("1", "1970-01-01 00:00:00 UTC", "abc123", "3.11.4") in known
    assert ("starts", "not recorded by this run") in unknown
    assert ("topology.slots", "2") in known  # not the default
    assert not any(row[0] == "outer.name" for row in known)


def test_bins_hold_the_means_of_neighbours_and_skip_void_rounds() -> None:
    one = binned([1, 2, 3, 4, 5], [1.0, None, 3.0, 5.0, 7.0], num_bins=2)

    assert one.width == 2
    np.testing.assert_allclose(one.x, [2.0, 4.5])
    np.testing.assert_allclose(one.mean, [2.0, 6.0])


# --- γ ------------------------------------------------------------------------------------------


def gamma_row(number: int, matrix: list[list[float]], pipelines: list[int]) -> dict[str, Any]:
    tree = [[0, -1, 0, False], *([p, 0, 5, True] for p in pipelines if p > 0)]
    state = {
        "pipelines": pipelines, "tree": tree, "entropy": 0.5,
        "expected_units": [sum(column) for column in zip(*matrix, strict=True)],
        "routed_units": [len(matrix)] + [0] * (len(pipelines) - 1), "matrix": matrix,
    }  # fmt: skip
    return {"version": number, "round": 10 * number, "state": state}


def test_a_run_with_one_pipeline_has_no_clustering() -> None:
    assert clusters(record_of()) is None
    assert clusters(record_of(gamma=[gamma_row(0, [], [0])])) is None


def test_clusters_are_counted_by_the_last_gamma() -> None:
    rows = [
        gamma_row(0, [[1.0], [1.0], [1.0]], [0]),
        gamma_row(1, [[0.9, 0.1], [0.6, 0.4], [0.0, 1.0]], [1, 2]),
    ]

    section = clusters(record_of(gamma=rows))

    assert section is not None
    assert ("1", "1.5", "3") in cells(section)
    assert ("2", "1.5", "0") in cells(section)
    assert section.tables[1].rows[0] == ("1", "0.600", "0.400")  # the most uncertain unit
    assert [shown.name for shown in section.figures] == ["gamma", "tree"]


def test_a_record_of_some_units_is_shown_by_their_numbers() -> None:
    rows = [
        gamma_row(1, [[0.9, 0.1], [0.6, 0.4]], [1, 2]),
        gamma_row(2, [[0.3, 0.7], [0.8, 0.2]], [1, 2]),
    ]
    rows[0]["state"] |= {"units": [7, 9], "uncertain": []}
    rows[1]["state"] |= {"units": [3, 7], "uncertain": [[5, [0.5, 0.5]]]}

    section = clusters(record_of(gamma=rows))

    assert section is not None
    assert section.tables[1].rows == (("5", "0.500", "0.500"),)
    lines = [line.get_xydata().tolist() for line in section.figures[0].figure.axes[2].lines]
    assert lines == [[[20, 0.7]], [[10, 0.9], [20, 0.8]]]


def test_a_unit_has_one_place_in_a_round_though_its_parent_goes_on() -> None:
    rows = [gamma_row(1, [[1.0]], [0]), gamma_row(2, [[0.2, 0.8]], [0, 1])]
    for row in rows:
        row["state"]["tree"] = [[0, -1, 0, True], [1, 0, 5, True]]

    section = clusters(record_of(gamma=rows))

    assert section is not None
    (line,) = section.figures[0].figure.axes[2].lines
    assert line.get_xydata().tolist() == [[10, 1.0], [20, 0.8]]


def test_a_unit_of_a_child_is_not_drawn_with_the_gamma_of_its_parent() -> None:
    rows = [gamma_row(n, [[0.1, 0.9]], [0, 1]) for n in (1, 2)]
    for row in rows:  # pipeline 0 goes on beside its child
        row["state"]["tree"] = [[0, -1, 0, True], [1, 0, 0, True]]

    section = clusters(record_of(gamma=rows))

    assert section is not None
    (line,) = section.figures[0].figure.axes[2].lines
    assert line.get_ydata().tolist() == [0.9, 0.9]


def test_units_are_counted_by_their_gamma() -> None:
    row = gamma_row(1, [[0.9, 0.1], [0.6, 0.4]], [1, 2])
    row["state"]["histogram"] = [[0, 2], [2, 0]]

    section = clusters(record_of(gamma=[row]))

    assert section is not None
    bins = section.figures[0].figure.axes[2]
    assert [patch.get_data().values.tolist() for patch in bins.patches] == [[0, 2], [2, 0]]
    assert section.figures[0].caption.endswith("which γ in the end.")


def test_clusters_are_shown_without_the_matrix() -> None:
    rows = [gamma_row(1, [[0.9, 0.1], [0.6, 0.4]], [1, 2])]
    del rows[0]["state"]["matrix"]

    section = clusters(record_of(gamma=rows))

    assert section is not None
    assert len(section.figures[0].figure.axes) == 2  # no line for each unit
    assert len(section.tables) == 1
    assert ("1", "1.5", "2") in cells(section)


def test_a_parent_stands_amid_its_children() -> None:
    tree = [Node(0, is_active=False), Node(1, 0), Node(2, 0, 5, False), Node(3, 2), Node(4, 2)]

    assert lineage(tree, 4) == [4, 2, 0]

    where = places(tree)

    assert (where[1], where[3], where[4]) == (0.0, 1.0, 2.0)
    assert where[2] == 1.5
    assert where[0] == 0.75


def test_a_parent_that_goes_on_is_a_leaf_beside_its_children() -> None:
    where = places([Node(0), Node(1, 0), Node(2, 1)])

    assert where == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_gamma_that_changed_once_holds_to_the_end() -> None:
    row = gamma_row(1, [[0.9, 0.1], [0.6, 0.4]], [0, 1])
    row["round"], row["state"]["tree"] = 1, [[0, -1, 0, True], [1, 0, 0, True]]

    section = clusters(record_of(gamma=[row]))  # of 4 rounds

    assert section is not None
    shown, tree = section.figures
    for axis in shown.figure.axes[:2]:
        assert [line.get_xdata().tolist() for line in axis.lines] == [[1, 4]] * len(axis.lines)
        assert axis.get_xlim()[1] > 4
    upright = [line.get_xydata().tolist() for line in tree.figure.axes[0].lines[:2]]
    assert upright[0] == [[0, 0], [0, 4]]  # pipeline 0 goes on
    assert upright[1] == [[1, 0], [1, 4]]


# --- what the model does ------------------------------------------------------------------------


def test_scores_count_queries_by_class() -> None:
    found = scores([episode_of(0, right=3), episode_of(1, right=4)], alphabet_of)

    assert [(one.name, one.queries) for one in found] == [("Latin", 4), ("Greek", 4)]
    assert [one.after for one in found] == [0.75, 1.0]


def test_a_turned_class_is_the_same_class_and_may_have_no_alphabet() -> None:
    assert base_of("Latin/2 turned 90°") == "Latin/2"
    assert alphabet_of("Latin/2 turned 90°") == "Latin"
    assert alphabet_of("cat") == ""


def test_the_hardest_tasks_are_those_with_the_lowest_accuracy() -> None:
    episodes = [episode_of(number, right) for number, right in enumerate((4, 1, 3, 0))]

    section = hardest(episodes)

    assert section is not None
    headings = [
        [axis.get_title(loc="left") for axis in shown.figure.axes] for shown in section.figures
    ]
    assert [words.split(":")[0] for words in headings[0]] == ["task 3", "task 1"]
    assert [words.split(":")[0] for words in headings[1]] == ["task 0", "task 2"]
    assert "accuracy 0.50 → 0.00" in headings[0][0]


def test_numbers_are_not_shown_as_pictures() -> None:
    assert hardest([episode_of(0, 2, shape=(5,))]) is None
    assert examples([episode_of(0, 2, shape=(5,))]) is None
    assert per_class([episode_of(0, 2, shape=(5,))]).figures


def test_an_example_says_what_was_predicted_before_and_after() -> None:
    section = examples([episode_of(0, right=3)])

    assert section is not None
    words = [text.get_text() for text in section.figures[0].figure.axes[0].texts]
    assert words[:2] == ["A", "B"]
    assert "A → A 0.90" in words[2:]
    assert words[2:].count("A → A 0.90") == 3  # both queries of A, and the wrong one of B


def test_fitted_curves_state_the_errors_of_the_answers() -> None:
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    one = Episode(0, (), x[:5], x[:5], x, x, {0: x + 2, 1: x + 1, 10: x})

    section = fitted_curves([one] * 4)

    assert section is not None
    assert section.figures[0].figure.axes[0].get_title() == "MSE 4 → 1 → 0"
    assert fitted_curves([replace(one, support_x=np.zeros((5, 2), dtype=np.float32))]) is None


def test_trajectories_are_shown_in_the_plane_only() -> None:
    walk = np.cumsum(np.ones((4, 2), dtype=np.float32), axis=0)
    task = Paths(np.array([1.0, 1.0], dtype=np.float32), [[walk], [walk + 1]])

    assert trajectories([task, task]) is not None
    assert trajectories([replace(task, parameters=np.zeros(3, dtype=np.float32))]) is None


# --- several runs -------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_are_one_setting() -> None:
    configs = [config_of(run={"rounds": 4, "seed": seed, "name": f"s{seed}"}) for seed in (1, 2)]
    other = config_of(run={"rounds": 4}, outer={"name": "sgd"})

    found = settings_of([record_of(config) for config in (*configs, other)])

    assert [len(setting.runs) for setting in found] == [2, 1]
    assert "name sgd" in found[1].label


def test_a_comparison_states_mean_and_interval_over_seeds() -> None:
    first = record_of(config_of(run={"rounds": 4, "seed": 1}))
    second = record_of(
        config_of(run={"rounds": 4, "seed": 2}),
        evaluations=[evaluation_row(2, 0.7), evaluation_row(4, 0.9)],
    )

    row = cells(comparison([first, second]))[0]

    assert row[1] == "1, 2"
    assert row[4].endswith("± 0.159")  # 12.706 · σ/√2 of .875 and .9


def test_a_run_with_one_validation_is_seen_in_a_comparison() -> None:
    record = record_of(evaluations=[evaluation_row(4, 0.875)])

    figure = comparison([record, record_of(config_of(outer={"lr": 0.5}))]).figures[0].figure

    assert all(line.get_marker() != "None" for axis in figure.axes for line in axis.lines)


def test_validations_lie_at_rounds_tasks_and_seconds() -> None:
    record = record_of()

    assert validation(record, "rounds") == ([2.0, 4.0], [0.75, 0.875])
    assert validation(record, "tasks")[0] == [16.0, 32.0]
    assert validation(record, "seconds")[0] == [1.0, 2.0]


def test_runs_of_one_name_are_told_apart_by_their_directories() -> None:
    run = {"rounds": 4, "name": "run-s1"}
    far = {"inner_reduction": "sum_over_ways", "task_reduction": "sum", "first_order_rounds": 3}
    configs = [config_of(run=run), config_of(run=run, algorithm=far, task={"k_query": 7})]
    folders = ("repro/one/run-s1", "repro/other/run-s1")

    found = settings_of([record_of(*both) for both in zip(configs, folders, strict=True)])

    assert [setting.label for setting in found] == ["one/run-s1", "other/run-s1"]


def test_runs_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path: Path) -> None:
    assert names_of([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert names_of([tmp_path / "a/s1", tmp_path / "b" / ".." / "b/s1"]) == ["a/s1", "b/s1"]
    assert names_of([tmp_path, tmp_path]) == [tmp_path.name] * 2


def test_the_run_in_the_working_directory_has_a_name() -> None:
    (table, *_) = provenance(record_of(folder=".")).tables

    assert dict(table.rows)["run directory"] == Path.cwd().name


def test_runs_of_unlike_figures_are_not_compared() -> None:
    row = evaluation_row(4, 0.0)
    row["metrics"] = {"mse": {"mean": [1.0, 0.5], "ci95": [0.1, 0.1]}}

    with pytest.raises(ConfigError, match=r"different figures: accuracy \(run\), mse \(other\)"):
        comparison([record_of(), record_of(folder="other", evaluations=[row])])


# --- the page -----------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    record = record_of()
    sections = [learning_curves(record), by_step(record)]

    page = write(document("<run>", "a & b", sections), tmp_path / "new")

    html = page.read_text()
    assert page.name == PAGE
    assert "http:" not in html
    assert "https:" not in html
    assert "<script" not in html
    assert "<h1>&lt;run&gt;</h1>" in html
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(s.startswith(("data:image/", "#")) for s in sources)
    names = {"learning_curves.png", "learning_curves.svg", "by_step.png", "by_step.svg"}
    assert {path.name for path in (tmp_path / "new" / PICTURES).iterdir()} == names
    svg = re.search(r"data:image/svg\+xml;base64,([^\"]+)", html)
    assert svg is not None
    content = base64.b64decode(svg.group(1))
    assert content == (tmp_path / "new" / PICTURES / "learning_curves.svg").read_bytes()


def test_links_may_go_on_in_the_next_line_and_numbers_may_not() -> None:
    page = document("t", "", [Section("one"), Section("two")])

    assert '<a href="#s0">one</a> <a href="#s1">two</a>' in page.html
    assert "overflow-wrap: anywhere" not in page.html  # 10000 as 1000, 0 on a phone


def test_the_same_record_gives_the_same_page() -> None:
    one, other = (document("t", "", [by_step(record_of())]) for _ in range(2))

    assert one == other


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be written"):
        write(
            document("t", "", [Section("s", tables=(Table("", ("a",), (("b",),)),))]),
            tmp_path / "file",
        )
