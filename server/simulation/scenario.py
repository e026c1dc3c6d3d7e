"""What a simulation assumes of the world: actors, times, failures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, final

from dmaml.common.checks import unread
from dmaml.common.errors import ConfigError, unknown_sentence
from dmaml.server.simulation.distributions import Distribution

MODES: Final = ("sync", "quorum", "async")
SPECULATION: Final = "speculation"
ZERO: Final = Distribution("constant", (0.0,))
MOST_ACTORS: Final = 100_000  # and slots
MOST_ITEMS: Final = 100_000_000  # a byte each, and 10 to 60 s for a million
UNBOUNDED: Final = 2**31  # actors that die are seen for a while beside their successors


@final
@dataclass(frozen=True)
class Scenario:
    """The world around the core.

    Attributes:
        workers: machines with one actor each, there from the start.
        compute: time of one TRAIN item on a machine of factor 1.
        slow: (fraction of the machines, factor of their compute time).
        latency: time of one message one way.
        service: time that the server takes over one message; it takes one at a time.
        commit: time of a commit: the outer step, publishing.
        combine: time that each answer in it adds.
        checkpoint: time until a checkpoint is durable.
        mtbf: life of an actor from its start to its death, or None: it does not die.
        repair: time from a death to the start of the successor on the same machine.
        outage: time from the start, or the end of the outage before, to an outage of the network
            of one machine; None: none.
        outage_for: how long it lasts.
        leave: how long an actor stays until it leaves in good order, or None: to the end.
        join: time between two machines that come on top of `workers`, or None: none come.
        seed: of every draw.
    """

    workers: int
    compute: Distribution
    slow: tuple[float, float] = (0.0, 1.0)
    latency: Distribution = ZERO
    service: Distribution = ZERO
    commit: Distribution = ZERO
    combine: Distribution = ZERO
    checkpoint: Distribution = ZERO
    mtbf: Distribution | None = None
    repair: Distribution = ZERO
    outage: Distribution | None = None
    outage_for: Distribution = ZERO
    leave: Distribution | None = None
    join: Distribution | None = None
    seed: int = 1

    def factor(self, machine: int) -> float:
        """Return how many times longer than others a machine computes.

        Of any n machines in a row from 0, floor(n · fraction) are slow, evenly spread.
        """
        fraction, factor = self.slow
        before, after = (math.floor(n * fraction + 1e-9) for n in (machine, machine + 1))
        return factor if after > before else 1.0

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            name: str(value) if isinstance(value, Distribution) else value
            for name, value in vars(self).items()
        }


def check(scenario: Scenario) -> Scenario:
    """Return the scenario, or raise for one that cannot end.

    Raises:
        ConfigError: one sentence with the values and the remedy.
    """
    if scenario.compute.mean <= 0:
        raise ConfigError(
            f"--compute {scenario.compute.typed!r}: the time of a work item must be above 0."
        )
    for option, value in (
        ("--mtbf", scenario.mtbf), ("--outage", scenario.outage),
        ("--leave", scenario.leave), ("--join", scenario.join),
    ):  # fmt: skip
        if value is not None and value.mean <= 0:
            raise ConfigError(f"{option} {value.typed!r}: a time between events must be above 0.")
    return scenario


def check_size(workers: int, slots: int, rounds: int, items_of_slot: int = 1) -> None:
    """Raise for what would not fit into memory or an evening.

    Args:
        items_of_slot: TRAIN items of a slot in a round: parts × pipelines.

    Raises:
        ConfigError: one sentence with the values and the limit.
    """
    for name, value in (("--workers", workers), ("--slots", slots)):
        if value > MOST_ACTORS:
            raise ConfigError(
                f"{name} {value}: at most {MOST_ACTORS:,} can be simulated. Lower {name}."
            )
    if rounds < 1:
        raise ConfigError(f"run.rounds {rounds}: a simulation needs a round. Give --rounds.")
    num_items = rounds * slots * items_of_slot
    if num_items > MOST_ITEMS:
        raise ConfigError(
            f"--rounds {rounds} of {slots * items_of_slot} work items each: at most "
            f"{MOST_ITEMS:,} items can be simulated. Lower --rounds or --slots."
        )


def parse_slow(text: str) -> tuple[float, float]:
    """Return (fraction, factor) of `0.2:5`; "" is none.

    Raises:
        ConfigError: not of this form, or out of range.
    """
    if not text:
        return 0.0, 1.0
    first, colon, second = text.partition(":")
    try:
        fraction, factor = float(first), float(second)
    except ValueError:
        fraction, factor, colon = 0.0, 1.0, ""
    is_good = bool(colon) and 0 <= fraction <= 1 and factor > 0 and math.isfinite(factor)
    if not is_good:
        raise ConfigError(
            f"--slow {text!r}: required FRACTION:FACTOR, a fraction of 0 to 1 and a factor above "
            "0, such as 0.2:5."
        )
    return fraction, factor


def parse_modes(text: str) -> tuple[str, ...]:
    """Return the modes of `sync,quorum,async,sync+speculation`, each once, in this order.

    Raises:
        ConfigError: none, or an unknown one.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError(f"--modes {text!r}: required one of {', '.join(MODES)} or more.")
    known = [*MODES, *(f"{mode}+{SPECULATION}" for mode in MODES)]
    for name in names:
        if name not in known:
            raise ConfigError(f"--modes: {unknown_sentence('mode', name, known)}")
    return names


def settings_of(mode: str, slots: int, rounds: int) -> tuple[str, ...]:
    """Return what a simulated run sets of the configuration, as `section.key=value`.

    Keys that another mode of the comparison reads, and this one does not, are as if not given.

    Args:
        mode: `sync`, `quorum`, `async`, or one of them with `+speculation`.
    """
    name, _, extra = mode.partition("+")
    return (
        f"sync.mode={name}",
        *unread(name),
        f"topology.slots={slots}",
        f"run.rounds={rounds}",
        f"server.max_workers={UNBOUNDED}",
        f"server.speculation={'true' if extra == SPECULATION else 'false'}",
    )
