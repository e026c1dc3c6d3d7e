"""The tree of pipelines as a strategy's state keeps it: JSON in, JSON out. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dmaml.common.gamma import ROOT, Pipeline

Nodes = list[list[Any]]  # [number, parent, opened_round, is_active], by number


def roots(count: int) -> Nodes:
    """Return so many pipelines that are there from the start."""
    return [[number, ROOT, 0, True] for number in range(count)]


def opened(nodes: Sequence[Sequence[Any]], parent: int, count: int, trained: int) -> Nodes:
    """Return the tree with `count` more pipelines that begin as `parent` is now.

    Args:
        trained: TRAIN rounds before it.
    """
    first = len(nodes)
    children = [[first + i, parent, trained, True] for i in range(count)]
    return [list(node) for node in nodes] + children


def retired(nodes: Sequence[Sequence[Any]], numbers: Iterable[int]) -> Nodes:
    """Return the tree with pipelines that train no more."""
    gone = set(numbers)
    return [[n, parent, since, active and n not in gone] for n, parent, since, active in nodes]


def pipelines_of(nodes: Sequence[Sequence[Any]]) -> tuple[Pipeline, ...]:
    """Return the nodes as both sides read them."""
    return tuple(Pipeline(*node) for node in nodes)


def active(nodes: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    """Return the ids of the pipelines that train, ascending."""
    return tuple(number for number, _, _, is_active in nodes if is_active)
