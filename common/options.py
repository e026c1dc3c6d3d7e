"""Options of plug-ins: made with them, or refused with one sentence that names their page."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from dmaml.common.errors import ConfigError, unknown_sentence

VARIADIC: Final = inspect.Parameter.VAR_POSITIONAL


def make(
    kind: str,
    name: str,
    thing: Callable[..., Any],
    options: Mapping[str, Any],
    *methods: str,
    page: str,
) -> Any:
    """Return `thing(**options)`.

    Args:
        kind: what is made, in words, for the error ("weight generator").
        name: what the configuration calls it.
        methods: what the made object must have.
        page: where the options are described.

    Raises:
        ConfigError: an unknown, missing or unsuitable option, or an object without a method.
    """
    _check_names(kind, name, thing, options, page)
    try:
        made = thing(**options)
    except (
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        LookupError,
        AttributeError,
    ) as error:
        raise ConfigError(f"{kind} {name!r} cannot be made: {error}") from error
    missing = [method for method in methods if not callable(getattr(made, method, None))]
    if missing:
        raise ConfigError(
            f"{kind} {name!r} made a {type(made).__name__} without {', '.join(missing)}; required "
            f"the methods {', '.join(methods)} ({page})."
        )
    return made


def _check_names(
    kind: str, name: str, thing: Callable[..., Any], options: Mapping[str, Any], page: str
) -> None:
    try:
        accepted = inspect.signature(thing).parameters
    except (TypeError, ValueError):  # no signature: the call itself will tell
        return
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    for option in options:
        if option not in accepted and not accepted:
            raise ConfigError(f"{kind} {name!r} takes no options, found {option!r}. Remove it.")
        if option not in accepted:
            raise ConfigError(unknown_sentence(f"option of {kind} {name!r}:", option, accepted))
    for parameter in accepted.values():
        is_required = parameter.default is parameter.empty and parameter.kind is not VARIADIC
        if is_required and parameter.name not in options:
            raise ConfigError(
                f"{kind} {name!r} needs the option {parameter.name!r}. Set it ({page})."
            )


def number(
    name: str, value: object, limits: str, suits: Callable[[float], bool], *, page: str
) -> float:
    """Return a finite number that suits; raises ValueError.

    Args:
        limits: what suits, in words, for the error ("> 0").
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (math.isfinite(value) and suits(value))
    ):
        return float(value)
    raise ValueError(f"{name} = {value!r}: required a finite number {limits}. See {page}.")


def count(name: str, value: object, *, least: int, page: str) -> int:
    """Return a whole number >= least; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ValueError(f"{name} = {value!r}: required a whole number >= {least}. See {page}.")


def choice(name: str, value: object, known: Collection[str]) -> str:
    """Return one of the known words; raises ValueError."""
    if isinstance(value, str) and value in known:
        return value
    raise ValueError(unknown_sentence(name, str(value), known))


def inner(value: object) -> dict[str, Any]:
    """Return what a wrapper's `inner` holds, `name` and `options`; raises ValueError."""
    if (
        isinstance(value, Mapping)
        and {"name"} <= set(value) <= {"name", "options"}
        and isinstance(value["name"], str)
        and isinstance(value.get("options", {}), Mapping)
    ):
        return {"name": value["name"], "options": dict(value.get("options", {}))}
    raise ValueError(
        f"inner = {value!r}: required {{name: NAME, options: {{...}}}}, for example {{name: mean}}."
    )
