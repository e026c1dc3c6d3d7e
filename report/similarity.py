"""How alike units are, by the tree of pipelines that learned from them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dmaml.common.errors import ConfigError
from dmaml.common.gamma import ROOT, Gamma, columns_of
from dmaml.common.seeds import Int64

FORMATS: Final = (".csv", ".npy")


def of_units(gamma: Gamma, units: Int64) -> Int64:
    """Return how many nodes of the tree two units have in common, int64 `[units, units]`.

    The depth of the last common node, the root's being 1: 0 for units of different roots. Large is
    alike; the diagonal is the depth of a unit's own leaf. A pipeline that went on training beside
    children that it had (kmeans) has a leaf of its own below it.

    Args:
        units: those wanted, int64 `[units]`.

    References:
        "Learning Task Similarity via Meta Learning and Model Splitting": the tree of models is its
        metric of task similarity.
    """
    paths = {pipeline: _path(gamma, pipeline) for pipeline in gamma.pipelines}
    common = np.array(
        [[_num_common(a, b) for b in paths.values()] for a in paths.values()], dtype=np.int64
    )
    columns = np.zeros(len(units), dtype=np.int64)
    if len(gamma.matrix):
        columns = columns_of(gamma.matrix[units])
    found: Int64 = common[np.ix_(columns, columns)]
    return found


def require_file(file: Path) -> None:
    """Raise unless the file's name says a format, and its folder can be written.

    Raises:
        ConfigError: it does not.
    """
    if file.suffix not in FORMATS:
        raise ConfigError(
            f"similarity file {str(file)!r}: required a name that ends in "
            f"{' or '.join(FORMATS)}, found {file.suffix!r}. Rename it."
        )
    if not os.access(file.parent, os.W_OK | os.X_OK) or file.is_dir():
        raise ConfigError(
            f"similarity file {str(file)!r} cannot be written: required a folder that is there "
            "and may be written. Give another file."
        )


def write(file: Path, matrix: Int64, names: Sequence[str]) -> None:
    """Write a matrix: csv with a first row and a first column of names, or npy without."""
    require_file(file)
    if file.suffix == ".npy":
        np.save(file, matrix, allow_pickle=False)
        return
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["unit", *names])
        rows.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))


def _path(gamma: Gamma, pipeline: int) -> list[tuple[int, bool]]:
    """Return the nodes from the root to a pipeline's leaf; True: the leaf below its node."""
    parents = {node.number: node.parent for node in gamma.nodes}
    path = [(pipeline, True)] if pipeline in parents.values() else []
    while pipeline != ROOT:
        path.append((pipeline, False))
        pipeline = parents[pipeline]
    return path[::-1]


def _num_common(one: list[tuple[int, bool]], other: list[tuple[int, bool]]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
