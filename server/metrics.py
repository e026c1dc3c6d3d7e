"""Every Prometheus series of the server: its name, unit and help text in one place."""

from __future__ import annotations

from typing import Final, final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from dmaml.common.items import ItemKind, Outcome, RunState

EVENTS: Final = (
    "joined", "left", "lost", "lease_expired", "refused", "void",
    "paused", "resumed", "draining", "finished", "failed",
)  # fmt: skip
_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_PHASES: Final = ("wait_s", "pull_s", "sample_s", "compute_s")


@final
class Metrics:
    """The server's series, zero-initialised; label sets are closed."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.rounds = Counter(
            "dmaml_rounds", "Rounds committed, by kind.", ["kind"], registry=registry
        )
        self.contributions = Counter(
            "dmaml_contributions", "Answers to work items, by outcome.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.events = Counter(
            "dmaml_worker_events", "What happened to actors and the run, by event.", ["event"],
            registry=registry,
        )  # fmt: skip
        self.tasks = Counter("dmaml_tasks", "Tasks trained on.", registry=registry)
        self.received = Counter(
            "dmaml_received_bytes", "Payload bytes of answers.", registry=registry
        )
        self.sent = Counter("dmaml_sent_bytes", "Parameter bytes sent.", registry=registry)
        self.state = Gauge(
            "dmaml_run_state", "1 for the state that the run is in.", ["state"], registry=registry
        )
        self.workers = Gauge("dmaml_workers", "Actors with a live session.", registry=registry)
        self.version = Gauge("dmaml_version", "TRAIN rounds done.", registry=registry)
        self.rounds_target = Gauge("dmaml_target_version", "TRAIN rounds to do.", registry=registry)
        self.epoch = Gauge("dmaml_epoch", "Starts of the server.", registry=registry)
        self.loss = Gauge(
            "dmaml_query_loss", "Mean query loss after adaptation, last TRAIN round.",
            registry=registry,
        )  # fmt: skip
        self.accuracy = Gauge(
            "dmaml_query_accuracy_ratio", "Mean query accuracy of the last TRAIN round.",
            ["adaptation"], registry=registry,
        )  # fmt: skip
        self.validation = Gauge(
            "dmaml_validation", "Last validation after the last adaptation step, by metric.",
            ["metric"], registry=registry,
        )  # fmt: skip
        self.norm = Gauge(
            "dmaml_gradient_norm", "Euclidean norm of the combined gradient.", ["pipeline"],
            registry=registry,
        )  # fmt: skip
        self.tasks_per_s = Gauge(
            "dmaml_tasks_per_second", "Tasks trained on per second, lately.", registry=registry
        )
        self.round_seconds = Histogram(
            "dmaml_round_duration_seconds", "From opening to commit, by kind.", ["kind"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.commit_seconds = Histogram(
            "dmaml_commit_duration_seconds", "Combining a round's answers and the outer step.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.item_seconds = Counter(
            "dmaml_item_phase_seconds", "Actors' time on TRAIN items, by phase.", ["phase"],
            registry=registry,
        )  # fmt: skip
        self.checkpoint_seconds = Histogram(
            "dmaml_checkpoint_duration_seconds", "Writing a checkpoint, fsync included.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.checkpoint_bytes = Gauge(
            "dmaml_checkpoint_size_bytes", "Size of the last checkpoint.", registry=registry
        )
        self.durable = Gauge(
            "dmaml_durable_rounds", "Rounds in a durable checkpoint.", registry=registry
        )
        self.lag = Gauge(
            "dmaml_event_loop_lag_seconds", "Longest recent delay of the event loop.",
            registry=registry,
        )  # fmt: skip
        self._zero()

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self.registry)

    def enter(self, state: RunState) -> None:
        """Show the run's state."""
        for other in RunState:
            self.state.labels(other.name.lower()).set(other is state)

    def show_round(self, loss: float, means: dict[str, float]) -> None:
        """Show the figures of a TRAIN round."""
        self.loss.set(loss)
        for label, name in (("before", "accuracy_before"), ("after", "accuracy")):
            if name in means:
                self.accuracy.labels(label).set(means[name])

    def show_validation(self, found: dict[str, dict[str, list[float]]]) -> None:
        """Show the means of a validation after its last adaptation step."""
        for name, values in found.items():
            self.validation.labels(name).set(values["mean"][-1])

    def item_phases(self, timings: dict[str, float]) -> None:
        """Add where an actor's time on an item went."""
        for phase in _PHASES:
            value = timings.get(phase, 0.0)
            if value > 0:
                self.item_seconds.labels(phase.removesuffix("_s")).inc(value)

    def _zero(self) -> None:
        for kind in ItemKind:
            self.rounds.labels(kind.name.lower())
            self.round_seconds.labels(kind.name.lower())
        for outcome in Outcome:
            self.contributions.labels(outcome.name.lower())
        for event in EVENTS:
            self.events.labels(event)
        for phase in _PHASES:
            self.item_seconds.labels(phase.removesuffix("_s"))
        for when in ("before", "after"):
            self.accuracy.labels(when)
        self.enter(RunState.EMPTY)
