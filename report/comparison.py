"""Several runs in one picture: by round, by task seen, by second; bands over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError
from dmaml.report.bands import Band, band, mean_and_half
from dmaml.report.charts import MARKERS
from dmaml.report.names import names_of
from dmaml.report.record import Curve, RunRecord, validation
from dmaml.report.section import Section, Shown, Table, axes, figure_words, line_style

BY: Final = {
    "rounds": "round (commits in mode async)",
    "tasks": "tasks seen",
    "seconds": "seconds of training",
}
_NOT_THE_SETTING: Final = ("run.seed", "run.name")
_OPERATIONAL: Final = ("server",)
_SHORT: Final = {"mse": "mean squared error", "loss": "query loss (nats)"}
FEW: Final = 12  # validations that get a mark each; a single one has no line
LONGEST: Final = 60  # characters of a label


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed only.

    Attributes:
        label: what distinguishes it from the other settings.
    """

    label: str
    runs: tuple[RunRecord, ...]


def settings_of(records: Sequence[RunRecord]) -> list[Setting]:
    """Return the runs by setting, in the order given.

    A setting is named by its keys that differ between settings; where those are too many words, or
    none, by the name of its first run; where that is another's name too, all by the directories of
    their first runs.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps(_plain(record.config), sort_keys=True), []).append(record)
    plains = [json.loads(key) for key in groups]
    differing = sorted({k for plain in plains for k in plain if plain[k] != plains[0].get(k)})
    found = []
    for plain, runs in zip(plains, groups.values(), strict=True):
        words = ", ".join(f"{key.split('.', 1)[1]} {plain.get(key)}" for key in differing)
        is_clear = 0 < len(words) <= LONGEST
        found.append(Setting(words if is_clear else _name(runs), tuple(runs)))
    labels = [setting.label for setting in found]
    if len(set(labels)) == len(labels):
        return found
    folders = names_of([setting.runs[0].folder for setting in found])
    return [replace(one, label=folder) for one, folder in zip(found, folders, strict=True)]


def comparison(records: Sequence[RunRecord]) -> Section:
    """Return the validation curves of several runs and their last figures.

    Raises:
        ConfigError: the runs are judged by different figures.
    """
    metrics = {record.metric: record.folder for record in records}
    if len(metrics) > 1:
        words = ", ".join(f"{metric} ({folder})" for metric, folder in metrics.items())
        raise ConfigError(
            f"these runs are judged by different figures: {words}. Compare runs of one kind."
        )
    metric = records[0].metric
    settings = settings_of(records)
    figure, found = axes(1, len(BY), 4.1 * len(BY), 3.4, sharey=True)
    for axis, (by, words) in zip(found[0], BY.items(), strict=True):
        for number, setting in enumerate(settings):
            one = _band([validation(run, by) for run in setting.runs])
            style: dict[str, Any] = line_style(number)
            if len(one.x) <= FEW:
                style |= {"marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            seeds = f" (n = {one.count})" if one.count > 1 else ""
            axis.plot(one.x, one.mean, label=f"{setting.label}{seeds}", **style)
            if one.count > 1:
                low, high = one.mean - one.half, one.mean + one.half
                axis.fill_between(one.x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axis.set_xlabel(words)
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    found[0][0].set_ylabel(f"validation {_SHORT.get(metric, metric)}")
    handles, labels = found[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(2, len(labels)))
    has_seeds = any(len(setting.runs) > 1 for setting in settings)
    caption = (
        f"Validation {metric} after the last adaptation step by round, by task seen and by second "
        "of training (validations and pauses left out)."
        + (
            " Lines are means over seeds, bands their 95 % intervals (Student's t); a validation "
            "stands at the mean of its seeds' seconds."
            if has_seeds
            else ""
        )
    )
    if records[0].config.run.device == "cpu":
        caption += " Seconds compare only runs of one machine that had it to themselves."
    shown = Shown("comparison", caption, figure)
    return Section("Comparison", (), (shown,), (_table(settings, metric),))


def _band(curves: Sequence[Curve]) -> Band:
    """Return mean and interval over seeds; where x differs, each point at the mean of its x."""
    if len({len(x) for x, _ in curves}) > 1:  # some are not as far
        return band(curves)
    mean_x = np.mean([x for x, _ in curves], axis=0).tolist()
    return band([(mean_x, y) for _, y in curves])


def _name(runs: Sequence[RunRecord]) -> str:
    """Return what the names of a setting's runs have in common, without a mark of the seed."""
    names = [run.config.run.name for run in runs]
    if len(names) == 1:
        return names[0]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    prefix = "".join(column[0] for column in shared)
    return re.sub(r"[-_ .]*(s|seed)?[-_ .]*$", "", prefix) or names[0]


def _table(settings: Sequence[Setting], metric: str) -> Table:
    rows = []
    for setting in settings:
        last = [run.evaluations[-1]["metrics"][metric]["mean"][-1] for run in setting.runs]
        mean, half = mean_and_half(last)
        many = len(last) > 1
        rows.append((
            setting.label,
            ", ".join(str(run.config.run.seed) for run in setting.runs),
            ", ".join(sorted({str(run.rounds[-1]["version"]) for run in setting.runs})),
            ", ".join(sorted({f"{run.rounds[-1]['tasks_seen']:,}" for run in setting.runs})),
            figure_words(mean, half if many else None),
            f"{mean_and_half([run.seconds() for run in setting.runs])[0]:,.0f}",
        ))  # fmt: skip
    columns = (
        "runs", "seeds", "version", "tasks seen", f"last validation, {metric} ± 95 %", "seconds",
    )  # fmt: skip
    return Table("At the end", columns, tuple(rows))


def _plain(config: RunConfig) -> dict[str, Any]:
    """Return section.key -> value of what makes a setting."""
    return {
        f"{section}.{key}": value
        for section, keys in config.model_dump(mode="json").items()
        if section not in _OPERATIONAL
        for key, value in keys.items()
        if f"{section}.{key}" not in _NOT_THE_SETTING
    }
