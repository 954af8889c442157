"""A model's loss as a table for a terminal. Imports no torch."""

import math
from collections.abc import Callable

from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.core.table import Table, definitions, wrapped

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

# Columns that a narrow terminal does without, the first first.
EXPENDABLE = ("its floor", "hard labels", "smoothed", "predictive", "perplexity", "top-5", "tokens")


def render(result: LossResult, units: str, *, whole: bool = False) -> str:
    """Render the table, the meaning of its columns, and the findings.

    Args:
        result: the losses.
        units: nats or bits, for all entropies.
        whole: whether to show all columns, in several tables if need be, and not only what fits.
    """
    unit = 1.0 if units == "nats" else math.log(2)
    full = loss_table(result, unit)
    table = full if whole else full.fitted(*EXPENDABLE)
    left_out = [name for name in full.head if name not in table.head]
    values = {
        "units": units,
        "cross": "-sum q ln p" if result.has_targets else "-ln p(label)",
        "row": result.row,
        "rows": result.rows,
        "epsilon": result.settings["label_smoothing"] or 0.0,
        "source": result.floor_source or "",
    }
    shown = [(head, meaning) for head, _, meaning in COLUMNS if head in table.head and meaning]
    legend = definitions({head: meaning.format(**values) for head, meaning in shown})
    lines = [table.text(), "", _headline(result, units), "", legend]
    if left_out:
        lines.append(wrapped("", f"With --table: {', '.join(left_out)}."))
    return "\n".join([*lines, *_findings(result)])


def loss_table(result: LossResult, unit: float) -> Table:
    """Return a table with a row for each scale and one for all tokens; `unit` is in nats."""
    rows = [[name, *(cell(losses, unit) for _, cell, _ in COLUMNS)] for name, losses in result.named()]
    head = ["scale" if result.scales else "", *(head for head, _, _ in COLUMNS)]
    table = Table("loss", "", head, rows, rules=(len(result.scales),)).without_empty_columns()
    return table if result.has_targets else table.without("hard labels")


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
    lines = [
        wrapped(f"{number}. ", f"{'Warning: ' if f.severity == 'warning' else ''}{f.message}")
        for number, f in enumerate(result.findings, 1)
    ]
    return ["", *lines] if lines else []
