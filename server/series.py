"""Makes Prometheus series and remembers them for the page that lists them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Labels = Mapping[str, Sequence[str]]
Metric = TypeVar("Metric", Counter, Gauge, Histogram)
NO_VALUE: Final = float("nan")  # of a gauge before its first figure


@dataclass(frozen=True)
class Series:
    """What a reader must know of one series.

    Attributes:
        name: as exposed, `_total` included.
        labels: label -> its closed values; none where they are known later only.
    """

    name: str
    type: str
    labels: Labels
    unit: str
    help: str


@final
class Group:
    """Series that are read together. Every child whose label values are known exists at once."""

    def __init__(self, registry: CollectorRegistry, title: str) -> None:
        self._registry = registry
        self.title = title
        self.series: list[Series] = []

    def counter(self, name: str, unit: str, text: str, labels: Labels | None = None) -> Counter:
        """Make a counter; its name ends in `_total`."""
        made = Counter(name, text, list(labels or ()), registry=self._registry)
        return self._keep(made, Series(name, "counter", labels or {}, unit, text))

    def gauge(
        self, name: str, unit: str, text: str, labels: Labels | None = None, first: float = 0.0
    ) -> Gauge:
        """Make a gauge that shows `first` until it is set."""
        made = Gauge(name, text, list(labels or ()), registry=self._registry)
        if not labels:
            made.set(first)
        for values in _children(labels or {}):
            made.labels(*values).set(first)
        return self._keep(made, Series(name, "gauge", labels or {}, unit, text))

    def histogram(
        self,
        name: str,
        unit: str,
        text: str,
        buckets: Sequence[float],
        labels: Labels | None = None,
    ) -> Histogram:
        """Make a histogram; `buckets` are upper bounds in its unit."""
        made = Histogram(name, text, list(labels or ()), buckets=buckets, registry=self._registry)
        return self._keep(made, Series(name, "histogram", labels or {}, unit, text))

    def _keep(self, made: Metric, series: Series) -> Metric:
        for values in _children(series.labels):
            made.labels(*values)
        self.series.append(series)
        return made


def _children(labels: Labels) -> list[tuple[str, ...]]:
    return list(itertools.product(*labels.values())) if labels else []
