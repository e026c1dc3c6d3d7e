"""A connection to the server: its address, and when a call is repeated.

A call is repeated, with full jitter (Brooker, "Exponential backoff and jitter", 2015), only on
UNAVAILABLE, DEADLINE_EXCEEDED and CANCELLED (we cancel nothing ourselves), with the same identity:
the server then gives the first answer again. When nothing was heard for `orphan_s` the caller sees
ServerUnreachableError.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import grpc

from dmaml.common import frames
from dmaml.common.errors import ConfigError, ServerUnreachableError, error_of
from dmaml.common.security import read_secret

T = TypeVar("T")

CALL_S: Final = 10.0  # deadline of a short call
LEAVING_S: Final = 2.0
_RETRIED: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # what a server that stops gives to calls it has just accepted
)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", frames.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", frames.MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # a server whose name is new, or moved
)


@dataclass(frozen=True)
class Address:
    """Where a server is and how to be let in; travels to actors by value.

    Attributes:
        target: `host:port`.
        token: bearer token, or "".
        tls_ca: PEM text of the authority, "" for no TLS.
        tls_cert, tls_key: PEM text of the client's own certificate, where the server asks for one.
    """

    target: str
    token: str = field(default="", repr=False)
    tls_ca: str = field(default="", repr=False)
    tls_cert: str = field(default="", repr=False)
    tls_key: str = field(default="", repr=False)

    @classmethod
    def of_files(
        cls,
        target: str,
        token_file: Path | None = None,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
    ) -> Address:
        """Return the address with the contents of its files.

        Raises:
            ConfigError: a malformed target, or a file that cannot be read.
        """
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"--server {target!r}: required HOST:PORT, such as 127.0.0.1:50051.")
        if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_ca is None):
            raise ConfigError(
                "--tls-cert and --tls-key go together and need --tls-ca: give all three, "
                "--tls-ca alone, or none."
            )
        token = read_secret(token_file) if token_file is not None else ""
        return cls(target, token, _text(tls_ca), _text(tls_cert), _text(tls_key))

    def channel(self) -> grpc.Channel:
        """Open a channel of its own."""
        if not self.tls_ca:
            return grpc.insecure_channel(self.target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            self.tls_ca.encode(),
            self.tls_key.encode() or None,
            self.tls_cert.encode() or None,
        )
        return grpc.secure_channel(self.target, credentials, options=_OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


class Retry:
    """Repeats a call while the server cannot be reached.

    Args:
        orphan_s: give up after so long without an answer, seconds.
        sleep, clock, jitter: injected in tests.
        is_leaving: asked between attempts; once true, `LEAVING_S` are enough.
    """

    def __init__(
        self,
        orphan_s: float,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._orphan_s = orphan_s
        self._is_leaving = is_leaving
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter

    def call(self, what: str, target: str, attempt: Callable[[], T]) -> T:
        """Return the result of `attempt`, repeated while the server cannot be reached.

        Raises:
            ServerUnreachableError: nothing was heard for `orphan_s`.
            DmamlError: what the server answered.
        """
        began, number = self._clock(), 0
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call)
                status, details = error.code(), error.details() or ""
                if status not in _RETRIED:
                    raise error_of(status.name, details) from None
                waited = self._clock() - began
                if waited >= self._orphan_s or (waited >= LEAVING_S and self._is_leaving()):
                    raise ServerUnreachableError(
                        f"{what}: no answer from the server at {target} for {waited:.0f} s "
                        f"({details or status.name}). Is it running, and is the address right?"
                    ) from None
            self._sleep(self._jitter(0.0, min(2.0, 0.05 * 2**number)))
            number = min(number + 1, 10)


def _text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
