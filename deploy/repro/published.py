"""Published results: what a paper reports, and what its configuration comes to here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import isfinite
from typing import Final

from dmaml.deploy.repro import thesis
from dmaml.deploy.repro.experiment import (
    CROWDED,
    UNMEASURED,
    Experiment,
    Form,
    Outcome,
    Published,
    Results,
    Table,
    Variant,
    cells_of,
    final_half,
    final_scores,
)
from dmaml.deploy.sweep import Cell, Measured
from dmaml.report.bands import mean_and_half
from dmaml.report.charts import Picture

UNITS: Final = {
    "accuracy": "accuracy, %",
    "accuracy_inductive": "accuracy, inductive, %",
    "mse": "mean squared error",
    "return": "return",
}
_ONE: Final = Variant("run", actors=2)
_SHORT: Final = ("model.width=32", "evaluation.test_tasks=600")
FINN: Final = "Finn and others 2017"
SNELL: Final = "Snell and others 2017"
VINYALS: Final = "Vinyals and others 2016"
SANTORO: Final = "Santoro and others 2016"
NICHOL: Final = "Nichol and others 2018"
ANTONIOU: Final = "Antoniou and others 2019"
LI: Final = "Li and others 2017"
INVESTIGATING: Final = "Investigating MAML, on all 60,000 pictures"
YAO: Final = "Yao and others 2019 (HSML)"


@dataclass(frozen=True)
class Claim:
    """A figure of a paper.

    Attributes:
        value: as printed; accuracy in %.
        step: adaptation steps after which it is measured, -1: the last.
        metric: of the test, `accuracy` (transductive), `accuracy_inductive`, `mse` or `return`.
    """

    value: float
    step: int = -1
    metric: str = "accuracy"

    def __str__(self) -> str:
        after = "" if self.step < 0 else f" after {self.step} step{'' if self.step == 1 else 's'}"
        return UNITS[self.metric] + after

    def measured(self, runs: Sequence[Measured]) -> tuple[float, float] | None:
        """Return mean and 95 % half-width: over seeds, of one run over its test tasks."""
        scale = 100.0 if self.metric.startswith("accuracy") else 1.0
        scores = [scale * score for score in final_scores(runs, self.metric, self.step)]
        if not scores:
            return None
        if len(scores) > 1:
            return mean_and_half(scores)
        return scores[0], scale * final_half(runs, self.metric, self.step)[0]

    def verdict(self, mean: float, half: float) -> str:
        """Return in words how what was measured stands to what is published."""
        if not isfinite(mean):
            return "diverged"
        better = self.value - mean if self.metric == "mse" else mean - self.value
        if better >= 0:
            return "reached"
        return "within the interval" if better + half >= 0 else f"{-better:.{self.digits}f} short"

    @property
    def digits(self) -> int:
        """Digits that are shown."""
        return 3 if self.metric == "mse" else 2


def _experiment(
    name: str,
    title: str,
    source: str,
    claims: tuple[Claim, ...],
    quick: tuple[str, ...],
    about: str = "",
) -> Experiment:
    """Return the experiment of one configuration, `configs/NAME.yaml`.

    Args:
        quick: settings of the quick form.
    """
    config = files("dmaml.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    metric = claims[0].metric.removesuffix("_inductive")
    shown = (metric, "accuracy_inductive") if metric == "accuracy" else (metric,)

    def cells(form: Form) -> tuple[Cell, ...]:
        return cells_of(config, (_ONE,), form, quick if form.quick else ())

    def outcome(form: Form, results: Results) -> Outcome:
        runs = results.of(_ONE, form.seeds)
        beside, rows = [], []
        for claim in claims:
            found = claim.measured(runs)
            words = UNMEASURED if found is None else _words(claim, *found)
            verdict = "" if found is None else claim.verdict(*found)
            beside.append(Published(str(claim), f"{claim.value:g}", words, source, verdict))
        for step in range(runs[0].cell.config.evaluation.steps + 1 if runs else 0):
            at = (Claim(0.0, step, one) for one in shown)
            pairs = [(one, one.measured(runs)) for one in at]
            rows.append(
                (str(step), *("–" if it is None else _words(one, *it) for one, it in pairs))
            )
        panels = tuple(
            thesis.curves(results, (_ONE,), form, by, metric=metric) for by in ("tasks", "seconds")
        )
        seen = [run.finished.tasks_seen for run in runs]
        return Outcome(
            (
                Table(
                    "final test",
                    ("adaptation steps", *(f"{UNITS[o]} ± 95 %" for o in shown)),
                    tuple(rows),
                ),
            ),
            (Picture(name, f"{title}, n = {form.seeds}", panels),),
            tuple(beside),
            {
                "tasks_seen": seen,
                "train_s": [run.finished.train_s for run in runs],
                "theta_sha256": [run.finished.theta_sha256 for run in runs],
            },
        )

    text = f"{about} The quick form has {', '.join(quick)}. {CROWDED}"
    return Experiment(
        name, title, source, text.strip(), config, cells, outcome, quick_seeds=1, full_seeds=1
    )


def _words(claim: Claim, mean: float, half: float) -> str:
    return f"{mean:.{claim.digits}f} ± {half:.{claim.digits}f}"


def _returns(*values: float) -> tuple[Claim, ...]:
    return tuple(Claim(value, step, "return") for step, value in enumerate(values))


def _inductive(value: float) -> tuple[Claim, ...]:
    return (Claim(value, -1, "accuracy_inductive"),)


def _sine(*values: float) -> tuple[Claim, ...]:
    return tuple(Claim(value, step, "mse") for value, step in zip(values, (1, 5, 10), strict=True))


EXPERIMENTS: Final = (
    _experiment(
        "maml_omniglot_5w1s", "MAML on Omniglot, 5-way 1-shot", FINN, (Claim(98.7),),
        (*_SHORT, "run.rounds=500"),
    ),
    _experiment(
        "maml_omniglot_5w5s", "MAML on Omniglot, 5-way 5-shot", FINN, (Claim(99.9),),
        (*_SHORT, "run.rounds=200"),
    ),
    _experiment(
        "omniglot_20w5s", "MAML on Omniglot, 20-way 5-shot", FINN, (Claim(98.9),),
        (*_SHORT, "run.rounds=15"),
    ),
    _experiment(
        "maml_hour_omniglot_5w1s", "MAML with learned rates on Omniglot, 240,000 tasks", FINN,
        (Claim(98.7),), (*_SHORT, "run.rounds=1500"),
        "An eighth of the published tasks.",
    ),
    _experiment(
        "omniglot_20w1s", "MAML on Omniglot, 20-way 1-shot", FINN, (Claim(95.8),),
        (*_SHORT, "run.rounds=60"),
    ),
    _experiment(
        "fomaml_omniglot_5w1s", "First-order MAML on Omniglot, 5-way 1-shot", FINN,
        (Claim(98.3),), (*_SHORT, "run.rounds=600"),
    ),
    _experiment(
        "maml_mlp_omniglot_5w1s", "MAML with an MLP on Omniglot, 5-way 1-shot", FINN,
        (Claim(89.7),), ("evaluation.test_tasks=600", "run.rounds=2000"),
    ),
    _experiment(
        "maml_plus_plus_omniglot_5w1s", "MAML++ on Omniglot, 5-way 1-shot", ANTONIOU,
        (Claim(99.47),), (*_SHORT, "run.rounds=150", "algorithm.multi_step_rounds=50"),
    ),
    _experiment(
        "meta_sgd_omniglot_5w1s", "Meta-SGD on Omniglot, 5-way 1-shot", LI, (Claim(99.53),),
        (*_SHORT, "run.rounds=500"),
    ),
    _experiment(
        "reptile_omniglot_5w1s", "Reptile on Omniglot, 5-way 1-shot, transductive", NICHOL,
        (Claim(97.68),), (*_SHORT, "run.rounds=1000", "evaluation.every=500"),
    ),
    _experiment(
        "reptile_hour_omniglot_5w1s", "Reptile on Omniglot, half an hour's training, transductive",
        NICHOL, (Claim(97.68),), (*_SHORT, "run.rounds=1500", "evaluation.every=500"),
        "A twelfth of the published tasks; plain gradient steps of .4 in place of Adam's.",
    ),
    _experiment(
        "protonet_omniglot_5w1s", "Prototypical networks on Omniglot, 5-way 1-shot", SNELL,
        _inductive(98.8), (*_SHORT, "run.rounds=1000", "outer.step_every=250"),
    ),
    _experiment(
        "protonet_omniglot_20w1s", "Prototypical networks on Omniglot, 20-way 1-shot", SNELL,
        _inductive(96.0), (*_SHORT, "run.rounds=1000", "outer.step_every=250"),
    ),
    _experiment(
        "matching_omniglot_5w1s", "Matching networks on Omniglot, 5-way 1-shot", VINYALS,
        _inductive(98.1), (*_SHORT, "run.rounds=600", "outer.step_every=200"),
    ),
    _experiment(
        "mann_omniglot_5w1s", "MANN on Omniglot, 5-way, second presentation", SANTORO,
        (Claim(82.8),), ("run.rounds=1500", "evaluation.every=300"),
        "The paper's figure is that of a class's second presentation.",
    ),
    _experiment(
        "mann_omniglot_5w5s", "MANN on Omniglot, 5-way, sixth presentation", SANTORO,
        (Claim(94.9),), ("run.rounds=800", "evaluation.every=200"),
        "The paper has 94.9 at the fifth presentation; five support pictures make it the sixth.",
    ),
    _experiment(
        "lstm_omniglot_5w5s", "LSTM on the features of an embedding, Omniglot, 5-way 5-shot",
        f"MANN: {SANTORO}", _inductive(94.9), ("run.rounds=500", "evaluation.test_tasks=600"),
        "The figure beside it is that of the memory-augmented network; the paper has none of an "
        "LSTM with an embedding.",
    ),
    _experiment(
        "sinusoid_5shot", "MAML on sine waves, 5 points", FINN, _sine(0.67, 0.38, 0.35),
        ("run.rounds=3000",),
    ),
    _experiment(
        "sinusoid_5shot_learned", "MAML on sine waves, 5 points, learned rates of five steps", FINN,
        _sine(0.67, 0.38, 0.35), ("run.rounds=1000",),
    ),
    _experiment(
        "meta_sgd_sinusoid_5shot", "Meta-SGD on sine waves, 5 points", f"MAML: {FINN}",
        (Claim(0.67, 1, "mse"),), ("run.rounds=3000",),
        "Meta-SGD is to be better than MAML's published figure, which stands beside it. Its rates "
        "are those of one step: more of them diverge.",
    ),
    _experiment(
        "function_families_hsml", "MAML on four families of functions, 5 points", YAO,
        (Claim(2.205, -1, "mse"),), ("run.rounds=4000", "evaluation.every=1000"),
    ),
    _experiment(
        "miniimagenet_5w1s", "MAML on miniImageNet, 5-way 1-shot", FINN, (Claim(48.7),),
        ("task.image_size=28", "run.rounds=120", "evaluation.every=60",
         "evaluation.test_tasks=300"),
        "The published figure takes pictures of 84×84 and hours of a bigger machine.",
    ),
    _experiment(
        "navigation", "MAML for policies: 2-D navigation, reward of the text", FINN,
        _returns(-40.41, -11.68, -3.33, -3.23),
        ("run.rounds=60", "evaluation.every=20", "evaluation.test_tasks=40"),
        "The published curve is that of the authors' code, whose reward is larger: see "
        "navigation_code and docs/reinforcement.md.",
    ),
    _experiment(
        "navigation_code", "MAML for policies: 2-D navigation, reward of the code", FINN,
        _returns(-40.41, -11.68, -3.33, -3.23),
        ("run.rounds=60", "evaluation.every=20", "evaluation.test_tasks=40"),
    ),
    _experiment(
        "mnist_baseline", "A plain network on MNIST, no meta-learning", INVESTIGATING,
        (Claim(96.71, 0),), ("run.rounds=264",),
        "Its run directory is kept for the feature study. It sees as many pictures as 5 epochs of "
        "60,000; the file that we measured with has 8,000 to train on.",
    ),
)  # fmt: skip
