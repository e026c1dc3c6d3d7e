"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dmaml.common.errors import ConfigError


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)


def semantic(default: Any, description: str, **limits: Any) -> Any:
    """Declare a key that can change θ."""
    return Field(default, description=description, json_schema_extra={"semantic": True}, **limits)


def operational(default: Any, description: str, **limits: Any) -> Any:
    """Declare a key that cannot change θ."""
    return Field(default, description=description, json_schema_extra={"semantic": False}, **limits)


def require_reader(
    section: str, key: str, value: object, choice: str, chosen: str, readers: tuple[str, ...]
) -> None:
    """Raise for a key that was given and that the chosen thing does not read.

    Args:
        choice: key of the section that chooses, such as `name`; `chosen` is its value.
        readers: values of it under which `key` is read.

    Raises:
        ConfigError: with the key, its value and the remedy.
    """
    if chosen not in readers:
        raise ConfigError(
            f"{section}.{key} {value!r} with {section}.{choice} {chosen!r}: only "
            f"{', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} it. Leave "
            f"{section}.{key} out, or set {section}.{choice} to {' or '.join(readers)}."
        )
