"""Modules as files that need no dmaml: a state_dict in safetensors, or an ONNX graph.

Every file is written to memory first, read back, and compared with what it must give; only then
does it appear, whole.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from dmaml.common.errors import ConfigError, HostError, RunTimeError
from dmaml.common.places import require_place
from dmaml.worker.tasks.cache import write_whole

TOLERANCE: Final = 1e-5  # of a probability, or relative to a value larger than 1
_ROUNDING: Final = 4 * float(np.finfo(np.float32).eps)  # of scores, relative to the largest
SAFETENSORS: Final = ".safetensors"
ONNX: Final = ".onnx"


def checked_path(file: str | Path) -> Path:
    """Return the path; raise where nothing can be written there.

    Raises:
        ConfigError: another ending, a folder, or a place that is no folder.
        HostError: `.onnx` without the packages that it needs.
    """
    path = Path(file).expanduser()
    if path.suffix not in (SAFETENSORS, ONNX):
        raise ConfigError(
            f"{str(path)!r}: required the name of a file that ends in {SAFETENSORS} or {ONNX}."
        )
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder. Give the name of a file.")
    require_place(path, repr(str(path)), "Give another place.")
    if path.suffix == ONNX:
        _require_onnx()
    return path


def save(
    module: nn.Module,
    facts: dict[str, Any],
    x: Tensor,
    wanted: Tensor,
    path: Path,
    largest: float = 0.0,
) -> None:
    """Write a module, after a comparison of the copy with what it must give.

    The two may differ by 1e-5 of a probability, or of a value (relative to those above 1). Scores
    in the hundreds, squared distances for example, are themselves not known so well in float32: a
    probability may then differ by 4 float32 epsilons of the largest.

    Args:
        module: in evaluation mode.
        facts: what goes with it as text; values of any kind that JSON has, others by `str`.
        x: examples, `[N, *input_shape]`, N >= 1.
        wanted: what it must give for them.
        path: ends in `.safetensors` or `.onnx`.
        largest: of the scores behind probabilities, absolute.

    Raises:
        HostError: `.onnx` without the packages that it needs.
        ConfigError: it cannot be written.
        RunTimeError: the copy gives something else.
    """
    texts = {name: json.dumps(value, default=str) for name, value in facts.items()}
    data, gives = (_safetensors if path.suffix == SAFETENSORS else _onnx)(module, texts, x)
    _require_same(gives(x), wanted, max(TOLERANCE, _ROUNDING * largest), path)
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise ConfigError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Give another place."
        ) from error


def source_of(module: nn.Module) -> str | None:
    """Return Python that makes the module with fresh values, or None.

    It names `nn` of torch and `OrderedDict` alone; None where a layer is none of torch's own.
    """
    if type(module) is nn.Sequential:
        parts = [(name, source_of(child)) for name, child in module.named_children()]
        if any(source is None for _, source in parts):
            return None
        inner = ", ".join(f"({name!r}, {source})" for name, source in parts)
        return f"nn.Sequential(OrderedDict([{inner}]))"
    is_plain = type(module).__module__.startswith("torch.nn.modules.")
    return f"nn.{module!r}" if is_plain and not list(module.children()) else None


Written = tuple[bytes, Callable[[Tensor], Tensor]]


def _safetensors(module: nn.Module, texts: dict[str, str], x: Tensor) -> Written:
    """Return the file, and what a fresh module gives with the values read from it."""
    source = source_of(module)
    if source is not None:
        texts = texts | {"module": source}
    state = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
    data = save_tensors(state, {"format": "pt", **texts})
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    twin.load_state_dict(load_tensors(data))

    @torch.no_grad()
    def gives(x: Tensor) -> Tensor:
        outputs: Tensor = twin(x)
        return outputs

    return data, gives


def _onnx(module: nn.Module, texts: dict[str, str], x: Tensor) -> Written:
    """Return the graph, and what ONNX's own reference gives for it."""
    onnx = _require_onnx()
    from onnx.reference import ReferenceEvaluator

    several = torch.cat([x, x])[: max(2, min(len(x), 8))]  # one alone would be taken for a constant
    name = json.loads(texts.get("gives", '"outputs"'))
    with warnings.catch_warnings(), _silent("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            module,
            (several,),
            dynamo=True,
            verbose=False,
            input_names=["examples"],
            output_names=[name],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString()
    evaluator = ReferenceEvaluator(onnx.load(io.BytesIO(data)))

    def gives(x: Tensor) -> Tensor:
        (outputs,) = evaluator.run(None, {"examples": x.numpy()})
        return torch.from_numpy(np.array(outputs))

    return data, gives


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep what a logger and those below it say, errors apart, to themselves."""
    above = logging.getLogger(name)
    before = above.level
    above.setLevel(logging.ERROR)
    try:
        yield
    finally:
        above.setLevel(before)


def _require_onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise HostError(
            f"an ONNX file needs the package {error.name}, which is not installed: "
            "pip install 'dmaml[onnx]'. A .safetensors file needs nothing more."
        ) from None
    return onnx


def _require_same(found: Tensor, wanted: Tensor, allowed: float, path: Path) -> None:
    found_values, wanted_values = (_array(one) for one in (found, wanted))
    scale = np.maximum(1.0, np.abs(wanted_values))
    gap = float(np.max(np.abs(found_values - wanted_values) / scale, initial=0.0))
    if not gap <= allowed:
        raise RunTimeError(
            f"{str(path)!r} was not written: the exported model differs by {gap:.2e} from the "
            f"original (allowed {allowed:.2e}). Please report it with the run's config.yaml."
        )


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.detach().double().numpy()
