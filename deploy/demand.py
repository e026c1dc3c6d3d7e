"""How many actors there should be, and on which nodes. Knows no Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dmaml.deploy.supervisor import Place

SLOT: Final = "meta_worker"  # the Ray resource: a node has a unit for each actor that it offers


@dataclass(frozen=True)
class Node:
    """One node of the cluster: its id, its address, and its resources in all."""

    node_id: str
    host: str
    resources: dict[str, float]


@dataclass(frozen=True)
class Demand:
    """How many actors there should be, and where.

    Attributes:
        count: so many, wherever Ray puts them; None: as many as the nodes offer.
        per_node: so many on every node; None: one for each of its `meta_worker` units, or, where
            no node has any, one for each CPU.
        cpus: that Ray reserves for each actor; None: 1, but 0 where units are counted.
    """

    count: int | None = None
    per_node: int | None = None
    cpus: float | None = None

    def places(self, nodes: list[Node]) -> list[Place]:
        """Return where there should be an actor."""
        if self.count is not None:
            return [Place("", index) for index in range(self.count)]
        return [
            Place(node.node_id, index, node.host)
            for node in nodes
            for index in range(self._of(node, nodes))
        ]

    def cpus_of(self, nodes: list[Node]) -> float:
        """Return what Ray reserves for one actor."""
        if self.cpus is not None:
            return self.cpus
        return 0.0 if self._counts_slots(nodes) else 1.0

    def slots_of(self, nodes: list[Node]) -> dict[str, float]:
        """Return the custom resource that one actor takes."""
        return {SLOT: 1.0} if self._counts_slots(nodes) else {}

    def _counts_slots(self, nodes: list[Node]) -> bool:
        is_counting = self.count is None and self.per_node is None
        return is_counting and any(SLOT in node.resources for node in nodes)

    def _of(self, node: Node, nodes: list[Node]) -> int:
        if self.per_node is not None:
            return self.per_node
        if self._counts_slots(nodes):
            return int(node.resources.get(SLOT, 0))
        return int(node.resources.get("CPU", 0) / (self.cpus or 1.0))
