"""Tables of a model's loss for a terminal. Imports no torch."""

import math
from collections.abc import Callable

from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.core.table import WIDTH
from entropy_cli.core.text import columns, definitions, wrapped

Cell = Callable[[Losses, float], str]


def _nats(name: str) -> Cell:
    def cell(losses: Losses, unit: float) -> str:
        value = getattr(losses, name)
        return "" if value is None else f"{value / unit:.4f}".replace("-0.0000", "0.0000")

    return cell


def _share(name: str) -> Cell:
    def cell(losses: Losses, _: float) -> str:
        value = getattr(losses, name)
        return "" if value is None else f"{100 * value:.2f} %"

    return cell


def _perplexity(losses: Losses, _: float) -> str:
    if losses.perplexity is None:
        return "" if losses.cross_entropy is None else "> 1e308"
    return f"{losses.perplexity:.2f}" if losses.perplexity < 1e6 else f"{losses.perplexity:.3g}"


# Columns: header, cell, and meaning for the legend.
COLUMNS: tuple[tuple[str, Cell, str], ...] = (
    ("tokens", lambda losses, _: f"{losses.tokens:,}", ""),
    ("cross-entropy", _nats("cross_entropy"), "mean of {cross}, in {units} per token"),
    (
        "±",
        _nats("half_width"),
        "half-width of its 95 % interval over {rows} {row}s; none with fewer than two",
    ),
    (
        "perplexity",
        _perplexity,
        "exp(cross-entropy in nats): number of equally likely codes with the same loss",
    ),
    ("top-1", _share("accuracy_top1"), "share of tokens whose label is the most likely code"),
    ("top-5", _share("accuracy_top5"), "share of tokens whose label is one of the five most likely"),
    (
        "predictive",
        _nats("predictive_entropy"),
        "mean entropy of the predictions p, in {units}; near the cross-entropy of a calibrated model",
    ),
    (
        "H(q)",
        _nats("target_entropy"),
        "mean entropy of the soft labels q, in {units}: the minimum of the cross-entropy",
    ),
    (
        "KL(q||p)",
        _nats("kl"),
        "cross-entropy minus H(q), in {units}: the part that a better model can reduce",
    ),
    ("hard labels", _nats("label_cross_entropy"), "mean of -ln p(label), in {units}"),
    (
        "smoothed",
        _nats("smoothed_cross_entropy"),
        "cross-entropy with labels smoothed by {epsilon:g}, in {units}",
    ),
    (
        "its floor",
        _nats("smoothed_floor"),
        "entropy of a smoothed label, in {units}: the minimum of the smoothed loss",
    ),
    ("excess", _nats("smoothed_excess"), "smoothed minus its floor, in {units}"),
    ("floor", _nats("floor"), "of the cross-entropy, in {units}: {source}"),
    ("reducible", _nats("reducible"), "cross-entropy minus floor, in {units}"),
)


def render(result: LossResult, units: str) -> str:
    """Render the table, the meaning of its columns, and the findings.

    Args:
        result: the losses.
        units: nats or bits, for all entropies.
    """
    unit = 1.0 if units == "nats" else math.log(2)
    named = list(result.named())
    shown = [
        column
        for column in COLUMNS
        if any(column[1](losses, unit) for _, losses in named)
        and (column[0] != "hard labels" or result.has_targets)
    ]
    lead = ["scale" if result.scales else "", *(name for name, _ in named)]
    cells = [[head, *(cell(losses, unit) for _, losses in named)] for head, cell, _ in shown]
    values = {
        "units": units,
        "cross": "-sum q ln p" if result.has_targets else "-ln p(label)",
        "row": result.row,
        "rows": result.rows,
        "epsilon": result.settings["label_smoothing"] or 0.0,
        "source": result.floor_source or "",
    }
    legend = {head: meaning.format(**values) for head, _, meaning in shown if meaning}
    return "\n".join(
        [
            *_tables(lead, cells),
            _headline(result, units),
            "",
            definitions(legend),
            *_findings(result),
        ]
    )


def _tables(lead: list[str], cells: list[list[str]]) -> list[str]:
    """Return one table, or several if the columns don't fit one line, each followed by a blank line."""
    parts = [[lead]]
    for column in cells:
        if sum(2 + max(map(len, c)) for c in [*parts[-1], column]) > WIDTH + 2:
            parts.append([lead])
        parts[-1].append(column)
    return [line for part in parts for line in (columns(list(zip(*part, strict=True))), "")]


def _headline(result: LossResult, units: str) -> str:
    total = result.all
    uniform = math.log(result.vocab_size) / (1.0 if units == "nats" else math.log(2))
    assert total.cross_entropy is not None and total.cross_entropy_bits is not None
    return wrapped(
        "",
        f"{total.tokens:,} tokens of {result.rows:,} {result.row}s, {total.ignored:,} ignored; "
        f"{result.vocab_size:,} codes, uniform guess {uniform:.4f} {units} per token. "
        f"Cross-entropy {total.cross_entropy:.4f} nats = {total.cross_entropy_bits:.4f} bits per token.",
    )


def _findings(result: LossResult) -> list[str]:
    if not result.findings:
        return []
    lines = [
        wrapped(f"{number}. ", f"{'Warning: ' if f.severity == 'warning' else ''}{f.message}")
        for number, f in enumerate(result.findings, 1)
    ]
    return ["", *lines]
