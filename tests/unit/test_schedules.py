"""Learning rates over the run: closed forms, and both ends of each."""

from __future__ import annotations

import math

import pytest
import torch

from dmaml.common.outer import OuterSection
from dmaml.server.outer.schedules import learning_rate

SCHEDULES = {
    "constant": {},
    "cosine": {"final": 0.25},
    "linear": {"final": 0.25},
    "step": {"step_every": 30, "step_factor": 0.5},
}


def section(schedule: str, **values) -> OuterSection:
    return OuterSection(lr=0.4, schedule=schedule, **{**SCHEDULES[schedule], **values})


def curve(config: OuterSection, total: int) -> list[float]:
    return [learning_rate(config, index, total) for index in range(total)]


def test_constant_is_the_rate_itself_whatever_the_length_of_the_run():
    for lr in (0.1, 1 / 3, 1e-7):
        for total in (0, 1, 100):
            assert learning_rate(OuterSection(lr=lr), 7, total) == lr


@pytest.mark.parametrize(
    ("schedule", "by_index"),
    [
        ("constant", {0: 0.4, 50: 0.4, 99: 0.4}),
        # 0.1 + 0.3 (1 + cos πt/100)/2
        ("cosine", {0: 0.4, 50: 0.25, 99: 0.1 + 0.15 * (1 + math.cos(0.99 * math.pi))}),
        ("linear", {0: 0.4, 50: 0.25, 99: 0.103}),
        ("step", {0: 0.4, 29: 0.4, 30: 0.2, 59: 0.2, 60: 0.1, 99: 0.05}),
    ],
)
def test_rate_by_round_is_the_closed_form(schedule, by_index):
    found = curve(section(schedule), 100)

    for index, expected in by_index.items():
        assert found[index] == pytest.approx(expected, rel=1e-12), index


def test_cosine_is_the_one_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=0.1)
    expected = []
    for _ in range(100):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()

    assert curve(section("cosine"), 100) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_rises_in_equal_steps_to_the_rate_and_no_round_is_lost(schedule):
    found = curve(section(schedule, warmup=4), 100)

    assert found[:5] == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert max(found) == found[4] == 0.4
    assert min(found) > 0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_what_falls_begins_to_after_the_warmup_and_is_at_its_end_one_round_after_the_last(schedule):
    late, early = section(schedule, warmup=20), section(schedule)

    found = curve(late, 120)

    assert found[20:] == pytest.approx(curve(early, 100))
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[-1] > 0.1
    assert learning_rate(late, 120, 120) == pytest.approx(0.1)
    assert learning_rate(late, 500, 120) == pytest.approx(0.1)


def test_steps_count_from_the_first_round_and_a_warmup_multiplies():
    config = section("step", warmup=39)

    assert learning_rate(config, 29, 100) == pytest.approx(0.4 * 30 / 40)
    assert learning_rate(config, 30, 100) == pytest.approx(0.4 * 31 / 40 / 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [0, 1])
def test_shortest_runs_have_the_full_rate_in_their_first_round(schedule, total):
    assert learning_rate(section(schedule), 0, total) == 0.4


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_rates_of_a_run_that_is_all_warmup_are_finite(schedule):
    assert curve(section(schedule, warmup=3), 3) == pytest.approx([0.1, 0.2, 0.3])
    assert learning_rate(section(schedule, warmup=3), 4, 3) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_rate_of_a_round_does_not_depend_on_the_length_where_the_run_may_grow(schedule):
    config = section(schedule, warmup=10)

    assert curve(config, 200)[:70] == curve(config, 70)
