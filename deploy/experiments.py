"""The names of the published experiments. Importing it costs nothing, unlike `deploy.repro`."""

from __future__ import annotations

from typing import Final

from dmaml.common.errors import UnknownNameError

NAMES: Final = (
    "implementation_omniglot",
    "implementation_miniimagenet",
    "implementation_sinusoid",
    "workers",
    "epochs",
    "tasks",
    "gradient_steps",
    "beta_omniglot",
    "beta_miniimagenet",
    "beta_sinusoid",
    "scaling",
    "durations",
    "workers_vs_tasks",
    "generators",
    "byzantine",
    "modes",
)


def require_known(name: str) -> None:
    """Raise UnknownNameError where no experiment has this name."""
    if name not in NAMES:
        raise UnknownNameError("experiment", name, NAMES)
