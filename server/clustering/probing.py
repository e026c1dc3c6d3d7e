"""What a PROBE round brought, and what the record keeps of it. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmaml.common.errors import DivergedError, RunFailedError
from dmaml.common.gamma import Gamma, columns_of, entropies
from dmaml.common.probes import Observation, Probe, ProbeKind, rows_of
from dmaml.server.clustering.base import Observations


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


def gamma_row(gamma: Gamma) -> dict[str, Any]:
    """Return what the record keeps of a γ: not the matrix, which the checkpoint has."""
    matrix, count = gamma.matrix, len(gamma.pipelines)
    routed = np.bincount(columns_of(matrix), minlength=count) if len(matrix) else np.zeros(count)
    state = {
        "phase": gamma.phase,
        "pipelines": list(gamma.pipelines),
        "tree": [[n.number, n.parent, n.opened_round, n.is_active] for n in gamma.nodes],
        "expected_units": matrix.sum(axis=0, dtype=np.float64).tolist(),
        "routed_units": [int(number) for number in routed],
        "entropy": float(entropies(matrix).mean()) if len(matrix) else 0.0,
    }
    return {"table": "gamma", "version": gamma.version, "state": state}
