"""How a node of a Ray cluster is started: its options, and the commands that follow from them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from dmaml.common.errors import ConfigError
from dmaml.deploy.demand import SLOT
from dmaml.deploy.host import MIB


@dataclass(frozen=True)
class NodeOptions:
    """How a node is started.

    Attributes:
        join: `host:port` of the head, or "" to be the head.
        actors: that this node offers; 0 on the head.
        object_store_bytes: shared memory for Ray's objects; dmaml itself uses none.
        ray_port: of the head.
        metrics_port: of Ray's own metrics.
        dashboard: `host:port` of Ray's dashboard, or "" for none.
        folder: for the socket, the health file and Ray's session.
        drain_s: how long actors may take to leave.
        token_file: guards Ray as well, where given.
        data_dir: where data files are looked for first.
    """

    join: str = ""
    actors: int = 1
    object_store_bytes: int = 80 * MIB
    ray_port: int = 6379
    metrics_port: int = 8080
    dashboard: str = ""
    folder: Path = Path("/tmp/dmaml")
    drain_s: float = 20.0
    token_file: Path | None = None
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        for option, value in (("--join", self.join), ("--dashboard", self.dashboard)):
            host, _, port = value.rpartition(":")
            if value and not (host and port.isdigit() and int(port) <= 65535):
                raise ConfigError(f"{option} {value!r}: required HOST:PORT, such as ray-head:6379.")

    @property
    def is_head(self) -> bool:
        """Whether this node begins a cluster."""
        return not self.join


def ray_command(options: NodeOptions, ip: str) -> list[str]:
    """Return the command that starts Ray on this node, whose address is `ip`."""
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--block",
        f"--node-ip-address={ip}", "--num-gpus=0",
        f"--object-store-memory={options.object_store_bytes}",
        f"--metrics-export-port={options.metrics_port}",
        "--include-log-monitor=false",  # our actors' lines come as notices
    ]  # fmt: skip
    if not options.is_head:
        slots = json.dumps({SLOT: options.actors})
        return [
            *command, f"--address={options.join}", f"--num-cpus={options.actors}",
            f"--resources={slots}",
        ]  # fmt: skip
    command += ["--head", f"--port={options.ray_port}", "--num-cpus=0"]
    command += ["--disable-usage-stats", "--no-monitor"]
    if not options.dashboard:
        return [*command, "--include-dashboard=false"]
    host, _, port = options.dashboard.rpartition(":")
    return [*command, f"--dashboard-host={host}", f"--dashboard-port={port}"]


def supervisor_command(options: NodeOptions, target: str, ip: str) -> list[str]:
    """Return the command that keeps actors for the server at `target`, on the head `ip`."""
    command = [
        sys.executable, "-m", "dmaml.deploy.cli", "workers", "--stay", "--count", "auto",
        "--server", target, "--ray-address", f"{ip}:{options.ray_port}",
    ]  # fmt: skip
    if options.token_file is not None:
        command += ["--token-file", str(options.token_file)]
    if options.data_dir is not None:
        command += ["--data-dir", str(options.data_dir)]
    return command
