from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from dmaml.common.errors import DataError
from dmaml.common.seeds import Kind, Stream, stream
from dmaml.worker.tasks import episodes
from dmaml.worker.tasks.episodes import TEST, TRAIN, VALIDATION, Classes, Roster


def streams(count: int, index: int = 0) -> list[Stream]:
    return [stream(5, Kind.TRAIN, index, 0, task) for task in range(count)]


def classes(
    sizes: Sequence[int], alphabets: str | None = None, split: str | None = None
) -> Classes:
    """Return classes a, b, c ...; a letter per class for its alphabet and its split (t, v, e)."""
    codes = ["tve".index(letter) for letter in split or "t" * len(sizes)]
    return Classes(
        names=tuple(chr(ord("a") + i) for i in range(len(sizes))),
        num_examples=np.array(sizes, dtype=np.int64),
        split=np.array(codes, dtype=np.int64),
        alphabets=None if alphabets is None else tuple(alphabets),
    )


def names(roster: Roster, drawn: np.ndarray) -> list[str]:
    return [roster.class_name(int(number)) for number in drawn]


# --- splits ---------------------------------------------------------------------------------


def test_fractions_are_64_16_20() -> None:
    codes = episodes.split_fractions(100, seed=1)

    assert np.bincount(codes).tolist() == [64, 16, 20]


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_fractions_leave_no_split_empty(count: int) -> None:
    sizes = np.bincount(episodes.split_fractions(count, seed=1), minlength=3)

    assert sizes.sum() == count
    assert sizes.min() >= 1


def test_fractions_of_two_classes_are_refused() -> None:
    with pytest.raises(DataError, match="found 2 classes, required at least 3"):
        episodes.split_fractions(2, seed=1)


def test_vinyals_divides_1623_classes_by_seed() -> None:
    one, again, other = (episodes.split_vinyals(1623, seed) for seed in (1, 1, 2))

    assert np.bincount(one).tolist() == [1100, 100, 423]
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()


def test_vinyals_of_another_set_is_refused() -> None:
    with pytest.raises(DataError, match="required the 1623 classes of Omniglot, found 100"):
        episodes.split_vinyals(100, seed=1)


def test_a_tenth_of_the_training_classes_is_held_out() -> None:
    codes = np.repeat([TRAIN, TEST], [964, 659])

    held = episodes.hold_out(codes, seed=1)

    assert np.bincount(held).tolist() == [868, 96, 659]
    assert (held[964:] == TEST).all()
    assert held.tolist() != episodes.hold_out(codes, seed=2).tolist()


def test_one_training_class_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="found 1 training classes"):
        episodes.hold_out(np.array([TRAIN, TEST]), seed=1)


# --- units and rotations --------------------------------------------------------------------


def test_a_rotated_class_stays_in_the_split_of_its_base_class() -> None:
    roster = episodes.enroll(classes([5, 5, 5], split="tve"), "class", True, seed=1)

    found = {
        name: sorted(roster.unit_names[u] for u in roster.split(name))
        for name in ("train", "validation", "test")
    }

    assert roster.num_units == 12
    assert found["validation"] == ["b", "b turned 180°", "b turned 270°", "b turned 90°"]
    assert [found["train"][0], found["test"][0]] == ["a", "c"]


def test_class_ids_count_the_turns_of_each_base_class() -> None:
    roster = episodes.enroll(classes([5, 6]), "class", True, seed=1)

    numbers = np.arange(8)

    assert roster.base(numbers).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert roster.turns(numbers).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert roster.num_examples.tolist() == [5] * 4 + [6] * 4


def test_the_unit_of_a_label_is_that_of_its_class() -> None:
    roster = episodes.enroll(classes([3] * 9), "class", True, seed=1)

    drawn = episodes.draw(roster, streams(20), roster.split("train"), 4, 3)

    for numbers, units in zip(drawn.classes, drawn.units, strict=True):
        assert names(roster, numbers) == [roster.unit_names[u] for u in units]


def test_origin_is_the_alphabet_of_each_unit() -> None:
    roster = episodes.enroll(classes([3] * 4, alphabets="xyxy"), "class", True, seed=1)

    assert roster.origin is not None
    for unit, alphabet in enumerate(roster.origin):
        assert "xy".index("xyxy"["abcd".index(roster.unit_names[unit][0])]) == alphabet


def test_the_classes_of_a_task_come_from_one_alphabet() -> None:
    roster = episodes.enroll(classes([3] * 8, alphabets="xyxyxyxy"), "alphabet", False, seed=1)

    drawn = episodes.draw(roster, streams(20), np.arange(2), 3, 3)

    for numbers, units in zip(drawn.classes, drawn.units, strict=True):
        assert len(set(units.tolist())) == 1
        members = "aceg" if roster.unit_names[units[0]] == "x" else "bdfh"
        assert set(names(roster, numbers)) <= set(members)
    assert set(drawn.units.ravel().tolist()) == {0, 1}


def test_an_alphabet_with_too_few_classes_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Source:
        roster = episodes.enroll(classes([3] * 4, alphabets="xyyy"), "alphabet", False, seed=1)
        split = roster.split

    with caplog.at_level(logging.WARNING):
        episodes.require_episode(Source(), "train", 2, 1, 2)  # type: ignore[arg-type]
    drawn = episodes.draw(Source.roster, streams(10), np.arange(2), 2, 3)

    assert "1 of 2 alphabets of split 'train' have fewer than n_way 2 classes" in caplog.text
    assert {Source.roster.unit_names[u] for u in drawn.units.ravel()} == {"y"}


def test_alphabets_across_two_splits_are_refused() -> None:
    with pytest.raises(DataError, match="'x' in train and test"):
        episodes.enroll(classes([3, 3], alphabets="xx", split="te"), "alphabet", False, seed=1)


def test_a_task_of_unit_split_has_all_classes_of_one_split_with_the_same_labels() -> None:
    roster = episodes.enroll(classes([3] * 6, split="tvetve"), "split", False, seed=4)

    drawn = episodes.draw(roster, streams(20), np.arange(3), 2, 3)

    assert sorted(roster.unit_names) == ["test", "train", "validation"]
    members = {"train": ["a", "d"], "validation": ["b", "e"], "test": ["c", "f"]}
    for numbers, units in zip(drawn.classes, drawn.units, strict=True):
        assert names(roster, numbers) == members[roster.unit_names[units[0]]]
    assert set(drawn.units.ravel().tolist()) == {0, 1, 2}
    assert [roster.unit_names[unit] for unit in roster.split("test")] == ["test"]


@pytest.mark.parametrize("n_way", [1, 3])
def test_unit_split_with_another_number_of_classes_is_refused(n_way: int) -> None:
    roster = episodes.enroll(classes([3] * 6, split="tvetve"), "split", False, seed=4)

    with pytest.raises(DataError, match=rf"n_way {n_way} .*has all 2 classes.*task\.n_way to 2"):
        episodes.draw(roster, streams(1), roster.split("train"), n_way, 2)


def test_unit_alphabet_without_alphabets_is_refused() -> None:
    with pytest.raises(DataError, match=r"required a source with alphabets.*task\.unit to class"):
        episodes.enroll(classes([3, 3]), "alphabet", False, seed=1)


# --- the draw -------------------------------------------------------------------------------


def test_examples_of_a_class_differ_and_all_occur() -> None:
    roster = episodes.enroll(classes([7, 3, 5]), "class", False, seed=1)

    drawn = episodes.draw(roster, streams(200), np.arange(3), 3, 3)

    assert all(len(set(row)) == 3 for row in drawn.examples.reshape(-1, 3).tolist())
    for number, size in enumerate([7, 3, 5]):
        assert set(drawn.examples[drawn.classes == number].ravel().tolist()) == set(range(size))


def test_every_class_has_every_label_equally_often() -> None:
    roster = episodes.enroll(classes([1] * 4), "class", False, seed=1)

    drawn = episodes.draw(roster, streams(2000), np.arange(4), 2, 1)

    counts = np.stack([np.bincount(column, minlength=4) for column in drawn.classes.T])
    assert (abs(counts - 500) < 5 * np.sqrt(2000 * 0.25 * 0.75)).all()


def test_more_ways_than_allowed_units_are_refused() -> None:
    roster = episodes.enroll(classes([3] * 5), "class", False, seed=1)

    with pytest.raises(DataError, match=r"task\.n_way 4 exceeds the 2 classes in the 2 allowed"):
        episodes.draw(roster, streams(1), np.arange(2), 4, 1)


def test_a_class_with_too_few_examples_is_named() -> None:
    roster = episodes.enroll(classes([9, 4, 6, 9]), "class", False, seed=1)

    with pytest.raises(
        DataError, match=r"k_shot \+ k_query 7 exceeds the 4 examples of class 'b' \(and 1 other"
    ):
        episodes.draw(roster, streams(1), np.arange(4), 2, 7)


def test_small_classes_outside_the_allowed_units_do_not_matter() -> None:
    roster = episodes.enroll(classes([9, 4, 9]), "class", False, seed=1)
    allowed = np.array([u for u in range(3) if roster.unit_names[u] != "b"])

    drawn = episodes.draw(roster, streams(3), allowed, 2, 9)

    assert set(drawn.classes.ravel().tolist()) == {0, 2}


@pytest.mark.parametrize("units", [[-1, 0], [0, 3]])
def test_unknown_units_are_refused(units: list[int]) -> None:
    roster = episodes.enroll(classes([3] * 3), "class", False, seed=1)

    with pytest.raises(ValueError, match=r"units must be 0 \.\. 2"):
        episodes.draw(roster, streams(1), np.array(units), 1, 1)


def test_the_draw_is_the_same_on_every_machine() -> None:
    roster = episodes.enroll(classes([20] * 6), "class", True, seed=1)

    drawn = episodes.draw(roster, streams(1), roster.split("train"), 3, 2)

    assert (drawn.classes.tolist(), drawn.units.tolist(), drawn.examples.tolist()) == GOLDEN


GOLDEN = ([[22, 9, 17]], [[20, 17, 10]], [[[4, 17], [6, 17], [8, 15]]])


def test_a_source_without_a_roster_is_tried_once() -> None:
    class Source:
        def split(self, name: str) -> np.ndarray:
            return np.arange(2)

        def sample(self, *args: object) -> None:
            raise DataError("only 2 classes")

    with pytest.raises(DataError, match="only 2 classes"):
        episodes.require_episode(Source(), "test", 5, 1, 1)  # type: ignore[arg-type]


# --- the batch ------------------------------------------------------------------------------


def test_a_batch_goes_by_label_and_then_by_example() -> None:
    pictures = np.arange(1 * 2 * 3, dtype=np.uint8).reshape(1, 2, 3, 1)

    batch = episodes.to_batch(pictures, np.array([[8, 9]]), k_shot=1)

    assert (batch.support_x * 255).round().ravel().tolist() == [0, 3]
    assert (batch.query_x * 255).round().ravel().tolist() == [1, 2, 4, 5]
    assert batch.support_y.tolist() == [[0, 1]]
    assert batch.query_y.tolist() == [[0, 0, 1, 1]]


def test_white_is_exactly_one_and_floats_are_kept() -> None:
    white = episodes.to_batch(np.full((1, 1, 2, 1), 255, np.uint8), np.zeros((1, 1), int), 1)
    floats = episodes.to_batch(np.full((1, 1, 2, 1), 2.5), np.zeros((1, 1), int), 1)

    assert white.support_x.item() == 1.0
    assert floats.support_x.item() == 2.5
    assert floats.support_x.dtype == np.float32


def test_validation_code_is_the_place_of_its_name() -> None:
    assert (TRAIN, VALIDATION, TEST) == (0, 1, 2)
