"""Scenarios of a simulation: how they are read, and words for bad input."""

from __future__ import annotations

import pytest

from dmaml.common.errors import ConfigError
from dmaml.server.simulation.distributions import parse
from dmaml.server.simulation.scenario import (
    Scenario,
    check,
    check_size,
    parse_modes,
    parse_slow,
)
from tests.unit.simulated_world import config_of


@pytest.mark.parametrize(
    ("slow", "machines", "expected"),
    [("0.2:5", 5, 1), ("0.29:2", 100, 29), ("0:5", 9, 0), ("1:2", 4, 4), ("", 9, 0)],
)
def test_slow_machines_are_a_fraction_evenly_spread(slow, machines, expected):
    scenario = Scenario(machines, parse("1", "compute"), slow=parse_slow(slow))

    factors = [scenario.factor(machine) for machine in range(machines)]

    assert sum(factor != 1.0 for factor in factors) == expected


@pytest.mark.parametrize(
    "text", ["3", "0.2", "0.2:", ":5", "1.5:2", "-1:2", "0.2:0", "a:b", "nan:2"]
)
def test_a_bad_fraction_of_slow_machines_is_refused(text):
    with pytest.raises(ConfigError, match="required FRACTION:FACTOR"):
        parse_slow(text)


def test_modes_are_taken_once_each_in_their_order():
    assert parse_modes(" async,sync ,async") == ("async", "sync")
    assert parse_modes("quorum+speculation") == ("quorum+speculation",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "required one of sync, quorum, async"),
        ("sync,asinc", "unknown mode 'asinc'. Did you mean 'async'"),
        ("sync+speed", "unknown mode 'sync.speed'. Did you mean 'sync.speculation'"),
    ],
)
def test_bad_modes_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_modes(text)


def test_a_mode_that_the_configuration_cannot_have_is_refused():
    with pytest.raises(ConfigError, match=r"sync\.mode 'async' with topology\.parts 2"):
        config_of("async", 2, 10, "topology.parts=2")


def test_keys_of_a_mode_count_in_that_mode_only():
    given = ("sync.quorum=6", "sync.grace_s=0", "sync.window=2")
    modes = {mode: config_of(mode, 8, 10, *given) for mode in ("sync", "quorum", "async")}

    found = {m: (c.sync.quorum, c.sync.grace_s, c.sync.window) for m, c in modes.items()}
    assert found == {"sync": (None, 1.0, 3), "quorum": (6, 0.0, 3), "async": (None, 1.0, 2)}


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((100_000_000, 5, 10), "--workers 100000000: at most 100,000 can be simulated"),
        ((5, 200_000, 10), "--slots 200000: at most 100,000"),
        ((5, 5, 10**9), "--rounds 1000000000 of 5 work items each: at most 100,000,000 items"),
        ((5, 5, 99999999999999999999), "--rounds 99999999999999999999 of 5 work items"),
        ((5, 5, 15_000_000, 2), "--rounds 15000000 of 10 work items"),
        ((5, 5, 0), "run.rounds 0: a simulation needs a round. Give --rounds"),
    ],
)
def test_what_no_memory_holds_is_refused(sizes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_size(*sizes)


def test_sizes_at_the_limit_are_taken():
    check_size(100_000, 100_000, 1000)


@pytest.mark.parametrize("name", ["compute", "mtbf", "outage", "leave", "join"])
def test_events_without_time_between_them_are_refused(name):
    times = {"compute": parse("1", "compute")} | {name: parse("0.0", f"--{name}")}

    with pytest.raises(ConfigError, match=f"--{name} '0.0': .* must be above 0"):
        check(Scenario(2, **times))
