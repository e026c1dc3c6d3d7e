"""What the world is asked to do, in order. Pure."""

from __future__ import annotations

from typing import final

from dmaml.common.items import Outcome
from dmaml.server.core.actions import Action, Note


@final
class Outbox:
    """Collects actions until the world takes them."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def add(self, action: Action) -> None:
        """Ask for something."""
        self._actions.append(action)

    def note(
        self,
        event: str,
        message: str,
        worker_id: str = "",
        warn: bool = False,
        outcome: Outcome | None = None,
    ) -> None:
        """Ask for a line of the log; see `Note`."""
        self._actions.append(Note(event, message, warn, worker_id, outcome))

    def take(self) -> list[Action]:
        """Return what is to be done, oldest first, and forget it."""
        actions, self._actions = self._actions, []
        return actions
