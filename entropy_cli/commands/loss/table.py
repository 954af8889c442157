"""A model's loss for a terminal. Imports no torch."""

import math
from collections.abc import Callable

from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.core.text import WIDTH, columns, definitions, wrapped

Cell = Callable[[Losses, float], str]


def _nats(name: str) -> Cell:
    def cell(of: Losses, unit: float) -> str:
        value = getattr(of, name)
        return "" if value is None else f"{value / unit:.4f}".replace("-0.0000", "0.0000")

    return cell


def _share(name: str) -> Cell:
    def cell(of: Losses, _: float) -> str:
        value = getattr(of, name)
        return "" if value is None else f"{100 * value:.2f} %"

    return cell


def _perplexity(of: Losses, _: float) -> str:
    if of.perplexity is None:
        return "" if of.cross_entropy is None else "> 1e308"
    return f"{of.perplexity:.2f}" if of.perplexity < 1e6 else f"{of.perplexity:.3g}"


# Columns: their heads, what they hold, and what that means.
COLUMNS: tuple[tuple[str, Cell, str], ...] = (
    ("tokens", lambda of, _: f"{of.tokens:,}", ""),
    ("cross-entropy", _nats("cross_entropy"), "mean of {cross}, in {units} per token"),
    (
        "±",
        _nats("half_width"),
        "half-width of its 95 % interval over {rows} {row}s; none with fewer than two",
    ),
    (
        "perplexity",
        _perplexity,
        "exp(cross-entropy in nats): so many equally likely codes would have that loss",
    ),
    ("top-1", _share("accuracy_top1"), "share of tokens whose label is the likeliest code"),
    ("top-5", _share("accuracy_top5"), "share of tokens whose label is one of the five likeliest"),
    (
        "predictive",
        _nats("predictive_entropy"),
        "mean entropy of the model's own predictions p, in {units}; near the cross-entropy if it is as "
        "sure as it is right",
    ),
    (
        "H(q)",
        _nats("target_entropy"),
        "mean entropy of the soft labels q, in {units}: no model's loss is lower",
    ),
    (
        "KL(q||p)",
        _nats("kl"),
        "cross-entropy minus H(q), in {units}: what a better model could still gain",
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
        "entropy of such a label, in {units}: no model's smoothed loss is lower",
    ),
    ("excess", _nats("smoothed_excess"), "smoothed minus its floor, in {units}"),
    ("floor", _nats("floor"), "of the cross-entropy, in {units}: {source}"),
    ("reducible", _nats("reducible"), "cross-entropy minus floor, in {units}"),
)


def render(result: LossResult, units: str) -> str:
    """The table, what its columns mean, and what is to be known of them.

    Args:
        result: what to show.
        units: nats or bits, of all entropies.
    """
    unit = 1.0 if units == "nats" else math.log(2)
    named = list(result.named())
    shown = [
        column
        for column in COLUMNS
        if any(column[1](of, unit) for _, of in named)
        and (column[0] != "hard labels" or result.has_targets)
    ]
    lead = ["scale" if result.scales else "", *(name for name, _ in named)]
    cells = [[head, *(cell(of, unit) for _, of in named)] for head, cell, _ in shown]
    words = {
        "units": units,
        "cross": "-sum q ln p" if result.has_targets else "-ln p(label)",
        "row": result.row,
        "rows": result.rows,
        "epsilon": result.settings["label_smoothing"] or 0.0,
        "source": result.floor_source or "",
    }
    legend = {head: meaning.format(**words) for head, _, meaning in shown if meaning}
    return "\n".join(
        [
            *_tables(lead, cells),
            _headline(result, units),
            "",
            definitions(legend),
            *_sentences(result),
        ]
    )


def _tables(lead: list[str], cells: list[list[str]]) -> list[str]:
    """One table, or more where the columns are too many for a line, each with a blank line after it."""
    parts = [[lead]]
    for column in cells:
        if sum(2 + max(map(len, c)) for c in [*parts[-1], column]) > WIDTH + 2:
            parts.append([lead])
        parts[-1].append(column)
    return [line for part in parts for line in (columns(list(zip(*part, strict=True))), "")]


def _headline(result: LossResult, units: str) -> str:
    of = result.all
    even = math.log(result.vocab_size) / (1.0 if units == "nats" else math.log(2))
    assert of.cross_entropy is not None and of.cross_entropy_bits is not None
    return wrapped(
        "",
        f"{of.tokens:,} tokens of {result.rows:,} {result.row}s, {of.ignored:,} ignored; "
        f"{result.vocab_size:,} codes, of which an even guess costs {even:.4f} {units} a token. "
        f"Cross-entropy {of.cross_entropy:.4f} nats = {of.cross_entropy_bits:.4f} bits per token.",
    )


def _sentences(result: LossResult) -> list[str]:
    if not result.findings:
        return []
    lines = [
        wrapped(f"{number}. ", f"{'Warning: ' if f.severity == 'warning' else ''}{f.message}")
        for number, f in enumerate(result.findings, 1)
    ]
    return ["", *lines]
