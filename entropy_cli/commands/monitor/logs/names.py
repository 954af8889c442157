"""Say what a name in a log stands for: by its dialect, or by what is usual."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

from entropy_cli.commands.monitor.logs.dialect import (
    ADVERSARY,
    CODEBOOK,
    LATENTS,
    NOISE,
    PERCEPTION,
    PIXELS,
    SUM,
    Dialect,
)
from entropy_cli.commands.monitor.logs.series import LOSSES, Kind, Metric, Split, Target
from entropy_cli.results.excess import ADDED

HELD_OUT = {"val", "valid", "validation", "eval", "test", "dev", "heldout", "predict", "vl", "vacc"}
HELD_OUT |= {"validate", "validating", "evaluate", "evaluating", "evaluation", "testing", "va", "cv"}
TRAINING = {"train", "training", "tr", "trn", "tl"}
LEVELS = {"info", "debug"}  # of lines that are logged
AVERAGED_OVER = {"step", "epoch"}  # loss_step, loss_epoch
NORMS = {"gnorm", "gnm", "tnm"}  # of gradients
BEST = {"best", "minimum", "lowest", "improved", "improving", "reached"}  # of values that are not new
ACCURACY = {"acc", "accuracy", "top1", "top5", "acc1", "acc5", "accm", "acct", "vacc"}
NO_LOSS = {"norm", "scale", "scaler", "weight", "coef", "count", "num", "usage", "ppl", "perplexity"}
PER_BYTE = re.compile(r"(?:^|_)(?:bp[bc]|bits_per_(?:byte|char))(?:_|$)")
PER_DIMENSION = re.compile(r"bits_(?:per_)?dim|bpd")  # of pixels
CROSS_ENTROPY = {"ce", "xent", "nll", "crossentropy", "bce"}
REGULARISERS = {"reg", "regulariser", "regularizer", "kl", "commit", "codebook", "entropy", "aux"}
# The last two words of the means over all tokens and over those of the final scale.
SCOPES: dict[tuple[str, ...], Literal["mean", "last"]] = {
    **dict.fromkeys((("l", "mean"), ("vl", "mean")), "mean"),
    **dict.fromkeys((("l", "tail"), ("vl", "tail")), "last"),
}
# Losses of no tokens, words of their names, and the letters that stand for them before "loss"; the first
# five are the parts of a tokenizer's.
PARTS: Sequence[tuple[Metric, set[str], set[str]]] = (
    (
        ADVERSARY,
        {"disc", "discr", "discriminator", "critic", "adv", "gan", "gen", "generator", "discloss"},
        {"g", "d"},
    ),
    (PERCEPTION, {"perceptual", "lpips"}, {"p"}),
    (CODEBOOK, {"vq", "quant", "commit", "commitment", "codebook"}, {"q"}),
    (PIXELS, {"rec", "recon", "reconstruction", "pixel", "pixels", "px"}, {"mse"}),
    (SUM, {"aeloss"}, {"ae"}),
    (LATENTS, {"jepa", "ijepa", "vjepa", "byol", "dino", "ibot"}, set()),
    (NOISE, {"diff", "diffusion", "denoising", "noise"}, set()),
)
OF: Mapping[Target, Metric] = {metric.target: metric for metric, _, _ in PARTS}
OF_TOKENIZERS = ("adversary", "perception", "codebook", "pixels", "sum")
BYTES = "bits per byte (or character): nats per token are ln 2 x the bytes of a token times that"


def split_words(name: str) -> list[str]:
    """Split a name into its words, in lower case.

    >>> split_words("eval/crossEntropy_loss@16")
    ['eval', 'cross', 'entropy', 'loss', '16']
    """
    snake_case = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name)
    return [part.lower() for part in re.split(r"[^A-Za-z0-9]+", snake_case) if part]


@lru_cache(1024)  # a column of the data repeats few
def infer_split(name: str) -> Split:
    """Return the data split that a name refers to; train if it names none."""
    return "val" if HELD_OUT & set(split_words(name)) else "train"


@lru_cache(1024)
def names_training(name: str) -> bool:
    """Return whether a name says that it is of training."""
    return not TRAINING.isdisjoint(split_words(name))


def is_split(name: str) -> bool:
    """Return whether a name is no more than that of a split.

    >>> is_split("INFO Train"), is_split("val loss")
    (True, False)
    """
    words = set(split_words(name)) - LEVELS
    return bool(words) and words <= HELD_OUT | TRAINING


def stem(name: str) -> str:
    """Strip the split and the averaging from a name, so that training and validation columns match.

    >>> stem("val/loss_epoch") == stem("train_loss_step")
    True
    """
    ignored = HELD_OUT | TRAINING | AVERAGED_OVER
    return "_".join(word for word in split_words(name) if word not in ignored)


def subject(metric: Metric) -> str:
    """Return a key of what a metric measures, the same for training and validation."""
    return stem(metric.name) if metric.scope is None else f"{metric.kind} of {metric.scope}"


def infer_kind(name: str) -> Kind | None:
    """Return the kind of a name; None for what tells nothing about the training."""
    parts = split_words(name)
    words, joined = set(parts), "_".join(parts)
    is_loss = "losses" in words or any(part.endswith("loss") for part in parts)
    is_entropy = words & CROSS_ENTROPY or "cross_entropy" in joined or tuple(parts[-2:]) in SCOPES
    kinds: Sequence[tuple[Kind | None, object]] = (
        (None, words & BEST or name.endswith(("__MIN", "__MAX"))),
        ("gradient_norm", words & NORMS or ("grad" in joined and "norm" in joined)),
        ("accuracy", words & ACCURACY),
        ("learning_rate", words & {"lr", "tlr"} or "learning_rate" in joined),
        ("tokens", not is_loss and joined.endswith(("tokens", "tokens_seen"))),
        (None, words & NO_LOSS),
        ("loss", PER_DIMENSION.search(joined)),
        ("cross_entropy", PER_BYTE.search(joined) or is_entropy),
        ("regulariser", is_loss and words & REGULARISERS),
        ("loss", is_loss),
    )
    return next((kind for kind, applies in kinds if applies), None)


def infer_target(name: str) -> Target:
    """Return what a loss is a loss of by its name: a part of a tokenizer's loss, or unknown.

    >>> infer_target("train/disc_loss_epoch"), infer_target("val_loss")
    ('adversary', 'unknown')
    """
    words = set(stem(name).split("_"))
    if PER_DIMENSION.search(stem(name)):
        return "pixels"
    letter = words - {"loss"}
    found = (of.target for of, some, letters in PARTS if words & some or (letter and letter <= letters))
    return next(found, "unknown")


class Namer:
    """Says what the names in a log stand for, by a dialect or by what is usual.

    Args:
        dialect: of the log; None if it has none that is known.
        loss_name: a name to read as a loss whatever it is.
        names: names in the log, which tell a tokenizer's from other models.
        everything: whether names that are neither losses nor known are series too.
    """

    def __init__(
        self,
        dialect: Dialect | None = None,
        loss_name: str | None = None,
        names: Iterable[str] = (),
        *,
        everything: bool = False,
    ) -> None:
        self.dialect, self.loss_name, self.everything = dialect, loss_name, everything
        losses = [name for name in names if infer_kind(name) in LOSSES]
        self.is_tokenizer = any(infer_target(name) in OF_TOKENIZERS for name in losses)
        self.listed = dict(dialect.names) if dialect else {}
        self._known: dict[str, tuple[Metric | None, ...]] = {}

    def metrics(self, name: str) -> tuple[Metric | None, ...]:
        """Return what the values of a name stand for, one after the other."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def metric(self, name: str) -> Metric | None:
        """Return what the first value of a name stands for; None for nothing."""
        return self.metrics(name)[0]

    def _find(self, name: str) -> tuple[Metric | None, ...]:
        measured = name.rpartition(" - ")[2]  # RUN - METRIC of Weights & Biases
        if ADDED.search(measured):
            return (self._unlisted(name, measured),)
        keys = (name, name.rpartition("/")[2], stem(measured))
        key = next((one for one in keys if one in self.listed), keys[-1])
        listed = self.listed.get(key)
        found: tuple[Metric | None, ...]
        if isinstance(listed, Metric):
            found = (_completed(listed, name, measured),)
        elif listed is not None:
            found = tuple(listed)
        else:
            found = (None if key in self.listed else self._infer(name, measured),)
        if found[0] is None or (name == self.loss_name and not found[0].is_loss):
            return (self._unlisted(name, measured), *found[1:])
        return found

    def _infer(self, name: str, measured: str) -> Metric | None:
        """Return a metric by its name, and by what the dialect says about losses."""
        kind = infer_kind(measured)
        if kind is None:
            return None
        scope = SCOPES.get(tuple(split_words(measured)[-2:]))
        metric = Metric(name, infer_split(measured), kind, scope)
        if not metric.is_loss:
            return metric
        target, losses = infer_target(measured), self.dialect.losses if self.dialect else None
        if losses and losses.target == "tokens" and (self.is_tokenizer or target != "unknown"):
            losses = None  # it trains a tokenizer
        if losses is not None and (kind in ("loss", losses.kind) or losses.is_proxy):
            kept = kind if losses.is_proxy else losses.kind
            return replace(losses, name=name, split=metric.split, kind=kept, scope=scope)
        if PER_BYTE.search("_".join(split_words(measured))):
            return replace(metric, unit="bits per byte", description=BYTES)
        if self.is_tokenizer and target == "unknown":
            target = {"cross_entropy": "pixels", "loss": "sum"}.get(kind, target)  # type: ignore[assignment]
        if target == "unknown":
            return metric
        kept = kind if kind == "regulariser" else OF[target].kind
        return replace(OF[target], name=name, split=metric.split, kind=kept)

    def _unlisted(self, name: str, measured: str) -> Metric | None:
        if name == self.loss_name:
            return Metric(name, infer_split(name))
        return Metric(name, infer_split(measured), "other") if self.everything else None


def _completed(metric: Metric, name: str, measured: str) -> Metric:
    """Return a listed metric with the name in the log, and its split, if it has none of its own."""
    if metric.name:
        return metric
    return replace(metric, name=name, split="val" if metric.split == "val" else infer_split(measured))
