"""Where tasks come from: one source per file, found by its name in this table."""

from __future__ import annotations

import difflib
import inspect
import re
from pathlib import Path
from typing import Any, Final

from dmaml.common import plugins
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, UnknownNameError
from dmaml.worker.tasks.base import TaskSource

KIND: Final = "task source"
GROUP: Final = "dmaml.tasks"
SOURCES: Final[dict[str, str]] = {
    "cifar10": "dmaml.worker.tasks.cifar10:cifar10",
    "cifar_fs": "dmaml.worker.tasks.cifar_fs:cifar_fs",
    "fc100": "dmaml.worker.tasks.fc100:fc100",
    "control": "dmaml.worker.tasks.control:Control",
    "folder": "dmaml.worker.tasks.folder:folder",
    "function_families": "dmaml.worker.tasks.function_families:FunctionFamilies",
    "fungi": "dmaml.worker.tasks.fungi:fungi",
    "glyphs": "dmaml.worker.tasks.glyphs:Glyphs",
    "miniimagenet": "dmaml.worker.tasks.miniimagenet:miniimagenet",
    "mixed": "dmaml.worker.tasks.mixed:Mixed",
    "mnist": "dmaml.worker.tasks.mnist:mnist",
    "navigation": "dmaml.worker.tasks.control:navigation",
    "npz": "dmaml.worker.tasks.npz:npz",
    "omniglot": "dmaml.worker.tasks.omniglot:omniglot",
    "sinusoid": "dmaml.worker.tasks.sinusoid:Sinusoid",
    "textures": "dmaml.worker.tasks.textures:TextureSource",
}
WITH_PATH: Final = ("folder", "npz")  # written NAME:PATH
_WITH_DATA_DIR: Final = frozenset(
    {"cifar10", "cifar_fs", "fc100", "fungi", "miniimagenet", "mixed", "mnist", "npz", "omniglot"}
)


def build(config: RunConfig, data_dir: Path | None = None) -> TaskSource:
    """Return the source that `task.source` names.

    It reads a name of `SOURCES` (`npz:PATH` and `folder:PATH` with a path), the name of an
    installed entry point of the group `dmaml.tasks`, or `package.module:Thing`; a user's Thing is
    called as `Thing(config, **config.task.options)`.

    Args:
        config: the run's.
        data_dir: where data files are looked for first (`--data-dir`).

    Raises:
        UnknownNameError: no such source.
        ConfigError: a path too many or too few, options that the source does not take, keys of the
            task that do not go together, a module that cannot be imported.
        DataError: missing, truncated or unsuitable data.
    """
    name, arguments = parse(config.task.source)
    if name in _WITH_DATA_DIR and data_dir is not None:
        arguments = (*arguments, data_dir)
    thing = plugins.find(KIND, GROUP, SOURCES, name)
    options = config.task.options
    _require_bindable(thing, config, arguments, options)
    source: TaskSource = thing(config, *arguments, **options)
    return source


def parse(source: str) -> tuple[str, tuple[Any, ...]]:
    """Return the name to look up and the path, if one is due, of `task.source`.

    Raises:
        UnknownNameError: it reads like a misspelt `npz:PATH` or `folder:PATH`.
        ConfigError: a path is missing, one was given to a source that takes none, or what has a
            colon is neither a path nor `package.module:Thing`.
    """
    name, colon, rest = source.partition(":")
    if name in WITH_PATH:
        if not rest:
            raise ConfigError(f"task.source {source!r} required a path: {name}:PATH.")
        return name, (rest,)
    if colon and name in SOURCES:
        raise ConfigError(f"task.source {source!r}: {name!r} takes no path. Write {name!r} alone.")
    if colon and "." not in name and difflib.get_close_matches(name, WITH_PATH):
        raise UnknownNameError(KIND, name, plugins.known(GROUP, SOURCES))
    if colon and not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", source):
        raise ConfigError(
            f"task.source {source!r}: required npz:PATH, folder:PATH or package.module:Thing."
        )
    return source, ()


def _require_bindable(
    thing: Any, config: RunConfig, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    try:
        inspect.signature(thing).bind(config, *arguments, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"task.options {options!r} do not fit task.source {config.task.source!r}: {error}. "
            "It is called as Thing(config, **options); docs/tasks.md has the options."
        ) from None
