"""Published experiments, by name: `dmaml repro NAME`. One file per family of figures."""

from __future__ import annotations

from typing import Final

from dmaml.deploy.experiments import known
from dmaml.deploy.repro import (
    alphabets,
    beta,
    clustering,
    durations,
    families,
    implementation,
    modes,
    parameters,
    published,
    robustness,
    scaling,
    slots,
    splits,
    styles,
    table3,
)
from dmaml.deploy.repro.experiment import Experiment

EXPERIMENTS: Final[dict[str, Experiment]] = {
    one.name: one
    for family in (
        implementation, parameters, beta, scaling, durations, slots, robustness, modes,
        published, clustering, table3, alphabets, families, styles, splits,
    )
    for one in family.EXPERIMENTS
}  # fmt: skip


def find(name: str) -> Experiment:
    """Return an experiment.

    Raises:
        UnknownNameError: no such one.
    """
    return EXPERIMENTS[known(name)]
