"""Writes `docs/metrics.md` from the code: `python -m dmaml.deploy.metrics_page PATH [--check]`."""

from __future__ import annotations

import sys
from typing import Final

from dmaml.deploy.generated import row, write_or_check
from dmaml.server.metrics import Metrics
from dmaml.server.series import Labels, Series

HEAD: Final = """\
# Metrics

Generated from the code by `make docs`; do not edit. The server shows its metrics in Prometheus'
text format over HTTP, beside its health and status:

```bash
curl -s localhost:9464/metrics                      # everything, in the order of this page
curl -s localhost:9464/metrics | grep ^dmaml_       # without the help texts
```

```yaml
scrape_configs:                                     # prometheus.yml
  - job_name: dmaml
    static_configs: [{targets: ["localhost:9464"]}]
```

`dmaml server` listens on port 9464, `dmaml train` on a free port that it prints; `--http` sets
either. Counters and histograms begin at 0 with the server's start: use `rate` and `increase`.
`dmaml_version`, `dmaml_durable_rounds` and `dmaml_epoch` belong to the run and outlive a restart.
Every series is there from the start; a figure that was not measured yet is `NaN`, not 0. Label
values are those listed here and no others, but for two: series by `pipeline` appear with their
pipeline (ids are never reused), and a validation metric that a user's own algorithm names is shown
for as long as the last validation holds it.
"""

OPEN: Final = {"pipeline": "one per active pipeline", "version": "of the package"}

PROCESS: Final = """\

The standard series of prometheus-client stand beside it: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds`,
`process_open_fds`, `process_max_fds` (Linux) and `python_info`.
"""

QUERIES: Final = """\

## Example queries

Time left, in seconds:

```promql
(dmaml_target_version - dmaml_trained_rounds) / deriv(dmaml_trained_rounds[5m])
```

Mean seconds of a TRAIN round, and where the time of all rounds goes (seconds per second):

```promql
rate(dmaml_round_duration_seconds_sum{kind="train"}[5m])
  / rate(dmaml_round_duration_seconds_count{kind="train"}[5m])
rate(dmaml_round_phase_seconds_total[5m])
```

The share of the actors' time in which they compute, the rest being wait, pull and sample:

```promql
sum(rate(dmaml_item_phase_seconds_total{phase="compute"}[5m]))
  / sum(rate(dmaml_item_phase_seconds_total[5m]))
```

The delay of leases that 99 in 100 stay below:

```promql
histogram_quantile(0.99, sum by (le) (rate(dmaml_lease_delay_seconds_bucket[5m])))
```

Answers that counted nothing, by reason, in the last hour:

```promql
increase(dmaml_contributions_total{outcome!~"buffered|committed|duplicate"}[1h]) > 0
```

Running without a durable checkpoint for ten minutes; running without anybody who computes:

```promql
dmaml_checkpoint_age_seconds > 600 and on (instance) dmaml_run_state{state="running"} == 1
sum by (instance) (dmaml_workers{state!="silent"}) == 0
  and on (instance) dmaml_run_state{state="running"} == 1
```

Bytes per second by direction:

```promql
sum by (direction) (rate(dmaml_payload_bytes_total[1m]))
```
"""


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for group in Metrics().groups:
        lines += [f"## {group.title}", "", row("name", "type", "labels", "unit", "meaning")]
        lines += [row(*["---"] * 5), *(_series(series) for series in group.series), ""]
    return "\n".join(lines[:-1]) + "\n" + PROCESS + QUERIES


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` tell whether it is current."""
    return write_or_check(page(), arguments)


def _series(series: Series) -> str:
    return row(f"`{series.name}`", series.type, _labels(series.labels), series.unit, series.help)


def _labels(labels: Labels) -> str:
    return "; ".join(
        f"`{label}`: {', '.join(values) or OPEN[label]}" for label, values in labels.items()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
