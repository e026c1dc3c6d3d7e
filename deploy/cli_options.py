"""Options that several commands of `dmaml` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data files are looked for first.")
]
Server = Annotated[
    str,
    typer.Option("--server", help="HOST:PORT of the meta-model server.", envvar="DMAML_SERVER"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the bearer token.", envvar="DMAML_TOKEN_FILE"),
]
TlsCa = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="PEM file of the authority to trust.", envvar="DMAML_TLS_CA"),
]
TlsCert = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="PEM certificate of one's own.", envvar="DMAML_TLS_CERT"),
]
TlsKey = Annotated[
    Path | None,
    typer.Option("--tls-key", help="PEM key of the certificate.", envvar="DMAML_TLS_KEY"),
]
