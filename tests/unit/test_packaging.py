"""What is installed is what is there; stubs are current; the server stays light."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc_tools
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDERS = {"bench", "common", "configs", "deploy", "learner", "report", "server", "worker"}
STUBS = ROOT / "proto" / "dmaml" / "v1"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folders_with_code() -> dict[str, Path]:
    """Return package name -> folder for every folder that holds Python files."""
    found = {"dmaml.v1": STUBS}
    for top in FOLDERS:
        for file in (ROOT / top).rglob("*.py"):
            found["dmaml." + ".".join(file.parent.relative_to(ROOT).parts)] = file.parent
    return found


def test_every_package_is_listed_and_every_listed_one_exists(project):
    listed = project["tool"]["setuptools"]["packages"]

    assert sorted(listed) == sorted(folders_with_code())


def test_every_package_is_marked_as_one():
    for name, folder in folders_with_code().items():
        assert (folder / "__init__.py").exists(), name


def test_type_checkers_reach_every_package_through_the_links():
    for name, folder in folders_with_code().items():
        link = ROOT / ".typing" / Path(*name.split("."))
        assert link.resolve() == folder.resolve(), name


def test_folders_are_mapped_under_one_import_name(project):
    mapped = project["tool"]["setuptools"]["package-dir"]

    expected = {f"dmaml.{name}": name for name in FOLDERS}
    assert mapped == expected | {"dmaml.v1": "proto/dmaml/v1"}
    assert not (ROOT / "proto" / "__init__.py").exists()
    assert not (ROOT / "proto" / "dmaml" / "__init__.py").exists()


def test_generated_stubs_are_current(tmp_path):
    sources = sorted(str(p.relative_to(ROOT)) for p in STUBS.glob("*.proto"))
    include = Path(grpc_tools.__file__).parent / "_proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", f"-I{include}"]
    command += [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    subprocess.run([*command, *sources], cwd=ROOT, check=True, capture_output=True)

    made = {p.name: p.read_text() for p in (tmp_path / "dmaml" / "v1").iterdir()}
    kept = {p.name: p.read_text() for p in STUBS.glob("*_pb2*")}
    assert sorted(made) == sorted(kept)
    stale = [name for name in made if made[name] != kept[name]]
    assert stale == [], "run `make proto`"


def lower_bound(requirements: list[str], name: str) -> str:
    return next(r.split(">=")[1] for r in requirements if r.split(">=")[0] == name).split(",")[0]


def test_lower_bounds_are_the_versions_of_the_generators(project):
    needed = project["project"]["dependencies"]
    extra = project["project"]["optional-dependencies"]["dev"]

    grpc_file = (STUBS / "meta_model_pb2_grpc.py").read_text()
    grpc = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", grpc_file)[1]
    stub = (STUBS / "meta_model_pb2.py").read_text()
    protobuf = re.search(r"# Protobuf Python Version: ([\d.]+)", stub)[1]

    for name in ("grpcio", "grpcio-health-checking", "grpcio-reflection"):
        assert lower_bound(needed, name) == grpc
    assert lower_bound(extra, "grpcio-tools") == grpc
    assert lower_bound(needed, "protobuf") == protobuf


def test_server_imports_nothing_of_the_actors():
    code = "import sys, dmaml.server.app; print('\\n'.join(sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", check=True, capture_output=True, text=True
    )

    loaded = set(done.stdout.split())
    tops = {name.split(".")[0] for name in loaded}
    assert "dmaml.server.app" in loaded
    assert not tops & {"ray", "matplotlib", "sklearn", "PIL"}
    assert not {n for n in loaded if n.startswith(("dmaml.worker", "dmaml.deploy"))}


def test_import_contracts_hold():
    command = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run(
        [command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert "Only the adapters know the generated code KEPT" in done.stdout
    assert "Only the crew knows Ray KEPT" in done.stdout


def test_the_image_is_built_from_every_folder_with_code():
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.M)
    sent = re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.M)

    assert set(copied) >= FOLDERS
    assert set(sent) >= FOLDERS
