"""Accuracy of single classes and of alphabets on test tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmaml.report.probe import Episode
from dmaml.report.section import AFTER, BEFORE, Section, Shown, Table, axes

SHOWN: Final = 12  # hardest and easiest classes
MOST_BARS: Final = 64  # alphabets


@dataclass(frozen=True)
class Score:
    """How often the queries of a class were named rightly.

    Attributes:
        before: share before adaptation; NaN of a method without steps.
        after: share after the last step.
        queries: how many there were.
    """

    name: str
    before: float
    after: float
    queries: int


def scores(episodes: Sequence[Episode], group: Callable[[str], str]) -> list[Score]:
    """Return the score of each group of classes, the lowest first.

    Args:
        group: the name of a class -> that of its group.
    """
    right: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for episode in episodes:
        after = episode.answers[episode.last].argmax(axis=1) == episode.query_y
        before = np.full(len(after), np.nan)
        if len(episode.answers) > 1:
            before = (episode.answers[0].argmax(axis=1) == episode.query_y).astype(float)
        for label, was, now in zip(episode.query_y.tolist(), before, after, strict=True):
            right[group(episode.names[label])].append((float(was), float(now)))
    found = []
    for name, pairs in right.items():
        was, now = np.array(pairs).mean(axis=0).tolist()
        found.append(Score(name, was, now, len(pairs)))
    return sorted(found, key=lambda score: (score.after, -score.queries, score.name))


def base_of(name: str) -> str:
    """Return the class that was turned: `Greek/03 turned 90°` is `Greek/03`."""
    return name.split(" turned ", maxsplit=1)[0]


def alphabet_of(name: str) -> str:
    """Return the alphabet in the name of a class, or "" where it has none."""
    alphabet, slash, _ = base_of(name).rpartition("/")
    return alphabet if slash else ""


def per_class(episodes: Sequence[Episode]) -> Section:
    """Return the accuracy of each class, and of each alphabet where classes have one."""
    classes = scores(episodes, base_of)
    alphabets = [one for one in scores(episodes, alphabet_of) if one.name]
    figure, found = axes(1, 1, 5.2, 3.0)
    _spread(found[0][0], classes)
    num_queries = sum(score.queries for score in classes)
    turned = any(base_of(name) != name for episode in episodes for name in episode.names)
    perfect = sum(one.after == 1.0 for one in classes)
    caption = (
        f"{len(classes)} classes in {len(episodes)} test tasks, {num_queries} queries, after "
        f"adaptation (inductive). {perfect} classes had every query "
        "right. Few queries a class make its figure rough: the tables say how many."
        + (" A class turned by quarter turns counts as the same one." if turned else "")
    )
    shown = [Shown("classes", caption, figure)]
    if 1 < len(alphabets) <= MOST_BARS:
        shown.append(_alphabets(alphabets))
    easiest = sorted(classes, key=lambda one: (-one.after, -one.queries, one.name))
    tables = [
        _table(f"The {min(SHOWN, len(classes))} hardest classes", classes[:SHOWN]),
        _table(f"The {min(SHOWN, len(classes))} easiest classes", easiest[:SHOWN]),
    ]
    if len(alphabets) > MOST_BARS:
        tables.append(_table("Alphabets", alphabets))
    return Section("Classes", (), tuple(shown), tuple(tables))


def _spread(axis: Any, classes: Sequence[Score]) -> None:
    share = np.linspace(0, 100, len(classes))
    axis.plot(share, [one.after for one in classes], color=AFTER, drawstyle="steps-mid")
    total = sum(one.queries for one in classes)
    mean = sum(one.after * one.queries for one in classes) / total
    axis.axhline(mean, color=BEFORE, linestyle="--", linewidth=1)
    axis.text(
        99, mean - 0.02, f"mean {mean:.3f}", color="#444444", fontsize=8, va="top", ha="right"
    )
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("classes, hardest first (% of them)")
    axis.set_ylabel("query accuracy (share of queries)")


def _alphabets(alphabets: Sequence[Score]) -> Shown:
    columns = 1 if len(alphabets) <= 20 else 2
    rows = -(-len(alphabets) // columns)
    figure, found = axes(1, columns, 4.9 * columns, 0.8 + 0.17 * rows)
    for number, axis in enumerate(found[0]):
        _bars(axis, alphabets[number * rows : (number + 1) * rows])
        axis.set_ylim(rows - 0.4, -0.6)
    has_before = bool(np.isfinite([one.before for one in alphabets]).all())
    caption = "The same by alphabet, the hardest first; in brackets the number of queries." + (
        " The dark mark is the share before adaptation." if has_before else ""
    )
    return Shown("alphabets", caption, figure)


def _bars(axis: Any, alphabets: Sequence[Score]) -> None:
    places = np.arange(len(alphabets))
    axis.barh(places, [one.after for one in alphabets], color=AFTER, alpha=0.85, height=0.7)
    axis.plot([one.before for one in alphabets], places, "|", color="#222222", markersize=7)
    names = [f"{shorten(one.name)} ({one.queries})" for one in alphabets]
    axis.set_yticks(places, names, fontsize=6.5)
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("query accuracy (share of queries)")
    axis.grid(visible=False, axis="y")


def shorten(name: str, length: int = 30) -> str:
    """Return a name in at most so many characters."""
    words = name.replace("_", " ")
    return words if len(words) <= length else f"{words[: length - 1].rstrip()}…"


def _table(title: str, found: Sequence[Score]) -> Table:
    rows = tuple(
        (one.name.replace("_", " "), f"{one.after:.2f}", str(one.queries)) for one in found
    )
    return Table(title, ("class", "accuracy", "queries"), rows)
