"""Readers of what programs print: VAR and its forks, LlamaGen, nanoGPT's descendants, the JEPAs.

Source:
    FoundationVision/VAR: train.py, trainer.py, utils/misc.py, utils/arg_util.py.
    FoundationVision/LlamaGen: autoregressive/train/train_c2i.py, tokenizer/tokenizer_image/vq_train.py.
    karpathy/nanoGPT: train.py; karpathy/build-nanogpt: train_gpt2.py; KellerJordan/modded-nanogpt.
    facebookresearch/ijepa and vjepa2: src/train.py, app/vjepa/train.py.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from entropy_cli.commands.monitor.logs.runs import RESTART, Row
from entropy_cli.commands.monitor.logs.series import Metric

# A rough pattern of a number; float() has the last word.
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf(?:inity)?)"
# A line: the place in groups named epoch and step, then the values of these metrics in further groups.
Lines = Mapping[re.Pattern[str], Sequence[Metric]]

BEST = "running maximum: the log has no accuracy of the current epoch"
VAR_METRICS = (
    Metric("Lm", "train", "cross_entropy", "mean", description="mean over all tokens"),
    Metric("Lt", "train", "cross_entropy", "last", description="mean over the final scale"),
    Metric("Accm", "train", "accuracy", "mean", description=BEST),
    Metric("Acct", "train", "accuracy", "last", description=BEST),
)
VAR_VALIDATION = [Metric(one.name, "val", one.kind, one.scope) for one in VAR_METRICS]
TOKENIZER_LOSSES = [Metric(name, has_floor=False) for name in ("L1", "NLL", "Nll", "Ld")]
NORM = Metric("tnm", kind="gradient_norm")
METERS = {metric.name: metric for metric in (*VAR_METRICS, *TOKENIZER_LOSSES, NORM)}
PLACEHOLDERS = {"Lm": (999.0, -1.0), "Lt": (999.0, -1.0), "Acct": (-1.0,), "Accm": (-1.0,)}
# The line of an iteration has a place, and further on a loss.
PLACE = re.compile(r"\[\s*(?P<epoch>\d{1,15})/\d+\]\s+\[\s*(?P<step>\d{1,15})/\d+\]")
LOSS = re.compile(r"\b(?:Lm|L1|NLL|Nll): ")
METER = re.compile(rf"\b(\w+): ({NUMBER}) \({NUMBER}\)|\b(tnm|gnm): ({NUMBER})(?= )")
# In the line of an epoch the first loss is the best so far and the one in brackets is the current one;
# in the line of an iteration the first is the median of the last few.
VAR_LINES: Lines = {
    re.compile(
        rf"\[ep(?P<epoch>\d{{1,15}})\]\s+\(training\s*\)\s+Lm: {NUMBER} \(({NUMBER})\),"
        rf"\s+Lt: {NUMBER} \(({NUMBER})\),\s+Acc m&t: ({NUMBER}) ({NUMBER}),"
    ): VAR_METRICS,
    re.compile(
        rf"\[\*\] \[ep(?P<epoch>\d{{1,15}})\]\s+\(val \d+\)\s+Lm: ({NUMBER}), Lt: ({NUMBER}),"
        rf" Acc m&t: ({NUMBER}) ({NUMBER}),"
    ): VAR_VALIDATION,
}
VAR_EPOCH = re.compile(r"\[ep\d+\]\s+\((?:training|val)")
VAR_START = "=> initial args:"
ARGUMENT = re.compile(r"(?m)^  (\w+)\s*: (.*)$")

LLAMAGEN = re.compile(rf"\(step=(?P<step>\d{{1,15}})\) Train Loss: ({NUMBER}),")
LLAMAGEN_START = re.compile(r"Training for \d+ epochs")
INTERVAL = Metric("Train Loss", kind="cross_entropy", description="mean since the previous line")
SUMMED = Metric(
    "Train Loss",
    has_floor=False,
    description="sum of generator and discriminator losses, not a cross-entropy",
)

PREFIX = r"^(?:[^a-z\n]*[\s:])?"  # ranks and times that launchers prepend
TRAIN, VAL = Metric("train loss", kind="cross_entropy"), Metric("val loss", "val", "cross_entropy")
MICRO_BATCH = Metric("loss", kind="cross_entropy", description="loss of a single batch")
HELLASWAG = Metric("hella", "val", "accuracy", description="HellaSwag accuracy, as a fraction")
DECIMALS = r"(nan|inf|\d+\.\d{4,6})"
NANOGPT_LINES = {
    rf"{PREFIX}step (?P<step>\d{{1,15}}): train loss (\S+), val loss {DECIMALS}$": [TRAIN, VAL],
    rf"{PREFIX}iter (?P<step>\d{{1,15}}): loss ({NUMBER}),": [MICRO_BATCH],
    rf"^(?P<step>\d{{1,15}}) train {DECIMALS}$": [TRAIN],
    rf"^(?P<step>\d{{1,15}}) val {DECIMALS}$": [VAL],
    rf"^(?P<step>\d{{1,15}}) hella {DECIMALS}$": [HELLASWAG],
    rf"^step:(?P<step>\d{{1,15}})/\d+ train_loss:({NUMBER})(?= |$)": [TRAIN],
    rf"^step:(?P<step>\d{{1,15}})/\d+ val_loss:({NUMBER})(?= |$)": [VAL],
}
NANOGPT: Lines = {re.compile(pattern, re.M): metrics for pattern, metrics in NANOGPT_LINES.items()}

JEPA: Lines = {
    re.compile(rf"\[(?P<epoch>\d{{1,15}}), +(?P<step>\d{{1,15}})\] +loss: ({NUMBER})(?= )"): (
        Metric("loss", is_proxy=True, description="running mean of the epoch"),
    )
}


def read_var(text: str, _: str | None = None) -> Iterator[Row]:
    """Read what VAR prints: epochs, iterations and evaluations."""
    for line in text.split("\n"):
        if line.endswith(VAR_START):
            yield RESTART
        elif row := _match_line(line, VAR_LINES):
            yield row
        elif match := next(iterations(line), None):
            found = METER.findall(line, match.end())
            meters = {a or b: x or y for a, x, b, y in found if (a or b) in METERS}
            yield _row(match, [METERS[name] for name in meters], list(meters.values()))


def iterations(text: str) -> Iterator[re.Match[str]]:
    """Yield the place in each line of an iteration of VAR; one search a line keeps it linear."""
    end = 0
    while place := PLACE.search(text, end):
        end = text.find("\n", place.end())
        end = len(text) if end < 0 else end
        if LOSS.search(text, place.end(), end):
            yield place


def read_llamagen(text: str, _: str | None = None) -> Iterator[Row]:
    """Read what LlamaGen prints when it trains a generator or a tokenizer; DiT prints the same."""
    lines = {LLAMAGEN: (SUMMED if "(Generator)" in text else INTERVAL,)}
    for line in text.split("\n"):
        if row := RESTART if LLAMAGEN_START.search(line) else _match_line(line, lines):
            yield row


def line_reader(lines: Lines) -> Callable[[str, str | None], Iterator[Row]]:
    """Return the reader of a format whose lines need nothing but their patterns."""
    return lambda text, _: filter(None, (_match_line(line, lines) for line in text.split("\n")))


def _match_line(line: str, lines: Lines) -> Row | None:
    """Return the row of the first pattern that matches."""
    for pattern, metrics in lines.items():
        if match := pattern.search(line):
            return _row(match, metrics, match.groups()[len(pattern.groupindex) :])
    return None


def _row(match: re.Match[str], metrics: Iterable[Metric], texts: Iterable[str]) -> Row:
    """Build a row, without the placeholders 999 and -1 of values that VAR does not have."""
    place = {name: float(text) for name, text in match.groupdict().items()}
    pairs = zip(metrics, map(float, texts), strict=True)
    values = {one: value for one, value in pairs if value not in PLACEHOLDERS.get(one.name, ())}
    return Row(place.get("epoch"), place.get("step"), values)


def read_arguments(text: str) -> dict[str, str]:
    """Return the arguments that VAR prints at its start; the last start counts."""
    return dict(ARGUMENT.findall(text)) if VAR_START in text else {}
