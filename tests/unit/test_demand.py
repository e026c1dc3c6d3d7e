"""How many actors there should be, and where."""

from __future__ import annotations

import pytest

from dmaml.deploy.demand import SLOT, Demand, Node
from dmaml.deploy.supervisor import Place

HEAD = Node("head", "10.0.0.1", {"CPU": 0.0})
SMALL = Node("small", "10.0.0.2", {"CPU": 2.0})
LARGE = Node("large", "10.0.0.3", {"CPU": 8.0, SLOT: 3.0})
NO_CPU = Node("bare", "10.0.0.4", {"memory": 1.0})


def spread(demand: Demand, *nodes: Node) -> dict[str, int]:
    """Return how many actors each node gets; their indices count from 0."""
    found: dict[str, list[int]] = {}
    for place in demand.places(list(nodes)):
        found.setdefault(place.node, []).append(place.index)
    assert all(indices == list(range(len(indices))) for indices in found.values())
    return {node: len(indices) for node, indices in found.items()}


def test_a_number_of_actors_is_put_wherever_ray_likes() -> None:
    assert spread(Demand(count=3), SMALL, LARGE) == {"": 3}
    assert spread(Demand(count=3)) == {"": 3}


def test_a_place_on_a_node_carries_its_address() -> None:
    assert Demand().places([SMALL]) == [
        Place("small", 0, "10.0.0.2"),
        Place("small", 1, "10.0.0.2"),
    ]


def test_so_many_per_node_ignores_what_the_node_has() -> None:
    assert spread(Demand(per_node=2), HEAD, SMALL, LARGE) == {"head": 2, "small": 2, "large": 2}


def test_units_are_counted_where_any_node_has_some() -> None:
    assert spread(Demand(), HEAD, SMALL, LARGE) == {"large": 3}


def test_cpus_are_counted_where_no_node_has_units() -> None:
    assert spread(Demand(), HEAD, SMALL, NO_CPU) == {"small": 2}
    assert spread(Demand(cpus=0.5), SMALL) == {"small": 4}
    assert spread(Demand(cpus=1.5), SMALL) == {"small": 1}
    assert spread(Demand(cpus=0.0), SMALL) == {"small": 2}


def test_an_actor_takes_a_unit_where_units_are_counted_and_else_a_cpu() -> None:
    assert Demand().slots_of([SMALL, LARGE]) == {SLOT: 1.0}
    assert Demand().cpus_of([SMALL, LARGE]) == 0.0
    assert Demand().slots_of([SMALL]) == {}
    assert Demand().cpus_of([SMALL]) == 1.0


@pytest.mark.parametrize("demand", [Demand(count=2), Demand(per_node=2)])
def test_who_gives_a_number_counts_no_units(demand: Demand) -> None:
    assert demand.slots_of([LARGE]) == {}
    assert demand.cpus_of([LARGE]) == 1.0


def test_the_reserved_cpus_are_what_was_asked_for() -> None:
    assert Demand(cpus=0.25).cpus_of([LARGE]) == 0.25
    assert Demand(cpus=0.0).cpus_of([SMALL]) == 0.0
