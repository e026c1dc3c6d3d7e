"""Exported models need no dmaml, and give the same."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from dmaml.common.errors import ConfigError, HostError, RunTimeError
from dmaml.learner import Adapted, load
from dmaml.learner.exports import save
from tests.unit.saved_runs import config_of, saved
from tests.unit.test_learner import SINUSOID, task

torch.set_num_threads(1)
NAMES = ["a", "b", "c"]


def adapted(folder: Path, name: str = "maml") -> tuple[Adapted, np.ndarray]:
    config = config_of(algorithm={"name": name, "inner_lr": 0.4})
    learner = load(saved(config, folder))
    x, y, queries = task(learner)
    return learner.adapt(x, [NAMES[label] for label in y]), queries


@pytest.mark.parametrize("name", ["maml", "protonet", "matching", "reptile"])
def test_a_state_dict_is_loaded_without_dmaml(name: str, tmp_path: Path) -> None:
    one, queries = adapted(tmp_path / "run", name)

    file = one.save(tmp_path / "model.safetensors")

    with safe_open(file, "pt") as opened:
        facts = opened.metadata()
    names = {"nn": nn, "OrderedDict": OrderedDict}
    module = eval(facts["module"], names).eval()
    module.load_state_dict(load_file(file))
    with torch.no_grad():
        found = module(torch.from_numpy(queries))
    np.testing.assert_allclose(found, one.predict(queries).probabilities, atol=1e-5)
    assert json.loads(facts["classes"]) == NAMES
    assert json.loads(facts["gives"]) == "probabilities"
    assert json.loads(facts["input_shape"]) == [1, 28, 28]


def test_a_regression_and_a_network_before_adaptation_are_written(tmp_path: Path) -> None:
    wave = load(saved(config_of(**SINUSOID), tmp_path / "wave"))
    glyphs = load(saved(config_of(), tmp_path / "glyphs"))
    x, y, queries = task(wave)
    one = wave.adapt(x, y)

    one.save(tmp_path / "wave.safetensors")
    glyphs.save(tmp_path / "glyphs.safetensors")

    module = one.module()
    module.load_state_dict(load_file(tmp_path / "wave.safetensors"))
    with torch.no_grad():
        found = module(torch.from_numpy(queries))
    np.testing.assert_allclose(found, one.predict(queries).values, rtol=1e-5, atol=1e-6)
    state = load_file(tmp_path / "glyphs.safetensors")
    assert torch.equal(state["head.weight"], glyphs.params["head.weight"].T)
    assert "norm0.running_mean" not in state


@pytest.mark.parametrize("name", ["maml", "matching"])
def test_an_onnx_graph_gives_the_same(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    one, queries = adapted(tmp_path / "run", name)

    file = one.save(tmp_path / "model.onnx")

    graph = onnx.load(file)
    (found,) = ReferenceEvaluator(graph).run(None, {"examples": queries[:3]})
    np.testing.assert_allclose(found, one.predict(queries[:3]).probabilities, atol=1e-5)
    assert [output.name for output in graph.graph.output] == ["probabilities"]
    facts = {prop.key: json.loads(prop.value) for prop in graph.metadata_props}
    assert facts["classes"] == NAMES


def test_onnx_without_its_packages_is_refused_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = adapted(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "onnxscript", None)

    with pytest.raises(HostError, match=r"needs the package onnx.*pip install 'dmaml\[onnx\]'"):
        one.save(tmp_path / "model.onnx")

    assert not (tmp_path / "model.onnx").exists()


def test_what_has_no_plain_form_is_refused(tmp_path: Path) -> None:
    config = config_of(algorithm={"name": "lstm", "inner_lr": 0.4})
    learner = load(saved(config, tmp_path / "run"))
    x, y, _ = task(learner)
    one, _ = adapted(tmp_path / "other")

    with pytest.raises(ConfigError, match="'lstm' reads the support set anew"):
        learner.adapt(x, y).save(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="'lstm' has no plain form"):
        learner.save(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"ends in .safetensors or .onnx"):
        one.save(tmp_path / "model.pt")

    assert not list(tmp_path.glob("model*"))


def test_batch_norm_without_statistics_is_no_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    learner = load(saved(config_of(), tmp_path / "run"))

    with pytest.raises(ConfigError, match=r"Give a support set, or write a .safetensors file"):
        learner.save(tmp_path / "model.onnx")


def test_a_copy_that_gives_something_else_is_not_kept(tmp_path: Path) -> None:
    module, x = nn.Linear(2, 1), torch.ones(3, 2)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    wanted = torch.full((3, 1), 1e-3)

    with pytest.raises(RunTimeError, match=r"not written: the exported model differs by 1.00e-03"):
        save(module, {}, x, wanted, tmp_path / "model.safetensors")

    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    one, _ = adapted(tmp_path / "run")
    x = torch.ones(1, 1)
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file' is no folder. Give another place"):
        one.save(tmp_path / "file" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"cannot be written: .*Give another place"):
        save(nn.Identity(), {}, x, x, tmp_path / "file" / "model.safetensors")
