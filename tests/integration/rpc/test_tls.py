"""Who is let in: TLS, one-sided and mutual."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dmaml.common.errors import ConfigError, ServerUnreachableError
from dmaml.common.items import RunState
from dmaml.server.rpc.auth import Security
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import LiveServer, Worker, tiny

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca), a server's and a client's certificate, and a stranger's."""
    folder = tmp_path_factory.mktemp("pki")
    for ca in ("ca", "strange-ca"):
        _openssl(
            folder,
            f"req -x509 -newkey rsa:2048 -nodes -keyout {ca}.key -out {ca}.pem -subj /CN={ca}",
        )
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name, ca in (("server", "ca"), ("client", "ca"), ("stranger", "strange-ca")):
        _openssl(
            folder, f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN=x"
        )
        _openssl(
            folder,
            f"x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial "
            f"-out {name}.pem -extfile san",
        )
    return folder


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=60
    )


def _status(target: str, **files: Path) -> Any:
    operator = Operator(Address.of_files(target, **files), Retry(0.0))
    try:
        return operator.status()
    finally:
        operator.close()


@needs_openssl
def test_tls_lets_in_who_trusts_the_authority(pki: Path, tmp_path: Path) -> None:
    security = Security(tls_cert=pki / "server.pem", tls_key=pki / "server.key")

    with LiveServer(tiny(), tmp_path / "run", security=security) as live:
        Worker(tiny(), Address.of_files(live.target, tls_ca=pki / "ca.pem")).join()

        assert _status(live.target, tls_ca=pki / "ca.pem").version == 6
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "strange-ca.pem")
        with pytest.raises(ServerUnreachableError):
            _status(live.target)


@needs_openssl
def test_mutual_tls_lets_in_whom_the_authority_signed(pki: Path, tmp_path: Path) -> None:
    security = Security(
        tls_cert=pki / "server.pem", tls_key=pki / "server.key", tls_ca=pki / "ca.pem"
    )

    def files(name: str) -> dict[str, Path]:
        return {"tls_cert": pki / f"{name}.pem", "tls_key": pki / f"{name}.key"}

    with LiveServer(tiny(), tmp_path / "run", security=security) as live:
        status = _status(live.target, tls_ca=pki / "ca.pem", **files("client"))

        assert status.state == RunState.EMPTY
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "ca.pem")
        with pytest.raises(ServerUnreachableError):
            _status(live.target, tls_ca=pki / "ca.pem", **files("stranger"))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ({"tls_cert": "x.pem"}, "--tls-cert and --tls-key go together"),
        ({"tls_ca": "x.pem"}, "--tls-ca needs --tls-cert"),
        ({"tls_cert": "no.pem", "tls_key": "x.pem"}, "no.pem' cannot be read"),
        ({"tls_cert": "x.pem", "tls_key": "x.pem"}, "x.pem"),
    ],
)
def test_unsuitable_tls_files_of_a_server_are_refused(
    names: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_text("not a certificate")
    security = Security(**{key: tmp_path / name for key, name in names.items()})

    with pytest.raises(ConfigError, match=sentence):
        LiveServer(tiny(), tmp_path / "run", security=security)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "names",
    [
        {"tls_cert": "x.pem"},
        {"tls_ca": "x.pem", "tls_key": "x.pem"},
        {"tls_cert": "x.pem", "tls_key": "x.pem"},
    ],
)
def test_a_client_certificate_is_never_ignored(names: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("PEM")

    with pytest.raises(ConfigError, match="--tls"):
        Address.of_files("h:1", **{key: tmp_path / name for key, name in names.items()})
