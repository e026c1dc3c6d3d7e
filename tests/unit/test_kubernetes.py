"""The Kubernetes files are what the API would take, and agree with each other and with the command.

Core kinds are held against the API's own JSON schemas. The operators' kinds (RayCluster,
ServiceMonitor, PodMonitor, PrometheusRule) have no schema here: the tables below say what their
definitions, ray.io/v1 and monitoring.coreos.com/v1, require and allow, and a pod template in a
RayCluster is held against the schema of a core PodTemplate.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from dmaml.common import config as configuration
from dmaml.common.notices import LEAVE_VARIABLE
from dmaml.deploy import cli

DEPLOY = Path(__file__).parents[2] / "deploy"
HERE = DEPLOY / "kubernetes"
BASE = HERE / "base"
MONITORING = HERE / "monitoring"
COMPONENTS = HERE / "components"
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
USER = 10001

OPERATORS = {"RayCluster", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
RAY_PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
AGENT_PORT = 52365  # Ray's default; it answers for the raylet's health

CLUSTER_KEYS = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs", "headServiceAnnotations", "gcsFaultToleranceOptions", "suspend",
    "managedBy",
}  # fmt: skip
HEAD_KEYS = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
GROUP_KEYS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "numOfHosts",
    "rayStartParams", "template", "scaleStrategy", "suspend",
}  # fmt: skip
AUTOSCALER_KEYS = {
    "version", "upscalingMode", "idleTimeoutSeconds", "image", "imagePullPolicy", "env", "envFrom",
    "resources", "securityContext", "volumeMounts",
}  # fmt: skip
ENDPOINT_KEYS = {
    "port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings",
}  # fmt: skip
RELABEL_KEYS = {"sourceLabels", "separator", "targetLabel", "regex", "replacement", "action"}
DURATION = re.compile(r"(?=.)((\d+)h)?((\d+)m)?((\d+)s)?")


@functools.cache
def parsed(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def documents(path: Path) -> list[dict[str, Any]]:
    return copy.deepcopy(parsed(path))


def kustomization(folder: Path) -> dict[str, Any]:
    (found,) = documents(folder / "kustomization.yaml")
    return found


def resources() -> list[dict[str, Any]]:
    """Return every object of the default kustomization and of the data component."""
    files = [
        folder / name
        for folder in (BASE, MONITORING, COMPONENTS / "data")
        for name in kustomization(folder)["resources"]
    ]
    return [document for path in files for document in documents(path)]


def label(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def the(kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in resources() if r["kind"] == kind and r["metadata"]["name"] == name]
    return found


def ray() -> dict[str, Any]:
    return the("RayCluster", "dmaml")["spec"]


def templates() -> dict[str, dict[str, Any]]:
    """Return pod templates by the name of their first container, with KubeRay's labels."""
    found = {"server": the("Deployment", "dmaml-server")["spec"]["template"]}
    for kind, group in (("head", ray()["headGroupSpec"]), ("worker", ray()["workerGroupSpecs"][0])):
        template = group["template"]
        template["metadata"]["labels"] |= {"ray.io/cluster": "dmaml", "ray.io/node-type": kind}
        found[kind] = template
    return found


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield pod spec and container for every container."""
    for template in templates().values():
        for container in template["spec"]["containers"]:
            yield template["spec"], container


def container(name: str) -> dict[str, Any]:
    (found,) = [c for _, c in containers() if c["name"] == name]
    return found


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def validate(document: dict[str, Any]) -> None:
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(document, version, strict=True)


# -- schemas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document", [r for r in resources() if r["kind"] not in OPERATORS], ids=label
)
def test_core_objects_fit_the_schemas_of_the_api(document: dict[str, Any]) -> None:
    validate(document)


def test_the_example_secret_fits_and_holds_no_token() -> None:
    (secret,) = documents(BASE / "secret.example.yaml")

    validate(secret)
    assert secret["stringData"] == {"token": ""}


def test_a_wrong_key_would_be_found() -> None:
    deployment = the("Deployment", "dmaml-server")
    deployment["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []

    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        validate(deployment)


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_pod_templates_of_the_ray_cluster_fit_the_schemas_of_the_api(kind: str) -> None:
    validate(
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": kind},
            "template": templates()[kind],
        }
    )


def test_the_ray_cluster_is_one_that_kuberay_takes() -> None:
    document = the("RayCluster", "dmaml")
    spec = document["spec"]
    head, (group,) = spec["headGroupSpec"], spec["workerGroupSpecs"]

    assert document["apiVersion"] == "ray.io/v1"
    assert set(spec) <= CLUSTER_KEYS
    assert set(head) <= HEAD_KEYS
    assert {"rayStartParams", "template"} <= set(head)
    assert set(group) <= GROUP_KEYS
    assert {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"} <= set(group)
    assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for parameters in (head["rayStartParams"], group["rayStartParams"]):
        assert all(isinstance(value, str) for value in parameters.values())


def test_monitors_are_ones_that_the_prometheus_operator_takes() -> None:
    for kind, key in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        (document,) = [r for r in resources() if r["kind"] == kind]
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        assert set(document["spec"]) == {"selector", key}
        for endpoint in document["spec"][key]:
            assert set(endpoint) <= ENDPOINT_KEYS
            assert DURATION.fullmatch(endpoint["interval"])
            assert DURATION.fullmatch(endpoint["scrapeTimeout"])
            for relabel in endpoint["relabelings"] + endpoint.get("metricRelabelings", []):
                assert set(relabel) <= RELABEL_KEYS
                assert "targetLabel" in relabel or relabel["action"] == "drop"


def test_the_prometheus_rule_is_the_rules_of_compose() -> None:
    (rule,) = [r for r in resources() if r["kind"] == "PrometheusRule"]
    (expected,) = documents(DEPLOY / "prometheus" / "alerts.yml")

    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == expected
    for group in expected["groups"]:
        assert all(DURATION.fullmatch(r["for"]) for r in group["rules"])


# -- kustomize ----------------------------------------------------------------------------------


def test_every_file_is_named_by_a_kustomization() -> None:
    for folder in (BASE, MONITORING, COMPONENTS / "data", COMPONENTS / "autoscaling"):
        there = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
        named = set(kustomization(folder).get("resources", []))
        generated = kustomization(folder).get("configMapGenerator", [])
        named |= {name for generator in generated for name in generator["files"]}
        assert there - {"secret.example.yaml"} == named, folder.name
    root = (HERE / "kustomization.yaml").read_text()
    assert kustomization(HERE)["resources"] == ["base", "monitoring"]
    for component in COMPONENTS.iterdir():
        assert f"- components/{component.name}" in root


def test_images_come_from_the_kustomization() -> None:
    named = {image["name"]: image["newTag"] for image in kustomization(BASE)["images"]}
    used = {c["image"] for _, c in containers()}

    assert used == set(named) == {"dmaml-server", "dmaml-worker"}
    assert set(named.values()) == {"0.1.0"}
    assert container("server")["image"] == "dmaml-server"


def test_the_config_map_holds_a_run_configuration() -> None:
    (generator,) = kustomization(BASE)["configMapGenerator"]

    resolved = configuration.resolve(configuration.load(BASE / "config.yaml", ()))

    assert generator == {"name": "dmaml-config", "files": ["config.yaml"]}
    assert resolved.run.rounds > 0


def test_everything_is_in_one_namespace() -> None:
    name = the("Namespace", "dmaml")["metadata"]["name"]

    assert kustomization(BASE)["namespace"] == kustomization(MONITORING)["namespace"] == name
    assert the("PersistentVolumeClaim", "dmaml-data")["metadata"]["namespace"] == name
    (secret,) = documents(BASE / "secret.example.yaml")
    assert secret["metadata"]["namespace"] == name


def find(document: Any, pointer: str) -> Any:
    """Return what a JSON pointer names; raise if nothing."""
    for part in pointer.strip("/").split("/"):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


@pytest.mark.parametrize("name", ["data", "autoscaling"])
def test_patches_of_a_component_change_what_is_there(name: str) -> None:
    component = kustomization(COMPONENTS / name)

    assert component["kind"] == "Component"
    for patch in component["patches"]:
        assert patch["target"] == {"kind": "RayCluster", "name": "dmaml"}
        for step in yaml.safe_load(patch["patch"]):
            if step["op"] == "add":
                with pytest.raises(KeyError):
                    find(the("RayCluster", "dmaml"), step["path"])
            else:
                found = find(the("RayCluster", "dmaml"), step["path"])
                assert step["op"] in {"test", "replace"}
                assert (found == step["value"]) == (step["op"] == "test"), step["path"]


def test_the_autoscaler_is_as_confined_as_the_rest() -> None:
    (patch,) = kustomization(COMPONENTS / "autoscaling")["patches"]
    (options,) = [s["value"] for s in yaml.safe_load(patch["patch"]) if s["op"] == "add"]
    head = templates()["head"]["spec"]

    assert set(options) <= AUTOSCALER_KEYS
    assert options["version"] in {"v1", "v2"}
    assert options["upscalingMode"] in {"Default", "Aggressive", "Conservative"}
    assert options["securityContext"] == container("ray-head")["securityContext"]
    assert {e["name"] for e in options["env"]} <= {e["name"] for e in container("ray-head")["env"]}
    assert {m["name"] for m in options["volumeMounts"]} <= {v["name"] for v in head["volumes"]}


# -- the command --------------------------------------------------------------------------------


def options_of(command: str) -> set[str]:
    """Return the options of a command of dmaml."""
    group: Any = typer.main.get_command(cli.app)
    return {name for parameter in group.commands[command].params for name in parameter.opts}


def test_the_server_is_started_as_the_command_wants_it() -> None:
    dmaml, verb, config, *arguments = container("server")["command"]

    assert (dmaml, verb, config) == ("dmaml", "server", "/etc/dmaml/config.yaml")
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        "--listen": "0.0.0.0:50051",
        "--http": "0.0.0.0:9464",
        "--run-dir": "/runs/run",
        "--token-file": "/run/secrets/dmaml/token",
    }
    assert set(arguments[::2]) <= options_of("server")


def test_the_supervisor_is_started_as_the_command_wants_it() -> None:
    dmaml, verb, *arguments = container("supervisor")["args"]
    given = [argument for argument in arguments if argument.startswith("--")]

    assert (dmaml, verb) == ("dmaml", "workers")
    assert set(given) <= options_of("workers")
    assert "--stay" in given
    for name, value in (
        ("--server", "dmaml-server:50051"),
        ("--ray-address", "auto"),
        ("--count", "auto"),
        ("--token-file", "/run/secrets/dmaml/token"),
    ):
        assert arguments[arguments.index(name) + 1] == value


def test_worker_pods_offer_places_and_the_head_computes_nothing() -> None:
    head, (group,) = ray()["headGroupSpec"], ray()["workerGroupSpecs"]
    quoted = group["rayStartParams"]["resources"]

    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "resources" not in head["rayStartParams"]
    assert json.loads(json.loads(quoted)) == {"meta_worker": 1}  # one layer for the shell


def test_actors_leave_before_their_pod_does() -> None:
    worker = container("ray-worker")
    variables = {entry["name"]: entry["value"] for entry in worker["env"]}
    file = variables[LEAVE_VARIABLE]
    hook = worker["lifecycle"]["preStop"]["exec"]["command"]
    grace_s = templates()["worker"]["spec"]["terminationGracePeriodSeconds"]

    assert f"touch {file} " in hook[-1]
    assert int(hook[-1].rsplit(" ", 1)[1]) < grace_s
    assert worker["lifecycle"]["postStart"]["exec"]["command"] == ["rm", "-f", file]


def test_ray_asks_for_the_token() -> None:
    for name in ("ray-head", "supervisor", "ray-worker"):
        variables = {entry["name"]: entry["value"] for entry in container(name)["env"]}
        assert variables["RAY_AUTH_MODE"] == "token"
        assert variables["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/dmaml/token"


# -- security -----------------------------------------------------------------------------------


def test_no_container_is_root_or_may_become_it() -> None:
    for pod, one in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == USER
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, one["name"]


def test_pods_get_no_account_and_no_variables_of_services() -> None:
    for template in templates().values():
        assert template["spec"]["automountServiceAccountToken"] is False
        assert template["spec"]["enableServiceLinks"] is False


def test_every_container_has_requests_and_a_limit_of_memory() -> None:
    for _, one in containers():
        assert {"cpu", "memory"} <= set(one["resources"]["requests"]), one["name"]
        assert "memory" in one["resources"]["limits"], one["name"]


def test_no_token_is_in_the_files() -> None:
    for path in HERE.rglob("*.yaml"):
        assert not re.search(r"\b[0-9a-f]{32,}\b", path.read_text()), path.name
    assert all(r["kind"] != "Secret" for r in resources())


# -- names line up ------------------------------------------------------------------------------


def test_every_mount_has_its_volume_and_every_volume_its_source() -> None:
    (secret,) = documents(BASE / "secret.example.yaml")
    claims = {r["metadata"]["name"] for r in resources() if r["kind"] == "PersistentVolumeClaim"}
    for template in templates().values():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        mounted = set()
        for one in template["spec"]["containers"]:
            paths = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert len(set(paths)) == len(paths)
            assert "/tmp" in paths  # the root is read-only
            mounted |= {mount["name"] for mount in one["volumeMounts"]}
        assert mounted == set(volumes)
        assert volumes["token"]["secret"]["secretName"] == secret["metadata"]["name"]
        for volume in volumes.values():
            assert volume.get("configMap", {"name": "dmaml-config"}) == {"name": "dmaml-config"}
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims


def test_data_is_where_the_workers_look_for_it() -> None:
    worker = container("ray-worker")
    variables = {entry["name"]: entry["value"] for entry in worker["env"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in worker["volumeMounts"]}
    (patch,) = kustomization(COMPONENTS / "data")["patches"]
    volume = yaml.safe_load(patch["patch"])[-1]["value"]

    assert variables["DMAML_DATA"] == mounts["data"] == "/data"
    assert volume["name"] == "data"
    assert the("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])


def test_ray_and_its_supervisor_share_session_memory_and_processes() -> None:
    pod = templates()["head"]["spec"]

    assert pod["shareProcessNamespace"] is True
    assert pod["containers"][0]["name"] == "ray-head"  # KubeRay takes the first
    assert container("supervisor")["volumeMounts"] == container("ray-head")["volumeMounts"]
    paths = {mount["mountPath"] for mount in container("ray-head")["volumeMounts"]}
    assert {"/tmp/ray", "/dev/shm"} <= paths
    assert f"127.0.0.1/{AGENT_PORT}" in container("supervisor")["command"][2]


def test_ports_are_those_of_the_design() -> None:
    service = {p["name"]: p["port"] for p in the("Service", "dmaml-server")["spec"]["ports"]}
    server = {p["name"]: p["containerPort"] for p in container("server")["ports"]}
    head = {p["name"]: p["containerPort"] for p in container("ray-head")["ports"]}

    assert service == server == {"grpc": 50051, "http": 9464}
    assert head == RAY_PORTS
    for group in (ray()["headGroupSpec"], ray()["workerGroupSpecs"][0]):
        assert group["rayStartParams"]["metrics-export-port"] == str(RAY_PORTS["metrics"])
        (port,) = [
            p["containerPort"]
            for p in group["template"]["spec"]["containers"][0]["ports"]
            if p["name"] == "metrics"
        ]
        assert port == RAY_PORTS["metrics"]


def test_probes_ask_ports_that_are_there() -> None:
    for _, one in containers():
        names = {port["name"] for port in one.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in one:
                assert one[probe]["httpGet"]["port"] in names | {AGENT_PORT}, one["name"]
    server = container("server")
    assert server["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert server["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for name in ("ray-head", "ray-worker"):  # else KubeRay would put its own there
        assert {"livenessProbe", "readinessProbe"} <= set(container(name))


def test_selectors_find_their_pods_and_ports() -> None:
    pods = templates()
    server = the("Deployment", "dmaml-server")["spec"]
    service = the("Service", "dmaml-server")

    assert selects(server["selector"], pods["server"]["metadata"]["labels"])
    assert service["spec"]["selector"].items() <= pods["server"]["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= pods["head"]["metadata"]["labels"].items()
    monitor = the("ServiceMonitor", "dmaml-server")["spec"]
    assert selects(monitor["selector"], service["metadata"]["labels"])
    assert {e["port"] for e in monitor["endpoints"]} <= {
        p["name"] for p in service["spec"]["ports"]
    }
    of_ray = the("PodMonitor", "dmaml-ray")["spec"]
    for kind in ("head", "worker"):
        ports = {p["name"] for p in pods[kind]["spec"]["containers"][0]["ports"]}
        assert selects(of_ray["selector"], pods[kind]["metadata"]["labels"])
        assert {e["port"] for e in of_ray["podMetricsEndpoints"]} <= ports
    assert not selects(of_ray["selector"], pods["server"]["metadata"]["labels"])


def test_the_monitors_name_jobs_and_drop_series_as_compose_does() -> None:
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (server,) = the("ServiceMonitor", "dmaml-server")["spec"]["endpoints"]
    (of_ray,) = the("PodMonitor", "dmaml-ray")["spec"]["podMetricsEndpoints"]

    assert server["relabelings"][0] == {"targetLabel": "job", "replacement": "dmaml"}
    assert of_ray["relabelings"][0] == {"targetLabel": "job", "replacement": "ray"}
    assert [r["regex"] for r in of_ray["metricRelabelings"]] == [
        r["regex"] for r in jobs["ray"]["metric_relabel_configs"]
    ]
    assert server["interval"] == of_ray["interval"] == config["global"]["scrape_interval"]


def test_network_policies_let_in_workers_and_prometheus_and_nobody_else() -> None:
    pods = templates()
    monitoring = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
    workers = {"podSelector": {"matchLabels": {"ray.io/cluster": "dmaml"}}}
    server = the("NetworkPolicy", "dmaml-server")["spec"]
    of_ray = the("NetworkPolicy", "dmaml-ray")["spec"]

    assert selects(server["podSelector"], pods["server"]["metadata"]["labels"])
    assert server["ingress"] == [
        {"from": [workers], "ports": [{"protocol": "TCP", "port": "grpc"}]},
        {"from": [monitoring], "ports": [{"protocol": "TCP", "port": "http"}]},
    ]
    assert server["policyTypes"] == ["Ingress", "Egress"]
    assert server["egress"] == []
    assert of_ray["ingress"] == [
        {"from": [workers]},
        {"from": [monitoring], "ports": [{"protocol": "TCP", "port": "metrics"}]},
    ]
    for kind in ("head", "worker"):
        assert selects(of_ray["podSelector"], pods[kind]["metadata"]["labels"])


def test_there_is_one_server_and_never_two() -> None:
    server = the("Deployment", "dmaml-server")["spec"]

    assert server["replicas"] == 1
    assert server["strategy"] == {"type": "Recreate"}
    assert the("PersistentVolumeClaim", "dmaml-runs")["spec"]["accessModes"] == ["ReadWriteOnce"]
