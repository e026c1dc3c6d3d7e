"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

from dmaml.common.errors import ConfigError


def read_secret(path: Path) -> str:
    """Return the first line of a file.

    Raises:
        ConfigError: missing, unreadable or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"--token-file {str(path)!r} cannot be read: {reason}.") from None
    token = lines[0].strip() if lines else ""
    if not token:
        raise ConfigError(
            f"--token-file {str(path)!r} is empty. Write a secret of at least 16 characters into "
            "it, such as `openssl rand -hex 32` prints."
        )
    return token
