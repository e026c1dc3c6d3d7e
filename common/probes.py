"""What a clustering strategy may ask of the actors, and what they answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from dmaml.common.seeds import Int64


class ProbeKind(enum.IntEnum):
    """What a PROBE round looks at; the numbers are those of the protocol.

    UNITS: which units are trained on, nothing else. PIXELS, EMBEDDING: rows are samples of single
    units, raw or as the features of the model's last hidden layer at θ. LOSSES: rows are query
    samples of tasks from all units, columns their losses after adaptation under each pipeline.
    SKETCHES: rows are (task, class), a random projection of the gradient of the class's own
    support samples at θ, body only.
    """

    UNITS = 1
    PIXELS = 2
    EMBEDDING = 3
    LOSSES = 4
    SKETCHES = 5


FEATURES = frozenset({ProbeKind.PIXELS, ProbeKind.EMBEDDING})


@final
@dataclass(frozen=True)
class Probe:
    """What a PROBE round asks for.

    Attributes:
        kind: what is looked at.
        pipeline: whose θ (EMBEDDING, SKETCHES); SKETCHES draws its tasks from this one's units.
        samples: of each unit (PIXELS, EMBEDDING), 1 or more.
        tasks: of the round (LOSSES, SKETCHES), 1 or more.
        dims: PIXELS, EMBEDDING: wider rows are projected to so many columns, 0: never.
            SKETCHES: columns, 1 or more.
    """

    kind: ProbeKind
    pipeline: int = 0
    samples: int = 0
    tasks: int = 0
    dims: int = 0


@final
@dataclass(frozen=True)
class Observation:
    """The answer to a PROBE item: rows that are each about one unit. Origins are not in it.

    Attributes:
        num_units: units of the source, trained on or not.
        units: int64 `[groups]`; each has the same number of rows, one after another.
        values: float32 `[rows, columns]`.
    """

    num_units: int
    units: Int64
    values: NDArray[np.float32]


def rows_of(units: Int64, num_rows: int) -> Int64:
    """Return the unit of each row, int64 `[rows]`."""
    return np.repeat(units, num_rows // len(units)) if len(units) else units
