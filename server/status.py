"""The run now, as plain values."""

from __future__ import annotations

import time
from typing import Any

from dmaml.server.runner import Runner


def status_of(runner: Runner) -> dict[str, Any]:
    """Return the run now, as plain values."""
    core = runner.core
    now = time.monotonic()
    return {
        "state": core.state.name,
        "message": core.message,
        "has_diverged": core.has_diverged,
        "name": runner.config.run.name,
        "identity": core.identity,
        "epoch": core.epoch,
        **core.progress._asdict(),
        "rounds": runner.config.run.rounds,
        "durable_round": core.durable_round,
        "theta_sha256": runner.parameters.theta_sha256,
        "query_loss": runner.history.last_round.get("loss"),
        "metrics": runner.history.last_round.get("metrics", {}),
        "tasks_per_s": runner.history.tasks_per_s(),
        "validation": {
            name: values["mean"][-1]
            for name, values in runner.history.last_evaluation.get("metrics", {}).items()
        },
        "workers": [
            {
                "worker_id": session.worker_id,
                "host": session.hello.host,
                "leases": len(session.leases),
                "contributions": session.contributions,
                "idle_s": now - session.heard_at,
            }
            for session in core.members
        ],
        "uptime_s": now - runner.started_at,
    }
