"""The user's cache folder, and files that appear in it whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import platformdirs


def cache_dir() -> Path:
    """Return the folder for what can be made again: `$DMAML_CACHE`, else the user's cache."""
    chosen = os.environ.get("DMAML_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dmaml"))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Make the file at `path`: other processes see all of it or none, also after a crash.

    Several processes may write the same file at once; the last one's stays.

    Raises:
        OSError: the folder cannot be made or written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600; a cache may be shared
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # interrupted after it was renamed
            os.unlink(temporary)
        raise
