"""The run's configuration: read, written, made definite, and what follows from it.

YAML, `--set` and the documentation have one schema (`sections`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dmaml.common.checks import check
from dmaml.common.errors import ConfigError, unknown_sentence
from dmaml.common.outer import reads_rounds, resolve_outer
from dmaml.common.sections import RunConfig, keys
from dmaml.common.yaml_values import values_of, with_settings

__all__ = [
    "RunConfig",
    "differing",
    "evaluation_shape",
    "from_mapping",
    "from_text",
    "identity",
    "is_semantic",
    "load",
    "most_pipelines",
    "num_contributions",
    "quorum_of",
    "resolve",
    "semantic",
    "to_text",
    "units_of_task",
    "usual_contributions",
]


def is_semantic(field: Any) -> bool:
    """Tell whether a key can change θ."""
    return bool(field.json_schema_extra["semantic"])


def semantic(config: RunConfig) -> dict[str, Any]:
    """Return the keys that can change θ as `{"section.key": plain value}`.

    `run.rounds` is one of them only where the learning rate depends on it.
    """
    plain = config.model_dump(mode="json")
    found = {f"{s}.{k}": plain[s][k] for s, k, field in keys() if is_semantic(field)}
    if reads_rounds(config.outer):
        found["run.rounds"] = config.run.rounds
    return found


def identity(config: RunConfig) -> str:
    """Return the run's identity: the SHA-256 of its semantic keys, in hexadecimal."""
    text = json.dumps(semantic(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differing(ours: RunConfig, theirs: RunConfig) -> list[str]:
    """Return a phrase for each semantic key whose values differ."""
    a, b = semantic(ours), semantic(theirs)
    reasons = {"run.rounds": f", and outer.schedule {ours.outer.schedule!r} depends on it"}
    return [
        f"{key} ({a[key]!r}, not {b[key]!r}{reasons.get(key, '')})"
        for key in a
        if key in b and a[key] != b[key]
    ]


def resolve(config: RunConfig) -> RunConfig:
    """Return the configuration with every `auto` and null that identity needs made definite."""
    engine = config.engine
    if engine.name == "auto":
        engine = engine.model_copy(update={"name": "vmap"})
    algorithm = config.algorithm
    if algorithm.local_lr is None:
        algorithm = algorithm.model_copy(update={"local_lr": config.outer.lr})
    changed = {"engine": engine, "algorithm": algorithm, "outer": resolve_outer(config.outer)}
    return config.model_copy(update=changed)


def num_contributions(config: RunConfig) -> int:
    """Return how many contributions a TRAIN commit has at least, where none is void."""
    sync = config.sync
    if sync.mode == "async":
        return 1  # what is left over before a validation is committed by itself
    return quorum_of(config) if sync.mode == "quorum" else config.topology.slots


def usual_contributions(config: RunConfig) -> int:
    """Return how many contributions a TRAIN commit has in general, where none is void or late."""
    is_async = config.sync.mode == "async"
    return config.sync.async_batch if is_async else num_contributions(config)


def evaluation_shape(config: RunConfig) -> tuple[int, int]:
    """Return n_way and k_shot of the evaluation tasks."""
    task, evaluation = config.task, config.evaluation
    return evaluation.n_way or task.n_way, evaluation.k_shot or task.k_shot


def units_of_task(config: RunConfig) -> int:
    """Return how many units a task is drawn from: n_way classes, or one alphabet, or one split."""
    return config.task.n_way if config.task.unit == "class" else 1


def quorum_of(config: RunConfig) -> int:
    """Return K of the quorum mode: as set, or all slots but a fifth of them (at least one)."""
    slots, quorum = config.topology.slots, config.sync.quorum
    return quorum if quorum is not None else max(1, slots - max(1, slots // 5))


def most_pipelines(config: RunConfig) -> int:
    """Return how many pipelines may be active at a time."""
    return config.clustering.max_pipelines or config.clustering.pipelines


def from_mapping(values: object, origin: str = "configuration") -> RunConfig:
    """Return the checked configuration that a plain mapping holds.

    Raises:
        ConfigError: one sentence naming the key, the value and the remedy.
    """
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{origin}: required a mapping of sections, found {type(values).__name__}. "
            "See docs/config.md."
        )
    try:
        return check(RunConfig.model_validate(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_sentence(error.errors()[0])}") from None


def load(path: Path, settings: tuple[str, ...] = ()) -> RunConfig:
    """Return the configuration of a YAML file with `section.key=value` settings on top.

    Raises:
        ConfigError: a missing or malformed file, an unknown key, a wrong value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"configuration {str(path)!r} cannot be read: {reason}. "
            "Give the path of a YAML file, such as one of configs/."
        ) from None
    return from_text(text, str(path), settings)


def from_text(text: str, origin: str, settings: tuple[str, ...] = ()) -> RunConfig:
    """Return the configuration of YAML text with settings on top; see `load`."""
    values = values_of(text, origin)
    if settings:
        values = with_settings(values, settings)
    return from_mapping(values, origin)


def to_text(config: RunConfig) -> str:
    """Return the configuration as YAML, in the schema's order."""
    plain = config.model_dump(mode="json")
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _sentence(error: ErrorDetails) -> str:
    # pydantic names the branch of a union in the path, such as "literal['auto']"
    path = [str(p) for p in error["loc"] if not (isinstance(p, str) and p.startswith("literal["))]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = (
            list(RunConfig.model_fields)
            if len(path) == 1
            else [key for section, key, _ in keys() if section == path[0]]
        )
        within = "section" if len(path) == 1 else f"key of {path[0]!r}"
        return unknown_sentence(within, path[-1], known)
    if error["type"] == "model_type":
        return f"section {name!r}: required keys and values, found {error['input']!r}."
    message = error["msg"].removeprefix("Value error, ")
    return f"{name} = {error['input']!r}: {message[0].lower()}{message[1:]}. See docs/config.md."
