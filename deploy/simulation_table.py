"""The table of `dmaml simulate`: figures in rows, modes side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.table import Column, Table

from dmaml.server.simulation.figures import Figures

Cell = Callable[[Figures], str]


def table_of(results: list[Figures]) -> Table:
    """Return the figures of the modes side by side; docs/simulation.md explains each."""
    table = Table(Column("figure", no_wrap=True))
    for figures in results:
        table.add_column(figures.mode, justify="right")
    for label, cell in (*_speed(results), *_staleness(results), *_counts(results)):
        table.add_row(label, *(cell(figures) for figures in results))
    return table


def _speed(results: list[Figures]) -> Iterator[tuple[str, Cell]]:
    base = next((one for one in results if one.mode == "sync"), results[0])
    yield "rounds/s", lambda f: f"{f.rounds_per_s:.4g}"
    if base.rounds_per_s:
        yield f"÷ {base.mode}", lambda f: f"{f.rounds_per_s / base.rounds_per_s:.2f}"
    yield "tasks/s", lambda f: f"{f.tasks_per_s:.4g}"
    yield "utilisation", lambda f: _percent(f.utilisation)
    for why in _names(f.wasted for f in results):
        yield f"  wasted: {why}", _share_of(why)
    yield "  waiting", lambda f: _percent(1.0 - f.utilisation - sum(f.wasted.values()))
    yield "straggler cost", lambda f: _percent(f.straggler_cost)
    yield "tail of a round", lambda f: "–" if f.tail is None else _percent(f.tail)


def _staleness(results: list[Figures]) -> Iterator[tuple[str, Cell]]:
    yield "staleness, mean", lambda f: f"{f.staleness.mean:.2f}"
    yield "staleness, 95 % at most", lambda f: str(f.staleness.p95)
    yield "staleness, largest", lambda f: str(f.staleness.max)
    top = max(f.staleness.max for f in results)
    for low, high in buckets(top) if top else ():
        yield f"  {low}" if low == high else f"  {low} to {high}", _within(low, high)


def _counts(results: list[Figures]) -> Iterator[tuple[str, Cell]]:
    yield "versions", lambda f: str(f.versions)
    yield "answers applied", lambda f: str(f.applied)
    for why in _names(f.refused for f in results):
        yield f"refused: {why}", _count_of(why)
    yield "second leases", lambda f: str(f.second_leases)
    yield "leases expired", lambda f: str(f.leases_expired)
    yield "actors died", lambda f: str(f.deaths)
    yield "sessions lost", lambda f: str(f.sessions_lost)
    yield "checkpoints", lambda f: str(f.checkpoints)


def buckets(top: int) -> list[tuple[int, int]]:
    """Return 0, 1, 2, 3 to 4, 5 to 8, 9 to 16, ... up to a staleness."""
    found = [(0, 0), (1, 1)]
    while found[-1][1] < top:
        high = found[-1][1]
        found.append((high + 1, 2 * high))
    return found


def _names(counts: Iterable[dict[str, float]] | Iterable[dict[str, int]]) -> list[str]:
    return sorted({name for one in counts for name in one})


def _share_of(why: str) -> Cell:
    return lambda f: _percent(f.wasted.get(why, 0.0))


def _count_of(why: str) -> Cell:
    return lambda f: str(f.refused.get(why, 0))


def _within(low: int, high: int) -> Cell:
    def cell(figures: Figures) -> str:
        counts = figures.staleness.counts
        total = sum(counts.values())
        inside = sum(count for value, count in counts.items() if low <= value <= high)
        return _percent(inside / total) if total else "–"

    return cell


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
