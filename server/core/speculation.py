"""Second leases for items that take too long: the first answer wins. Pure."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, final

from dmaml.common.items import WorkItem
from dmaml.server.core.membership import Lease
from dmaml.server.core.pace import Pace

NUM_LOOKED_AT: Final = 16  # of the oldest leases, at an event


@final
class Speculation:
    """Remembers the items that one actor has, the longest had first.

    An item gets at most one second lease while its first one lives. As an answer is a pure
    function of its item, it does not matter whose comes first (`server.speculation`).
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._single: OrderedDict[WorkItem, Lease] = OrderedDict()

    def __len__(self) -> int:
        return len(self._single)

    def granted(self, lease: Lease, is_second: bool) -> None:
        """Note a lease."""
        if is_second:
            self._single.pop(lease.item, None)
        else:
            self._single[lease.item] = lease

    def over(self, item: WorkItem) -> None:
        """Forget an item: it is answered, given up or pending again."""
        self._single.pop(item, None)

    def clear(self) -> None:
        """Forget everything."""
        self._single.clear()

    def overdue(self, now: float) -> list[Lease]:
        """Return the leases whose items ask for a second one, of the `NUM_LOOKED_AT` oldest.

        An overdue one behind so many that are not is seen only when these are over: an event must
        not cost time with the number of leases.
        """
        oldest = islice(self._single.values(), NUM_LOOKED_AT)
        return [lease for lease in oldest if self._pace.is_overdue(now, lease)]
