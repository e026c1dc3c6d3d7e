"""Who is alive, and who may answer what: sessions, leases and fencing tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dmaml.common.errors import CapacityError, SessionLostError
from dmaml.common.items import Outcome, Token, WorkItem

WORKER_STATES = ("computing", "waiting", "silent")  # silent: for more than half of session_s
MAX_LEASES = 4  # of one session: the item in hand, the one being pushed, and two lost replies


@dataclass(frozen=True)
class Hello:
    """What an actor says of itself when it joins.

    Attributes:
        incarnation: unique for the life of one actor; repeating it repeats the answer.
        identity: hash of the semantic configuration keys.
        host: where it runs, for people.
        fingerprint: what its numerics depend on, name -> value.
        data_digest: SHA-256 of the data that tasks are drawn from.
        held: items it has computed and not seen durable.
    """

    incarnation: str
    identity: str
    host: str = ""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    data_digest: str = ""
    held: tuple[WorkItem, ...] = ()


class Lease(NamedTuple):
    """An actor's right to do one work item until `ends_at` (seconds of the core's clock).

    Attributes:
        item: with the version of the parameters that it is to be computed from.
        base_digest: of those parameters; "" for INIT.
    """

    item: WorkItem
    token: Token
    worker_id: str
    request_id: str
    ends_at: float
    valid_s: float
    base_digest: str = ""


class Given(NamedTuple):
    """What an actor was told about its last answer.

    Attributes:
        is_merged: it goes into a later round than its own, which tells nothing of its durability.
    """

    item: WorkItem
    outcome: Outcome
    is_merged: bool = False


@dataclass
class Session:
    """Liveness of one actor."""

    worker_id: str
    hello: Hello
    heard_at: float
    held: frozenset[WorkItem] = frozenset()
    held_until: float = 0.0
    leases: dict[int, Lease] = field(default_factory=dict)
    granted: Lease | None = None
    hint: WorkItem | None = None
    last: Given | None = None
    contributions: int = 0
    is_checked: bool = False  # its numerics are the run's


class Membership:
    """The sessions of one epoch and the leases that they hold.

    Args:
        tag: ends every worker id. Epochs count the starts of one run's server: when the server of
            another run comes to the same address, its ids must not be those of the first.
    """

    def __init__(self, epoch: int, session_s: float, max_workers: int, tag: str = "") -> None:
        self.epoch = epoch
        self._tag = tag
        self._session_s = session_s
        self._max_workers = max_workers
        self._sessions: dict[str, Session] = {}
        self._by_incarnation: dict[str, str] = {}
        self._num_joined = 0
        self._heard_since = -math.inf  # nobody was last heard before
        self._expired_from = math.inf  # no lease ends before
        self._num_leases = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def join(self, now: float, hello: Hello) -> tuple[Session, bool]:
        """Open a session, or return the one of the same incarnation; the flag says if it is new.

        Raises:
            CapacityError: `server.max_workers` sessions are open.
        """
        known = self._by_incarnation.get(hello.incarnation)
        if known is not None:
            session = self._sessions[known]
            session.heard_at = now
            return session, False
        if len(self._sessions) >= self._max_workers:
            raise CapacityError(
                f"join refused: {len(self._sessions)} actors are here, server.max_workers is "
                f"{self._max_workers}. Raise it, or start fewer actors."
            )
        self._num_joined += 1
        worker_id = f"{self.epoch}-{self._num_joined}{self._tag}"
        session = Session(worker_id, hello, now)
        self._sessions[worker_id] = session
        self._by_incarnation[hello.incarnation] = worker_id
        return session, True

    def find(self, worker_id: str, epoch: int) -> Session | None:
        """Return the live session, or None."""
        return self._sessions.get(worker_id) if epoch == self.epoch else None

    def heard(self, now: float, worker_id: str, epoch: int) -> Session:
        """Note that an actor spoke and return its session.

        Raises:
            SessionLostError: the server restarted, or the session ended.
        """
        if epoch != self.epoch:
            raise SessionLostError(
                f"worker {worker_id!r} speaks of epoch {epoch}, the server is at {self.epoch}: "
                "it restarted. Join again."
            )
        session = self._sessions.get(worker_id)
        if session is None:
            raise SessionLostError(
                f"worker {worker_id!r} is unknown: nothing was heard of it for "
                f"{self._session_s:g} s, or it left. Join again."
            )
        session.heard_at = now
        return session

    def lease(
        self,
        now: float,
        session: Session,
        item: WorkItem,
        request_id: str,
        valid_s: float,
        base_digest: str = "",
    ) -> Lease:
        """Grant a lease with a fresh fencing token.

        Raises:
            CapacityError: the session holds `MAX_LEASES` already.
        """
        if len(session.leases) >= MAX_LEASES:
            raise CapacityError(
                f"lease refused: worker {session.worker_id!r} holds {MAX_LEASES} unanswered "
                "leases. Answer them or leave."
            )
        self._num_leases += 1
        token = Token(self.epoch, self._num_leases)
        ends_at = now + valid_s
        lease = Lease(item, token, session.worker_id, request_id, ends_at, valid_s, base_digest)
        self._expired_from = min(self._expired_from, ends_at)
        session.leases[token.counter] = lease
        session.granted = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """Forget a lease."""
        session = self._sessions.get(lease.worker_id)
        if session is not None:
            session.leases.pop(lease.token.counter, None)

    def end(self, session: Session) -> list[Lease]:
        """End a session and return the leases that it held."""
        self._sessions.pop(session.worker_id, None)
        self._by_incarnation.pop(session.hello.incarnation, None)
        return list(session.leases.values())

    def silent(self, now: float) -> list[Session]:
        """Return the sessions that have not been heard for `session_s`."""
        if now - self._heard_since <= self._session_s:
            return []
        self._heard_since = min((s.heard_at for s in self), default=now)
        return [s for s in self if now - s.heard_at > self._session_s]

    def census(self, now: float) -> dict[str, int]:
        """Return how many actors are in each of `WORKER_STATES`."""
        count = dict.fromkeys(WORKER_STATES, 0)
        for session in self:
            is_silent = now - session.heard_at > self._session_s / 2
            busy = "computing" if session.leases else "waiting"
            count["silent" if is_silent else busy] += 1
        return count

    def expired(self, now: float) -> list[Lease]:
        """Return the leases whose time is over."""
        if now <= self._expired_from:
            return []
        leases = [lease for s in self for lease in s.leases.values()]
        self._expired_from = min((lease.ends_at for lease in leases), default=math.inf)
        return [lease for lease in leases if now > lease.ends_at]
