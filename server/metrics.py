"""Every Prometheus series of the server: its name, unit and help text in one place."""

from __future__ import annotations

import enum
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import pairwise
from typing import Final, final

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from dmaml.common.frames import WIRE_DTYPES
from dmaml.common.gamma import Gamma
from dmaml.common.items import ItemKind, Outcome, RunState
from dmaml.server.combine import Computed
from dmaml.server.core.actions import Commit, Head
from dmaml.server.core.membership import WORKER_STATES
from dmaml.server.series import NO_VALUE, Group

EVENTS: Final = (
    "joined", "left", "lost", "lease_expired", "refused", "void", "speculated",
    "paused", "resumed", "draining", "finished", "failed", "sat_out",
)  # fmt: skip
VALIDATION: Final = (  # of our own algorithms
    "accuracy", "accuracy_inductive", "adaptation_delta", "loss", "mse", "return",
)  # fmt: skip
_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_DELAYS: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_STALENESS: Final = (0, 1, 2, 4, 8, 16, 32)
_ROUND_PHASES: Final = ("first_answer", "collect", "commit", "save")
_ITEM_PHASES: Final = ("wait", "pull", "sample", "compute")
_PER_PIPELINE: Final[dict[str, tuple[str, ...]]] = {"pipeline": ()}
_NUM_LAGS: Final = 100  # of the event loop, one every 0.1 s


def _names(words: type[enum.Enum]) -> tuple[str, ...]:
    return tuple(word.name.lower() for word in words)


@final
class Metrics:
    """The server's series, in the order in which a person reads them; label sets are closed.

    Args:
        clock: gives seconds; only for the age of the last checkpoint.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.groups: list[Group] = []
        self._clock = clock
        self._durable_at = clock()
        self._lags: deque[float] = deque(maxlen=_NUM_LAGS)
        self._pipelines: set[int] = set()
        self._own_metrics: set[str] = set()
        self._define_run(self._group("Run and progress"))
        self._define_rounds(self._group("Rounds"))
        self._define_learning(self._group("Learning"))
        self._define_workers(self._group("Workers"))
        self._define_transport(self._group("Transport"))
        self._define_checkpoints(self._group("Checkpoints"))
        self._define_process(self._group("Process"))
        self.enter(RunState.EMPTY)

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self.registry)

    # -- what happens ------------------------------------------------------------------------

    def enter(self, state: RunState) -> None:
        """Show the run's state."""
        for other in RunState:
            self.state.labels(other.name.lower()).set(other is state)

    def route(self, gamma: Gamma) -> None:
        """Show γ's version and the active pipelines, whose series exist from now on."""
        self.gamma_version.set(gamma.version)
        self.num_pipelines.set(len(gamma.pipelines))
        for pipeline in set(gamma.pipelines) - self._pipelines:
            self._pipelines.add(pipeline)
            self.tasks.labels(str(pipeline))
            self.sat_out.labels(str(pipeline))
            self.norm.labels(str(pipeline)).set(NO_VALUE)
            self.entropy.labels(str(pipeline)).set(NO_VALUE)

    def answered(self, outcome: Outcome) -> None:
        """Count an answer."""
        self.contributions.labels(outcome.name.lower()).inc()

    def took(self, head: Head, server_version: int) -> None:
        """Count what an answer says that was the first of its item."""
        if head.item.kind is not ItemKind.TRAIN:
            return
        self.staleness.observe(max(0, server_version - head.item.base_version))
        for phase in _ITEM_PHASES:
            seconds = head.timings.get(f"{phase}_s", 0.0)
            if math.isfinite(seconds) and seconds > 0:
                self.item_seconds.labels(phase).inc(seconds)

    def committed(
        self, commit: Commit, computed: Computed, began_at: float, now: float, num_rounds: int = 1
    ) -> None:
        """Show a commit that was done `now`; its numbers were begun on at `began_at`.

        Args:
            num_rounds: rounds that it completed.
        """
        kind = commit.kind.name.lower()
        self.rounds.labels(kind).inc(num_rounds)
        self.round_seconds.labels(kind).observe(now - commit.opened_at)
        self.commit_seconds.observe(now - began_at)
        times = (commit.opened_at, commit.first_answer_at, commit.last_answer_at, now)
        for phase, (since, until) in zip(_ROUND_PHASES[:3], pairwise(times), strict=True):
            self.round_phase.labels(phase).inc(until - since)
        for pipeline, figures in computed.figures.items():
            self.tasks.labels(str(pipeline)).inc(figures.num_tasks)
            self.norm.labels(str(pipeline)).set(figures.norm)
            self.entropy.labels(str(pipeline)).set(figures.weight_entropy)
        if computed.learning_rate is not None:
            self.learning_rate.set(computed.learning_rate)
        if commit.kind is ItemKind.TRAIN and computed.row is not None:
            self.show_round(computed.row["loss"], computed.row["metrics"])
        elif commit.kind is ItemKind.EVALUATE and computed.row is not None:
            self.show_validation(computed.row["metrics"])

    def show_round(self, loss: float, means: Mapping[str, float]) -> None:
        """Show the figures of a TRAIN round."""
        self.loss.set(loss)
        for label, name in (("before", "accuracy_before"), ("after", "accuracy")):
            if name in means:
                self.accuracy.labels(label).set(means[name])

    def show_validation(self, found: Mapping[str, Mapping[str, list[float]]]) -> None:
        """Show the means of a validation after its last adaptation step.

        The names of a user's own algorithm come and go with the validations that hold them.
        """
        own = set(found) - set(VALIDATION)
        for name in self._own_metrics - own:
            self.validation.remove(name)
        self._own_metrics = own
        for name, values in found.items():
            self.validation.labels(name).set(values["mean"][-1])

    def saved(self, took_s: float, num_bytes: int, durable_round: int) -> None:
        """Show a checkpoint that was written just now."""
        self.round_phase.labels("save").inc(took_s)
        self.checkpoint_seconds.observe(took_s)
        self.checkpoint_bytes.set(num_bytes)
        self.durable.set(durable_round)
        self._durable_at = self._clock()

    def tick(self, lag_s: float, census: Mapping[str, int]) -> None:
        """Show the event loop's delay and how many actors are in which state."""
        self._lags.append(lag_s)
        self.lag.set(max(self._lags))
        for state, count in census.items():
            self.workers.labels(state).set(count)

    # -- the series --------------------------------------------------------------------------

    def _group(self, title: str) -> Group:
        self.groups.append(Group(self.registry, title))
        return self.groups[-1]

    def _define_run(self, group: Group) -> None:
        build = group.gauge(
            "dmaml_build_info", "1", "Version of dmaml; the value is 1.", {"version": ()}
        )
        build.labels(version("dmaml")).set(1)
        self.state = group.gauge(
            "dmaml_run_state", "0 or 1", "1 for the state that the run is in, else 0.",
            {"state": _names(RunState)},
        )  # fmt: skip
        self.version = group.gauge("dmaml_version", "commits", "TRAIN commits in the whole run.")
        self.trained = group.gauge(
            "dmaml_trained_rounds",
            "rounds",
            "TRAIN rounds done in the whole run; in async mode a round is many commits.",
        )
        self.target_version = group.gauge(
            "dmaml_target_version", "rounds", "TRAIN rounds that the run is to have (run.rounds)."
        )
        self.rounds = group.counter(
            "dmaml_rounds_total", "rounds", "Rounds done since the server started, by kind.",
            {"kind": _names(ItemKind)},
        )  # fmt: skip
        self.tasks = group.counter(
            "dmaml_tasks_total", "tasks",
            "Tasks trained on since the server started, by pipeline; voids count nothing.",
            _PER_PIPELINE,
        )  # fmt: skip
        self.tasks_per_s = group.gauge(
            "dmaml_tasks_per_second", "tasks/s",
            "Tasks trained on per second, over at most the last 64 rounds.",
        )  # fmt: skip
        self.epoch = group.gauge(
            "dmaml_epoch",
            "starts",
            "How often a server was started on this run, this one included.",
        )

    def _define_rounds(self, group: Group) -> None:
        self.round_seconds = group.histogram(
            "dmaml_round_duration_seconds", "seconds",
            "Seconds from a round's opening to its commit, by kind.", _SECONDS,
            {"kind": _names(ItemKind)},
        )  # fmt: skip
        self.round_phase = group.counter(
            "dmaml_round_phase_seconds_total", "seconds",
            "Seconds of all rounds by phase: from opening to the first answer, the last answer "
            "(collect), published (commit); save overlaps the next round.",
            {"phase": _ROUND_PHASES},
        )  # fmt: skip
        self.commit_seconds = group.histogram(
            "dmaml_commit_duration_seconds", "seconds",
            "Seconds to combine a round's answers and to take the outer step.", _SECONDS,
        )  # fmt: skip
        self.item_seconds = group.counter(
            "dmaml_item_phase_seconds_total", "seconds",
            "Seconds of actors on TRAIN items, added over actors, by phase.",
            {"phase": _ITEM_PHASES},
        )  # fmt: skip
        self.contributions = group.counter(
            "dmaml_contributions_total", "answers",
            "Answers to work items of every kind, by outcome; in sync mode a good one is buffered.",
            {"outcome": _names(Outcome)},
        )  # fmt: skip
        self.staleness = group.histogram(
            "dmaml_staleness_commits", "commits",
            "TRAIN commits between an answer's parameters and its arrival; 0 in sync mode.",
            _STALENESS,
        )  # fmt: skip

    def _define_learning(self, group: Group) -> None:
        self.loss = group.gauge(
            "dmaml_query_loss", "the loss's own",
            "Mean query loss after adaptation in the last TRAIN round; NaN before the first.",
            first=NO_VALUE,
        )  # fmt: skip
        self.accuracy = group.gauge(
            "dmaml_query_accuracy_ratio", "ratio, 0 to 1",
            "Mean query accuracy before and after adaptation in the last TRAIN round, 0 to 1; NaN "
            "where there is none.",
            {"adaptation": ("before", "after")}, first=NO_VALUE,
        )  # fmt: skip
        self.validation = group.gauge(
            "dmaml_validation", "the metric's own",
            "Mean of the last validation after its last adaptation step, by metric; accuracies "
            "are 0 to 1; NaN where there is none.",
            {"metric": VALIDATION}, first=NO_VALUE,
        )  # fmt: skip
        self.norm = group.gauge(
            "dmaml_gradient_norm", "the gradient's own",
            "Euclidean norm of the last combined gradient, 0 or more; NaN before the first.",
            _PER_PIPELINE,
        )  # fmt: skip
        self.entropy = group.gauge(
            "dmaml_weight_entropy_ratio", "ratio, 0 to 1",
            "Entropy of the last round's weights over the log of their number, 0 (one counts) to 1 "
            "(all equal); NaN before the first.",
            _PER_PIPELINE,
        )  # fmt: skip
        self.learning_rate = group.gauge(
            "dmaml_outer_learning_rate", "1",
            "Learning rate of the last outer step (outer.lr and outer.schedule), 0 or more; NaN "
            "before the first.",
            first=NO_VALUE,
        )  # fmt: skip
        self.num_pipelines = group.gauge(
            "dmaml_pipelines", "pipelines", "Active pipelines, 1 or more once the run is served."
        )
        self.sat_out = group.counter(
            "dmaml_pipeline_sat_out_total", "rounds",
            "TRAIN commits that a pipeline sat out, for gamma leaves it too few units.",
            _PER_PIPELINE,
        )  # fmt: skip
        self.gamma_version = group.gauge(
            "dmaml_gamma_version", "changes", "Version of the matrix gamma, raised by each change."
        )

    def _define_workers(self, group: Group) -> None:
        self.workers = group.gauge(
            "dmaml_workers", "actors",
            "Actors with a session, by state: computing holds a lease, silent was not heard of for "
            "half of server.session_s, waiting is any other.",
            {"state": WORKER_STATES},
        )  # fmt: skip
        self.lease_delay = group.histogram(
            "dmaml_lease_delay_seconds", "seconds",
            "Seconds from an item being available to a waiting Lease call to the answer's leaving.",
            _DELAYS,
        )  # fmt: skip
        self.events = group.counter(
            "dmaml_worker_events_total", "events", "What happened to actors and the run, by event.",
            {"event": EVENTS},
        )  # fmt: skip

    def _define_transport(self, group: Group) -> None:
        self.payload = group.counter(
            "dmaml_payload_bytes_total", "bytes",
            "Bytes of gradients and initial parameters received, and of parameters sent, as they "
            "travel, without envelopes.",
            {"direction": ("received", "sent"), "codec": tuple(WIRE_DTYPES)},
        )  # fmt: skip

    def _define_checkpoints(self, group: Group) -> None:
        self.checkpoint_seconds = group.histogram(
            "dmaml_checkpoint_duration_seconds", "seconds",
            "Seconds to write a checkpoint and its records, fsync included.", _SECONDS,
        )  # fmt: skip
        self.checkpoint_bytes = group.gauge(
            "dmaml_checkpoint_size_bytes", "bytes",
            "Bytes of the last checkpoint written; 0 before the first.",
        )  # fmt: skip
        age = group.gauge(
            "dmaml_checkpoint_age_seconds", "seconds",
            "Seconds since the last checkpoint became durable, or since the server started.",
        )  # fmt: skip
        age.set_function(lambda: self._clock() - self._durable_at)
        self.durable = group.gauge(
            "dmaml_durable_rounds", "rounds",
            "Rounds of every kind, of the whole run, that are in a durable checkpoint.",
        )  # fmt: skip

    def _define_process(self, group: Group) -> None:
        self.lag = group.gauge(
            "dmaml_event_loop_lag_seconds", "seconds",
            "Seconds by which the event loop was late, the longest of the last ten seconds.",
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
