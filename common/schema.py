"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen part of the configuration; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=False)


def semantic(default: Any, description: str, **limits: Any) -> Any:
    """Declare a key that can change θ."""
    return Field(default, description=description, json_schema_extra={"semantic": True}, **limits)


def operational(default: Any, description: str, **limits: Any) -> Any:
    """Declare a key that cannot change θ."""
    return Field(default, description=description, json_schema_extra={"semantic": False}, **limits)
