"""How far a run is."""

from __future__ import annotations

from typing import NamedTuple

from dmaml.common.items import ItemKind


class Progress(NamedTuple):
    """How far a run is.

    In sync and quorum mode every round is one commit; in async mode a TRAIN round is many.

    Attributes:
        round: rounds of every kind done (INIT counts as one).
        version: TRAIN commits done: how often the parameters were moved.
        probes: PROBE rounds done.
        evaluated: `trained` at the last EVALUATE round, -1 for none.
        tasks_seen: tasks of all TRAIN commits.
        trained: TRAIN rounds done; `run.rounds` counts these.
        commits: commits of every kind done.
    """

    round: int = 0
    version: int = 0
    probes: int = 0
    evaluated: int = -1
    tasks_seen: int = 0
    trained: int = 0
    commits: int = 0

    def committed(self, kind: ItemKind, num_tasks: int, has_moved: bool = True) -> Progress:
        """Return the progress after one more commit.

        Args:
            num_tasks: tasks that it trained on.
            has_moved: whether it moved the parameters; a commit of voids does not.
        """
        commits = self.commits + 1
        if kind is not ItemKind.TRAIN:
            return self._replace(commits=commits)
        version, tasks_seen = self.version + has_moved, self.tasks_seen + num_tasks
        return self._replace(version=version, tasks_seen=tasks_seen, commits=commits)

    def closed(self, kind: ItemKind) -> Progress:
        """Return the progress once a round of this kind is done, all of it committed."""
        done = self._replace(round=self.round + 1)
        if kind is ItemKind.TRAIN:
            return done._replace(trained=self.trained + 1)
        if kind is ItemKind.PROBE:
            return done._replace(probes=self.probes + 1)
        if kind is ItemKind.EVALUATE:
            return done._replace(evaluated=self.trained)
        return done
