"""Plain values of YAML text, with `section.key=value` settings on top."""

from __future__ import annotations

import re
from typing import Any

import yaml

from dmaml.common.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def values_of(text: str, origin: str) -> object:
    """Return what YAML text holds: mappings, lists, text, numbers, dates.

    Args:
        origin: what the text is called in an error.

    Raises:
        ConfigError: it is no YAML, with the line.
    """
    try:
        return _parsed(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2020-13-45 is no date
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "malformed"
        raise ConfigError(f"{origin}: not valid YAML{line}: {problem}.") from None


def with_settings(values: object, settings: tuple[str, ...]) -> object:
    """Return a mapping of sections with settings on top; anything else as it is.

    Args:
        settings: `section.key=value` or `section.key.key=value`, the value YAML or else text.

    Raises:
        ConfigError: one of another form.
    """
    if not isinstance(values, dict | None):
        return values
    merged: dict[str, Any] = dict(values or {})
    for setting in settings:
        name, equals, text = setting.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(
                f"--set {setting!r}: required section.key=value, such as task.n_way=20."
            )
        try:
            value = _parsed(text)
        except (yaml.YAMLError, ValueError):
            value = text
        inner = merged.get(section)
        if not isinstance(inner, dict | None):
            return values
        target: dict[str, Any] = dict(inner or {})
        first, *rest = key.split(".")
        target[first] = _nested(target.get(first), rest, value)
        merged[section] = target
    return merged


def _parsed(text: str) -> object:
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def _nested(current: object, path: list[str], value: object) -> object:
    if not path:
        return value
    inner = dict(current) if isinstance(current, dict) else {}
    inner[path[0]] = _nested(inner.get(path[0]), path[1:], value)
    return inner
