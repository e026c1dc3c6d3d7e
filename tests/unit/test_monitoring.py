"""Prometheus' configuration, the alert rules and the dashboards name what is there, and read well.

That every expression parses is promtool's to say: tests/e2e/test_promtool.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dmaml.common.items import RunState
from dmaml.server.clustering.base import Gamma
from dmaml.server.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
BOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

SELECTOR = re.compile(r"([a-zA-Z_]\w*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
WORDS = {"and", "or", "unless", "bool", "offset"}
FUNCTIONS = {"sum", "max", "min", "rate", "increase", "changes", "absent", "histogram_quantile"}
OPEN_LABELS = {"instance", "pipeline", "version"}
ADDED = {"job", "instance"}  # by Prometheus, to every series
JOBS = {"dmaml", "ray", "prometheus"}
PREFIX_OF_JOB = {"dmaml": ("dmaml_", "process_"), "ray": ("ray_",), "prometheus": ("prometheus_",)}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def board(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield dashboard and panel for every panel that shows something."""
    for path in BOARDS:
        for panel in board(path)["panels"]:
            if panel["type"] != "row":
                yield f"{path.stem}: {panel['title']}", panel


def rules() -> list[dict[str, Any]]:
    return [rule for group in load(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]


def expressions() -> list[tuple[str, str]]:
    """Return place and expression of every query in rules and dashboards."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    found += [(name, target["expr"]) for name, panel in panels() for target in panel["targets"]]
    for path in BOARDS:
        found += [(path.stem, note["expr"]) for note in board(path)["annotations"]["list"]]
        for variable in board(path)["templating"]["list"]:
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert query, f"{path.stem}: {variable['definition']}"
            found.append((f"{path.stem}: ${variable['name']}", query[1]))
    return found


@pytest.fixture(scope="module")
def exposed() -> dict[str, dict[str, set[str]]]:
    """Name of every sample of the server -> label -> its values, once a run is served."""
    metrics = Metrics()
    metrics.enter(RunState.RUNNING)
    metrics.route(Gamma(0, (0,), np.ones((0, 1), np.float32)))
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.fixture(scope="module")
def of_ray() -> str:
    """The source that says which series Ray's nodes export; read, not imported."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    modules = Path(next(iter(spec.submodule_search_locations))) / "dashboard" / "modules"
    agent = modules / "reporter" / "reporter_agent.py"
    panels_of_ray = modules / "metrics" / "dashboards" / "default_dashboard_panels.py"
    return agent.read_text() + panels_of_ray.read_text()


def alternatives(pattern: str) -> list[str]:
    """Return what a matcher of our kind, words with | between them, can match."""
    assert re.fullmatch(r"[\w|]+", pattern), f"{pattern!r}: write it as words with | between them"
    return pattern.split("|")


# -- expressions --------------------------------------------------------------------------------


def test_every_selector_says_its_job() -> None:
    for place, expression in expressions():
        for name, labels in SELECTOR.findall(expression):
            jobs = [value for label, _, value in MATCHER.findall(labels) if label == "job"]
            assert len(jobs) == 1, f"{place}: {name} without a job"
            assert jobs[0] in JOBS, place
            assert name == "up" or name.startswith(PREFIX_OF_JOB[jobs[0]]), f"{place}: {name}"


def test_every_series_of_the_server_exists_with_its_labels_and_values(
    exposed: dict[str, dict[str, set[str]]],
) -> None:
    for place, expression in expressions():
        for name, labels in SELECTOR.findall(expression):
            if not name.startswith(PREFIX_OF_JOB["dmaml"]):
                continue
            assert name in exposed, f"{place}: the server has no {name}"
            for label, operator, value in MATCHER.findall(labels):
                if label in ADDED:
                    continue
                assert label in exposed[name], f"{place}: {name} has no label {label}"
                if label not in OPEN_LABELS:
                    values = alternatives(value) if "~" in operator else [value]
                    assert set(values) <= exposed[name][label], f"{place}: {name} {label}={value}"


def test_every_grouping_names_labels_of_its_series(
    exposed: dict[str, dict[str, set[str]]],
) -> None:
    of_ray = {"ray_resources": {"State"}, "ray_actors": {"State"}}
    for place, expression in expressions():
        names = [name for name, _ in SELECTOR.findall(expression)]
        known = set(ADDED).union(*(exposed.get(n, of_ray.get(n, ())) for n in names))
        for _, group in GROUPING.findall(expression):
            wanted = {label.strip() for label in group.split(",")}
            assert wanted <= known, f"{place}: {wanted - known}"


def test_every_series_of_ray_is_in_the_installed_ray(of_ray: str) -> None:
    used = {
        name
        for _, expression in expressions()
        for name, _ in SELECTOR.findall(expression)
        if name.startswith("ray_")
    }

    assert used
    for name in used:
        assert f'"{name.removeprefix("ray_")}"' in of_ray or f"{name}{{{{" in of_ray, name


def test_an_expression_holds_nothing_but_selectors_functions_and_numbers() -> None:
    for place, expression in expressions():
        rest = GROUPING.sub(" ", SELECTOR.sub(" ", expression))
        rest = re.sub(r"\[(\$__rate_interval|\d+[smh])\]", " ", rest)
        words = set(re.findall(r"[a-zA-Z_]\w*", rest))
        assert words <= WORDS | FUNCTIONS, f"{place}: {words - WORDS - FUNCTIONS}"


def test_counters_are_shown_as_rates(exposed: dict[str, dict[str, set[str]]]) -> None:
    as_they_are = {"training: Tasks by pipeline"}  # how much each has had since the start
    for place, expression in expressions():
        for match in SELECTOR.finditer(expression):
            is_counter = match[1].endswith(("_total", "_bucket", "_count", "_sum"))
            if match[1] in exposed and is_counter and place not in as_they_are:
                assert expression[match.end()] == "[", f"{place}: {match[1]} without a range"


# -- Prometheus ---------------------------------------------------------------------------------


def test_prometheus_scrapes_the_server_every_ray_node_and_itself() -> None:
    config = load(PROMETHEUS / "prometheus.yml")
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}

    assert set(jobs) == JOBS
    assert config["global"]["scrape_interval"] == "5s"
    assert jobs["dmaml"]["static_configs"] == [{"targets": ["server:9464"]}]
    (discovery,) = jobs["ray"]["dns_sd_configs"]
    assert discovery == {
        "names": ["ray-head", "worker"], "type": "A", "port": 8080, "refresh_interval": "5s",
    }  # fmt: skip
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])


def test_what_prometheus_drops_is_used_by_nobody() -> None:
    config = load(PROMETHEUS / "prometheus.yml")
    dropped = [
        re.compile(relabel["regex"])
        for job in config["scrape_configs"]
        for relabel in job.get("metric_relabel_configs", [])
        if relabel["action"] == "drop" and relabel["source_labels"] == ["__name__"]
    ]

    assert dropped
    for place, expression in expressions():
        for name, _ in SELECTOR.findall(expression):
            assert not any(pattern.fullmatch(name) for pattern in dropped), f"{place}: {name}"


def test_alerts_say_what_is_wrong_since_when_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]

    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"\d+[smh]", rule["for"]), rule["alert"]
        assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"}), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        summary, description = (rule["annotations"][k] for k in ("summary", "description"))
        assert len(summary) <= 100, rule["alert"]
        assert summary.endswith("."), rule["alert"]
        assert len(description) >= 100, f"{rule['alert']}: say what to do"
        assert description.endswith("."), rule["alert"]


@pytest.mark.parametrize(
    "series",
    [
        'up{job="dmaml"}', 'up{job="ray"}', 'state="failed"', 'state="paused"',
        "dmaml_rounds_total", 'event="lost"', 'event="lease_expired"', "non_finite", "stale_lease",
        "dmaml_checkpoint_age_seconds", "dmaml_event_loop_lag_seconds", "ray_node_disk_",
    ],
)  # fmt: skip
def test_there_is_an_alert_for(series: str) -> None:
    assert any(series in rule["expr"] for rule in rules())


# -- Grafana ------------------------------------------------------------------------------------


def test_the_provisioned_source_is_the_one_that_every_panel_asks() -> None:
    (source,) = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    expected = {"type": "prometheus", "uid": "dmaml-prometheus"}

    assert {"type": source["type"], "uid": source["uid"]} == expected
    assert source["url"] == "http://prometheus:9090"
    for path in BOARDS:
        lists = board(path)["annotations"]["list"] + board(path)["templating"]["list"]
        assert all(entry["datasource"] == expected for entry in lists), path.stem
    for name, panel in panels():
        assert panel["datasource"] == expected, name
        assert all(target["datasource"] == expected for target in panel["targets"]), name


def test_the_dashboards_are_provisioned_from_where_compose_puts_them() -> None:
    (provider,) = load(GRAFANA / "provisioning" / "dashboards" / "dmaml.yml")["providers"]

    assert provider["options"] == {"path": "/etc/dashboards"}
    assert provider["allowUiUpdates"] is False


def test_there_are_two_dashboards_that_lead_to_each_other() -> None:
    boards = {board(path)["uid"]: board(path) for path in BOARDS}

    assert set(boards) == {"dmaml-training", "dmaml-cluster"}
    for uid, one in boards.items():
        others = {f"/d/{other}" for other in boards if other != uid}
        assert {link["url"] for link in one["links"]} == others
        assert one["refresh"] == "5s"
        assert "id" not in one  # Grafana's own; a fixed one would clash


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_written_in_its_one_form(path: Path) -> None:
    text = json.dumps(board(path), indent=2, ensure_ascii=False) + "\n"

    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_have_their_own_ids_and_places(path: Path) -> None:
    everything = board(path)["panels"]
    cells: dict[tuple[int, int], int] = {}

    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert cells.setdefault((x, y), panel["id"]) == panel["id"], panel["title"]
    assert {y for _, y in cells} == set(range(max(y for _, y in cells) + 1))  # no empty lines
    assert everything[0]["type"] == "row"


def test_every_panel_has_a_description_a_unit_legends_and_thresholds() -> None:
    units = {"none", "short", "percent", "percentunit", "s", "bytes", "Bps"}
    for name, panel in panels():
        defaults = panel["fieldConfig"]["defaults"]
        assert len(panel["description"]) >= 30, name
        assert panel["description"].endswith("."), name
        assert defaults["unit"] in units, name
        assert defaults["thresholds"]["steps"][0]["value"] is None, name
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), name
        assert all(target["legendFormat"] for target in panel["targets"]), name


def test_units_are_those_of_the_series() -> None:
    unit_of = {"_seconds": {"s"}, "_bytes": {"bytes"}, "_ratio": {"percentunit"}}
    for name, panel in panels():
        for target in panel["targets"]:
            for match in SELECTOR.finditer(target["expr"]):
                for ending, units in unit_of.items():
                    if match[1].endswith(ending):
                        assert panel["fieldConfig"]["defaults"]["unit"] in units, name


def test_every_label_in_a_legend_survives_the_expression(
    exposed: dict[str, dict[str, set[str]]],
) -> None:
    for name, panel in panels():
        for target in panel["targets"]:
            series, _ = SELECTOR.findall(target["expr"])[0]
            kept = {
                label.strip()
                for _, group in GROUPING.findall(target["expr"])
                for label in group.split(",")
            } or set(exposed.get(series, ())) | ADDED
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= kept, f"{name}: {shown - kept}"


def test_every_variable_is_defined() -> None:
    for path in BOARDS:
        defined = {variable["name"] for variable in board(path)["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", path.read_text(encoding="utf-8")))
        assert used - {"__rate_interval", "__all"} == defined, path.stem


def test_every_series_of_the_server_is_shown_or_watched(
    exposed: dict[str, dict[str, set[str]]],
) -> None:
    bases = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed if name.startswith("dmaml_")
    }
    used = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for _, expression in expressions()
        for name, _ in SELECTOR.findall(expression)
    }

    assert bases <= used
