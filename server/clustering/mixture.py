"""EM over pipelines: each unit goes where its query samples are most likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import numpy as np

from dmaml.common.config import RunConfig, most_pipelines, units_of_task
from dmaml.common.gamma import Gamma
from dmaml.common.options import choice, count, number
from dmaml.common.probes import FEATURES, Probe, ProbeKind
from dmaml.common.seeds import Float64, Int64, Kind, Stream, stream
from dmaml.server.clustering import evidence, partition, tree
from dmaml.server.clustering.base import Observations, State
from dmaml.server.clustering.evidence import Evidence, Fit
from dmaml.server.clustering.grouping import FULL, TIED, faint, grouped
from dmaml.server.clustering.partition import members_of, replaced, versioned
from dmaml.server.core.progress import Progress

PAGE: Final = "docs/clustering/mixture.md"
FIRST: Final = {
    "embedding": ProbeKind.EMBEDDING,
    "pixels": ProbeKind.PIXELS,
    "sketches": ProbeKind.SKETCHES,
    "losses": ProbeKind.LOSSES,
}
RANDOM: Final = "random"
SCALES: Final = ("raw", "log")
_FAINT: Final = 0.02  # what γ differs by at random
_LEAST_LOSS: Final = 1e-12  # whose logarithm is taken
_LEAST: Final = 1e-4  # a_uk: losses can overrule every split
_SETTLE: Final = 3  # cycles after a split before two pipelines may be merged
_SPLITS: Final = 1 << 20  # index of the streams of splits: beyond those of other strategies


@final
class Mixture:
    """A mixture of meta-learners, fitted by EM while they train.

    1. `warmup` rounds train pipeline 0 on everything.
    2. First split: groups of the units' means of `first` at that θ (`grouping`: a mixture of
       Gaussians, with one `covariance` or, of functions, one of each group, in the space where
       single samples are white noise). The other pipelines are opened as copies of pipeline 0, and
       each trains on its group.
    3. Every `every` rounds a PROBE brings the losses of the same query samples under all
       pipelines. They are added to the evidence and γ is fitted to it anew (the equations are in
       `evidence`): the E-step. Training on the units of largest γ is the M-step. `cycles` times.

    The parts that carry it: differences between pipelines of one sample, not losses; a middle
    between the pipelines' own units, never the mean of all units, and class priors π, so that
    origins may differ in size; every unit's standard error, so that a temperature has a meaning;
    the evidence of all rounds; and the split itself, which stays as what the features say of a
    unit, a_uk ∝ γ_uk / π_k: where a learner is too weak for its losses to tell units apart, γ
    keeps to it, and losses that do tell overrule it.

    A pipeline that has fewer than max(n_way, `least` U / K) units is starved (where a unit is an
    alphabet, 1 takes the place of n_way): it is retired and another is split in two as in step 2,
    at its present θ: the one whose units gain most by it (`grouping`; sketches, which are of one
    pipeline's units: the largest). Evidence is gathered anew. `reseeds` times at most. With `moves`
    and 3 pipelines or more, the two whose units are least apart, |μ_p − μ_q|² < `overlap`² (τ² +
    mean σ²/n), are merged, and another is split in the same way. With `restarts` steps 2 and 3 are
    tried from the same θ, which waits in pipeline 0, each for `trial` cycles; the try with the
    largest held-out gain

        mean_u (ℓ_u,warm − Σ_p γ_up ℓ_up)

    over query samples that γ has not seen is gone on with.

    Args:
        config: `clustering.pipelines` is K; restarts need `clustering.max_pipelines` K + 1.
        first: embedding, pixels, sketches (of adaptation gradients), losses, random,
            or a list of these, which restarts take in turn; None: embedding, of regression
            sketches.
        warmup: TRAIN rounds on everything before the first split; 0 is right for sketches, which
            an untrained θ gives as well, and wrong for embeddings, which it does not.
        every: TRAIN rounds between two cycles.
        cycles: of EM; then γ stays. None: to the end of the run.
        visits: of each unit by a cycle, on the average; as many tasks as that takes.
        split_visits: the same of the sketches or losses of a split; None: 4, of regression 16.
        samples: of each unit, of embedding and pixels.
        dims: columns of sketches; wider features are projected to so many, 0: never.
        memory: λ, of evidence from one cycle to the next; 1 forgets nothing.
        temperature: T of the first cycle, >= 1.
        cooling: each cycle T falls to max(1, cooling T).
        clip: a loss difference counts for at most so many median deviations.
        scale: raw or log losses; None: raw, of regression log, the log-likelihood of a Gaussian
            whose variance is the episode's own.
        least: share of an equal share below which a pipeline is starved; 0: never.
        reseeds: most re-seedings of starved pipelines.
        restarts: first splits that are tried.
        trial: cycles of each try.
        moves: most split-and-merge moves.
        overlap: pipelines less apart than so many deviations may be merged.
        covariance: of the groups of a split: tied, one for all, or full, of each its own: groups
            of one mean are found by the directions that they differ in, sketches count with their
            lengths (else all have length 1), and odd units are moved in less. None: tied, of
            regression full.

    Raises:
        ValueError: an unsuitable option.

    References:
        Dempster, Laird, Rubin (1977), and Ueda, Nakano (1998), as in `evidence`.
        Ueda, Nakano, Ghahramani, Hinton, "SMEM algorithm for mixture models" (2000): split and
        merge. Theirs are accepted by the likelihood afterwards; θ cannot be taken back here, so
        ours are accepted beforehand, by `overlap`.
    """

    def __init__(
        self,
        config: RunConfig,
        first: str | Sequence[str] | None = None,
        warmup: int = 600,
        every: int = 50,
        cycles: int | None = 12,
        visits: float = 2.0,
        split_visits: float | None = None,
        samples: int = 20,
        dims: int = 512,
        memory: float = 0.9,
        temperature: float = 2.0,
        cooling: float = 0.5,
        clip: float = 5.0,
        scale: str | None = None,
        least: float = 0.1,
        reseeds: int = 3,
        restarts: int = 1,
        trial: int = 3,
        moves: int = 0,
        overlap: float = 2.0,
        covariance: str | None = None,
    ) -> None:
        def counted(name: str, value: object, least: int) -> int:
            return count(name, value, least=least, page=PAGE)

        is_regression = config.task.n_way == 1
        self._first = firsts(first, is_regression)
        given = scale if scale is not None else ("log" if is_regression else "raw")
        self._is_log = choice("scale", given, SCALES) == "log"
        given = covariance if covariance is not None else (FULL if is_regression else TIED)
        self._covariance = choice("covariance", given, (TIED, FULL))
        self._warmup, self._every = counted("warmup", warmup, 0), counted("every", every, 1)
        self._cycles = None if cycles is None else counted("cycles", cycles, 1)
        self._visits = number("visits", visits, "> 0", lambda x: x > 0, page=PAGE)
        if split_visits is None:
            split_visits = 16.0 if is_regression else 4.0
        self._split_visits = number("split_visits", split_visits, "> 0", lambda x: x > 0, page=PAGE)
        self._samples, self._dims = counted("samples", samples, 1), counted("dims", dims, 0)
        self._memory = number("memory", memory, "> 0 and <= 1", lambda x: 0 < x <= 1, page=PAGE)
        self._temperature = number("temperature", temperature, ">= 1", lambda x: x >= 1, page=PAGE)
        self._cooling = number("cooling", cooling, "> 0 and <= 1", lambda x: 0 < x <= 1, page=PAGE)
        self._clip = number("clip", clip, ">= 1", lambda x: x >= 1, page=PAGE)
        self._least = number("least", least, ">= 0 and < 1", lambda x: 0 <= x < 1, page=PAGE)
        self._overlap = number("overlap", overlap, ">= 0", lambda x: x >= 0, page=PAGE)
        self._reseeds, self._moves = counted("reseeds", reseeds, 0), counted("moves", moves, 0)
        self._restarts, self._trial = counted("restarts", restarts, 1), counted("trial", trial, 1)
        self._units_a_task = units_of_task(config)  # so many a pipeline needs to train
        self._seed = config.run.seed
        self._size = config.clustering.pipelines
        if self._size < 2:
            raise ValueError("clustering.pipelines must be 2 or more. Set it.")
        if "sketches" in self._first and not self._dims:
            raise ValueError(f"dims = {dims!r}: sketches need 1 or more. See {PAGE}.")
        if self._restarts > 1 and most_pipelines(config) <= self._size:
            raise ValueError(
                f"restarts = {restarts!r}: the warmed-up pipeline waits beside the others, so "
                f"clustering.max_pipelines must be {self._size + 1} or more. Set it."
            )

    def initial(self) -> State:
        """Return one pipeline that everything belongs to."""
        values = {
            "version": 0, "tree": tree.roots(1), "phase": "warmup", "due": self._warmup,
            "cycle": 0, "splits": 0, "attempt": 0, "donor": 0, "is_waiting": False,
            "reseeds": 0, "moves": 0, "gains": [], "priors": [], "spread": 0.0,
        }  # fmt: skip
        return State(values)

    def plan(self, state: State, progress: Progress) -> Probe | None:
        """Ask for the units, then for features of a pipeline to split, then for losses."""
        phase, donor = state.values["phase"], state.values["donor"]
        if phase == "done" or progress.trained < state.values["due"]:
            return None
        if phase == "warmup":
            return Probe(ProbeKind.UNITS)
        if phase == "em":
            return Probe(ProbeKind.LOSSES, tasks=self._tasks(state, self._visits))
        kind, tasks = FIRST[self._way(state)], self._tasks(state, self._split_visits)
        if kind is ProbeKind.LOSSES:
            return Probe(kind, tasks=tasks)
        if kind is ProbeKind.SKETCHES:
            return Probe(kind, donor, tasks=tasks, dims=self._dims)
        return Probe(kind, donor, samples=self._samples, dims=self._dims)

    def observe(self, state: State, observations: Observations) -> State:
        """Take in a PROBE round."""
        phase, trained = state.values["phase"], observations.trained
        if phase == "warmup":
            arrays = {
                "trained": np.unique(observations.units),
                "gamma": np.ones((observations.num_units, 1)),
            }
            after = self._ask(replaced(state, arrays), 0, trained)
        elif phase == "split":
            after = self._split(state, trained, *self._groups(state, observations))
        else:
            after = self._cycle(state, observations)
        return versioned(state, after)

    def route(self, state: State) -> Gamma:
        """Return γ in force."""
        values = state.values
        nodes, phase = values["tree"], values["phase"]
        return Gamma(
            values["version"],
            tree.active(nodes),
            partition.matrix_of(state),
            tree.pipelines_of(nodes),
            f"em {values['cycle']}" if phase == "em" else phase,
        )

    def _tasks(self, state: State, visits: float) -> int:
        return math.ceil(visits * len(state.arrays["trained"]) / self._units_a_task)

    def _way(self, state: State) -> str:
        attempt: int = state.values["attempt"]
        return self._first[attempt % len(self._first)]

    def _stream(self, state: State) -> Stream:
        return stream(self._seed, Kind.SERVER, _SPLITS, 0, state.values["splits"])

    def _parts(self, state: State) -> int:
        return self._size - len(members_of(state)) + 1

    # splits

    def _ask(self, state: State, donor: int, trained: int) -> State:
        """Return the state that asks what to split `donor` by; at random it is split at once."""
        if self._way(state) != RANDOM:
            return replaced(state, {}, phase="split", donor=donor, due=0)
        units, parts = partition.units_of(state, donor), self._parts(state)
        labels = self._stream(state).permutation(len(units)) % parts
        return self._split(state, trained, donor, units, faint(labels, parts, _FAINT))

    def _groups(self, state: State, seen: Observations) -> tuple[int, Int64, Float64]:
        """Return the pipeline to split, its units that were seen, and their γ in the parts."""
        way, parts, donor = self._way(state), self._parts(state), state.values["donor"]
        values = seen.values
        is_direction = way == "sketches" and self._covariance == TIED
        if FIRST[way] is ProbeKind.LOSSES:
            values = values[:, [seen.pipelines.index(donor)]]
        donors = members_of(state) if FIRST[way] in FEATURES else (donor,)
        found = {}
        for pipeline in donors:
            mine = np.isin(seen.units, partition.units_of(state, pipeline))
            if pipeline == donor or len(np.unique(seen.units[mine])) >= parts * self._units_a_task:
                own = self._stream(state)
                found[pipeline] = grouped(
                    seen.units[mine], values[mine], parts, is_direction, own, self._covariance
                )
        best = max(found, key=lambda pipeline: found[pipeline].gain)
        return best, found[best].units, found[best].gamma

    def _split(self, state: State, trained: int, donor: int, units: Int64, rows: Float64) -> State:
        """Return the state after a split: gathering evidence from nothing."""
        waits = self._is_trying(state)
        after = partition.split(state, donor, units, rows, trained, waits)
        return self._begin(after, trained)

    def _begin(self, state: State, trained: int) -> State:
        """Return the state that begins cycles of EM."""
        gamma = state.arrays["gamma"]
        anchor = gamma / gamma[state.arrays["trained"]].mean(axis=0)
        anchor = np.maximum(anchor / anchor.sum(axis=1, keepdims=True), _LEAST)
        arrays = {**Evidence.empty(*gamma.shape).arrays(), "anchor": anchor}
        splits, due = state.values["splits"] + 1, trained + self._every
        return replaced(state, arrays, phase="em", cycle=0, splits=splits, due=due)

    # cycles

    def _cycle(self, state: State, seen: Observations) -> State:
        """Return the state after an E-step, and whatever follows from it."""
        units, losses = evidence.episodes(seen.units, seen.values)
        if self._is_log:
            losses = np.log(np.maximum(losses, _LEAST_LOSS))
        own = losses[:, len(seen.pipelines) - len(members_of(state)) :]
        after, fit = self._fitted(state, units, own)
        after = replaced(after, {}, cycle=state.values["cycle"] + 1, due=seen.trained + self._every)
        if state.values["is_waiting"]:
            if after.values["cycle"] < self._trial:
                return after
            gains = [
                *state.values["gains"],
                evidence.held_out_gain(state.arrays["gamma"], units, losses),
            ]
            return self._tried(replaced(after, {}, gains=gains), seen.trained)
        if (starved := self._starved(after)) is not None:
            without = partition.retired(after, starved)
            without = replaced(without, {}, reseeds=state.values["reseeds"] + 1)
            return self._ask(without, partition.largest(without), seen.trained)
        if (pair := self._merge(after, fit)) is not None:
            without = partition.retired(after, pair[1], heir=pair[0])
            without = replaced(without, {}, moves=state.values["moves"] + 1)
            return self._ask(without, partition.largest(without), seen.trained)
        is_done = self._cycles is not None and after.values["cycle"] >= self._cycles
        return replaced(after, {}, phase="done") if is_done else after

    def _fitted(self, state: State, units: Int64, losses: Float64) -> tuple[State, Fit]:
        gamma = state.arrays["gamma"].copy()
        z = evidence.standardised(losses, gamma[units], self._clip)
        known = Evidence.of(state.arrays).added(units, z, self._memory)
        seen = np.flatnonzero(known.count > 0)
        heat = max(1.0, self._temperature * self._cooling ** state.values["cycle"])
        anchor = state.arrays["anchor"][seen]
        fit = evidence.fitted(known.means[seen], known.errors[seen], gamma[seen], anchor, heat)
        gamma[seen] = fit.gamma
        arrays = {**known.arrays(), "gamma": gamma}
        priors = fit.priors.tolist()
        return replaced(state, arrays, priors=priors, spread=fit.spread), fit

    def _starved(self, state: State) -> int | None:
        """Return a pipeline that has too few units, the last opened first."""
        if not self._least or state.values["reseeds"] >= self._reseeds:
            return None
        share = self._least * len(state.arrays["trained"]) / self._size
        least = max(self._units_a_task, math.ceil(share))
        sizes = partition.sizes_of(state)
        few = [p for p, size in zip(members_of(state), sizes, strict=True) if size < least]
        return few[-1] if few else None

    def _merge(self, state: State, fit: Fit) -> tuple[int, int] | None:
        """Return two pipelines that are one, the older first."""
        is_over = state.values["moves"] >= self._moves or self._size < 3
        if is_over or state.values["cycle"] < _SETTLE:
            return None
        known = Evidence.of(state.arrays)
        errors = known.errors[known.count > 0].mean()
        apart = evidence.distances(fit.means, fit.means) + np.diag([np.inf] * self._size)
        one, other = sorted(divmod(int(apart.argmin()), self._size))
        if apart[one, other] >= self._overlap**2 * (fit.spread + errors):
            return None
        return members_of(state)[one], members_of(state)[other]

    # restarts

    def _is_trying(self, state: State) -> bool:
        return self._restarts > 1 and len(state.values["gains"]) < self._restarts

    def _tried(self, state: State, trained: int) -> State:
        """Return the state after a try: before the next one, or going on with the best."""
        gains, gamma = state.values["gains"], state.arrays["gamma"]
        is_best = gains[-1] == max(gains)
        if len(gains) < self._restarts:
            arrays = {"gamma": np.ones((len(gamma), 1))} | ({"best": gamma} if is_best else {})
            nodes = tree.retired(state.values["tree"], members_of(state))
            fresh = replaced(state, arrays, tree=nodes, is_waiting=False, attempt=len(gains))
            return self._ask(fresh, 0, trained)
        best = {"gamma": gamma if is_best else state.arrays["best"], "best": np.empty((0, 0))}
        chosen = replaced(state, best, is_waiting=False, attempt=gains.index(max(gains)))
        if is_best:
            nodes = tree.retired(state.values["tree"], (0,))
            return replaced(chosen, {}, tree=nodes, cycle=0)
        nodes = tree.opened(state.values["tree"], 0, self._size, trained)
        nodes = tree.retired(nodes, (0, *members_of(state)))
        return self._begin(replaced(chosen, {}, tree=nodes), trained)


def firsts(value: str | Sequence[str] | None, is_regression: bool) -> tuple[str, ...]:
    """Return the ways to make a first split; raises ValueError."""
    if value is None:
        return ("sketches",) if is_regression else ("embedding",)
    known = (*FIRST, RANDOM)
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not several:
        raise ValueError(
            f"first = {value!r}: required one of {', '.join(known)}, or a list. See {PAGE}."
        )
    return tuple(choice("first", one, known) for one in several)
