"""How a node is started: the options, and the commands for Ray and for the supervisor."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dmaml.common.errors import ConfigError
from dmaml.deploy.host import MIB
from dmaml.deploy.node_options import NodeOptions, ray_command, supervisor_command


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"join": "ray-head"}, "--join 'ray-head': required HOST:PORT"),
        ({"join": ":6379"}, "--join ':6379': required HOST:PORT"),
        ({"join": "ray-head:66666"}, "--join 'ray-head:66666': required HOST:PORT"),
        ({"dashboard": "8265"}, "--dashboard '8265': required HOST:PORT"),
    ],
)
def test_a_malformed_address_is_bad_input(fields: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        NodeOptions(**fields)


def test_the_head_starts_ray_without_cpus_so_that_no_actor_lands_there() -> None:
    command = ray_command(NodeOptions(actors=3, ray_port=6400, metrics_port=8081), "10.0.0.9")

    assert command[0] == str(Path(sys.executable).parent / "ray")
    assert command[1:] == [
        "start",
        "--block",
        "--node-ip-address=10.0.0.9",
        "--num-gpus=0",
        f"--object-store-memory={80 * MIB}",
        "--metrics-export-port=8081",
        "--include-log-monitor=false",
        "--head",
        "--port=6400",
        "--num-cpus=0",
        "--disable-usage-stats",
        "--no-monitor",
        "--include-dashboard=false",
    ]


def test_the_dashboard_is_there_where_an_address_is_given() -> None:
    command = ray_command(NodeOptions(dashboard="0.0.0.0:8265"), "10.0.0.9")

    assert command[-2:] == ["--dashboard-host=0.0.0.0", "--dashboard-port=8265"]
    assert "--include-dashboard=false" not in command


def test_a_worker_joins_the_head_and_offers_a_slot_and_a_cpu_for_each_actor() -> None:
    command = ray_command(NodeOptions(join="ray-head:6379", actors=3), "10.0.0.9")

    *_, address, cpus, resources = command
    assert address == "--address=ray-head:6379"
    assert cpus == "--num-cpus=3"
    assert json.loads(resources.removeprefix("--resources=")) == {"meta_worker": 3}
    assert "--head" not in command


def test_the_supervisor_works_for_the_server_on_the_heads_own_ray() -> None:
    options = NodeOptions(ray_port=6400, token_file=Path("/t"), data_dir=Path("/data"))

    command = supervisor_command(options, "server:50051", "10.0.0.9")

    assert command == [
        *(sys.executable, "-m", "dmaml.deploy.cli", "workers", "--stay", "--count", "auto"),
        *("--server", "server:50051", "--ray-address", "10.0.0.9:6400"),
        *("--token-file", "/t", "--data-dir", "/data"),
    ]


def test_without_token_and_data_the_supervisor_gets_none() -> None:
    command = supervisor_command(NodeOptions(), "server:50051", "10.0.0.9")

    assert not {"--token-file", "--data-dir"} & set(command)
