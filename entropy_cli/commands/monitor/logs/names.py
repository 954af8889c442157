"""What a column is, by its name: for formats whose columns everybody names as they like."""

import re

from entropy_cli.commands.monitor.logs.series import Kind, Metric, Split

HELD_OUT = {"val", "valid", "validation", "eval", "test", "dev", "heldout", "vl", "vacc"}
TRAINING = {"train", "training"}
WHEN = {"step", "epoch"}  # of the averaging: loss_step, loss_epoch
ACCURACY = {"acc", "accuracy", "top1", "top5", "acc1", "acc5", "accm", "acct", "vacc"}
REGULARISERS = {"reg", "regulariser", "regularizer", "kl", "commit", "codebook", "entropy", "aux"}
CROSS_ENTROPY = {"ce", "xent", "nll", "crossentropy", "bce"}
PROXIES = {"jepa", "ijepa", "vjepa", "byol", "dino", "ibot"}
NO_LOSS = {"scale", "scaler", "weight", "coef", "best", "lr", "count", "usage"}


def tokens(name: str) -> list[str]:
    """The words of a name, in lower case.

    >>> tokens("eval/crossEntropy_loss@16")
    ['eval', 'cross', 'entropy', 'loss', '16']
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name)
    return [part.lower() for part in re.split(r"[^A-Za-z0-9]+", apart) if part]


def split_of(name: str) -> Split:
    """Whose data a name speaks of."""
    return "val" if HELD_OUT & set(tokens(name)) else "train"


def stem(name: str) -> str:
    """A name without split and averaging: what a training and a validation column have in common.

    >>> stem("val/loss_epoch") == stem("train_loss_step")
    True
    """
    left_out = HELD_OUT | TRAINING | WHEN
    return "_".join(part for part in tokens(name) if part not in left_out)


def subject(metric: Metric) -> str:
    """What a metric measures, whatever the split: what it is the mean of if known, else by its name."""
    return stem(metric.name) if metric.of is None else f"{metric.kind} of {metric.of}"


def kind_of(name: str) -> Kind | None:
    """What a column holds; None for what is no loss, accuracy or norm."""
    parts = tokens(name)
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


def metric_of(name: str, *, is_proxy: bool = False) -> Metric | None:
    """A column as a metric, if it is one."""
    kind = kind_of(name)
    if kind is None:
        return None
    proxy = is_proxy or bool(PROXIES & set(tokens(name)))
    return Metric(name, split_of(name), kind, is_proxy=proxy and kind in ("loss", "regulariser"))
