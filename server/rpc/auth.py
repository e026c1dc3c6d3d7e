"""Who may call: a bearer token from a file, TLS from files, and the refusal to listen openly."""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import grpc
from grpc import aio

from dmaml.common.errors import AddressError, ConfigError
from dmaml.common.security import read_secret

_OPEN_SERVICES = ("/grpc.health.v1.Health/",)


@dataclass(frozen=True)
class Security:
    """What guards the server.

    Attributes:
        token_file: a file whose first line is the bearer token.
        tls_cert, tls_key: PEM files of the server.
        tls_ca: PEM file; where given, clients must show a certificate that it signed.
        insecure: listen on any address without a token.
    """

    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    insecure: bool = False

    def check(self, listen: str) -> None:
        """Raise unless it is safe to listen on `host:port`.

        Raises:
            AddressError: an address beyond loopback, no token, and `--insecure` not said.
            ConfigError: one of certificate and key without the other.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together: give both or none.")
        if self.tls_ca is not None and self.tls_cert is None:
            raise ConfigError("--tls-ca needs --tls-cert and --tls-key: give all three.")
        if self.token_file is None and not self.insecure and not is_loopback(listen):
            raise AddressError(
                f"refused to listen on {listen!r} without a token: anybody who reaches it could "
                "drive the run. Give --token-file, listen on 127.0.0.1, or say --insecure."
            )

    def token(self) -> str | None:
        """Return the token, or None."""
        return read_secret(self.token_file) if self.token_file is not None else None

    def credentials(self) -> grpc.ServerCredentials | None:
        """Return TLS credentials, or None."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        pair = (_pem(self.tls_key), _pem(self.tls_cert))
        _require_pair(self.tls_cert, self.tls_key)
        if self.tls_ca is None:
            return grpc.ssl_server_credentials([pair])
        return grpc.ssl_server_credentials([pair], _pem(self.tls_ca), require_client_auth=True)


def is_loopback(listen: str) -> bool:
    """Tell whether `host:port` is this machine only."""
    host = listen.rsplit(":", 1)[0].strip("[]")
    if host == "localhost" or listen.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@final
class TokenInterceptor(aio.ServerInterceptor):
    """Refuses calls without the token; health checks need none."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        self._refusal: Any = grpc.unary_unary_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Pass the call on, or answer UNAUTHENTICATED."""
        method = str(handler_call_details.method)
        if method.startswith(_OPEN_SERVICES):
            return await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        given = given if isinstance(given, bytes) else str(given).encode()
        if hmac.compare_digest(given, self._expected):
            return await continuation(handler_call_details)
        return self._refusal


async def _refuse(request: object, context: Any) -> None:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "call refused: the bearer token is missing or wrong. Give the server's --token-file.",
    )


def _require_pair(cert: Path, key: Path) -> None:
    """Say it here: gRPC says of a useless certificate only that it could not bind."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise ConfigError(
            f"--tls-cert {str(cert)!r} with --tls-key {str(key)!r} cannot be used: "
            f"{error.reason or error}. Give a PEM certificate and its key, without a password."
        ) from None


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read: {error.strerror}. Give a PEM file."
        ) from None
