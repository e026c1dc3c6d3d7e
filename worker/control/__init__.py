"""Control: families of environments, and the pieces that learn to act in them.

One family per file; `base.py` is the contract. A task is a member of a family, told apart by a
few numbers (a goal, say).
"""

from __future__ import annotations

from typing import Any, Final

from dmaml.common.options import make
from dmaml.common.plugins import find
from dmaml.worker.control.base import Family

GROUP: Final = "dmaml.environments"
FAMILIES: Final = {
    "navigation": "dmaml.worker.control.navigation:Navigation",
}
PAGE: Final = "docs/reinforcement.md"


def build(name: str, options: dict[str, Any]) -> Family:
    """Return the family `name`, made as `Thing(**options)`.

    Args:
        name: of `FAMILIES`, an entry point of the group `dmaml.environments`, or
            `package.module:Thing`.

    Raises:
        UnknownNameError: no such family.
        ConfigError: it cannot be imported or made, or lacks a method.
    """
    thing = find("environment", GROUP, FAMILIES, name)
    family: Family = make("environment", name, thing, options, "draw", "make", page=PAGE)
    return family
