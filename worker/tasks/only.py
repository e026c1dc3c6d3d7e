"""`task.options.only`: the origin that a split is taken from, by the split's name."""

from __future__ import annotations

from collections.abc import Sequence

from dmaml.common.errors import ConfigError
from dmaml.worker.tasks.base import SPLITS


def checked_only(only: object, what: str, origins: Sequence[str]) -> dict[str, str]:
    """Return the option if each of its keys is a split and each value an origin.

    Args:
        only: such as {"train": "omniglot"}; None: nothing.
        what: an origin is called, for people.
        origins: their names.

    Raises:
        ConfigError: a key or a value is another.
    """
    found = {} if only is None else only
    if not isinstance(found, dict) or not set(found) <= set(SPLITS):
        raise ConfigError(
            f"task.options.only {only!r}: required a {what}'s name for any of {', '.join(SPLITS)}."
        )
    for origin in found.values():
        if origin not in origins:
            raise ConfigError(
                f"task.options.only has {origin!r}: required one of {', '.join(origins)}."
            )
    return found
