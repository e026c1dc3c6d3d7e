"""What the run is and where it comes from: seed, code, versions, machine, data, settings."""

from __future__ import annotations

from datetime import datetime, timezone

import yaml

from dmaml.common import checkpoint as checkpoints
from dmaml.common import config as configuration
from dmaml.common.config import RunConfig
from dmaml.report.record import RunRecord
from dmaml.report.section import Section, Table, figure_words

_WORDS = {"cpu": "processor", "cpu_flags": "processor flags (digest)", "caches": "cache sizes"}


def summary(record: RunRecord) -> Section:
    """Return in one table what the run came to."""
    config, last, row = record.config, record.evaluations[-1], record.rounds[-1]
    metric = record.metric
    seconds = record.seconds()
    figures = last["metrics"][metric]
    steps = record.num_steps
    result = figure_words(figures["mean"][-1], figures["ci95"][-1])
    after = f" after {steps} step{'s' * (steps != 1)}" if steps else ""
    done = f"{row['version']} of {config.run.rounds}"
    rows = [
        ("method", f"{config.algorithm.name} with {config.model.name} on {config.task.source}"),
        ("tasks", _task_words(config, metric == "return")),
        (f"{record.clock}s", done + ("" if record.is_over else " (still in progress)")),
        ("tasks seen", f"{row['tasks_seen']:,}"),
        ("training", f"{seconds:,.0f} s, {row['tasks_seen'] / max(seconds, 1e-9):,.1f} tasks/s"),
        (f"last validation, {metric}{after}", f"{result} ({last['num_tasks']} tasks)"),
    ]
    return Section("Summary", (), (), (Table("", ("", ""), tuple(rows)),))


def _task_words(config: RunConfig, is_control: bool) -> str:
    task = config.task
    if is_control:
        return f"{task.k_shot} trajectories to adapt on, {task.k_query} to score"
    if task.n_way == 1:
        return f"{task.k_shot} examples to adapt on, {task.k_query} queries"
    queries = f"{task.k_query} {'query' if task.k_query == 1 else 'queries'} a class"
    return f"{task.n_way}-way {task.k_shot}-shot, {queries}"


def provenance(record: RunRecord) -> Section:
    """Return seed, commit, versions, machine and digests, and the settings off their defaults."""
    meta = record.checkpoint.meta if record.checkpoint else {}
    rows = [
        ("run directory", record.folder.resolve().name),
        ("seed", str(record.config.run.seed)),
        ("first round", _when(record.rounds[0]["at"] - record.rounds[0]["duration_s"])),
        ("last round", _when(record.rounds[-1]["at"])),
        ("identity of the configuration", configuration.identity(record.config)),
        ("digest of the data", meta.get("data_digest") or "not recorded"),
        ("digest of θ", _theta(record)),
    ]
    rows += [(_WORDS.get(key, key), value) for key, value in meta.get("fingerprint", {}).items()]
    return Section(
        "Configuration and provenance",
        ("Two runs with the same identity and data on machines alike give the same bits.",),
        (),
        (
            Table("Provenance", ("", ""), tuple(rows)),
            _starts(record),
            Table("Settings that are not the defaults", ("key", "value"), settings(record.config)),
        ),
    )


def settings(config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Return (key, value) of what differs from the defaults of the schema."""
    default = configuration.resolve(RunConfig()).model_dump(mode="json")
    plain = config.model_dump(mode="json")
    return tuple(
        (
            f"{section}.{key}",
            yaml.safe_dump(value, default_flow_style=True).split("\n...")[0].strip(),
        )
        for section, keys in plain.items()
        for key, value in keys.items()
        if value != default[section][key]
    )


def _starts(record: RunRecord) -> Table:
    """Return one row for each start of the server."""
    if not record.starts:
        return Table("Starts of the server", ("", ""), (("starts", "not recorded by this run"),))
    names = list(dict.fromkeys(name for row in record.starts for name in row["facts"]))
    return Table(
        "Starts of the server",
        ("start", "at", *names),
        tuple(
            (
                str(row["epoch"]),
                _when(row["at"]),
                *(str(row["facts"].get(name) or "unknown") for name in names),
            )
            for row in record.starts
        ),
    )


def _theta(record: RunRecord) -> str:
    if record.checkpoint is None:
        return "no checkpoint yet"
    digest = checkpoints.theta_sha256(checkpoints.thetas_of(record.checkpoint))
    version = record.checkpoint.meta["progress"]["version"]
    return f"{digest} ({record.clock} {version})"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
