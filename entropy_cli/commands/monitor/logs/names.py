"""Say what a name in a log stands for: by its dialect, or by what is usual."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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

HELD_OUT = {"val", "valid", "validation", "eval", "test", "dev", "heldout", "predict", "vl", "vacc"}
HELD_OUT |= {"validate", "validating", "evaluate", "evaluating", "evaluation", "testing"}
TRAINING = {"train", "training"}
AVERAGED_OVER = {"step", "epoch"}  # loss_step, loss_epoch
ACCURACY = {"acc", "accuracy", "top1", "top5", "acc1", "acc5", "accm", "acct", "vacc"}
REGULARISERS = {"reg", "regulariser", "regularizer", "kl", "commit", "codebook", "entropy", "aux"}
CROSS_ENTROPY = {"ce", "xent", "nll", "crossentropy", "bce"}
# The last two words of the means over all tokens and over those of the final scale.
SCOPES: dict[tuple[str, ...], Literal["mean", "last"]] = {
    **dict.fromkeys((("l", "mean"), ("vl", "mean")), "mean"),
    **dict.fromkeys((("l", "tail"), ("vl", "tail")), "last"),
}
BITS_PER_BYTE, PER_BYTE_WORDS = {"bpb", "bpc"}, ("bits_per_byte", "bits_per_char")
PER_DIMENSION = ("bits_per_dim", "bpd")  # of pixels
TOKENS = {"tokens", "num_tokens", "tokens_seen", "total_tokens", "consumed_tokens", "n_tokens"}
TOKENS |= {"train_tokens", "num_input_tokens_seen", "train_num_input_tokens_seen"}
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
PER_BYTE = "bits per byte (or character): nats per token are ln 2 x the bytes of a token times that"
NO_LOSS = {"scale", "scaler", "weight", "coef", "best", "lr", "count", "usage", "ppl", "perplexity"}


def split_words(name: str) -> list[str]:
    """Split a name into its words, in lower case.

    >>> split_words("eval/crossEntropy_loss@16")
    ['eval', 'cross', 'entropy', 'loss', '16']
    """
    snake_case = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name)
    return [part.lower() for part in re.split(r"[^A-Za-z0-9]+", snake_case) if part]


def infer_split(name: str) -> Split:
    """Return the data split that a name refers to; train if it names none."""
    return "val" if HELD_OUT & set(split_words(name)) else "train"


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
    words = set(parts)
    joined = "_".join(parts)
    if ("norm" in joined and words & {"grad", "gradient", "gnorm", "norm"}) or words & {"gnm", "tnm"}:
        return "gradient_norm" if "grad" in joined or words & {"gnorm", "gnm", "tnm"} else None
    if words & ACCURACY:
        return "accuracy"
    if words & {"lr", "tlr"} or "learning_rate" in joined:
        return "learning_rate"
    if words & NO_LOSS or name.endswith(("__MIN", "__MAX")):
        return None
    if joined in TOKENS:
        return "tokens"
    if is_per_byte(name):
        return "cross_entropy"
    if any(part in joined for part in PER_DIMENSION):
        return "loss"
    if words & CROSS_ENTROPY or "cross_entropy" in joined or tuple(parts[-2:]) in SCOPES:
        return "cross_entropy"
    if not words & {"loss", "losses"} and not joined.endswith("loss"):
        return None
    return "regulariser" if words & REGULARISERS else "loss"


def is_per_byte(name: str) -> bool:
    """Return whether a name says that it counts bits per byte, or per character."""
    words = split_words(name)
    return bool(BITS_PER_BYTE & set(words)) or any(part in "_".join(words) for part in PER_BYTE_WORDS)


def infer_target(name: str) -> Target:
    """Return what a loss is a loss of by its name: a part of a tokenizer's loss, or unknown.

    >>> infer_target("train/disc_loss_epoch"), infer_target("val_loss")
    ('adversary', 'unknown')
    """
    words = set(stem(name).split("_"))
    if any(part in stem(name) for part in PER_DIMENSION):
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
        if kind == "cross_entropy" and is_per_byte(measured):
            return replace(metric, unit="bits per byte", description=PER_BYTE)
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
