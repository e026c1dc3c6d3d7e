"""Writes `docs/config.md` from the schema: `python -m dmaml.deploy.config_page PATH [--check]`."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any, Literal

from pydantic_core import PydanticUndefined

from dmaml.common.config import RunConfig, is_semantic, to_text
from dmaml.common.sections import keys
from dmaml.deploy.generated import row, write_or_check

HEAD = """\
# Configuration

Generated from the schema by `make docs`; do not edit. A configuration is a YAML file with the
sections below; every key has a default, so an empty file is a valid one. `--set section.key=value`
changes a key on the command line. Unknown keys are errors.

A **semantic** key can change θ: together they are the run's identity, which is checked when an
actor joins and when a run is resumed. An *operational* key may change between two starts.
"""


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    section_before = ""
    for section, key, field in keys():
        if section != section_before:
            annotation: Any = RunConfig.model_fields[section].annotation
            lines += [
                "",
                f"## {section}",
                "",
                annotation.__doc__ or "",
                "",
                row("key", "type", "default", "kind", "meaning"),
                row(*["---"] * 5),
            ]
            section_before = section
        kind = "**semantic**" if is_semantic(field) else "operational"
        lines.append(
            row(f"`{key}`", _type(field), f"`{_default(field)}`", kind, field.description or "")
        )
    lines += ["", "## All defaults", "", "```yaml", to_text(RunConfig()).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` tell whether it is current."""
    return write_or_check(page(), arguments)


def _default(field: Any) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _type(field: Any) -> str:
    limits = [_limit(m) for m in field.metadata]
    return ", ".join([_name(field.annotation), *[text for text in limits if text]])


def _limit(metadata: Any) -> str:
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(metadata, name):
            value = getattr(metadata, name)
            return f"{sign} {'2^63' if value == 2**63 else value}"
    return ""


def _name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is Literal:
        return " / ".join(str(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " / ".join(_name(a) for a in arguments)
    if origin is typing.Annotated:
        return _name(arguments[0])
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    return "null" if annotation is type(None) else str(annotation.__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
