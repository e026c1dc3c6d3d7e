"""Every error that dmaml raises on purpose, and how each crosses the wire.

    DmamlError
    ├── BadInputError                  exit code 2: the user can mend it
    │   ├── ConfigError                a key, a type, a value or a combination of the configuration
    │   ├── UnknownNameError           a plug-in name that no table holds
    │   ├── DataError                  a missing, truncated or unsuitable data file
    │   │   └── TooFewUnitsError       the allowed units are too few for a task
    │   ├── RunDirectoryError          a run directory that is in use, foreign or damaged
    │   ├── AddressError               a port in use, or an address that may not be listened on
    │   ├── HostError                  a machine or container without what its part needs
    │   └── UnsupportedPythonError     an interpreter older than the code needs
    └── RunTimeError                   exit code 1: it started and could not go on
        ├── ServerUnreachableError     no answer within the deadline
        ├── AuthenticationError        the token is missing or wrong
        ├── IdentityMismatchError      the run's configuration differs from the caller's
        ├── FingerprintMismatchError   the numerics or the data differ from the run's
        ├── CapacityError              a limit of the server's configuration is reached
        ├── SessionLostError           the session or its epoch is over: join again
        ├── SnapshotGoneError          the version asked for is no longer held: lease again
        ├── ProtocolError              a message breaks the protocol
        └── RunFailedError             the run stopped with an error of its own
            └── DivergedError          its numbers are not finite any more

One table, `GRPC_STATUS`, maps each class that a server may raise to its gRPC status code and back.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final


class DmamlError(Exception):
    """Base of all; `exit_code` is what the command line ends with."""

    exit_code: int = 1


class BadInputError(DmamlError):
    """The user can mend it; nothing was written, nothing is lost."""

    exit_code = 2


class ConfigError(BadInputError):
    """A key, a type, a value or a combination of the configuration."""


class UnknownNameError(BadInputError):
    """A plug-in name that no table holds.

    Args:
        kind: what was asked for, in words ("weight generator").
        name: the name that was not found.
        known: the names that are.
    """

    def __init__(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(kind, name, known)
        self.kind = kind
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return unknown_sentence(self.kind, self.name, self.known)


class DataError(BadInputError):
    """A missing, truncated or unsuitable data file."""


class TooFewUnitsError(DataError):
    """The allowed units are too few for a task; a pipeline that has no more sits out."""


class RunDirectoryError(BadInputError):
    """A run directory that is in use, foreign or damaged."""


class AddressError(BadInputError):
    """A port in use, or an address that may not be listened on."""


class HostError(BadInputError):
    """A machine or container with too little memory, or with another version than the server."""


class UnsupportedPythonError(BadInputError):
    """An interpreter older than the code needs."""


class RunTimeError(DmamlError):
    """It started and could not go on."""


class ServerUnreachableError(RunTimeError):
    """No answer within the deadline."""


class AuthenticationError(RunTimeError):
    """The token is missing or wrong."""


class IdentityMismatchError(RunTimeError):
    """The run's configuration differs from the caller's."""


class FingerprintMismatchError(RunTimeError):
    """The numerics or the data differ from the run's."""


class CapacityError(RunTimeError):
    """A limit of the server's configuration is reached."""


class SessionLostError(RunTimeError):
    """The session or its epoch is over: join again."""


class SnapshotGoneError(RunTimeError):
    """The version asked for is no longer held: lease again."""


class ProtocolError(RunTimeError):
    """A message breaks the protocol."""


class RunFailedError(RunTimeError):
    """The run stopped with an error of its own."""


class DivergedError(RunFailedError):
    """The run's numbers are not finite any more: doing it again would give the same."""


# gRPC status names, one class each, so that the way back is unambiguous.
GRPC_STATUS: Final[dict[type[DmamlError], str]] = {
    ServerUnreachableError: "UNAVAILABLE",
    AuthenticationError: "UNAUTHENTICATED",
    IdentityMismatchError: "FAILED_PRECONDITION",
    FingerprintMismatchError: "PERMISSION_DENIED",
    CapacityError: "RESOURCE_EXHAUSTED",
    SessionLostError: "ABORTED",
    SnapshotGoneError: "NOT_FOUND",
    ProtocolError: "INVALID_ARGUMENT",
    RunFailedError: "INTERNAL",
    DivergedError: "OUT_OF_RANGE",
}


def status_of(error: DmamlError) -> str:
    """Return the gRPC status name for an error that a server raised."""
    for cls in type(error).__mro__:
        if cls in GRPC_STATUS:
            return GRPC_STATUS[cls]
    return "INTERNAL"


def error_of(status: str, message: str) -> DmamlError:
    """Return the error that a status name and its message stand for on the caller's side."""
    for cls, name in GRPC_STATUS.items():
        if name == status:
            return cls(message)
    return ServerUnreachableError(f"{status}: {message}")


def unknown_sentence(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, which one is near, and which there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."
