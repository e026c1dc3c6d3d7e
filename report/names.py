"""What runs are called in a report: by their directories, as short as tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the last part of each path, or as many as make all different: `a/run-s1`.

    Args:
        folders: run directories; what is there twice keeps one name.
    """
    parts = [folder.resolve().parts for folder in folders]
    different = len(set(parts))
    for length in count(1):
        found = ["/".join(part[-length:]) for part in parts]
        if len(set(found)) == different:
            return found
    raise AssertionError("whole paths differ")
