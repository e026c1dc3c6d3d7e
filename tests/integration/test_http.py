"""HTTP beside gRPC: metrics, health, the status as JSON."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dmaml.common.errors import AddressError
from dmaml.common.items import ItemKind, Outcome, RunState, WorkItem
from dmaml.common.rundir import read_rows
from dmaml.server.metrics import EVENTS, Metrics
from dmaml.server.web.app import Web, bind
from dmaml.worker.connection import Address, Retry
from dmaml.worker.operator import Operator
from tests.integration.harness import CountingAnswerer, LiveServer, Worker, tiny, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with LiveServer(tiny(), tmp_path / "run") as live:
        yield live


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose run is finished."""
    with LiveServer(tiny(), tmp_path_factory.mktemp("trained") / "run") as live:
        Worker(tiny(), live.target).join()
        wait_for(lambda: workers(live) == {}, "the actor left")
        yield live


def get(url: str) -> tuple[int, str, str]:
    """Return status, content type and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as page:
            return page.status, page.headers["content-type"], page.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read().decode()


def families(server: LiveServer) -> dict[str, Any]:
    """Return the parsed metrics by name."""
    _, _, text = get(f"{server.http}/metrics")
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(server: LiveServer, name: str, **labels: str) -> float:
    """Return one sample's value."""
    for family in families(server).values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    raise AssertionError(f"no sample {name} {labels}")


def samples(server: LiveServer) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return name and labels of every series."""
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in families(server).values()
        for sample in family.samples
    }


def workers(server: LiveServer) -> dict[str, float]:
    """Return the states that actors are in -> how many."""
    found = families(server)["dmaml_workers"].samples
    return {s.labels["state"]: s.value for s in found if s.value}


def test_metrics_are_in_the_exposition_format_and_every_series_has_a_help_text(
    server: LiveServer,
) -> None:
    status, kind, text = get(f"{server.http}/metrics")

    assert status == 200
    assert kind.startswith("text/plain")
    found = list(text_string_to_metric_families(text))
    assert len([family for family in found if family.name.startswith("dmaml_")]) >= 15
    assert [family.name for family in found if not family.documentation] == []


def test_counters_are_there_and_zero_before_anything_happened(server: LiveServer) -> None:
    found = families(server)

    def labels(name: str, label: str) -> dict[str, float]:
        samples = found[name].samples
        return {s.labels[label]: s.value for s in samples if s.name == f"{name}_total"}

    assert labels("dmaml_rounds", "kind") == {kind.name.lower(): 0 for kind in ItemKind}
    assert labels("dmaml_contributions", "outcome") == {o.name.lower(): 0 for o in Outcome}
    assert labels("dmaml_worker_events", "event") == dict.fromkeys(EVENTS, 0)


def test_exactly_one_run_state_is_shown(server: LiveServer, trained: LiveServer) -> None:
    for live, state in ((server, "empty"), (trained, "finished")):
        samples = families(live)["dmaml_run_state"].samples
        assert {s.labels["state"] for s in samples if s.value == 1} == {state}
        assert len(samples) == len(RunState)


def test_metrics_after_a_run_agree_with_its_record(trained: LiveServer) -> None:
    rounds = read_rows(trained.run_dir, "rounds")
    evaluations = read_rows(trained.run_dir, "evaluations")

    def total(name: str, **labels: str) -> float:
        return value(trained, f"dmaml_{name}", **labels)

    assert total("rounds_total", kind="init") == 1
    assert total("rounds_total", kind="train") == len(rounds) == total("version") == 6
    assert total("rounds_total", kind="evaluate") == len(evaluations) == 2
    assert total("round_duration_seconds_count", kind="train") == len(rounds)
    assert total("commit_duration_seconds_count") == 1 + len(rounds) + len(evaluations)
    items = sum(len(row["items"]) for row in rounds)
    assert total("contributions_total", outcome="buffered") == 1 + items + 2 * len(evaluations)
    assert total("tasks_total", pipeline="0") == rounds[-1]["tasks_seen"] == 24
    assert total("query_loss") == pytest.approx(rounds[-1]["loss"])
    mse = evaluations[-1]["metrics"]["mse"]["mean"][-1]
    assert total("validation", metric="mse") == pytest.approx(mse)
    assert total("durable_rounds") == 1 + len(rounds) + len(evaluations)
    assert total("target_version") == 6
    assert total("worker_events_total", event="joined") == 1
    assert total("worker_events_total", event="left") == 1
    for phase in ("wait", "pull", "sample", "compute"):
        seconds = sum(item[f"{phase}_s"] for row in rounds for item in row["items"])
        assert total("item_phase_seconds_total", phase=phase) == pytest.approx(seconds)
    assert total("item_phase_seconds_total", phase="compute") > 0
    assert total("staleness_commits_count") == items
    assert total("staleness_commits_bucket", le="0.0") == items
    norm = rounds[-1]["norm"]
    assert total("gradient_norm", pipeline="0") == pytest.approx(norm)
    assert total("weight_entropy_ratio", pipeline="0") == 1.0  # weights: mean
    assert total("outer_learning_rate") == trained.config.outer.lr
    assert (total("pipelines"), total("gamma_version")) == (1, 0)
    assert total("event_loop_lag_seconds") >= 0


def test_no_outcome_but_buffered_was_counted(trained: LiveServer) -> None:
    found = families(trained)["dmaml_contributions"].samples

    assert {s.labels["outcome"] for s in found if s.value} == {"buffered"}


def test_no_series_appears_during_a_run(server: LiveServer) -> None:
    before = samples(server)

    Worker(tiny(), server.target).join()

    assert value(server, "dmaml_version") == 6
    assert samples(server) == before


def test_where_the_rounds_time_went_adds_up(trained: LiveServer) -> None:
    phases = {
        name: value(trained, "dmaml_round_phase_seconds_total", phase=name)
        for name in ("first_answer", "collect", "commit", "save")
    }
    kinds = [kind.name.lower() for kind in ItemKind]
    durations = {k: value(trained, "dmaml_round_duration_seconds_sum", kind=k) for k in kinds}
    rows = [*read_rows(trained.run_dir, "rounds"), *read_rows(trained.run_dir, "evaluations")]

    assert all(seconds > 0 for seconds in phases.values())
    assert sum(phases.values()) - phases["save"] == pytest.approx(sum(durations.values()))
    recorded = sum(row["duration_s"] for row in rows)
    assert sum(durations.values()) - durations["init"] == pytest.approx(recorded)
    saving = value(trained, "dmaml_checkpoint_duration_seconds_sum")
    assert phases["save"] == pytest.approx(saving)


def test_every_lease_is_timed_once_and_soon_after_its_item_was_there(trained: LiveServer) -> None:
    items = sum(len(row["items"]) for row in read_rows(trained.run_dir, "rounds"))
    evaluations = 2 * len(read_rows(trained.run_dir, "evaluations"))

    assert value(trained, "dmaml_lease_delay_seconds_count") == 1 + items + evaluations
    assert 0 < value(trained, "dmaml_lease_delay_seconds_sum") < 5.0


@pytest.mark.parametrize(("codec", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_payload_is_counted_as_it_travels(codec: str, width: int, tmp_path: Path) -> None:
    config = tiny(run={"rounds": 2}, sync={"wire_dtype": codec}, evaluation={"every": 0})
    size = 25  # mlp 1-8-1
    expected = dict.fromkeys(
        [(d, c) for d in ("received", "sent") for c in ("float32", "bfloat16", "float16")], 0.0
    )

    with LiveServer(config, tmp_path / "run") as live:
        Worker(config, live.target).join()
        found = families(live)["dmaml_payload_bytes"].samples

    expected["received", "float32"] += 4 * size  # INIT
    expected["received", codec] += 2 * 2 * width * size
    expected["sent", "float32"] = 2 * 4 * size  # once a version, not once an item
    assert {(s.labels["direction"], s.labels["codec"]): s.value for s in found} == expected


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
def test_payload_of_streams_is_counted_too(codec: str, tmp_path: Path) -> None:
    config = tiny(
        run={"rounds": 1}, model={"hidden": [1100, 1100]}, sync={"wire_dtype": codec},
        topology={"slots": 1}, evaluation={"every": 0},
    )  # fmt: skip
    size = 2 * 1100 + 1100 * 1101 + 1101  # 4.9 MB in float32, beyond one message

    with LiveServer(config, tmp_path / "run") as live:
        Worker(config, live.target).join()

        bytes_of = {
            (direction, name): value(
                live, "dmaml_payload_bytes_total", direction=direction, codec=name
            )
            for direction in ("received", "sent")
            for name in ("float32", "bfloat16")
        }
    if codec == "float32":
        assert bytes_of["received", "float32"] == 2 * 4 * size
    else:
        assert bytes_of["received", "float32"] == 4 * size
        assert bytes_of["received", "bfloat16"] == 2 * size
    assert bytes_of["sent", "float32"] == 4 * size
    assert bytes_of["sent", "bfloat16"] == 0


def test_an_actor_is_seen_computing_and_then_waiting(tmp_path: Path) -> None:
    config = tiny(run={"rounds": 50})
    goes_on = threading.Event()

    def hold(number: int, _: WorkItem) -> None:
        if number == 3:
            goes_on.wait(30.0)

    with LiveServer(config, tmp_path / "run") as live:
        worker = Worker(config, live.target, CountingAnswerer(config, hold))
        wait_for(lambda: workers(live) == {"computing": 1}, "the actor computes")
        Operator(Address(live.target), Retry(5.0)).do("pause")
        goes_on.set()
        wait_for(lambda: workers(live) == {"waiting": 1}, "the actor waits")
        worker.stop()
        worker.join()
        wait_for(lambda: workers(live) == {}, "the actor left")


def test_a_resumed_run_shows_where_it_is_before_anything_happens(tmp_path: Path) -> None:
    with LiveServer(tiny(), tmp_path / "run") as live:
        Worker(tiny(), live.target).join()
        shown = value(live, "dmaml_validation", metric="mse")

    with LiveServer(tiny(run={"rounds": 9}), tmp_path / "run") as live:
        assert value(live, "dmaml_version") == 6
        assert value(live, "dmaml_target_version") == 9
        assert value(live, "dmaml_durable_rounds") == 9  # INIT, 6 TRAIN, 2 EVALUATE
        assert value(live, "dmaml_epoch") == 2
        assert value(live, "dmaml_validation", metric="mse") == pytest.approx(shown)
        assert value(live, "dmaml_tasks_total", pipeline="0") == 0
        assert value(live, "dmaml_rounds_total", kind="train") == 0


def test_a_void_contribution_is_counted_and_recorded(tmp_path: Path) -> None:
    config = tiny(run={"rounds": 1}, aggregation={"max_norm": 1e-9}, evaluation={"every": 0})

    with LiveServer(config, tmp_path / "run") as live:
        worker = Worker(config, live.target)
        wait_for(lambda: value(live, "dmaml_run_state", state="paused"), "the run paused")

        assert value(live, "dmaml_contributions_total", outcome="norm") == 2
        assert value(live, "dmaml_worker_events_total", event="void") == 2
        status = json.loads(get(f"{live.http}/api/status")[2])
        assert status["state"] == "PAUSED"
        assert "every contribution to pipeline 0 was void" in status["message"]
        assert status["has_diverged"]
        Operator(Address(live.target), Retry(5.0)).do("drain")
        worker.join()
    events = [row for row in read_rows(tmp_path / "run", "worker_events") if row["event"] == "void"]
    assert [row["message"].split("(tasks ")[1] for row in events] == ["0 to 1).", "2 to 3)."]


def test_the_server_is_alive_and_ready(server: LiveServer) -> None:
    assert get(f"{server.http}/healthz")[0] == 200
    assert get(f"{server.http}/readyz")[0] == 200
    assert get(f"{server.http}/")[0] == 200
    assert get(f"{server.http}/nothing")[0] == 404


def test_before_it_serves_it_is_alive_and_not_ready() -> None:
    web = Web(Metrics(), "127.0.0.1:0")
    web.start()
    try:
        assert get(f"http://127.0.0.1:{web.port}/healthz")[0] == 200
        assert get(f"http://127.0.0.1:{web.port}/metrics")[0] == 200
        assert get(f"http://127.0.0.1:{web.port}/readyz")[0] == 503
        status, _, body = get(f"http://127.0.0.1:{web.port}/api/status")
        assert (status, json.loads(body)) == (503, {"state": "STARTING"})
    finally:
        web.stop()


def test_the_port_is_free_again_after_stop(tmp_path: Path) -> None:
    with LiveServer(tiny(), tmp_path / "run") as live:
        addresses = dict(live.addresses)

    bind(addresses["http"]).close()
    bind(addresses["grpc"]).close()
    assert not (tmp_path / "run" / "server.json").exists()


def test_the_status_page_shows_the_run(trained: LiveServer) -> None:
    status, kind, body = get(f"{trained.http}/api/status")

    found = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert found["state"] == "FINISHED"
    assert found["version"] == found["rounds"] == 6
    assert found["name"] == "tiny"
    assert found["workers"] == []
    assert len(found["theta_sha256"]) == 64
    assert found["validation"]["mse"] > 0


def test_figures_that_are_not_finite_are_null_in_the_status_page(tmp_path: Path) -> None:
    config = tiny(run={"rounds": 1}, evaluation={"every": 1})

    class Diverging(CountingAnswerer):
        def answer(self, item: WorkItem, *arguments: Any) -> Any:
            found = super().answer(item, *arguments)
            for table in found.tables.values():
                table[:] = float("nan")
            return found

    with LiveServer(config, tmp_path / "run") as live:
        Worker(config, live.target, Diverging(config)).join()

        status, _, body = get(f"{live.http}/api/status")

    assert status == 200
    assert json.loads(body)["validation"] == {"mse": None}


@pytest.mark.parametrize("listen", ["", "9464", "h:", ":9464", "127.0.0.1:99999", "127.0.0.1:x"])
def test_a_malformed_http_address_is_refused(listen: str) -> None:
    with pytest.raises(AddressError, match="required HOST:PORT"):
        bind(listen)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on '192\.0\.2\.1:0'"):
        bind("192.0.2.1:0")
