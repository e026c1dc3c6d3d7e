"""The configuration of gradient-based adaptation: what adapts, how fast, differentiated how."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from dmaml.common.errors import ConfigError
from dmaml.common.schema import Section, semantic

EPSILON: Final = 0.01


def parse_rate(value: object) -> object:
    """Return the word `learned` or a number above 0."""
    if value == "learned":
        return value
    try:
        rate = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = 0.0
    if not 0 < rate < float("inf") or isinstance(value, bool):
        raise ValueError("required a number above 0, or learned")
    return rate


def parse_patterns(value: object) -> object:
    """Return one pattern as a list of one."""
    return (value,) if isinstance(value, str) else value


InnerRate = Annotated[float | Literal["learned"], BeforeValidator(parse_rate)]
Patterns = Annotated[tuple[str, ...], BeforeValidator(parse_patterns)]


class AdaptationSection(Section):
    """What MAML and its relatives read (docs/algorithms.md)."""

    name: str  # first on the page; `AlgorithmSection` has the rest of it
    order: Literal["second", "first", "finite_difference", "forward_over_reverse"] = semantic(
        "second",
        "second: exact meta-gradient; first: inner gradients taken as constants (FOMAML); "
        "finite_difference: second derivatives by central differences; forward_over_reverse: "
        "exact, with memory that hardly grows with inner_steps.",
    )
    epsilon: float = semantic(
        EPSILON, "Length of a finite difference as a share of that of the parameters.", gt=0, lt=1
    )
    first_order_rounds: int = semantic(
        0, "TRAIN rounds at first order before `order` takes over (MAML++).", ge=0
    )
    inner_lr: InnerRate = semantic(
        0.4, "Step size alpha of the inner loop, or learned: a meta-parameter (see per)."
    )
    per: Literal["scalar", "layer", "layer_step", "parameter"] = semantic(
        "parameter",
        "What has a learned rate of its own: all together, each layer, each layer in each step "
        "(MAML++), each number (Meta-SGD).",
    )
    initial_lr: float | None = semantic(None, "What learned rates start from.", gt=0)
    inner_steps: int = semantic(1, "Steps of the inner loop in training.", ge=0)
    inner_reduction: Literal["mean", "sum_over_ways"] = semantic(
        "mean",
        "Inner loss: mean over the support examples, or that mean times n_way. Finn's code sums "
        "over ways: its alpha 0.4 is 2.0 for a mean loss in 5-way tasks.",
    )
    inner_clip: float | None = semantic(
        None,
        "Norm of a task's longest inner gradient (of the mean loss): a longer one is shortened "
        "to it. null: no limit.",
        gt=0,
    )
    multi_step_rounds: int = semantic(
        0,
        "TRAIN rounds in which the query loss after every step counts: the weight of each but the "
        "last falls from 1/inner_steps to 0 along a line (MAML++). 0: the last step's alone.",
        ge=0,
    )
    adapt: Patterns = semantic(
        ("*",),
        "Parameters that adapt, as patterns of names or layers (norm*); head: the last layer "
        "(ANIL). The others are meta-learned alone.",
    )
    per_step: Patterns = semantic(
        (),
        "Parameters of which every step has its own and which do not adapt, as patterns; norm*: "
        "batch norm's scale and shift by step (MAML++).",
    )

    @property
    def alpha(self) -> float:
        """The rate as a number: the fixed one, or what learned ones start from."""
        if self.inner_lr == "learned":
            assert self.initial_lr is not None, "check_adaptation asks for it"
            return self.initial_lr
        return self.inner_lr


def check_adaptation(config: AdaptationSection) -> None:
    """Raise for a combination that cannot work, or a key that would have no effect.

    Raises:
        ConfigError: with the keys, their values and the remedy.
    """
    _check_rates(config)
    if config.epsilon != EPSILON and config.order != "finite_difference":
        raise ConfigError(
            f"algorithm.epsilon {config.epsilon} with algorithm.order {config.order!r} has no "
            "effect. Set order to finite_difference, or leave epsilon out."
        )
    if config.first_order_rounds and config.order == "first":
        raise ConfigError(
            f"algorithm.first_order_rounds {config.first_order_rounds} with algorithm.order "
            "'first': it is first order in every round. Set order to what follows, or leave "
            "first_order_rounds out."
        )
    if config.multi_step_rounds and config.inner_steps < 2:
        raise ConfigError(
            f"algorithm.multi_step_rounds {config.multi_step_rounds} with algorithm.inner_steps "
            f"{config.inner_steps}: there is no step before the last. Set inner_steps to 2 or more."
        )
    if not config.adapt and config.inner_steps:
        raise ConfigError(
            f"algorithm.adapt [] with algorithm.inner_steps {config.inner_steps}: nothing would "
            "adapt. Name parameters, or set inner_steps to 0."
        )


def _check_rates(config: AdaptationSection) -> None:
    if config.inner_lr != "learned":
        default = AdaptationSection.model_fields["per"].default
        for key, unset in (("initial_lr", None), ("per", default)):
            if getattr(config, key) != unset:
                raise ConfigError(
                    f"algorithm.{key} {getattr(config, key)!r} with algorithm.inner_lr "
                    f"{config.inner_lr}: only learned rates read it. Set inner_lr to learned, or "
                    f"leave {key} out."
                )
    elif config.initial_lr is None:
        raise ConfigError(
            "algorithm.inner_lr 'learned' without algorithm.initial_lr: required what the rates "
            "start from. Set initial_lr, such as 0.1."
        )
    elif config.inner_steps == 0:
        raise ConfigError(
            "algorithm.inner_lr 'learned' with algorithm.inner_steps 0: no step would use a rate. "
            "Set inner_steps to 1 or more, or inner_lr to a number."
        )
