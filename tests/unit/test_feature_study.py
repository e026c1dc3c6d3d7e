"""The feature study's networks and pictures, on small runs that were never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmaml.common.errors import ConfigError, DataError, RunDirectoryError
from dmaml.learner import load
from dmaml.learner.task import Task, most_queries
from dmaml.report.features import findings
from dmaml.report.features.alignment import alignment
from dmaml.report.features.answers import class_sheet, neuron_sheets, saliency_sheet
from dmaml.report.features.filters import filters
from dmaml.report.features.findings import Points
from dmaml.report.features.scatter import scatter
from dmaml.report.features.subject import Chosen, Subject, similarity, subjects
from dmaml.report.features.tiles import Sheet, draw, frame, heat, left_of, picture, signed
from dmaml.report.features.words import marks
from dmaml.report.section import axes, rendered
from tests.unit.saved_runs import config_of, saved

torch.set_num_threads(1)
PLAIN = {"name": "pretrain", "inner_lr": 0.1, "inner_steps": 0}
WAVES = {"source": "sinusoid", "n_way": 1, "k_shot": 5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """MAML, and the same network trained plainly."""
    base = tmp_path_factory.mktemp("runs")
    return saved(config_of(), base / "a"), saved(config_of(algorithm=PLAIN), base / "b")


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> list[Subject]:
    return subjects([Chosen(folders[0], steps=1), Chosen(folders[1])], None)


@pytest.fixture(scope="module")
def task(pair: list[Subject]) -> Task:
    return pair[0].learner.task(0, most_queries=4).by_name()


# --- the learner's part -------------------------------------------------------------------------


def test_a_task_is_the_one_that_evaluation_counts(folders: tuple[Path, Path]) -> None:
    learner = load(folders[0])

    one = learner.task(2)

    wanted = learner._answerer.evaluation_tasks(5, "test", range(2, 3), None)  # Kind.TEST
    np.testing.assert_array_equal(one.query_x, wanted.query_x[0])
    np.testing.assert_array_equal(one.support_x, wanted.support_x[0])
    assert len(set(one.names)) == 3


class Small:
    """A source whose classes have so many examples."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def require_episode(self, name: str, n_way: int, k_shot: int, k_query: int) -> None:
        if k_shot + k_query > self.examples:
            raise DataError(f"exceeds the {self.examples} examples")


@pytest.mark.parametrize(("examples", "found"), [(3, 1), (20, 18), (100, 30)])
def test_a_task_has_as_many_queries_as_there_are_examples(examples: int, found: int) -> None:
    source: Any = Small(examples)  # k_shot is 2

    assert most_queries(source, config_of(), 30) == found


def test_classes_without_a_query_are_refused() -> None:
    source: Any = Small(2)

    with pytest.raises(DataError, match="exceeds the 2"):
        most_queries(source, config_of(), 30)


def test_labels_by_name_keep_every_example_with_its_class(pair: list[Subject]) -> None:
    one = next(
        task for task in (pair[0].learner.task(n) for n in range(9))
        if list(task.names) != sorted(task.names)
    )  # fmt: skip

    named = one.by_name()

    assert list(named.names) == sorted(one.names)
    np.testing.assert_array_equal(named.query_y, np.sort(one.query_y))
    for label, name in enumerate(named.names):
        was = one.names.index(name)
        np.testing.assert_array_equal(
            named.query_x[named.query_y == label], one.query_x[one.query_y == was]
        )
        np.testing.assert_array_equal(
            named.support_x[named.support_y == label], one.support_x[one.support_y == was]
        )


def test_a_module_like_a_support_set_is_the_adapted_one_after_no_step(
    folders: tuple[Path, Path], task: Task
) -> None:
    learner = load(folders[0])
    x = torch.from_numpy(task.query_x)

    like = learner.module(like=torch.from_numpy(task.support_x)).eval()

    adapted = learner.adapt(task.support_x, task.support_y, steps=0).module()
    torch.testing.assert_close(like(x).softmax(1), adapted(x))
    torch.testing.assert_close(like(x[:1]), like(x)[:1])  # each picture by itself


def test_another_rate_of_adaptation_is_taken(folders: tuple[Path, Path], task: Task) -> None:
    own, faster = load(folders[1]), load(folders[1], inner_lr=0.2)

    after, further = (one.adapt(task.support_x, task.support_y, steps=1) for one in (own, faster))

    start = own.module().state_dict()["classifier.bias"]
    moved, twice = (
        one.module().state_dict()["model.classifier.bias"] - start for one in (after, further)
    )
    assert moved.abs().max() > 0
    torch.testing.assert_close(twice, 2 * moved)


@pytest.mark.parametrize(("rate", "words"), [(0.0, "required a number > 0"), (-1.0, "> 0")])
def test_a_rate_of_nothing_is_refused(folders: tuple[Path, Path], rate: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(folders[1], inner_lr=rate)


def test_a_rate_for_learned_rates_is_refused(tmp_path: Path) -> None:
    learned = {"inner_lr": "learned", "initial_lr": 0.4}
    run = saved(config_of(algorithm=learned), tmp_path / "run")

    with pytest.raises(ConfigError, match="among what it learned"):
        load(run, inner_lr=0.1)


# --- subjects -----------------------------------------------------------------------------------


def test_subjects_are_named_by_method_and_adapt_as_they_are_asked(pair: list[Subject]) -> None:
    assert [subject.name for subject in pair] == ["MAML", "plain training"]
    assert [subject.steps for subject in pair] == [1, 2]


def test_two_runs_of_one_method_are_named_by_their_folders(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = saved(config_of(), tmp_path / "other")

    found = subjects([Chosen(folders[0]), Chosen(other)], None)

    assert [subject.name for subject in found] == ["a", "other"]


def test_two_runs_of_one_method_and_one_name_have_a_sheet_of_filters_each(tmp_path: Path) -> None:
    chosen = [Chosen(saved(config_of(), tmp_path / name / "run-s1")) for name in ("one", "two")]

    found = subjects(chosen, None)

    assert [subject.name for subject in found] == ["one/run-s1", "two/run-s1"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"width": 4}}, "has model .*'width': 4.* same network"),
        ({"task": {"source": "textures"}}, "task.source 'textures'"),
        ({"task": WAVES, "model": {"name": "mlp", "hidden": [8]}}, "learns regression .*pictures"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, sections: dict[str, dict[str, object]], words: str
) -> None:
    other = saved(config_of(**sections), tmp_path / "other")

    with pytest.raises(ConfigError, match=words):
        subjects([Chosen(folders[0]), Chosen(other)], None)


def test_one_run_twice_and_no_run_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        subjects([Chosen(folders[0]), Chosen(folders[0].parent / "a" / ".")], None)
    with pytest.raises(RunDirectoryError):
        subjects([Chosen(tmp_path / "nothing")], None)


def test_a_network_that_does_not_adapt_is_like_itself(pair: list[Subject]) -> None:
    still = Subject(pair[0].learner, "still", steps=0)

    found = similarity(still, [still.learner.task(n, 4) for n in range(2)])

    assert found.names == ("conv0", "conv1", "conv2", "conv3", "head")
    assert found.tables.shape == (2, 5, 5)
    kept = np.diagonal(found.tables, axis1=1, axis2=2)
    np.testing.assert_allclose(kept, np.ones((2, 5)), atol=1e-9)
    np.testing.assert_array_equal(found.accuracies[:, 0], found.accuracies[:, 1])
    np.testing.assert_array_equal(found.separations[:, 0], found.separations[:, 1])


def test_accuracy_is_that_of_predictions(pair: list[Subject], task: Task) -> None:
    _, after = pair[0].states(task)

    adapted = pair[0].learner.adapt(task.support_x, task.support_y, steps=1)
    labels = np.array(adapted.predict(task.query_x).labels)
    assert after.accuracy == (labels == task.query_y).mean()
    scores = after.layers.scores(torch.from_numpy(task.query_x))
    np.testing.assert_array_equal(scores.argmax(1).numpy(), labels)


# --- findings and their pictures ----------------------------------------------------------------


def test_neurons_answer_most_to_the_pictures_they_show(pair: list[Subject], task: Task) -> None:
    given = findings.pool([task])

    found = findings.neurons(pair[0], given)

    assert [one.layer for one in found] == ["norm2", "norm3"]
    layers = pair[0].unadapted(torch.from_numpy(given.x))
    for one in found:
        for neuron in one.neurons:
            own = layers.neurons(torch.from_numpy(given.x), one.layer)[:, neuron.number]
            shown = torch.from_numpy(np.stack([neuron.highest[0], neuron.lowest[0], neuron.made]))
            high, low, made = layers.neurons(shown, one.layer)[:, neuron.number].tolist()
            assert high == pytest.approx(own.max().item(), abs=1e-5)
            assert low == pytest.approx(own.min().item(), abs=1e-5)
            assert made > own.mean().item()
    shares = [neuron.share for neuron in found[0].neurons]
    assert shares[:3] == sorted(shares[:3], reverse=True)  # one for each class


def test_a_last_layer_of_zeros_is_said_to_see_nothing(pair: list[Subject], task: Task) -> None:
    before, after = findings.classes(pair[1], task)

    assert before.is_blind
    assert not after.is_blind
    assert (before.saliency == 0).all()
    assert after.saliency.max() > 0
    sheet = saliency_sheet([before, after], task.query_x[:3], "ABC")
    words = {text.get_text() for text in sheet.figure.axes[0].texts}
    assert "plain training,\nafter" in words
    assert "plain training,\nbefore" not in words
    assert "nothing of plain training before adaptation" in sheet.caption


@pytest.mark.e2e
def test_every_picture_of_a_study_can_be_drawn(pair: list[Subject], task: Task) -> None:
    called = marks(task.names)
    tasks = [task, pair[0].learner.task(1, 4)]
    given = findings.pool(tasks)
    first = {
        subject.name: findings.first_filters(subject.states(task)[0].layers, (1, 28, 28))
        for subject in pair
    }
    classes = [one for subject in pair for one in findings.classes(subject, task)]
    points = [one for subject in pair for one in findings.points(subject, task, seed=1)]
    neurons = [findings.neurons(subject, given)[1] for subject in pair]
    aligned = alignment([(subject, similarity(subject, tasks)) for subject in pair])

    figures = [
        filters({name: one for name, one in first.items() if one is not None}).figures[0],
        scatter(points, task.query_y, called).figures[0],
        neuron_sheets(neurons),
        class_sheet(classes, task.support_x[:3], called.letters),
        saliency_sheet(classes, task.query_x[:3], called.letters),
        aligned.figures[0],
    ]

    assert len({shown.name for shown in figures}) == 6
    for shown in figures:
        png, svg = rendered(shown.figure)
        assert png.startswith(b"\x89PNG")
        assert svg.rstrip().endswith(b"</svg>")
        assert len(shown.caption) > 40
    rows = aligned.tables[0].rows
    assert [row[:2] for row in rows] == [("MAML", "1"), ("plain training", "2")]


def test_names_of_classes_lie_within_the_picture() -> None:
    plane = np.random.default_rng(0).random((10, 2))
    points = [Points("MAML", after, plane, (0.8, 0.1), plane) for after in (False, True)]
    called = marks([f"textures: material {number}/texture 5" for number in range(5)])

    figure = scatter(points, np.arange(10) % 5, called).figures[0].figure

    rendered(figure)  # finds the layout
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1


def test_the_same_seed_gives_the_same_findings(pair: list[Subject], task: Task) -> None:
    for once, again in zip(
        findings.points(pair[0], task, 1), findings.points(pair[0], task, 1), strict=True
    ):
        np.testing.assert_array_equal(once.neighbours, again.neighbours)
    for once, again in zip(
        findings.classes(pair[0], task), findings.classes(pair[0], task), strict=True
    ):
        np.testing.assert_array_equal(once.made, again.made)


# --- tiles --------------------------------------------------------------------------------------


def test_a_weight_of_zero_is_mid_grey_and_the_limits_are_black_and_white() -> None:
    tile = signed(np.array([[[-2.0, 0.0, 1.0, 9.0]]]), limit=2.0)

    np.testing.assert_array_equal(tile.rgb[0, :, 0], [0.0, 0.5, 0.75, 1.0])


def test_heat_is_white_where_there_is_none_and_nothing_is_no_heat() -> None:
    some = heat(np.array([[0.0, 1.0]]), None)
    none = heat(np.zeros((1, 2)), np.zeros((1, 1, 2), dtype=np.float32))

    assert (some.rgb[0, 0] == 1).all()
    assert some.rgb[0, 1, 2] > some.rgb[0, 1, 0]  # blue
    assert (none.rgb == 1).all()


def test_groups_of_columns_stand_apart() -> None:
    tile = picture(np.zeros((1, 2, 2)))

    lefts = left_of(Sheet(((tile,) * 3,), ("",), ("", "", ""), starts=(2,)))

    assert lefts == pytest.approx([0.0, 1.12, 2.74])


def test_a_frame_has_room_for_every_word() -> None:
    tile = picture(np.zeros((1, 2, 2)))
    sheet = Sheet(((tile,), (tile,)), ("a long name,\nbefore", "b"), ("A",), (), ((0, 0, "head"),))
    width, height = frame(sheet, 0.5, 8.0).inches(0.5)
    figure, made = axes(1, 1, width, height)

    draw(made[0][0], sheet, 0.5, 8.0)

    figure.draw_without_rendering()
    whole = figure.bbox
    for text in made[0][0].texts:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1
