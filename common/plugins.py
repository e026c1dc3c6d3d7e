"""Plug-in tables: a name in the configuration becomes a class or function.

A name is looked up in the package's own table, then among the installed entry points of the
group, then, when it reads `package.module:Thing`, imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from dmaml.common.errors import ConfigError, UnknownNameError


def find(kind: str, group: str, table: Mapping[str, str], name: str) -> Any:
    """Return the object that `name` stands for.

    Args:
        kind: what is looked for, in words, for the error ("weight generator").
        group: entry-point group of third parties ("dmaml.weight_generators").
        table: our own names -> `package.module:Thing`.
        name: a name of the table, of an entry point, or `package.module:Thing`.

    Raises:
        UnknownNameError: no such name.
        ConfigError: the module or the attribute cannot be imported.
    """
    if name in table:
        return _load(kind, table[name])
    for entry in entry_points(group=group):
        if entry.name == name:
            return _load(kind, entry.value)
    if ":" in name:
        return _load(kind, name)
    raise UnknownNameError(kind, name, known(group, table))


def known(group: str, table: Mapping[str, str]) -> tuple[str, ...]:
    """Return every name that `find` knows, our own first."""
    return (*table, *(entry.name for entry in entry_points(group=group)))


def _load(kind: str, path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # whatever the user's own module does
        raise ConfigError(
            f"{kind} {path!r} cannot be imported: {type(error).__name__}: {error}. "
            "It must read package.module:Thing, and the package must be on PYTHONPATH."
        ) from error
