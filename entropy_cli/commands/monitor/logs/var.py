"""Readers of VAR's stdout and log.txt, and those of its forks.

Source:
    FoundationVision/VAR: train.py, trainer.py, utils/misc.py, utils/arg_util.py.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from entropy_cli.commands.monitor.logs.series import RESTART, Metric, Row
from entropy_cli.commands.monitor.logs.text import NUMBER

BEST = "running maximum: the log has no accuracy of the current epoch"
LM = Metric("Lm", kind="cross_entropy", scope="mean", description="mean over all tokens")
LT = Metric("Lt", kind="cross_entropy", scope="last", description="mean over the final scale")
ACCM = Metric("Accm", kind="accuracy", scope="mean", description=BEST)
ACCT = Metric("Acct", kind="accuracy", scope="last", description=BEST)
NORM = Metric("tnm", kind="gradient_norm")
VALIDATION = {
    metric: Metric(metric.name, "val", metric.kind, metric.scope) for metric in (LM, LT, ACCM, ACCT)
}
METERS = {"Lm": LM, "Lt": LT, "Accm": ACCM, "Acct": ACCT, "tnm": NORM}
OTHER_METERS = {  # losses of tokenizer training
    name: Metric(name, has_floor=False) for name in ("L1", "NLL", "Nll", "Ld")
}
LOG_TXT_METRICS = {
    "L_mean": Metric("L_mean", kind="cross_entropy", scope="mean"),
    "L_tail": Metric("L_tail", kind="cross_entropy", scope="last"),
    "acc_mean": Metric("acc_mean", kind="accuracy", scope="mean"),
    "acc_tail": Metric("acc_tail", kind="accuracy", scope="last"),
    "vL_mean": Metric("vL_mean", "val", "cross_entropy", "mean"),
    "vL_tail": Metric("vL_tail", "val", "cross_entropy", "last"),
    "vacc_mean": Metric("vacc_mean", "val", "accuracy", "mean"),
    "vacc_tail": Metric("vacc_tail", "val", "accuracy", "last"),
    "grad_norm": NORM,
}
PLACEHOLDERS = {"Lm": (999.0, -1.0), "Lt": (999.0, -1.0), "Acct": (-1.0,), "Accm": (-1.0,)}

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
BARE_NONFINITE = re.compile(r"(?<=: )-?(?:nan|inf)(?=[,}])")


def read_stdout(text: str) -> Iterator[Row]:
    """Read what VAR prints: epochs, iterations and evaluations.

    In the line of an epoch the first loss is the best so far and the one in brackets is the current
    one; in the line of an iteration the first is the median of the last few.
    """
    for line in text.split("\n"):
        if line.endswith(START):
            yield RESTART
        elif match := EPOCH.search(line):
            yield Row(float(match[1]), None, _valid_values((LM, LT, ACCM, ACCT), match.groups()[1:]))
        elif match := EVALUATION.search(line):
            metrics = tuple(VALIDATION.values())
            yield Row(float(match[1]), None, _valid_values(metrics, match.groups()[1:]))
        elif match := ITERATION.search(line):
            found = METER.findall(match[3])
            meters = {name or norm: value or size for name, value, norm, size in found}
            known = {**METERS, **OTHER_METERS}
            names = [name for name in meters if name in known]
            values = _valid_values([known[name] for name in names], [meters[name] for name in names])
            yield Row(float(match[1]), float(match[2]), values)


def _valid_values(metrics: Iterable[Metric], texts: Iterable[str]) -> dict[Metric, float]:
    """Return the values of metrics without placeholders such as 999 and -1."""
    pairs = zip(metrics, map(float, texts), strict=True)
    return {metric: value for metric, value in pairs if value not in PLACEHOLDERS.get(metric.name, ())}


def read_arguments(text: str) -> dict[str, str]:
    """Return the arguments that VAR prints at its start; the last start counts."""
    return dict(ARGUMENT.findall(text)) if START in text else {}


def read_log_txt(text: str) -> Iterator[Row]:
    """Read log.txt of VAR: a JSON object over several lines, then one Python dict per line.

    VAR starts the file again every ten epochs. Validation values repeat until the next evaluation, so
    only changed ones are kept.
    """
    previous: dict[Metric, float] = {}
    for line in text.split("\n"):
        if line == "{":
            yield RESTART
        record = _parse_dict(line) if line.startswith("{'") else {}
        if not isinstance(record.get("ep"), str):
            continue
        values = {}
        for name, metric in LOG_TXT_METRICS.items():
            value = record.get(name)
            if value in (None, -1) or (metric.split == "val" and previous.get(metric) == value):
                continue
            previous[metric] = values[metric] = float(value)
        yield Row(float(record["ep"].partition("/")[0]), None, values)


def _parse_dict(line: str) -> dict[str, Any]:
    """Parse a line of log.txt; an empty dict if the line is cut off."""
    try:
        record = ast.literal_eval(BARE_NONFINITE.sub(lambda match: f"'{match[0]}'", line))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
