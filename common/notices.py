"""What the processes of a node tell it: datagrams on a Unix socket, JSON, never a pickle.

A node of the cluster (`dmaml node`) starts Ray, and Ray starts the actors: the node is not their
parent and sees neither their log nor their end. So they tell it, and it shows their words in its
own log and their state in its health. Where there is no node nothing is sent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

SOCKET_VARIABLE: Final = "DMAML_NODE_SOCKET"
LEAVE_VARIABLE: Final = "DMAML_NODE_LEAVING"  # names a file: once it is there, the actors leave
MAX_TEXT: Final = 4000  # characters; a longer text is cut
MAX_BYTES: Final = 65536  # of one datagram: JSON may take 12 bytes for a character

STARTING, WORKING, ENDED, FAILED = "starting", "working", "ended", "failed"
STATES: Final = (STARTING, WORKING, ENDED, FAILED)


@dataclass(frozen=True)
class Notice:
    """One line of a process, or its new state.

    Attributes:
        name: of the process, unique on its node, such as `actor 0`.
        text: for people.
        state: one of `STATES`, or "" for a line of its log.
    """

    name: str
    text: str
    state: str = ""


@final
class Notifier:
    """Tells the node; a node that is gone or too busy is not waited for.

    Args:
        name: of this process.
        path: of the node's socket; default: what the environment names, "" for no node.
    """

    def __init__(self, name: str, path: str | None = None) -> None:
        self._name = name
        self._path = os.environ.get(SOCKET_VARIABLE, "") if path is None else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def tell(self, text: str, state: str = "") -> None:
        """Send one notice."""
        if self._path:
            notice = Notice(self._name, text[:MAX_TEXT], state)
            with contextlib.suppress(OSError):
                self._socket.sendto(json.dumps(asdict(notice)).encode(), self._path)

    def handler(self) -> logging.Handler:
        """Return a log handler that sends every line."""
        handler = _Handler(self)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        return handler

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@final
class Listener:
    """The node's end of the socket.

    Args:
        path: of the socket; one that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def receive(self, timeout_s: float) -> Notice | None:
        """Return the next notice, or None: nothing came in time, or nothing well-formed."""
        self._socket.settimeout(timeout_s)
        try:
            values = json.loads(self._socket.recv(MAX_BYTES))
            name, text, state = (str(values[key]) for key in ("name", "text", "state"))
        except (TimeoutError, BlockingIOError):
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return Notice(name, text, state) if state in ("", *STATES) else None

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


@final
class _Handler(logging.Handler):
    def __init__(self, notifier: Notifier) -> None:
        super().__init__()
        self._notifier = notifier

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's line."""
        try:
            self._notifier.tell(self.format(record))
        except Exception:  # as every handler: a bad line must not end the work
            self.handleError(record)
