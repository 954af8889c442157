"""Build the ladder of the hard tokens of some images."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.entropy.assign import MAX_INDEXABLE
from entropy_cli.entropy.ladder.contexts import Layout, check_context, choose_context
from entropy_cli.entropy.ladder.ladder import (
    SCHEMA,
    SCHEMA_VERSION,
    CollisionFloor,
    Context,
    Ladder,
    LadderSettings,
    Lowest,
    ProbeSettings,
    Refusal,
    TokenCounts,
)
from entropy_cli.entropy.ladder.limits import bound_rungs, brackets
from entropy_cli.entropy.ladder.lower_bounds import collision_floor, memorisation
from entropy_cli.entropy.ladder.probe import MAX_CODES, WIDTH, ProbeFit
from entropy_cli.entropy.ladder.rungs import FOLDS, Rung, Tokens, climb, plan_rungs
from entropy_cli.entropy.ladder.sights import CodesAround, Sight
from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.clusters import classes, first_equal, groups, near_equal
from entropy_cli.images.image_set import GROUPS, cluster_key, hash_path
from entropy_cli.streaming.coarser_scales import CoarserScales
from entropy_cli.streaming.token_table import ReadRows
from entropy_cli.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

MAX_IMAGES, MIN_IMAGES = 50_000, 64  # the most by default
MANY_REPEATS = 0.01  # share of images with the tokens of another
CONFIDENCE = 0.95
REFUSED = (
    (
        "plug_in_conditional_entropy",
        "counts of a context are far too few: it comes out several nats below the truth",
    ),
    ("fano", "accuracy bounds the entropy from above, not from below, unless it is the best possible"),
    (
        "entropy_estimators",
        "NSB, Chao-Shen and Grassberger estimate for independent draws, and bound nothing",
    ),
    (
        "match_lengths",
        "Lempel-Ziv and context trees need long stationary sequences, which images aren't",
    ),
    (
        "extrapolation",
        "the limit of one predictor over images or sizes is that predictor's own, and fits of it miss",
    ),
    ("trained_models", "a fit over models is shown by fit; its E is a fit, not a floor"),
    (
        "assignment_entropy",
        "it bounds tokens that were drawn along their path (estimate --path drawn), not nearest codes",
    ),
)


@dataclass(frozen=True)
class LadderOptions:
    """How to build a ladder."""

    context: Context | Literal["auto"] = "auto"
    cluster: Cluster = "image"
    use_classes: bool = True
    limit: int | None = None  # images; None for at most MAX_IMAGES
    probe_steps: int | None = None  # None without a probe
    probe_seconds: float | None = None  # when the probe stops at the latest


@dataclass(frozen=True)
class TokenTable:
    """The hard tokens of images, as a run saved them.

    Attributes:
        names: relative paths, one for each row.
        read: reads some rows by their numbers, int64 (m, L), codes from 0.
        vocab_size: the number of codes V.
        training_images: how many images the whole split has if it is a training split, else None.
    """

    names: Sequence[str]
    read: ReadRows
    layout: Layout
    vocab_size: int
    seed: int
    training_images: int | None


def build_ladder(
    table: TokenTable,
    options: LadderOptions,
    provenance: dict[str, Any],
    bars: Bars,
    tokenizer: Tokenizer | None = None,
) -> Ladder:
    """Build the ladder of hard tokens, by default of at most 50,000 images: a seeded sample.

    Args:
        table: the tokens.
        options: what to build.
        provenance: for the record.
        bars: makes progress bars.
        tokenizer: the tokens' own, so that the probe sees what coarser scales add up to.

    Raises:
        EntropyCliError: there are too few images or groups of them, too many codes, or the tokens have
            no such context.
    """
    notes: list[str] = []
    tokens, distinct = _tokens(table, options, notes)
    M, L = tokens.idx_ML.shape
    context, seed, trained = tokens.context, tokens.seed, table.training_images
    number = None if tokens.class_M is None else int(tokens.class_M.max()) + 1
    probe = _fit_probe(tokens, options, tokenizer, bars)
    total = tokens.idx_ML.size * len(plan_rungs(tokens, with_probe=probe is not None))
    with bars("fitting the ladder", total, "token") as bar:
        rungs = climb(tokens, probe.probabilities if probe else None, bar.update)
    bounds = bound_rungs(rungs, tokens)
    lowest = min(bounds, key=lambda rung: rung.average.token_weighted.value)
    mean = lowest.average.token_weighted
    return Ladder(
        schema=SCHEMA,
        schema_version=SCHEMA_VERSION,
        units="nats per token",
        tokens=TokenCounts(M, L, table.vocab_size, distinct),
        settings=LadderSettings(context, number, options.cluster, FOLDS, GROUPS, seed, _settings(probe)),
        patch_nums=list(table.layout.sides),
        scale_tokens=list(table.layout.tokens),
        rungs=bounds,
        bracket=brackets(tokens, _named(rungs, "unigram")),
        lowest=Lowest(lowest.id, mean.value, mean.upper95),
        floor=_floor(M, L, table, options) if distinct == M and options.cluster == "image" else None,
        memorisation=memorisation(trained, L, table.vocab_size) if trained else None,
        refused=[Refusal(*refused) for refused in REFUSED],
        notes=notes,
        provenance=provenance,
    )


def _tokens(table: TokenTable, options: LadderOptions, notes: list[str]) -> tuple[Tokens, int]:
    """Read the tokens of the images to use; return them, and how many images differ in theirs."""
    if table.vocab_size > MAX_INDEXABLE:
        raise EntropyCliError(f"the ladder: {table.vocab_size} codes can't be numbered in 63 bits.")
    context = options.context
    if context == "auto":
        context = choose_context(table.layout)
    check_context(context, table.layout)
    rows = _sample(table, options.limit, notes)
    names = [table.names[row] for row in rows]
    idx_ML = table.read(rows)
    same_M = first_equal(idx_ML)
    M, distinct = len(rows), len(np.unique(same_M))
    group_M = groups(names, same_M, options.cluster, table.seed)
    _check_enough(group_M, options)
    if M - distinct > MANY_REPEATS * M:
        notes.append(
            f"{M - distinct} of {M} images ({(M - distinct) / M:.1%}) have the tokens of another: they "
            "are kept in one fold. If others are alike too, group them with --cluster folder."
        )
    last = table.layout.columns(len(table.layout.tokens) - 1)
    near = near_equal(idx_ML[np.unique(same_M), last], table.seed)
    if near > MANY_REPEATS * M and options.cluster == "image":
        notes.append(
            f"{near} of {M} images ({near / M:.1%}) have most tokens of the last scale in common with "
            "another: the limits may be too low. Group such images with --cluster folder."
        )
    # With --cluster folder no class is seen in two folds: there is nothing to learn of one.
    class_M = classes(names) if options.use_classes and options.cluster == "image" else None
    for note in notes:
        logger.warning("%s", note)
    if table.training_images:
        notes.append("centre crops of the train split; a training loss is of random crops")
    if context == "var" and class_M is not None:
        notes.append("VAR drops the class of 1 training image in 10; these rungs see all of them")
    layout, codes, cluster = table.layout, table.vocab_size, options.cluster
    tokens = Tokens(idx_ML, layout, codes, group_M, class_M, context, table.seed, cluster)
    return tokens, distinct


def _sample(table: TokenTable, limit: int | None, notes: list[str]) -> list[int]:
    """Return the rows to use, in the order of the hashes of seed and path, whatever theirs is."""
    most = MAX_IMAGES if limit is None else limit
    key_M = np.array([hash_path(name, table.seed)[0] for name in table.names], np.uint64)
    if limit is None and len(key_M) > most:
        notes.append(
            f"a sample of {most:,} of {len(table.names):,} images, by seed {table.seed}. For more run "
            "`entropy-cli ladder --limit N` on saved tokens."
        )
    found: list[int] = np.argsort(key_M, kind="stable")[:most].tolist()
    return found


def _check_enough(group_M: np.ndarray, options: LadderOptions) -> None:
    folds = len(np.unique(group_M % FOLDS))
    if len(group_M) < MIN_IMAGES or folds < FOLDS:
        kind = "folders of images" if options.cluster == "folder" else "images"
        raise EntropyCliError(
            f"the ladder: got {len(group_M)} images in {folds} of {FOLDS} folds, expected at least "
            f"{MIN_IMAGES} images in all {FOLDS}. Give more {kind}."
        )


def _floor(images: int, tokens: int, table: TokenTable, options: LadderOptions) -> CollisionFloor:
    """Return the bound from below; a folder may be a class, also where no rung sees classes."""
    alone = collision_floor(images)
    folders = len({cluster_key(name, "folder") for name in table.names}) if options.use_classes else 1
    given = max(0.0, alone - math.log(folders))
    return CollisionFloor(given / tokens, alone / tokens, CONFIDENCE)


def _named(rungs: Sequence[Rung], rung_id: str) -> Rung:
    return next(rung for rung in rungs if rung.id == rung_id)


def _fit_probe(
    tokens: Tokens, options: LadderOptions, tokenizer: Tokenizer | None, bars: Bars
) -> ProbeFit | None:
    if options.probe_steps is None:
        return None
    if tokens.vocab_size > MAX_CODES:
        raise EntropyCliError(
            f"--probe: {tokens.vocab_size} codes, it predicts at most {MAX_CODES}. Leave it out."
        )
    sight: Sight = CodesAround(tokens.layout, tokens.vocab_size, tokens.context)
    if tokenizer is not None and tokens.context == "var" and tokenizer.spec.is_residual:
        sight = CoarserScales.of(tokenizer, tokens.idx_ML)
    with bars("fitting the probe", 2 * options.probe_steps, "step") as bar:
        probe = ProbeFit(tokens, sight, options.probe_steps, options.probe_seconds, bar.update)
        probe.fit()
    return probe


def _settings(probe: ProbeFit | None) -> ProbeSettings | None:
    if probe is None:
        return None
    M = len(probe.tokens.idx_ML)
    return ProbeSettings(
        probe.steps,
        probe.steps_done,
        WIDTH,
        M,
        probe.sight.words,
        probe.taken_s,
        probe.seconds,
        probe.was_cut,
    )
