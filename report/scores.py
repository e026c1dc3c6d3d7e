"""How well a clustering found the true origins of units. Pure functions; nothing trains on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmaml.common.gamma import columns_of, entropies
from dmaml.common.seeds import Int64


def score(gamma: NDArray[np.float32], origin: Int64 | None) -> dict[str, Any]:
    """Return every score of a γ against the true origins.

    Args:
        gamma: float32 `[units, pipelines]`, at least one unit.
        origin: int64 `[units]`, or None where it is not known: then there is `entropy` alone.

    Returns:
        `recovery` (see `recovery`), `purity`, `nmi`, `ari` and `entropy` (mean over units, nats).
    """
    entropy = {"entropy": float(entropies(gamma).mean())}
    if origin is None:
        return entropy
    columns = columns_of(gamma)
    return {
        "recovery": recovery(columns, origin, gamma.shape[1]),
        "purity": purity(columns, origin),
        **information(columns, origin),
        **entropy,
    }


def contingency(columns: Int64, origin: Int64, num_columns: int) -> Int64:
    """Return how many units of each origin each column has, int64 `[columns, origins]`."""
    table = np.zeros((num_columns, int(origin.max()) + 1), dtype=np.int64)
    np.add.at(table, (columns, origin), 1)
    return table


def recovery(columns: Int64, origin: Int64, num_columns: int) -> list[float]:
    """Return the share of each origin's units that are in the cluster that stands for it.

    Clusters stand for one origin each, so that as many units as possible are right (the best
    assignment). An origin without a cluster of its own has 0, one without units NaN.

    Args:
        columns: the cluster of each unit, int64 `[units]`.
        origin: int64 `[units]`, 0 or more.
        num_columns: clusters, empty ones among them.
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(columns, origin, num_columns)
    sizes = table.sum(axis=0)
    found = np.zeros(len(sizes))
    for column, one in zip(*linear_sum_assignment(-table), strict=True):
        found[one] = table[column, one]
    with np.errstate(invalid="ignore"):
        return [float(share) for share in found / sizes]


def purity(columns: Int64, origin: Int64) -> float:
    """Return the share of units whose origin is the commonest of their cluster."""
    table = contingency(columns, origin, int(columns.max()) + 1)
    return float(table.max(axis=1).sum() / len(columns))


def information(columns: Int64, origin: Int64) -> dict[str, float]:
    """Return the normalised mutual information `nmi` and the adjusted Rand index `ari`."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "nmi": float(normalized_mutual_info_score(origin, columns)),
        "ari": float(adjusted_rand_score(origin, columns)),
    }


def least_certain(gamma: NDArray[np.float32], count: int) -> Int64:
    """Return the rows of most entropy, the largest first; none that has 0."""
    found = entropies(gamma)
    order = np.argsort(-found, kind="stable")[:count]
    return order[found[order] > 0].astype(np.int64)
