"""The server's Prometheus series: names, labels, first values, and what each event does to them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dmaml.common.items import ItemKind, Outcome, RunState, Token, WorkItem
from dmaml.deploy import metrics_page
from dmaml.server.clustering.base import Gamma
from dmaml.server.combine import Computed, Figures
from dmaml.server.core.actions import Commit, Head
from dmaml.server.metrics import EVENTS, Metrics
from dmaml.server.series import Group

NAMES = {
    "dmaml_build_info": "gauge",
    "dmaml_rounds_total": "counter",
    "dmaml_round_duration_seconds": "histogram",
    "dmaml_round_phase_seconds_total": "counter",
    "dmaml_commit_duration_seconds": "histogram",
    "dmaml_item_phase_seconds_total": "counter",
    "dmaml_lease_delay_seconds": "histogram",
    "dmaml_contributions_total": "counter",
    "dmaml_staleness_commits": "histogram",
    "dmaml_worker_events_total": "counter",
    "dmaml_workers": "gauge",
    "dmaml_tasks_total": "counter",
    "dmaml_tasks_per_second": "gauge",
    "dmaml_query_loss": "gauge",
    "dmaml_query_accuracy_ratio": "gauge",
    "dmaml_validation": "gauge",
    "dmaml_gradient_norm": "gauge",
    "dmaml_weight_entropy_ratio": "gauge",
    "dmaml_outer_learning_rate": "gauge",
    "dmaml_payload_bytes_total": "counter",
    "dmaml_checkpoint_duration_seconds": "histogram",
    "dmaml_checkpoint_size_bytes": "gauge",
    "dmaml_checkpoint_age_seconds": "gauge",
    "dmaml_durable_rounds": "gauge",
    "dmaml_version": "gauge",
    "dmaml_trained_rounds": "gauge",
    "dmaml_target_version": "gauge",
    "dmaml_epoch": "gauge",
    "dmaml_run_state": "gauge",
    "dmaml_event_loop_lag_seconds": "gauge",
    "dmaml_gamma_version": "gauge",
    "dmaml_pipeline_sat_out_total": "counter",
    "dmaml_pipelines": "gauge",
}
CLOSED = {
    ("dmaml_rounds_total", "kind"): {"init", "train", "probe", "evaluate"},
    ("dmaml_round_duration_seconds_count", "kind"): {"init", "train", "probe", "evaluate"},
    ("dmaml_round_phase_seconds_total", "phase"): {"first_answer", "collect", "commit", "save"},
    ("dmaml_item_phase_seconds_total", "phase"): {"wait", "pull", "sample", "compute"},
    ("dmaml_contributions_total", "outcome"): {o.name.lower() for o in Outcome},
    ("dmaml_worker_events_total", "event"): set(EVENTS),
    ("dmaml_workers", "state"): {"computing", "waiting", "silent"},
    ("dmaml_query_accuracy_ratio", "adaptation"): {"before", "after"},
    ("dmaml_validation", "metric"): {
        "accuracy",
        "accuracy_inductive",
        "adaptation_delta",
        "loss",
        "mse",
        "return",
    },
    ("dmaml_payload_bytes_total", "direction"): {"received", "sent"},
    ("dmaml_payload_bytes_total", "codec"): {"float32", "bfloat16", "float16"},
    ("dmaml_run_state", "state"): {state.name.lower() for state in RunState},
}


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Return label values -> value of every sample of a name."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def value(metrics: Metrics, name: str, *labels: str) -> float:
    return values(metrics, name)[labels]


def gamma(version: int, *pipelines: int) -> Gamma:
    return Gamma(version, pipelines, np.zeros((0, len(pipelines)), dtype=np.float32))


def head(kind: ItemKind = ItemKind.TRAIN, base_version: int = 0, **timings: float) -> Head:
    return Head("1-1", WorkItem(5, kind, 0, 0, 0, 0, base_version), Token(1, 1), timings=timings)


def commit(kind: ItemKind, *times: float) -> Commit:
    return Commit(5, kind, 0, 4, (), frozenset(), (), *times)


# -- names -----------------------------------------------------------------------------------------


def test_the_series_are_the_agreed_ones():
    text = Metrics().text().decode()

    found = dict(re.findall(r"^# TYPE (dmaml_\w+) (\w+)$", text, re.MULTILINE))
    assert found == NAMES


def test_no_series_says_when_it_was_created():
    assert "_created" not in Metrics().text().decode()


def test_a_person_reads_run_and_progress_first_and_the_process_last():
    metrics = Metrics()

    assert [group.title for group in metrics.groups] == [
        "Run and progress", "Rounds", "Learning", "Workers", "Transport", "Checkpoints", "Process",
    ]  # fmt: skip
    in_text = re.findall(r"^# TYPE (\w+)", metrics.text().decode(), re.MULTILINE)
    in_groups = [series.name for group in metrics.groups for series in group.series]
    assert in_text[: len(in_groups)] == in_groups
    assert all(re.match("process_|python_", name) for name in in_text[len(in_groups) :])


def test_every_help_text_is_one_sentence():
    for group in Metrics().groups:
        for series in group.series:
            assert re.fullmatch(r"[A-Z0-9].*\.", series.help), series
            assert not re.search(r"\. [A-Z]", series.help), series
            assert series.unit, series


def test_the_page_is_current():
    page = Path(__file__).parents[2] / "docs" / "metrics.md"

    assert page.read_text(encoding="utf-8") == metrics_page.page()


def test_the_check_of_the_page_fails_where_it_is_old(tmp_path: Path, capsys):
    page = tmp_path / "metrics.md"

    assert metrics_page.main([str(page)]) == 0
    assert metrics_page.main(["--check", str(page)]) == 0
    page.write_text(page.read_text().replace("gauge", "counter", 1))
    assert metrics_page.main(["--check", str(page)]) == 1
    assert "Run `make docs`" in capsys.readouterr().err


def test_the_page_names_every_series_and_queries_only_those():
    page = metrics_page.page()

    asked = set(re.findall(r"dmaml_\w+", page))
    suffixes = {f"{n}{s}" for n in NAMES for s in ("_bucket", "_sum", "_count")}
    assert set(NAMES) <= asked
    assert asked <= set(NAMES) | suffixes


# -- promtool's rules ------------------------------------------------------------------------------

BASE_UNITS = (
    "amperes", "bytes", "celsius", "grams", "joules", "kelvin", "meters", "metres", "seconds",
    "volts",
)  # fmt: skip
OTHER_UNITS = (
    "minutes", "hours", "days", "weeks", "kelvins", "fahrenheit", "rankine", "inches", "yards",
    "miles", "bits", "calories", "pounds", "ounces",
)  # fmt: skip
PREFIXES = (
    "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi", "mega",
    "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi",
)  # fmt: skip
ABBREVIATED = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
SCALED = {p + u for p in PREFIXES for u in (*BASE_UNITS, *OTHER_UNITS)}
TYPES = {"counter", "gauge", "summary", "histogram", "gauge_histogram"}


def lint(text: str) -> list[str]:
    """Return what `promtool check metrics` objects to, and a unit that is not at the end."""
    found = []
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        lines = re.findall(rf"^{re.escape(name)}\w*\{{(.*)\}} ", text, re.MULTILINE)
        labels = {label for line in lines for label in re.findall(r'(\w+)="', line)}
        words = name.split("_")
        units = [word for word in words if word in BASE_UNITS]
        last = words[-2] if kind == "counter" else words[-1]
        rules = {
            "no help text": not helps.get(name),
            "a unit that is no base unit": {*words} & ({*OTHER_UNITS} | SCALED),
            "an abbreviated unit": {*words[1:]} & ABBREVIATED,
            "the unit is not at the end": units and units != [last],
            "a counter without _total": kind == "counter" and not name.endswith("_total"),
            "_total and no counter": kind != "counter" and name.endswith("_total"),
            "a histogram's suffix": kind != "histogram" and re.search("_(bucket|count|sum)$", name),
            "a histogram's label": kind != "histogram" and "le" in labels,
            "a summary's label": kind != "summary" and "quantile" in labels,
            "the type in the name": any(f"_{t}_" in f"{name}_" for t in TYPES),
            "a reserved character": ":" in name,
            "camel case": any(re.search("[a-z][A-Z]", word) for word in (name, *labels)),
        }
        found += [f"{name}: {rule}" for rule, is_broken in rules.items() if is_broken]
    return found


def test_promtool_has_nothing_to_object_to():
    metrics = Metrics()
    metrics.route(gamma(0, 0, 1))

    assert lint(metrics.text().decode()) == []


@pytest.mark.parametrize(
    ("name", "kind", "labels", "fault"),
    [
        ("dmaml_rounds", "counter", "", "a counter without _total"),
        ("dmaml_workers_total", "gauge", "", "_total and no counter"),
        ("dmaml_lag_ms", "gauge", "", "an abbreviated unit"),
        ("dmaml_lag_milliseconds", "gauge", "", "a unit that is no base unit"),
        ("dmaml_age_hours", "gauge", "", "a unit that is no base unit"),
        ("dmaml_seconds_lag", "gauge", "", "the unit is not at the end"),
        ("dmaml_workers_count", "gauge", "", "a histogram's suffix"),
        ("dmaml_lag", "gauge", 'le="1"', "a histogram's label"),
        ("dmaml_lag", "gauge", 'quantile="1"', "a summary's label"),
        ("dmaml_lag_gauge", "gauge", "", "the type in the name"),
        ("dmaml:lag", "gauge", "", "a reserved character"),
        ("dmaml_loopLag", "gauge", "", "camel case"),
        ("dmaml_lag", "gauge", 'eventLoop="1"', "camel case"),
    ],
)
def test_the_rules_find_a_bad_name(name: str, kind: str, labels: str, fault: str):
    text = f"# HELP {name} Help.\n# TYPE {name} {kind}\n{name}{{{labels}}} 1.0\n"

    assert lint(text) == [f"{name}: {fault}"]
    assert lint(text.replace("# HELP", "# NOTE"))[0] == f"{name}: no help text"


# -- first values ----------------------------------------------------------------------------------


def test_every_child_that_is_known_in_advance_exists_at_once():
    metrics = Metrics()

    for (name, label), expected in CLOSED.items():
        found = {
            sample.labels[label]
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name == name
        }
        assert found == expected, name


def test_counters_and_histograms_begin_at_zero_and_unmeasured_figures_are_not_numbers():
    metrics = Metrics()
    metrics.route(gamma(0, 0))
    unmeasured = {
        "dmaml_query_loss", "dmaml_query_accuracy_ratio", "dmaml_validation",
        "dmaml_gradient_norm", "dmaml_weight_entropy_ratio", "dmaml_outer_learning_rate",
    }  # fmt: skip

    for family in metrics.registry.collect():
        for sample in family.samples:
            if family.name in unmeasured:
                assert math.isnan(sample.value), sample
            elif family.name.startswith("dmaml_") and family.type != "gauge":
                assert sample.value == 0, sample


def test_series_of_a_pipeline_exist_from_its_opening_and_keep_their_values():
    metrics = Metrics()
    metrics.route(gamma(0, 0))
    metrics.committed(
        commit(ItemKind.TRAIN, 0.0, 1.0, 2.0), Computed({"loss": 1.0, "metrics": {}},
        {0: Figures(8, 2.0, 0.5)}), 2.0, 3.0,
    )  # fmt: skip

    metrics.route(gamma(1, 0, 4))

    assert values(metrics, "dmaml_tasks_total") == {("0",): 8, ("4",): 0}
    assert value(metrics, "dmaml_gradient_norm", "0") == 2.0
    assert math.isnan(value(metrics, "dmaml_gradient_norm", "4"))
    assert value(metrics, "dmaml_weight_entropy_ratio", "0") == 0.5
    assert value(metrics, "dmaml_pipelines") == 2
    assert value(metrics, "dmaml_gamma_version") == 1


def test_the_learning_rate_is_that_of_the_last_outer_step():
    metrics = Metrics()
    row = {"loss": 1.0, "metrics": {}}

    metrics.committed(commit(ItemKind.TRAIN, 0.0, 1.0, 2.0), Computed(row, {}, 0.125), 2.0, 3.0)
    metrics.committed(commit(ItemKind.EVALUATE, 3.0, 4.0, 5.0), Computed(), 5.0, 6.0)

    assert value(metrics, "dmaml_outer_learning_rate") == 0.125


def test_the_version_of_the_package_is_shown():
    ((version,),) = values(Metrics(), "dmaml_build_info")

    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version)
    assert values(Metrics(), "dmaml_build_info") == {(version,): 1}


def test_a_group_makes_the_product_of_two_closed_labels():
    registry = CollectorRegistry()
    group = Group(registry, "Group")

    group.gauge("a", "1", "A.", {"x": ("1", "2"), "y": ("3", "4")}, first=7.0)
    group.gauge("b", "1", "B.", {"x": ("1", "2"), "open": ()})

    found = [(s.name, *s.labels.values(), s.value) for f in registry.collect() for s in f.samples]
    assert found == [("a", x, y, 7.0) for x in "12" for y in "34"]


# -- events ----------------------------------------------------------------------------------------


def test_phases_of_a_round_add_up_to_its_duration():
    metrics = Metrics()

    metrics.committed(commit(ItemKind.INIT, 10.0, 11.0, 13.0), Computed(), 14.0, 17.0)

    assert values(metrics, "dmaml_round_phase_seconds_total") == {
        ("first_answer",): 1.0, ("collect",): 2.0, ("commit",): 4.0, ("save",): 0.0,
    }  # fmt: skip
    assert value(metrics, "dmaml_round_duration_seconds_sum", "init") == 7.0
    assert value(metrics, "dmaml_round_duration_seconds_count", "train") == 0
    assert value(metrics, "dmaml_commit_duration_seconds_sum") == 3.0
    assert value(metrics, "dmaml_rounds_total", "init") == 1


@pytest.mark.parametrize(
    ("staleness", "bucket"), [(0, "0.0"), (1, "1.0"), (3, "4.0"), (33, "+Inf")]
)
def test_staleness_is_the_servers_version_less_the_answers(staleness: int, bucket: str):
    metrics = Metrics()

    metrics.took(head(base_version=40 - staleness), server_version=40)

    found = values(metrics, "dmaml_staleness_commits_bucket")
    assert list(found) == [(f"{n}.0",) for n in (0, 1, 2, 4, 8, 16, 32)] + [("+Inf",)]
    assert next(le for (le,), count in found.items() if count) == bucket
    assert value(metrics, "dmaml_staleness_commits_sum") == staleness


def test_actors_times_are_those_of_train_items_and_finite():
    metrics = Metrics()

    metrics.took(head(wait_s=1.0, pull_s=0.5, compute_s=2.0, computed_at=99.0), 0)
    metrics.took(head(wait_s=math.inf, pull_s=math.nan, sample_s=-1.0, compute_s=1.0), 0)
    metrics.took(head(ItemKind.EVALUATE, compute_s=8.0), 0)

    assert values(metrics, "dmaml_item_phase_seconds_total") == {
        ("wait",): 1.0, ("pull",): 0.5, ("sample",): 0.0, ("compute",): 3.0,
    }  # fmt: skip
    assert value(metrics, "dmaml_staleness_commits_count") == 2


def test_the_age_of_the_last_checkpoint_grows_from_the_start_and_from_each_save():
    clock = Clock()
    metrics = Metrics(clock)

    clock.now += 30.0
    assert value(metrics, "dmaml_checkpoint_age_seconds") == 30.0
    metrics.saved(0.25, 4096, 7)
    assert value(metrics, "dmaml_checkpoint_age_seconds") == 0.0
    clock.now += 5.0

    assert value(metrics, "dmaml_checkpoint_age_seconds") == 5.0
    assert value(metrics, "dmaml_checkpoint_size_bytes") == 4096
    assert value(metrics, "dmaml_durable_rounds") == 7
    assert value(metrics, "dmaml_checkpoint_duration_seconds_sum") == 0.25
    assert value(metrics, "dmaml_round_phase_seconds_total", "save") == 0.25


def test_lag_is_the_longest_of_the_last_hundred_turns():
    metrics = Metrics()

    metrics.tick(0.5, {})
    for _ in range(99):
        metrics.tick(0.01, {})
    assert value(metrics, "dmaml_event_loop_lag_seconds") == 0.5
    metrics.tick(0.01, {})

    assert value(metrics, "dmaml_event_loop_lag_seconds") == 0.01


def test_an_actor_that_is_gone_is_counted_no_more():
    metrics = Metrics()

    metrics.tick(0.0, {"computing": 2, "waiting": 1, "silent": 0})
    metrics.tick(0.0, {"computing": 1, "waiting": 0, "silent": 1})

    assert values(metrics, "dmaml_workers") == {("computing",): 1, ("waiting",): 0, ("silent",): 1}


def test_validation_shows_the_last_step_and_forgets_a_users_own_metrics_that_are_gone():
    metrics = Metrics()

    metrics.show_validation({"mse": {"mean": [3.0, 2.0]}, "reward": {"mean": [0.0, 5.0]}})
    assert value(metrics, "dmaml_validation", "mse") == 2.0
    assert value(metrics, "dmaml_validation", "reward") == 5.0
    metrics.show_validation({"mse": {"mean": [1.0, 0.5]}})

    assert value(metrics, "dmaml_validation", "mse") == 0.5
    assert ("reward",) not in values(metrics, "dmaml_validation")
    assert ("loss",) in values(metrics, "dmaml_validation")
