"""Options of the server's plug-ins: the shared checks, whose sentences name the server's page."""

from __future__ import annotations

from functools import partial
from typing import Final

from dmaml.common import options
from dmaml.common.options import choice, inner

__all__ = ["choice", "count", "inner", "make", "number"]

PAGE: Final = "docs/weights.md"

make = partial(options.make, page=PAGE)
number = partial(options.number, page=PAGE)
count = partial(options.count, page=PAGE)
