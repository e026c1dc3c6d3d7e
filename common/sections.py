"""The schema of the run's configuration: one frozen section after another.

Each key is *semantic* (it can change θ, and is part of the run's identity) or *operational*.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from dmaml.common.adaptation import AdaptationSection
from dmaml.common.outer import OuterSection
from dmaml.common.schema import Section, operational, semantic

_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_UNITS |= {"KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}


def parse_bytes(value: object) -> object:
    """Return the number of bytes that `256MiB`, `1GB` or `4096` stand for."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError("a size reads like 4096, 64KiB, 256MiB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)]


def in_order(slots: tuple[int, ...]) -> tuple[int, ...]:
    """Return slots in ascending order; raises ValueError where one is there twice."""
    if len(set(slots)) < len(slots):
        raise ValueError("name each slot once")
    return tuple(sorted(slots))


class RunSection(Section):
    """The run as a whole."""

    name: str = operational("run", "Name of the run; the default run directory is runs/NAME.")
    seed: int = semantic(1, "Seed of every random stream.", ge=0, lt=2**63)
    rounds: int = operational(
        1000,
        "TRAIN rounds (versions) to do; may grow on resume, unless outer.schedule is cosine or "
        "linear: then it is part of the run's identity.",
        ge=0,
    )
    device: Literal["cpu"] = semantic("cpu", "Where tensors are computed.")
    threads: int = semantic(1, "Torch threads of every actor; 1 and 2 give other bits.", ge=1)
    hardware: Literal["same", "mixed"] = operational(
        "same",
        "same: an actor whose numerics differ from the first one's is refused; "
        "mixed: it is let in and the result is declared not reproducible.",
    )


class TaskSection(Section):
    """The source of tasks and the shape of an episode."""

    source: str = semantic(
        "glyphs",
        "A source of docs/tasks.md, npz:PATH, folder:PATH, or package.module:Thing.",
        min_length=1,
    )
    splits: Literal["default", "vinyals", "official"] = semantic(
        "default",
        "How classes are divided. default: vinyals for omniglot, the file's own `split` where it "
        "has one, else 64/16/20 % by seed. vinyals: 1100/100/423 Omniglot classes by seed. "
        "official: background/evaluation, a tenth of the background by seed as validation.",
    )
    n_way: int = semantic(5, "Classes per task (1 for regression).", ge=1)
    k_shot: int = semantic(1, "Support examples per class.", ge=1)
    k_query: int = semantic(5, "Query examples per class in training.", ge=1)
    unit: Literal["class", "alphabet", "split"] = semantic(
        "class",
        "What gamma is about. alphabet: splits go by alphabet and a task's classes share one. "
        "split: each task has all classes of its split, with the same label in every task.",
    )
    rotations: bool = semantic(False, "Rotations by 90, 180, 270 degrees make new classes.")
    image_size: int = semantic(
        28,
        "Height and width of the pictures of folder, fungi, miniimagenet, mixed, textures; pixels.",
        ge=4,
    )
    options: dict[str, Any] = semantic(
        {}, "Keyword arguments of the source (docs/tasks.md), or of the user's own."
    )


class ModelSection(Section):
    """The backbone."""

    name: str = semantic(
        "conv4", "conv4, conv4_pool, conv2, mlp, or package.module:Thing.", min_length=1
    )
    width: int = semantic(64, "Filters of every convolution of conv4, conv4_pool, conv2.", ge=1)
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = semantic(
        (40, 40), "Units of each hidden layer of mlp."
    )
    batch_norm: bool = semantic(False, "Batch norm after each hidden layer of mlp.")
    init: Literal["normal", "glorot"] = semantic(
        "normal",
        "Initial weights of mlp: normal of standard deviation 0.01 (MAML's code), or uniform "
        "within ±√(6 / (in + out)), with which networks without batch norm begin to learn sooner.",
    )
    options: dict[str, Any] = semantic({}, "Keyword arguments of the user's own model.")


class AlgorithmSection(AdaptationSection):
    """How an actor adapts and what it pushes."""

    name: str = semantic(
        "maml",
        "One of docs/algorithms.md or docs/algorithms/learners.md, or package.module:Thing.",
        min_length=1,
    )
    tasks: int = semantic(8, "Tasks per slot and meta-step.", ge=1)
    task_reduction: Literal["mean", "sum"] = semantic(
        "mean", "Meta-gradient of a slot: mean or sum over its tasks."
    )
    local_steps: int = semantic(
        1, "Meta-steps on the actor before it pushes (the thesis's epochs).", ge=1
    )
    local_lr: float | None = semantic(
        None, "Step size of the local meta-steps, the same in every round; null: outer.lr.", gt=0
    )
    options: dict[str, Any] = semantic(
        {}, "Options of the algorithm (docs/algorithms/learners.md), or of the user's own."
    )


class EngineSection(Section):
    """How a batch of tasks is computed."""

    name: Literal["auto", "loop", "vmap"] = semantic(
        "auto", "loop: task by task; vmap: tasks as one batch; auto: vmap."
    )
    chunk: int | None = semantic(
        None,
        "Tasks computed at once by vmap; null: the engine's default (docs/performance.md).",
        ge=1,
    )


class TopologySection(Section):
    """Logical workers."""

    slots: int = semantic(4, "Logical workers W: each contributes one gradient a round.", ge=1)
    parts: int = semantic(1, "Shares of a slot's tasks, so that more actors have work.", ge=1)


class FaultsSection(Section):
    """Slots that are made to answer wrongly, for experiments."""

    kind: Literal["none", "shuffled_labels", "scaled_gradient"] = semantic(
        "none",
        "What is wrong with TRAIN items of `slots`. shuffled_labels: the labels of support and "
        "query examples are permuted, each by itself; scaled_gradient: `scale` times the gradient.",
    )
    slots: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(in_order)] = semantic(
        (), "The faulty slots, from 0, each once."
    )
    scale: float = semantic(-10.0, "Factor of scaled_gradient.")


class SyncSection(Section):
    """When a round closes and what travels."""

    mode: Literal["sync", "quorum", "async"] = semantic(
        "sync",
        "sync: a round closes when every item is in. quorum: when `quorum` slots are in and a time "
        "of grace is over. async: every answer is a commit by itself.",
    )
    quorum: int | None = semantic(
        None,
        "Slots of a round that suffice (mode quorum); null: all but a fifth of them.",
        ge=1,
    )
    grace_s: float = semantic(
        1.0,
        "Longest wait for further slots once the quorum is in; at most a quarter of the time that "
        "the quorum took.",
        ge=0,
    )
    late: Literal["refuse", "merge"] = semantic(
        "refuse",
        "Answers to a round that the quorum closed without them. merge: they count in the next "
        "round, by 1 / (1 + staleness)^late_discount of what they would.",
    )
    late_discount: float = semantic(
        0.5, "Exponent of the discount of merged answers; 0: they count in full.", ge=0
    )
    window: int = semantic(
        3, "Rounds in flight (mode async): round r + window begins when round r is done.", ge=1
    )
    max_staleness: int | None = semantic(
        None,
        "Answers computed from parameters more versions old are refused; null: no limit (in mode "
        "async the window is one).",
        ge=0,
    )
    async_batch: int = semantic(1, "Answers of one pipeline in a commit (mode async).", ge=1)
    wire_dtype: Literal["float32", "bfloat16", "float16"] = semantic(
        "float32", "Number format of gradients on the wire; theta always travels as float32."
    )


class WeightsSection(Section):
    """The weight generator (docs/weights.md)."""

    name: str = semantic(
        "mean",
        "mean, loss_weighted, loss_median, loss_moving_average, staleness_discount, or "
        "package.module:Thing.",
        min_length=1,
    )
    options: dict[str, Any] = semantic({}, "Keyword arguments of the weight generator.")


class AggregationSection(Section):
    """The aggregation rule (docs/weights.md)."""

    name: str = semantic(
        "mean",
        "mean, sum, median, trimmed_mean, krum, multi_krum, clip, or package.module:Thing.",
        min_length=1,
    )
    max_norm: float | None = semantic(
        None, "A contribution with a larger norm is void (weight 0); null: no limit.", gt=0
    )
    options: dict[str, Any] = semantic({}, "Keyword arguments of the aggregation rule.")


class ClusteringSection(Section):
    """The clustering strategy (docs/clustering.md)."""

    name: str = semantic(
        "none",
        "none (one pipeline), kmeans, gamma, mixture, gradient_tree, or package.module:Thing.",
        min_length=1,
    )
    pipelines: int = semantic(
        1, "Pipelines at the start; kmeans: those that it makes.", ge=1, le=64
    )
    max_pipelines: int | None = semantic(
        None, "Most active pipelines that a strategy may open; null: `pipelines`.", ge=1, le=64
    )
    options: dict[str, Any] = semantic({}, "Keyword arguments of the strategy.")


class EvaluationSection(Section):
    """Validation during training and the test at its end."""

    every: int = operational(50, "TRAIN rounds between two validations; 0: never.", ge=0)
    tasks: int = operational(100, "Tasks of a validation, the same each time.", ge=1)
    steps: int = operational(3, "Adaptation steps; figures are given after 0..steps.", ge=0)
    n_way: int | None = operational(
        None,
        "Classes per task in evaluation; null: task.n_way. Another one needs an algorithm whose "
        "outputs are not tied to it (protonet, matching, pretrain).",
        ge=1,
    )
    k_shot: int | None = operational(
        None, "Support examples per class in evaluation; null: task.k_shot.", ge=1
    )
    k_query: int = operational(15, "Query examples per class in evaluation.", ge=1)
    split: Literal["validation", "test", "train"] = operational(
        "validation", "Classes used during training; `evaluate` uses test."
    )
    test_tasks: int = operational(600, "Tasks of the final test; 0: no test.", ge=0)


class ServerSection(Section):
    """Limits and times of the server."""

    max_inflight_bytes: Bytes = operational(
        256 * 1024**2, "Memory for the gradients of one round (256MiB)."
    )
    spool: bool = operational(
        True, "Gradients beyond max_inflight_bytes go to a memory-mapped file."
    )
    max_model_bytes: Bytes = operational(1024**3, "Largest meta-model that is taken (1GiB).")
    max_workers: int = operational(1024, "Most actors at a time.", ge=1)
    session_s: float = operational(10.0, "An actor that says nothing for so long is gone.", gt=0)
    item_timeout_s: float = operational(
        120.0, "Time to do one work item; the n-th attempt gets n times as long.", gt=0
    )
    speculation: bool = operational(
        False,
        "An item that takes an actor longer than 1.5 times the median goes to an idle one too; "
        "the first answer wins. Changes no bit in mode sync.",
    )
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = operational(
        "auto",
        "Rounds between checkpoints; auto: every round while that costs 5 % of it or less. Modes "
        "quorum and async write before they publish a version, whatever is said here.",
    )
    tensorboard: bool = operational(
        False, "Write scalars and γ histograms for TensorBoard into the run directory."
    )


class RunConfig(Section):
    """One training job."""

    run: RunSection = RunSection()
    task: TaskSection = TaskSection()
    model: ModelSection = ModelSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    engine: EngineSection = EngineSection()
    topology: TopologySection = TopologySection()
    faults: FaultsSection = FaultsSection()
    sync: SyncSection = SyncSection()
    weights: WeightsSection = WeightsSection()
    aggregation: AggregationSection = AggregationSection()
    outer: OuterSection = OuterSection()
    clustering: ClusteringSection = ClusteringSection()
    evaluation: EvaluationSection = EvaluationSection()
    server: ServerSection = ServerSection()


def keys() -> Iterator[tuple[str, str, Any]]:
    """Yield (section, key, pydantic field) for every key of the schema, in its order."""
    for section, outer in RunConfig.model_fields.items():
        annotation = outer.annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Section)
        for key, field in annotation.model_fields.items():
            yield section, key, field
