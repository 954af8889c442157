"""Guess what a column holds from its name, for formats without fixed column names."""

import re
from typing import Any

from entropy_cli.commands.monitor.logs.series import LOSSES, Kind, Metric, Split

HELD_OUT = {"val", "valid", "validation", "eval", "test", "dev", "heldout", "vl", "vacc"}
TRAINING = {"train", "training"}
AVERAGED_OVER = {"step", "epoch"}  # loss_step, loss_epoch
ACCURACY = {"acc", "accuracy", "top1", "top5", "acc1", "acc5", "accm", "acct", "vacc"}
REGULARISERS = {"reg", "regulariser", "regularizer", "kl", "commit", "codebook", "entropy", "aux"}
CROSS_ENTROPY = {"ce", "xent", "nll", "crossentropy", "bce"}
PROXIES = {"jepa", "ijepa", "vjepa", "byol", "dino", "ibot"}
VAR_NAME = re.compile(r"(?:AR_(?:iter|ep)_loss/)?(v?)(L|acc)_(mean|tail|\d{1,5})")
PIXELS_PER_TOKEN = 16  # of VAR's tokenizer
NO_LOSS = {"scale", "scaler", "weight", "coef", "best", "lr", "count", "usage"}


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
    """Return the kind of a column; None unless it is a loss, an accuracy or a gradient norm."""
    parts = split_words(name)
    words = set(parts)
    joined = "_".join(parts)
    if ("norm" in joined and words & {"grad", "gradient", "gnorm", "norm"}) or words & {"gnm", "tnm"}:
        return "gradient_norm" if "grad" in joined or words & {"gnorm", "gnm", "tnm"} else None
    if words & ACCURACY:
        return "accuracy"
    if words & NO_LOSS or name.endswith(("__MIN", "__MAX")):
        return None
    if words & CROSS_ENTROPY or "cross_entropy" in joined or joined in ("l_mean", "l_tail"):
        return "cross_entropy"
    if not words & {"loss", "losses"} and not joined.endswith("loss"):
        return None
    return "regulariser" if words & REGULARISERS else "loss"


def metric_from_name(
    name: str, loss_name: str | None = None, default_kind: Kind = "loss"
) -> Metric | None:
    """Return the metric of a column by its name, or None if it is none.

    Args:
        name: `RUN - METRIC` of Weights & Biases is read as METRIC.
        loss_name: a column to read as a loss whatever its name.
        default_kind: kind of a column that is named a loss and nothing more.
    """
    measured = name.rpartition(" - ")[2]
    kind = infer_kind(measured)
    if kind is None and name != loss_name:
        return None
    split = infer_split(name if kind is None else measured)
    is_proxy = kind in ("loss", "regulariser") and bool(PROXIES & set(split_words(measured)))
    if kind in (None, "loss") or (name == loss_name and kind not in LOSSES):
        kind = default_kind
    return Metric(name, split, kind, is_proxy=is_proxy)


def var_metric(name: str) -> Metric | None:
    """Return the metric of a name in VAR's log.txt and TensorBoard tags; None for any other.

    A number is the side of a scale in pixels.

    Source:
        FoundationVision/VAR, trainer.py.
    """
    match = VAR_NAME.fullmatch(name)
    if match is None:
        return None
    named: dict[str, Any] = {"mean": "mean", "tail": "last"}
    scope = named[match[3]] if match[3] in named else int(match[3]) // PIXELS_PER_TOKEN
    kind: Any = {"L": "cross_entropy", "acc": "accuracy"}[match[2]]
    return Metric(name, "val" if match[1] else "train", kind, scope)
