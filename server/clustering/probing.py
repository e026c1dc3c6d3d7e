"""What a PROBE round brought, and what the record keeps of it. Pure functions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.gamma import Gamma, columns_of, entropies
from dmaml.common.probes import Observation, Probe, ProbeKind, rows_of
from dmaml.common.seeds import Int64
from dmaml.server.clustering.base import Observations

NUM_BINS: Final = 20
NUM_KEPT: Final = 100  # units whose γ the record keeps
NUM_UNCERTAIN: Final = 10
DIGITS: Final = 4


def gathered(
    answers: list[Observation], probe: Probe, pipelines: tuple[int, ...], trained: int
) -> Observations:
    """Return the answers of a PROBE round, in slot order, as one.

    Args:
        pipelines: ids of the active ones.
        trained: TRAIN rounds before it.

    Raises:
        RunFailedError: there are none, or they do not go together.
        DivergedError: a value is not finite.
    """
    some = [one for one in answers if len(one.units)]
    shapes = sorted({(one.num_units, one.values.shape[1]) for one in some})
    is_wrong = probe.kind is ProbeKind.LOSSES and any(c != len(pipelines) for _, c in shapes)
    if len(shapes) != 1 or is_wrong:
        raise RunFailedError(
            f"a {probe.kind.name} round of the clustering brought rows of (units, columns) "
            f"{shapes} for {len(pipelines)} pipelines: required one shape, and rows at all."
        )
    values = np.concatenate([one.values for one in some])
    if not np.isfinite(values).all():
        raise DivergedError(
            f"a {probe.kind.name} round of the clustering brought NaN or infinity. Lower "
            "algorithm.inner_lr or outer.lr and start a new run."
        )
    has_rows = probe.kind is not ProbeKind.UNITS
    parts = [rows_of(one.units, len(one.values)) if has_rows else one.units for one in some]
    return Observations(probe, trained, pipelines, some[0].num_units, np.concatenate(parts), values)


def gamma_row(gamma: Gamma, trained: Int64) -> dict[str, Any]:
    """Return what the record keeps of a γ: not the whole matrix, which the checkpoint has.

    Everything is about the units that are trained on: sums of γ by pipeline, how many units are
    routed to each, the mean entropy, units by value of γ (`histogram`, 20 bins of 0 to 1), γ of
    at most 100 of them (`units`, spread over their numbers, which are shuffled, and `matrix`), and
    γ of the least certain ones (`uncertain`).

    Args:
        trained: the units that are trained on, sorted; none: they are not known, all are meant.
    """
    matrix, count = rows_of_trained(gamma, trained), len(gamma.pipelines)
    units = trained if len(trained) else np.arange(len(matrix))
    routed = np.bincount(columns_of(matrix), minlength=count) if len(matrix) else np.zeros(count)
    chosen = np.linspace(0, len(matrix) - 1, min(len(matrix), NUM_KEPT)).astype(int)
    doubt = entropies(matrix)
    doubtful = np.argsort(-doubt, kind="stable")[:NUM_UNCERTAIN]
    state = {
        "phase": gamma.phase,
        "pipelines": list(gamma.pipelines),
        "tree": [[n.number, n.parent, n.opened_round, n.is_active] for n in gamma.nodes],
        "expected_units": matrix.sum(axis=0, dtype=np.float64).tolist(),
        "routed_units": [int(number) for number in routed],
        "entropy": float(doubt.mean()) if len(matrix) else 0.0,
        "histogram": [np.histogram(column, NUM_BINS, (0, 1))[0].tolist() for column in matrix.T],
        "units": units[chosen].tolist(),
        "matrix": _rounded(matrix[chosen]),
        "uncertain": [
            [int(units[row]), _rounded(matrix[row])] for row in doubtful if doubt[row] > 0
        ],
    }
    return {"table": "gamma", "version": gamma.version, "state": state}


def rows_of_trained(gamma: Gamma, trained: Int64) -> NDArray[np.float32]:
    """Return the rows of γ of the units that are trained on; none is known: all rows."""
    return gamma.matrix[trained] if len(trained) and len(gamma.matrix) else gamma.matrix


def _rounded(gamma: NDArray[np.float32]) -> Any:
    return np.round(gamma.astype(np.float64), DIGITS).tolist()
