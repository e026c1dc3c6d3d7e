"""The configuration of the outer step: which optimiser, and its learning rate over the run."""

from __future__ import annotations

from typing import Final, Literal

from dmaml.common.errors import ConfigError
from dmaml.common.schema import Section, require_reader, semantic

# which optimisers, and which schedules, read a key; the keys left out are read by all
_READERS: Final[dict[str, tuple[str, ...]]] = {
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "beta1": ("adam", "adamw", "yogi"),
    "beta2": ("adam", "adamw", "yogi"),
    "eps": ("adam", "adamw", "adagrad", "yogi"),
    "final": ("cosine", "linear"),
    "step_every": ("step",),
    "step_factor": ("step",),
}
_SCHEDULE_KEYS: Final = ("final", "step_every", "step_factor")
_EPS: Final = {"adagrad": 1e-10, "yogi": 1e-3}  # the others: 1e-8


class OuterSection(Section):
    """The server's optimiser and its learning rate (docs/outer.md)."""

    name: Literal["sgd", "adam", "adamw", "adagrad", "yogi"] = semantic("adam", "Outer optimiser.")
    lr: float = semantic(
        0.001, "Step size beta of the outer loop; with a schedule its greatest value.", gt=0
    )
    momentum: float = semantic(0.0, "Momentum of sgd.", ge=0, lt=1)
    nesterov: bool = semantic(False, "Nesterov's form of the momentum of sgd.")
    beta1: float = semantic(0.9, "First moment decay of adam, adamw and yogi.", ge=0, lt=1)
    beta2: float = semantic(0.999, "Second moment decay of adam, adamw and yogi.", ge=0, lt=1)
    eps: float | None = semantic(
        None,
        "Denominator offset of all but sgd; null: 1e-8, for adagrad 1e-10, for yogi 1e-3.",
        gt=0,
    )
    weight_decay: float | None = semantic(
        None,
        "Decay lambda of every parameter. adamw: theta shrinks by lr lambda theta; the others: "
        "lambda theta is added to the gradient. null: 0.01 for adamw, else 0.",
        ge=0,
    )
    schedule: Literal["constant", "cosine", "linear", "step"] = semantic(
        "constant",
        "Learning rate over the run. cosine, linear: falls to final lr over run.rounds, which are "
        "then part of the run's identity; step: times step_factor every step_every rounds.",
    )
    warmup: int = semantic(0, "TRAIN rounds in which the rate rises to lr, in equal steps.", ge=0)
    final: float = semantic(
        0.0, "What cosine and linear fall to, as a share of lr (0.1: a tenth).", ge=0, le=1
    )
    step_every: int | None = semantic(None, "TRAIN rounds between two steps of the rate.", ge=1)
    step_factor: float = semantic(0.1, "Factor of each step of the rate.", gt=0, le=1)


def resolve_outer(config: OuterSection) -> OuterSection:
    """Return the section with the optimiser's own defaults where it says null."""
    defaults = {
        "eps": _EPS.get(config.name, 1e-8),
        "weight_decay": 0.01 if config.name == "adamw" else 0.0,
    }
    missing = {key: value for key, value in defaults.items() if getattr(config, key) is None}
    return config.model_copy(update=missing)


def reads_rounds(config: OuterSection) -> bool:
    """Tell whether θ depends on `run.rounds`."""
    return config.schedule in ("cosine", "linear")


def check_outer(config: OuterSection, rounds: int) -> None:
    """Raise for a combination that cannot work, or a key that would have no effect.

    Args:
        rounds: `run.rounds`.

    Raises:
        ConfigError: with the keys, their values and the remedy.
    """
    for key, readers in _READERS.items():
        _check_read(config, key, readers)
    if config.nesterov and config.momentum == 0:
        raise ConfigError(
            "outer.nesterov True with outer.momentum 0.0: it is a form of momentum. "
            "Set outer.momentum (0.9 is usual), or nesterov to false."
        )
    if config.schedule == "step" and config.step_every is None:
        raise ConfigError(
            "outer.schedule 'step' without outer.step_every: the rate would never step. "
            "Set outer.step_every to a number of TRAIN rounds."
        )
    if reads_rounds(config) and config.warmup >= rounds > 0:
        raise ConfigError(
            f"outer.warmup {config.warmup} with run.rounds {rounds}: no round is left for "
            f"outer.schedule {config.schedule!r}. Lower outer.warmup or raise run.rounds."
        )


def _check_read(config: OuterSection, key: str, readers: tuple[str, ...]) -> None:
    choice = "schedule" if key in _SCHEDULE_KEYS else "name"
    chosen = getattr(config, choice)
    value = getattr(config, key)
    unset = resolve_outer(OuterSection(name=config.name))
    if value not in (getattr(OuterSection(), key), getattr(unset, key)):
        require_reader("outer", key, value, choice, chosen, readers)
