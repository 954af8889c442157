"""The rungs of the ladder: held-out code lengths of every image under predictors that see ever more."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from entropy_cli.entropy.ladder.contexts import (
    CLASS,
    CONTEXT,
    POSITION,
    SEES,
    Chain,
    Features,
    Layout,
    experts,
)
from entropy_cli.entropy.ladder.discounting import discounted
from entropy_cli.entropy.ladder.ladder import Context
from entropy_cli.entropy.ladder.mixture import fit_weights
from entropy_cli.entropy.quantity import Cluster

FOLDS = 8
SAMPLED = 30_000  # tokens that a mixture's weights are fitted on
PROBE: Chain = ("probe",)
NUMBERED = 2**62


@dataclass(frozen=True)
class Tokens:
    """The hard tokens of M images, in any order.

    Attributes:
        idx_ML: codes from 0, int64.
        vocab_size: the number of codes V.
        group_M: the jackknife group of each image; images that are alike must share theirs.
        class_M: number of each image's class; None without classes.
        context: what predictions may see.
        seed: of the sample that weights are fitted on.
        cluster: what the groups keep together.
    """

    idx_ML: np.ndarray
    layout: Layout
    vocab_size: int
    group_M: np.ndarray
    class_M: np.ndarray | None
    context: Context
    seed: int = 0
    cluster: Cluster = "image"


@dataclass(frozen=True)
class Rung:
    """One predictor's losses on images that it was not fitted on.

    Attributes:
        id: uniform, unigram, position, class, context or probe.
        sees: what its predictions are conditioned on, in words.
        loss_MS: sums of -ln p over the tokens of each scale of each image, float64.
        weights: for each scale, the mean weight of each predictor in the mixture.
    """

    id: str
    sees: str
    loss_MS: np.ndarray
    weights: list[dict[str, float]]


class RungPlan(NamedTuple):
    """A rung to climb: what it is called, what it sees in words, and its own predictors."""

    id: str
    sees: str
    chains: tuple[Chain, ...]


# A probe's probability of each token of one scale, float64 (M, l), from nets fitted on other images.
Probe = Callable[[int], np.ndarray]


def climb(
    tokens: Tokens, probe: Probe | None = None, progress: Callable[[int], object] = lambda _: None
) -> list[Rung]:
    """Return the rungs that have something to see, from uniform to the last.

    Every image is coded by predictors fitted on the images of the other folds (group modulo 8). A rung
    is a mixture of its own predictors and of those before it; where that is no better on the other
    folds, a scale keeps the rung before.

    Args:
        tokens: of at least two images in different folds.
        probe: for a last rung that sees what `probe` sees.
        progress: called with the number of tokens that were coded, once for each rung.
    """
    plans = plan_rungs(tokens, with_probe=probe is not None)
    order_M = np.argsort(tokens.group_M % FOLDS, kind="stable")
    by_fold = replace(
        tokens,
        idx_ML=tokens.idx_ML[order_M],
        group_M=tokens.group_M[order_M],
        class_M=None if tokens.class_M is None else tokens.class_M[order_M],
    )
    M, S = len(order_M), len(tokens.layout.tokens)
    loss_RMS = np.empty((len(plans), M, S))
    weights: list[list[dict[str, float]]] = [[] for _ in plans]
    saw = [True] + [False] * (len(plans) - 1)
    for s in range(S):
        p_Ml = None if probe is None else probe(s)[order_M]
        scale = _Scale(by_fold, s, p_Ml)
        for r, plan in enumerate(plans):
            saw[r] |= scale.climb(plan.chains)
            loss_RMS[r, order_M, s] = scale.loss_M
            weights[r].append(scale.weights)
            progress(M * tokens.layout.tokens[s])
    return [Rung(plan.id, plan.sees, loss_RMS[r], weights[r]) for r, plan in enumerate(plans) if saw[r]]


def plan_rungs(tokens: Tokens, *, with_probe: bool) -> list[RungPlan]:
    """Return the rungs to climb, the first one first."""
    plans = [
        RungPlan("uniform", "nothing", ()),
        RungPlan("unigram", "scale", ((),)),
        RungPlan("position", "place", POSITION),
    ]
    if tokens.class_M is not None:
        plans.append(RungPlan("class", "class, place", CLASS))
    if CONTEXT[tokens.context]:
        plans.append(RungPlan("context", SEES[tokens.context], CONTEXT[tokens.context]))
    if with_probe:
        plans.append(RungPlan("probe", "all, by a small net", (PROBE,)))
    return plans


def name_chain(chain: Chain) -> str:
    """Return a predictor's name."""
    return " + ".join(chain) or "unigram"


@dataclass
class _Scale:
    """The tokens of one scale of images sorted by fold, and the rung that was reached."""

    tokens: Tokens
    scale: int
    probe_Ml: np.ndarray | None
    loss_M: np.ndarray = field(init=False)
    weights: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Start below the uniform rung, with the tokens of each fold side by side."""
        of, M = self.tokens, len(self.tokens.idx_ML)
        self._features = Features(of.idx_ML, of.layout, self.scale, of.context, of.class_M)
        self._l = of.layout.tokens[self.scale]
        code_Ml = of.idx_ML[:, of.layout.columns(self.scale)]
        _, code_N = np.unique(code_Ml, return_inverse=True)
        self._code_N = code_N.reshape(-1)  # numbered from 0 without gaps: large vocabularies fit
        fold_M = of.group_M % FOLDS
        edges = np.searchsorted(fold_M, np.arange(FOLDS + 1)).tolist()
        self._images = [slice(begin, end) for begin, end in pairwise(edges) if end > begin]
        self._folds = [slice(part.start * self._l, part.stop * self._l) for part in self._images]
        self._p: dict[Chain, np.ndarray] = {}
        self._experts: list[Chain] = []
        N = M * self._l
        more = SAMPLED * len(self._folds) // max(1, len(self._folds) - 1)
        rng = np.random.default_rng([of.seed, self.scale])
        self._sample = np.arange(N) if more >= N else np.unique(rng.integers(N, size=more))
        self.loss_M = np.full(M, self._l * math.log(of.vocab_size))

    def climb(self, chains: Sequence[Chain]) -> bool:
        """Go to the rung that adds these predictors, fold by fold where it is better on the others.

        Returns False if there is nothing that they could see at this scale.
        """
        added = experts(self._features, [chain for chain in chains if chain != PROBE])
        if PROBE in chains:
            assert self.probe_Ml is not None
            self._p[PROBE] = self.probe_Ml.reshape(-1)
            added.append(PROBE)
        if not added:
            return False
        self._experts += added
        for chain in added:
            self._predict(chain)
        loss_M, weight_FJ = self._mixed()
        gain_F = np.array([(self.loss_M[part] - loss_M[part]).sum() for part in self._images])
        takes_F = gain_F.sum() - gain_F > 0
        if added == [()]:  # the unigram is a rung of its own, better or not
            takes_F[:] = True
        for part, takes in zip(self._images, takes_F, strict=True):
            if takes:
                self.loss_M[part] = loss_M[part]
        if takes_F.any():
            weight_J = weight_FJ[takes_F].mean(0).tolist()
            self.weights = dict(zip(map(name_chain, self._experts), weight_J, strict=True))
        return True

    def _mixed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each image's loss under the mixture of all predictors, and each fold's weights."""
        parts = [self._p[chain] for chain in self._experts]
        p_SJ = np.stack([p_N[self._sample] for p_N in parts], 1)
        loss_M, weight_FJ = np.empty(len(self.loss_M)), np.empty((len(self._folds), len(parts)))
        for f, (fold, part) in enumerate(zip(self._folds, self._images, strict=True)):
            other_S = (self._sample < fold.start) | (self._sample >= fold.stop)
            weight_FJ[f] = fit_weights(p_SJ[other_S]) if len(parts) > 1 else 1
            p_F = sum(w * p_N[fold] for w, p_N in zip(weight_FJ[f], parts, strict=True))
            loss_M[part] = -np.log(p_F).reshape(-1, self._l).sum(1)
        return loss_M, weight_FJ

    def _predict(self, chain: Chain) -> np.ndarray:
        """Return the probability of each token by the counts of a chain of contexts."""
        if chain not in self._p:
            if chain:
                below_N = self._predict(chain[:-1])
            else:
                below_N = np.full(len(self._code_N), 1 / self.tokens.vocab_size)
            self._p[chain] = discounted(self._code_N, self._context(chain), below_N, self._folds)
        return self._p[chain]

    def _context(self, chain: Chain) -> np.ndarray:
        """Return a number, from 0, for the values that the features of a chain have together."""
        context_N, size = np.zeros(len(self._code_N), np.int64), 1
        for name in chain:
            value_N = self._features.feature_N(name)
            values = int(value_N.max()) + 1
            if values > self._code_N.size:
                _, value_N = np.unique(value_N, return_inverse=True)
                values = int(value_N.max()) + 1
            if size * values > NUMBERED // (int(self._code_N.max()) + 1):
                _, context_N = np.unique(context_N, return_inverse=True)
                size = int(context_N.max()) + 1
            context_N, size = context_N * values + value_N, size * values
        return context_N
