"""A state whose pipelines share the units out among themselves, and what may happen to it.

Its values have `version`, `tree` and `is_waiting` (pipeline 0 is active, without units, so that
others can begin with its θ); its arrays `trained` (the units that are trained on, ascending) and
`gamma`, float64 `[U, P]`, without a column for one that waits. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Float64, Int64
from dmaml.server.clustering import tree
from dmaml.server.clustering.base import State


def members_of(state: State) -> tuple[int, ...]:
    """Return the pipelines that have units: the columns of `gamma`."""
    active = tree.active(state.values["tree"])
    return active[1:] if state.values["is_waiting"] else active


def matrix_of(state: State) -> NDArray[np.float32]:
    """Return γ as it is routed by."""
    gamma = state.arrays.get("gamma", np.zeros((0, 1)))
    if state.values["is_waiting"]:
        gamma = np.concatenate([np.zeros((len(gamma), 1)), gamma], axis=1)
    return gamma.astype(np.float32)


def units_of(state: State, pipeline: int) -> Int64:
    """Return the units that a pipeline trains on, ascending."""
    trained: Int64 = state.arrays["trained"]
    column = members_of(state).index(pipeline)
    own: Int64 = trained[state.arrays["gamma"][trained].argmax(axis=1) == column]
    return own


def sizes_of(state: State) -> Int64:
    """Return how many units each member trains on."""
    columns = state.arrays["gamma"][state.arrays["trained"]].argmax(axis=1)
    return np.bincount(columns, minlength=len(members_of(state))).astype(np.int64)


def largest(state: State) -> int:
    """Return the member with most units, of equal ones the first."""
    return members_of(state)[int(sizes_of(state).argmax())]


def versioned(before: State, after: State) -> State:
    """Return `after` with a version that is raised if γ or the tree is another than before."""
    is_same = before.values["tree"] == after.values["tree"] and np.array_equal(
        matrix_of(before), matrix_of(after)
    )
    version = before.values["version"] + (not is_same)
    return State({**after.values, "version": version}, after.arrays)


def replaced(state: State, arrays: Mapping[str, NDArray[Any]], **values: Any) -> State:
    """Return the state with other values and arrays."""
    return State({**state.values, **values}, {**state.arrays, **arrays})


def split(
    state: State, pipeline: int, units: Int64, rows: Float64, trained: int, waits: bool = False
) -> State:
    """Return the state with a pipeline's units shared out among it and copies of it.

    γ of the pipeline is divided as `rows` say; its other units, of which nothing is known, by how
    large the parts are. γ of units that are not trained on is the same for all.

    Args:
        units: int64 `[S]`.
        rows: γ of these in the parts, float64 `[S, parts]`; part 0 stays in the pipeline.
        trained: TRAIN rounds so far.
        waits: the pipeline, 0 and the only one, keeps nothing: there is a copy for every part.
    """
    column, parts = members_of(state).index(pipeline), rows.shape[1]
    nodes = tree.opened(state.values["tree"], pipeline, parts - (not waits), trained)
    before: Float64 = state.arrays["gamma"]
    shares = np.zeros((len(before), parts))
    shares[:, 0] = 1.0
    others = units_of(state, pipeline)
    shares[others] = rows.mean(axis=0)
    shares[units] = rows
    mine = before[:, [column]] * shares
    gamma = np.concatenate([before, mine[:, 1:]], axis=1)  # of one that waits: mine
    gamma[:, column] = mine[:, 0]
    gamma[np.setdiff1d(np.arange(len(gamma)), state.arrays["trained"])] = 1.0 / gamma.shape[1]
    return replaced(state, {"gamma": gamma}, tree=nodes, is_waiting=waits)


def retired(state: State, pipeline: int, heir: int | None = None) -> State:
    """Return the state without a pipeline.

    Args:
        heir: who gets its units; None: each goes where its γ is largest among the others.
    """
    members = members_of(state)
    column = members.index(pipeline)
    gamma = state.arrays["gamma"].copy()
    if heir is not None:
        gamma[:, members.index(heir)] += gamma[:, column]
    gamma = np.delete(gamma, column, axis=1)
    gamma += np.finfo(np.float32).tiny  # a row that had nothing else
    gamma /= gamma.sum(axis=1, keepdims=True)
    nodes = tree.retired(state.values["tree"], (pipeline,))
    return replaced(state, {"gamma": gamma}, tree=nodes)
