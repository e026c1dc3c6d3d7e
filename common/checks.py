"""Combinations of keys that cannot work, each refused with one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from dmaml.common.adaptation import check_adaptation
from dmaml.common.errors import ConfigError
from dmaml.common.outer import check_outer
from dmaml.common.schema import require_reader
from dmaml.common.sections import ClusteringSection, FaultsSection, RunConfig, SyncSection, keys

# which modes read a key of `sync`; the keys left out are read by all
_MODES: Final[dict[str, tuple[str, ...]]] = {
    "quorum": ("quorum",),
    "grace_s": ("quorum",),
    "late": ("quorum",),
    "late_discount": ("quorum",),
    "window": ("async",),
    "max_staleness": ("quorum", "async"),
    "async_batch": ("async",),
}
_PAGES: Final = {  # where the options of a section are described
    "weights": "docs/weights.md",
    "aggregation": "docs/weights.md",
    "clustering": "docs/clustering.md",
    "task": "docs/tasks.md",
}
_OF_MERGING: Final = ("late_discount", "max_staleness")  # in mode quorum, where late is merge


def check(config: RunConfig) -> RunConfig:
    """Return the configuration, or raise for a combination that cannot work.

    Raises:
        ConfigError: with the keys, their values and the remedy.
    """
    for section, key, _ in keys():
        if key == "options":
            _check_options(f"{section}.options", getattr(config, section).options)
    tasks, parts = config.algorithm.tasks, config.topology.parts
    if parts > tasks:
        raise ConfigError(
            f"topology.parts {parts} exceeds algorithm.tasks {tasks}: a part needs at least one "
            "task. Lower parts or raise tasks."
        )
    if parts > 1 and config.algorithm.local_steps > 1:
        raise ConfigError(
            f"topology.parts {parts} with algorithm.local_steps {config.algorithm.local_steps}: "
            "local steps of one slot cannot be divided. Set one of them to 1."
        )
    check_adaptation(config.algorithm)
    _check_sync(config)
    _check_faults(config)
    _check_clustering(config.clustering)
    check_outer(config.outer, config.run.rounds)
    return config


def unread(mode: str) -> tuple[str, ...]:
    """Return `sync.key=default` for each key that a mode does not read."""
    fields = SyncSection.model_fields
    return tuple(
        f"sync.{key}={json.dumps(fields[key].default)}"
        for key, modes in _MODES.items()
        if mode not in modes
    )


def _check_clustering(section: ClusteringSection) -> None:
    if section.name == "none" and section.pipelines != 1:
        raise ConfigError(
            f"clustering.pipelines {section.pipelines} with clustering.name 'none': "
            "it has one pipeline. Set pipelines to 1."
        )
    if section.max_pipelines is None:
        return
    if section.name == "none":
        raise ConfigError(
            f"clustering.max_pipelines {section.max_pipelines} with clustering.name 'none': "
            "it has one pipeline. Leave max_pipelines out."
        )
    if section.max_pipelines < section.pipelines:
        raise ConfigError(
            f"clustering.max_pipelines {section.max_pipelines} is below clustering.pipelines "
            f"{section.pipelines}. Raise it."
        )


def _check_sync(config: RunConfig) -> None:
    sync, topology = config.sync, config.topology
    if sync.mode != "sync" and topology.parts > 1:
        raise ConfigError(
            f"sync.mode {sync.mode!r} with topology.parts {topology.parts}: there a slot is one "
            "item. Set topology.parts to 1 and raise topology.slots."
        )
    for key, modes in _MODES.items():
        value = getattr(sync, key)
        if value == SyncSection.model_fields[key].default:
            continue
        require_reader("sync", key, value, "mode", sync.mode, modes)
        if sync.mode == "quorum" and key in _OF_MERGING:
            require_reader("sync", key, value, "late", sync.late, ("merge",))
    merges = sync.mode == "quorum" and sync.late == "merge" and sync.late_discount > 0
    if merges and config.weights.name == "staleness_discount":
        raise ConfigError(
            f"sync.late 'merge' with weights.name 'staleness_discount': sync.late_discount "
            f"{sync.late_discount:g} discounts late answers already, and they would be discounted "
            "twice. Set sync.late_discount to 0, or weights.name to the inner generator."
        )
    if sync.quorum is not None and sync.quorum > topology.slots:
        raise ConfigError(
            f"sync.quorum {sync.quorum} exceeds topology.slots {topology.slots}: no round would "
            "ever close. Lower sync.quorum."
        )
    if sync.async_batch > sync.window * topology.slots:
        raise ConfigError(
            f"sync.async_batch {sync.async_batch} exceeds the {sync.window * topology.slots} items "
            "in flight (sync.window times topology.slots). Lower it."
        )
    if config.server.speculation and config.run.hardware == "mixed":
        raise ConfigError(
            "server.speculation with run.hardware 'mixed': two machines may give two answers to "
            "one item. Turn one of them off."
        )


def _check_faults(config: RunConfig) -> None:
    faults, slots = config.faults, config.topology.slots
    if (faults.kind == "none") == bool(faults.slots):
        raise ConfigError(
            f"faults.kind {faults.kind!r} with faults.slots {list(faults.slots)}: a fault needs a "
            "kind and slots. Set both or neither."
        )
    if faults.scale != FaultsSection.model_fields["scale"].default:
        require_reader("faults", "scale", faults.scale, "kind", faults.kind, ("scaled_gradient",))
    if faults.slots and max(faults.slots) >= slots:
        raise ConfigError(
            f"faults.slots {list(faults.slots)}: topology.slots {slots} has slots 0 to "
            f"{slots - 1}. Name some of them."
        )


def _check_options(name: str, options: dict[str, Any]) -> None:
    found = _not_finite(name, options)
    if found is not None:
        page = _PAGES.get(name.partition(".")[0], "docs/config.md")
        raise ConfigError(
            f"{found[0]} = {found[1]!r}: required a finite number, in the range that {page} gives."
        )
    try:
        json.dumps(options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} = {options!r}: {error}. Options are numbers, text, lists and mappings."
        ) from None


def _not_finite(path: str, value: object) -> tuple[str, float] | None:
    """Return the first number among options that is NaN or infinity, and its path."""
    if isinstance(value, float) and not math.isfinite(value):
        return path, value
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    return next(filter(None, (_not_finite(f"{path}.{key}", one) for key, one in inner)), None)
