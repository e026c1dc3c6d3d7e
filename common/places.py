"""Where files may be written: told before the work whose outcome they hold."""

from __future__ import annotations

import os
from pathlib import Path

from dmaml.common.errors import ConfigError


def require_place(path: Path, what: str, remedy: str) -> None:
    """Raise unless a file can be made, with the folders above it that are not there yet.

    Args:
        path: of the file.
        what: it is called so in the error.
        remedy: what else to give; a sentence.

    Raises:
        ConfigError: the nearest thing above it that exists is no folder, or may not be written.
    """
    above = next(one for one in path.absolute().parents if one.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return
    why = "is not writable" if above.is_dir() else "is no folder"
    raise ConfigError(f"{what} cannot be written: {str(above)!r} {why}. {remedy}")
