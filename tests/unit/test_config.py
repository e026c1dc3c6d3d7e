"""The schema: what it accepts, what it says, and which keys are a run's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmaml.common import config as configuration
from dmaml.common import sections
from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError

# section.key -> another valid value; a test below proves that no key is left out
OTHER: dict[str, Any] = {
    "run.name": "other", "run.seed": 2, "run.rounds": 5, "run.threads": 2,
    "run.hardware": "mixed",
    "task.source": "omniglot", "task.splits": "vinyals", "task.n_way": 3, "task.k_shot": 2,
    "task.k_query": 7, "task.unit": "alphabet", "task.rotations": True, "task.image_size": 20,
    "task.options": {"a": 1},
    "model.name": "mlp", "model.width": 8, "model.hidden": [3], "model.batch_norm": True,
    "model.init": "glorot",
    "model.options": {"a": 1},
    "algorithm.name": "a.b:C", "algorithm.order": "first", "algorithm.inner_lr": 0.1,
    "algorithm.inner_steps": 3, "algorithm.inner_reduction": "sum_over_ways",
    "algorithm.tasks": 4, "algorithm.task_reduction": "sum", "algorithm.local_steps": 2,
    "algorithm.local_lr": 0.5, "algorithm.inner_clip": 2.0, "algorithm.options": {"a": 1},
    "algorithm.first_order_rounds": 3, "algorithm.adapt": "head", "algorithm.per_step": ["norm*"],
    "engine.name": "loop", "engine.chunk": 2,
    "topology.slots": 2, "topology.parts": 2,
    "sync.wire_dtype": "bfloat16",
    "weights.name": "a.b:C", "weights.options": {"a": 1},
    "aggregation.name": "a.b:C", "aggregation.max_norm": 3.0, "aggregation.options": {"a": 1},
    "outer.name": "sgd", "outer.lr": 0.1, "outer.beta1": 0.5, "outer.beta2": 0.5,
    "outer.eps": 0.1, "outer.weight_decay": 0.1, "outer.warmup": 7,
    "clustering.name": "a.b:C", "clustering.options": {"a": 1},
    "evaluation.every": 2, "evaluation.tasks": 5, "evaluation.steps": 1, "evaluation.n_way": 4,
    "evaluation.k_shot": 3, "evaluation.k_query": 2,
    "evaluation.split": "train", "evaluation.test_tasks": 3,
    "server.max_inflight_bytes": 5, "server.spool": False, "server.max_model_bytes": 6,
    "server.max_workers": 7, "server.session_s": 1.0, "server.item_timeout_s": 2.0,
    "server.checkpoint_every": 3, "server.speculation": True, "server.tensorboard": True,
    "sync.mode": "async",
}  # fmt: skip
# section.key -> another valid value, and what else its section must say
WITH_ANOTHER: dict[str, tuple[Any, dict[str, Any]]] = {
    "algorithm.epsilon": (0.1, {"order": "finite_difference"}),
    "algorithm.initial_lr": (0.2, {"inner_lr": "learned", "initial_lr": 0.1}),
    "algorithm.multi_step_rounds": (5, {"inner_steps": 2}),
    "algorithm.per": ("layer", {"inner_lr": "learned", "initial_lr": 0.1}),
    "clustering.pipelines": (2, {"name": "a.b:C"}),
    "clustering.max_pipelines": (3, {"name": "a.b:C"}),
    "outer.momentum": (0.5, {"name": "sgd"}),
    "outer.nesterov": (True, {"name": "sgd", "momentum": 0.5}),
    "outer.schedule": ("linear", {}),
    "outer.final": (0.1, {"schedule": "linear"}),
    "outer.step_every": (6, {"schedule": "step", "step_every": 5}),
    "outer.step_factor": (0.5, {"schedule": "step", "step_every": 5}),
    "sync.quorum": (2, {"mode": "quorum"}),
    "sync.grace_s": (2.0, {"mode": "quorum"}),
    "sync.late": ("merge", {"mode": "quorum"}),
    "sync.late_discount": (1.0, {"mode": "quorum", "late": "merge"}),
    "sync.window": (2, {"mode": "async"}),
    "sync.max_staleness": (4, {"mode": "async"}),
    "sync.async_batch": (3, {"mode": "async"}),
    "faults.kind": ("shuffled_labels", {"kind": "scaled_gradient", "slots": [0]}),
    "faults.slots": ([1], {"kind": "shuffled_labels", "slots": [0]}),
    "faults.scale": (-1.0, {"kind": "scaled_gradient", "slots": [0]}),
}
ONE_VALUE = {"run.device"}
NAMED = sections.keys()
KEYS = {f"{section}.{key}": field for section, key, field in NAMED}


def load(text: str, *settings: str) -> RunConfig:
    return configuration.from_text(text, "x.yaml", settings)


def refusal(text: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, *settings)
    return str(caught.value)


# -- identity --------------------------------------------------------------------------------------


def test_every_key_has_another_value_in_these_tests():
    assert {*OTHER, *WITH_ANOTHER, *ONE_VALUE} == set(KEYS)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_identity_changes_if_and_only_if_a_semantic_key_changes(name):
    section, key = name.split(".")
    plain = RunConfig()

    changed = configuration.from_mapping({section: {key: OTHER[name]}})

    assert changed != plain
    is_same = configuration.identity(changed) == configuration.identity(plain)
    assert is_same is not configuration.is_semantic(KEYS[name])
    phrases = configuration.differing(changed, plain)
    assert [p.split(" ")[0] for p in phrases] == ([] if is_same else [name])


@pytest.mark.parametrize("name", sorted(WITH_ANOTHER))
def test_key_that_goes_with_another_one_is_part_of_the_identity(name):
    section, key = name.split(".")
    value, base = WITH_ANOTHER[name]
    one = configuration.from_mapping({section: base})

    two = configuration.from_mapping({section: {**base, key: value}})

    before = configuration.semantic(one)[name]
    assert configuration.differing(two, one) == [f"{name} ({value!r}, not {before!r})"]
    assert configuration.identity(two) != configuration.identity(one)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_length_of_the_run_is_part_of_the_identity_where_the_rate_depends_on_it(schedule):
    short, long = (
        load(f"{{run: {{rounds: {n}}}, outer: {{schedule: {schedule}}}}}") for n in (5, 9)
    )

    assert configuration.identity(short) != configuration.identity(long)
    assert configuration.differing(long, short) == [
        f"run.rounds (9, not 5, and outer.schedule '{schedule}' depends on it)"
    ]


@pytest.mark.parametrize("outer", ["{}", "{warmup: 50}", "{schedule: step, step_every: 3}"])
def test_length_of_the_run_is_not_part_of_the_identity_elsewhere(outer):
    short, long = (load(f"{{run: {{rounds: {n}}}, outer: {outer}}}") for n in (5, 9))

    assert configuration.identity(short) == configuration.identity(long)
    assert configuration.differing(long, short) == []


def test_another_schedule_is_told_as_such_and_not_by_the_length_of_the_run():
    constant, cosine = (
        load("run: {rounds: 5}"),
        load("{run: {rounds: 9}, outer: {schedule: cosine}}"),
    )

    for ours, theirs in ((constant, cosine), (cosine, constant)):
        (phrase,) = configuration.differing(ours, theirs)
        assert phrase.startswith("outer.schedule ")


def test_every_key_says_what_it_is_and_whether_it_is_semantic():
    for name, field in KEYS.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra["semantic"], bool), name


def test_operational_keys_are_those_that_cannot_change_theta():
    operational = {name for name, field in KEYS.items() if not configuration.is_semantic(field)}

    assert {name.split(".")[0] for name in operational} == {"run", "evaluation", "server"}
    assert {name for name in operational if name.startswith("run.")} == {
        "run.name", "run.rounds", "run.hardware",
    }  # fmt: skip


def test_spelling_of_a_value_does_not_change_the_identity():
    one = load("outer: {lr: 1}")
    other = load("outer: {lr: 1.0}")

    assert configuration.identity(one) == configuration.identity(other)


def test_resolve_makes_every_auto_definite_and_is_idempotent():
    resolved = configuration.resolve(load("outer: {lr: 0.25}"))

    assert resolved.engine.name == "vmap"
    assert resolved.algorithm.local_lr == 0.25
    assert configuration.resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("name", "eps", "weight_decay"),
    [
        ("sgd", 1e-8, 0.0), ("adam", 1e-8, 0.0), ("adamw", 1e-8, 0.01), ("adagrad", 1e-10, 0.0),
        ("yogi", 1e-3, 0.0),
    ],
)  # fmt: skip
def test_resolve_gives_each_optimiser_its_own_numbers(name, eps, weight_decay):
    outer = configuration.resolve(load(f"outer: {{name: {name}}}")).outer

    assert (outer.eps, outer.weight_decay) == (eps, weight_decay)
    assert load(f"outer: {{name: {name}, eps: {outer.eps}, weight_decay: {outer.weight_decay}}}")


def test_resolve_leaves_what_was_said():
    config = load(
        "{engine: {name: loop}, algorithm: {local_lr: 0.5}, outer: {eps: 1, weight_decay: 0}}"
    )

    assert configuration.resolve(config) == config


# -- reading ---------------------------------------------------------------------------------------


def test_empty_file_is_the_default_configuration():
    assert load("") == load("{}") == RunConfig()


@pytest.mark.parametrize("name", [None, *OTHER])
def test_yaml_round_trip_keeps_the_configuration(name):
    values = {} if name is None else {name.split(".")[0]: {name.split(".")[1]: OTHER[name]}}
    config = configuration.from_mapping(values)

    assert load(configuration.to_text(config)) == config


def test_published_configurations_are_valid():
    files = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

    assert files
    for file in files:
        assert configuration.load(file)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4096", 4096), ("64KiB", 65536), ("64 KiB", 65536), ("1.5GiB", 3 * 2**29),
        ("2MB", 2_000_000), ("1gib", 2**30), ("7B", 7), ("3kB", 3000),
    ],
)  # fmt: skip
def test_sizes_are_read_with_their_units(text, num_bytes):
    assert load(f"server: {{max_model_bytes: {text}}}").server.max_model_bytes == num_bytes


@pytest.mark.parametrize("text", ["1XB", "-1", "0", "KiB", "1 2", "''", "1.5.2MB", "0.2"])
def test_other_sizes_are_refused(text):
    assert "server.max_model_bytes" in refusal(f"server: {{max_model_bytes: {text}}}")


# -- what it says ----------------------------------------------------------------------------------


def test_unknown_key_is_named_with_the_near_one():
    assert refusal("task: {n_wya: 3}").startswith(
        "x.yaml: unknown key of 'task' 'n_wya'. Did you mean 'n_way'? Known: "
    )


def test_unknown_section_is_named_with_the_near_one():
    assert "unknown section 'tsak'. Did you mean 'task'?" in refusal("tsak: {}")


def test_key_of_another_section_is_unknown():
    sentence = refusal("task: {inner_lr: 1}")

    assert "unknown key of 'task' 'inner_lr'" in sentence
    assert "momentum" not in sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("task: {n_way: many}", ("task.n_way = 'many'", "valid integer")),
        ("task: {n_way: 0}", ("task.n_way = 0", "greater than or equal to 1")),
        ("task: {n_way: 2.5}", ("task.n_way = 2.5", "integer")),
        ("task: {n_way: null}", ("task.n_way = None", "integer")),
        ("outer: {lr: .nan}", ("outer.lr = nan", "finite")),
        ("outer: {lr: .inf}", ("outer.lr = inf", "finite")),
        ("outer: {lr: 0}", ("outer.lr = 0", "greater than 0")),
        ("outer: {name: lion}", ("outer.name = 'lion'", "'sgd', 'adam', 'adamw', 'adagrad'")),
        ("outer: {schedule: cos}", ("outer.schedule = 'cos'", "'cosine', 'linear' or 'step'")),
        ("outer: {momentum: 1}", ("outer.momentum = 1", "less than 1")),
        ("outer: {weight_decay: -1}", ("outer.weight_decay = -1", "greater than or equal to 0")),
        ("outer: {warmup: -1}", ("outer.warmup = -1", "greater than or equal to 0")),
        ("outer: {warmup: 0.1}", ("outer.warmup = 0.1", "integer")),
        ("outer: {final: 1.1}", ("outer.final = 1.1", "less than or equal to 1")),
        ("outer: {step_every: 0}", ("outer.step_every = 0", "greater than or equal to 1")),
        ("outer: {step_factor: 0}", ("outer.step_factor = 0", "greater than 0")),
        ("model: {hidden: [3, 0]}", ("model.hidden.1 = 0",)),
        ("run: {seed: -1}", ("run.seed = -1",)),
        ("server: {checkpoint_every: 0}", ("server.checkpoint_every = 0:",)),
        ("server: {checkpoint_every: never}", ("server.checkpoint_every = 'never':", "'auto'")),
        ("task: 5", ("section 'task'", "found 5")),
        ("task:", ("section 'task'", "found None")),
        ("task: {options: [1]}", ("task.options = [1]", "dictionary")),
        ("[1, 2]", ("mapping of sections, found list",)),
        ("just text", ("mapping of sections, found str",)),
        ("1: {}", ("keys should be strings",)),
        ("run: {name: 2020-13-45}", ("not valid YAML",)),
        ("task: {n_way: [}", ("not valid YAML at line 1",)),
        ("\ttask: 1", ("not valid YAML at line 1",)),
    ],
)
def test_wrong_value_is_one_sentence_with_key_and_value(text, parts):
    sentence = refusal(text)

    assert all(part in sentence for part in parts), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{topology: {parts: 5}, algorithm: {tasks: 4}}", ("topology.parts 5", "tasks 4")),
        ("{topology: {parts: 2}, algorithm: {local_steps: 2}}", ("parts 2", "local_steps 2")),
        ("clustering: {pipelines: 2}", ("clustering.pipelines 2", "'none'")),
        ("clustering: {max_pipelines: 2}", ("clustering.max_pipelines 2", "'none'")),
        (
            "clustering: {name: 'a.b:C', pipelines: 3, max_pipelines: 2}",
            ("clustering.max_pipelines 2", "clustering.pipelines 3"),
        ),
        ("outer: {momentum: 0.9}", ("outer.momentum 0.9", "outer.name 'adam'", "only sgd reads")),
        ("outer: {nesterov: true}", ("outer.nesterov True", "outer.name 'adam'", "to sgd.")),
        ("outer: {name: sgd, beta1: 0.5}", ("outer.beta1 0.5", "'sgd'", "adam or adamw or yogi.")),
        ("outer: {name: adagrad, beta2: 0.5}", ("outer.beta2 0.5", "outer.name 'adagrad'")),
        ("outer: {name: sgd, eps: 0.1}", ("outer.eps 0.1", "outer.name 'sgd'", "adagrad")),
        ("outer: {name: sgd, nesterov: true}", ("outer.nesterov True", "outer.momentum 0.0")),
        ("outer: {final: 0.1}", ("outer.final 0.1", "outer.schedule 'constant'", "linear read")),
        ("outer: {step_every: 5}", ("outer.step_every 5", "outer.schedule 'constant'")),
        ("outer: {schedule: cosine, step_factor: 0.5}", ("outer.step_factor 0.5", "'cosine'")),
        ("outer: {schedule: step}", ("outer.schedule 'step'", "outer.step_every")),
        (
            "{outer: {schedule: cosine, warmup: 5}, run: {rounds: 5}}",
            ("outer.warmup 5", "run.rounds 5", "'cosine'"),
        ),
        ("sync: {quorum: 2}", ("sync.quorum 2", "sync.mode 'sync'", "or set sync.mode to quorum.")),
        ("sync: {mode: async, grace_s: 0}", ("sync.grace_s 0.0", "sync.mode 'async'")),
        ("sync: {late: merge}", ("sync.late 'merge'", "only quorum reads it")),
        ("sync: {mode: async, late_discount: 1}", ("sync.late_discount 1.0", "sync.mode 'async'")),
        ("sync: {window: 2}", ("sync.window 2", "Leave sync.window out, or set sync.mode to")),
        ("sync: {mode: quorum, window: 2}", ("sync.window 2", "sync.mode 'quorum'")),
        ("sync: {async_batch: 2}", ("sync.async_batch 2", "sync.mode 'sync'")),
        ("sync: {max_staleness: 0}", ("sync.max_staleness 0", "to quorum or async.")),
        (
            "{sync: {mode: quorum, late: merge}, weights: {name: staleness_discount}}",
            ("sync.late_discount 0.5", "twice", "sync.late_discount to 0"),
        ),
        ("sync: {mode: quorum, max_staleness: 2}", ("sync.max_staleness 2", "sync.late to merge.")),
        (
            "sync: {mode: quorum, late_discount: 0}",
            ("sync.late_discount 0.0", "sync.late 'refuse'"),
        ),
    ],
)
def test_combination_that_cannot_work_is_refused(text, parts):
    sentence = refusal(text)

    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    "text",
    [
        "{outer: {schedule: cosine, warmup: 4}, run: {rounds: 5}}",
        "{outer: {schedule: linear, warmup: 4}, run: {rounds: 0}}",
        "{outer: {warmup: 500}, run: {rounds: 5}}",  # the run may grow
        "sync: {mode: sync, quorum: null, grace_s: 1, late: refuse, window: 3, async_batch: 1}",
        "outer: {name: sgd, momentum: 0.0, nesterov: false, beta1: 0.9, eps: 1e-8}",
        "outer: {name: adam, step_every: null, step_factor: 0.1, final: 0}",
    ],
)
def test_key_without_effect_that_says_its_default_and_a_warmup_that_fits_are_taken(text):
    config = load(text)

    assert load(configuration.to_text(configuration.resolve(config)))


def test_as_many_parts_as_tasks_work():
    assert load("{topology: {parts: 4}, algorithm: {tasks: 4}}").topology.parts == 4


def test_missing_file_directory_and_binary_file_are_named(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")

    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(ConfigError, match="cannot be read"):
            configuration.load(path)


def test_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().run.seed = 3  # type: ignore[misc]


# -- --set -----------------------------------------------------------------------------------------


def test_settings_win_over_the_file_and_later_ones_over_earlier_ones():
    config = load("task: {n_way: 3, k_shot: 2}", "task.n_way=4", "task.n_way=20")

    assert (config.task.n_way, config.task.k_shot) == (20, 2)


def test_settings_are_read_as_yaml():
    config = load(
        "", "model.hidden=[7, 8]", "task.rotations=true", "aggregation.max_norm=null",
        "outer.lr=1e-3", "task.source=npz:/a=b.npz", "server.max_model_bytes=1MiB",
    )  # fmt: skip

    assert config.model.hidden == (7, 8)
    assert config.task.rotations is True
    assert config.aggregation.max_norm is None
    assert config.outer.lr == 0.001
    assert config.task.source == "npz:/a=b.npz"
    assert config.server.max_model_bytes == 2**20


def test_settings_reach_into_options():
    config = load(
        "task: {options: {a: {b: 1, c: 2}, z: 0}}", "task.options.a.b=[3, 4]", "task.options.n.m=x"
    )

    assert config.task.options == {"a": {"b": [3, 4], "c": 2}, "z": 0, "n": {"m": "x"}}


@pytest.mark.parametrize("setting", ["task", "task.n_way", "n_way=3", "=3", ".n_way=3", "task.=3"])
def test_malformed_setting_shows_how_it_is_written(setting):
    assert "required section.key=value" in refusal("", setting)


def test_unknown_key_of_a_setting_is_named():
    assert "Did you mean 'n_way'?" in refusal("", "task.n_wya=3")


def test_setting_that_is_no_yaml_is_text():
    assert load("", "run.name=2020-13-45").run.name == "2020-13-45"
    assert load("", "run.name=[").run.name == "["


@pytest.mark.parametrize("text", ["[1, 2]", "just text", "task: 5"])
def test_settings_do_not_hide_a_malformed_file(text):
    assert "found" in refusal(text, "task.n_way=3")


def test_late_answers_may_be_left_to_a_generator_of_ones_own() -> None:
    text = (
        "{sync: {mode: quorum, late: merge, late_discount: 0}, weights: {name: staleness_discount}}"
    )

    config = configuration.from_text(text, "test")

    assert config.weights.name == "staleness_discount"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "weights: {options: {temperature: .nan}}",
            "weights.options.temperature = nan: required a finite number, in the range that "
            "docs/weights.md gives.",
        ),
        (
            "aggregation: {options: {inner: {options: {norms: [1, -.inf]}}}}",
            "aggregation.options.inner.options.norms.1 = -inf: required a finite number, in the "
            "range that docs/weights.md gives.",
        ),
    ],
)
def test_an_option_that_is_no_number_is_refused_by_its_key(text: str, sentence: str) -> None:
    assert refusal(text) == sentence
