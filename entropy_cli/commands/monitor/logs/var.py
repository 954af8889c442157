"""Logs of VAR and its forks: what it prints, and its log.txt.

Source:
    FoundationVision/VAR: train.py, trainer.py, utils/misc.py, utils/arg_util.py.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from entropy_cli.commands.monitor.logs.series import MARK, Metric, Row
from entropy_cli.commands.monitor.logs.text import NUMBER

BEST = "of epochs the best so far: their lines give no current accuracy"
LM = Metric("Lm", kind="cross_entropy", of="mean", words="mean over all tokens")
LT = Metric("Lt", kind="cross_entropy", of="last", words="mean over the last scale")
ACCM = Metric("Accm", kind="accuracy", of="mean", words=BEST)
ACCT = Metric("Acct", kind="accuracy", of="last", words=BEST)
NORM = Metric("tnm", kind="gradient_norm")
VALIDATION = {
    metric: Metric(metric.name, "val", metric.kind, metric.of) for metric in (LM, LT, ACCM, ACCT)
}
METERS = {"Lm": LM, "Lt": LT, "Accm": ACCM, "Acct": ACCT, "tnm": NORM}
OTHER_METERS = {  # of the training of its tokenizer
    name: Metric(name, has_floor=False) for name in ("L1", "NLL", "Nll", "Ld")
}
LOG_TXT_METRICS = {
    "L_mean": Metric("L_mean", kind="cross_entropy", of="mean"),
    "L_tail": Metric("L_tail", kind="cross_entropy", of="last"),
    "acc_mean": Metric("acc_mean", kind="accuracy", of="mean"),
    "acc_tail": Metric("acc_tail", kind="accuracy", of="last"),
    "vL_mean": Metric("vL_mean", "val", "cross_entropy", "mean"),
    "vL_tail": Metric("vL_tail", "val", "cross_entropy", "last"),
    "vacc_mean": Metric("vacc_mean", "val", "accuracy", "mean"),
    "vacc_tail": Metric("vacc_tail", "val", "accuracy", "last"),
    "grad_norm": NORM,
}
NOTHING = {"Lm": (999.0, -1.0), "Lt": (999.0, -1.0), "Acct": (-1.0,), "Accm": (-1.0,)}

PLACE = r"\[\s*(\d+)/\d+\]\s+\[\s*(\d+)/\d+\]"
ITERATION = re.compile(PLACE + r"(.*\b(?:Lm|L1|NLL|Nll): .*)")
METER = re.compile(rf"(\w+): ({NUMBER}) \({NUMBER}\)|\b(tnm|gnm): ({NUMBER})(?= )")
EPOCH = re.compile(
    rf"\[ep(\d+)\]\s+\(training\s*\)\s+Lm: {NUMBER} \(({NUMBER})\),\s+Lt: {NUMBER} \(({NUMBER})\),"
    rf"\s+Acc m&t: ({NUMBER}) ({NUMBER}),"
)
EVALUATION = re.compile(
    rf"\[\*\] \[ep(\d+)\]\s+\(val \d+\)\s+Lm: ({NUMBER}), Lt: ({NUMBER}),"
    rf" Acc m&t: ({NUMBER}) ({NUMBER}),"
)
ARGUMENT = re.compile(r"(?m)^  (\w+)\s*: (.*)$")
STDOUT = re.compile(rf"(?m){PLACE}.*\b(?:Lm|L1|NLL|Nll): |\[ep\d+\]\s+\((?:training|val)")
LOG_TXT = re.compile(r"(?m)^\{'it': |^\{.*'L_mean': ")
START = "=> initial args:"
BARE = re.compile(r"(?<=: )-?(?:nan|inf)(?=[,}])")


def read_stdout(text: str) -> Iterator[Row]:
    """What VAR prints: epochs with a current value, iterations, and evaluations.

    In the line of an epoch the first loss is the best so far and the one in brackets is the current
    one; in the line of an iteration the first is the median of the last few.
    """
    for line in text.split("\n"):
        if line.endswith(START):
            yield MARK
        elif found := EPOCH.search(line):
            yield Row(float(found[1]), None, _filled((LM, LT, ACCM, ACCT), found.groups()[1:]))
        elif found := EVALUATION.search(line):
            metrics = tuple(VALIDATION.values())
            yield Row(float(found[1]), None, _filled(metrics, found.groups()[1:]))
        elif found := ITERATION.search(line):
            meters = {name or norm: value or of for name, value, norm, of in METER.findall(found[3])}
            known = {**METERS, **OTHER_METERS}
            names = [name for name in meters if name in known]
            values = _filled([known[name] for name in names], [meters[name] for name in names])
            yield Row(float(found[1]), float(found[2]), values)


def _filled(metrics: Iterable[Metric], texts: Iterable[str]) -> dict[Metric, float]:
    """Values of metrics, without those that stand for none."""
    pairs = zip(metrics, map(float, texts), strict=True)
    return {metric: value for metric, value in pairs if value not in NOTHING.get(metric.name, ())}


def arguments(text: str) -> dict[str, str]:
    """The settings that VAR prints when it starts, those of the last start."""
    return dict(ARGUMENT.findall(text)) if START in text else {}


def read_log_txt(text: str) -> Iterator[Row]:
    """log.txt of VAR: a JSON object over several lines, then a Python dict in each line.

    The file is begun anew every ten epochs. Its validation values stay what they were until the next
    evaluation: only those that changed are taken.
    """
    stale: dict[Metric, float] = {}
    for line in text.split("\n"):
        if line == "{":
            yield MARK
        record = _literal(line) if line.startswith("{'") else {}
        if not isinstance(record.get("ep"), str):
            continue
        values = {}
        for name, metric in LOG_TXT_METRICS.items():
            value = record.get(name)
            if value in (None, -1) or (metric.split == "val" and stale.get(metric) == value):
                continue
            stale[metric] = values[metric] = float(value)
        yield Row(float(record["ep"].partition("/")[0]), None, values)


def _literal(line: str) -> dict[str, Any]:
    """A line of log.txt; nothing of one that was cut off."""
    try:
        record = ast.literal_eval(BARE.sub(lambda found: f"'{found[0]}'", line))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
