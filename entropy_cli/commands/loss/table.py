"""A model's loss as a table for a terminal. Imports no torch."""

import math
from collections.abc import Callable

from entropy_cli.commands.loss.result import Losses, LossResult
from entropy_cli.core.table import Table, definitions, wrapped

Cell = Callable[[Losses, float], str]


def _nats(name: str) -> Cell:
    """Return what shows a number of nats in another unit."""
    return lambda losses, unit: number(getattr(losses, name), None, unit)


def _share(name: str) -> Cell:
    def cell(losses: Losses, _: float) -> str:
        value = getattr(losses, name)
        return "" if value is None else f"{100 * value:.2f} %"

    return cell


def _perplexity(losses: Losses, _: float) -> str:
    if losses.perplexity is None:
        return "" if losses.cross_entropy is None else "> 1e308"
    return f"{losses.perplexity:.2f}" if losses.perplexity < 1e6 else f"{losses.perplexity:.3g}"


def _difference(losses: Losses, unit: float) -> str:
    return number(losses.reducible, losses.reducible_half_width, unit)


# Columns: header, cell, and meaning for the legend; those of the comparison by kind of labels.
COLUMNS: tuple[tuple[str, Cell, str], ...] = (
    ("tokens", lambda losses, _: f"{losses.tokens:,}", ""),
    (
        "cross-entropy",
        lambda losses, unit: number(losses.cross_entropy, losses.half_width, unit),
        "mean of {cross}",
    ),
    ("perplexity", _perplexity, "exp(cross-entropy in nats): the number of equally likely codes"),
    ("top-1", _share("accuracy_top1"), "share of tokens whose label is the most likely code"),
    ("top-5", _share("accuracy_top5"), "share of tokens whose label is one of the five most likely"),
    (
        "predictive",
        _nats("predictive_entropy"),
        "mean entropy of the predictions p; near the cross-entropy of a calibrated model",
    ),
    ("H(q)", _nats("target_entropy"), "mean entropy of the soft labels q: the minimum of the loss"),
    ("KL(q||p)", _nats("kl"), "cross-entropy minus H(q): the part that a better model can reduce"),
    ("hard labels", _nats("label_cross_entropy"), "mean of -ln p(label)"),
    (
        "smoothed",
        _nats("smoothed_cross_entropy"),
        "cross-entropy with labels smoothed by {epsilon:g}",
    ),
    ("its floor", _nats("smoothed_floor"), "entropy of a smoothed label: the minimum of that loss"),
    ("excess", _nats("smoothed_excess"), "smoothed minus its floor"),
)
SOFT = (
    ("floor", _nats("floor"), "of the cross-entropy: {source}"),
    ("reducible", _difference, "cross-entropy minus floor"),
)
HARD = (
    ("A", _nats("floor"), "assignment entropy: {source}"),
    ("CE - A (may\nbe negative)", _difference, "cross-entropy minus A"),
)

# Columns that a narrow terminal does without, the first first.
EXPENDABLE = ("its floor", "hard labels", "smoothed", "predictive", "perplexity", "top-5", "tokens")


def number(value: float | None, half_width: float | None, unit: float) -> str:
    """Format a number of nats with the half-width of its interval, if there is one, to two digits of it.

    >>> number(4.94794, 0.03089, 1.0), number(0.5, None, 1.0), number(12.3, 0.996, 1.0)
    ('4.948 ± 0.031', '0.5000', '12.3 ± 1.0')
    """
    if value is None:
        return ""
    if not half_width:
        return f"{value / unit:.4f}".replace("-0.0000", "0.0000")
    error = half_width / unit
    digits = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
    return f"{value / unit:.{digits}f} ± {error:.{digits}f}"


def render(result: LossResult, units: str, *, whole: bool = False) -> str:
    """Render the table, the meaning of its columns, and the findings.

    Args:
        result: the losses.
        units: nats or bits, for all entropies.
        whole: whether to show all columns, in several tables if need be, and not only what fits.
    """
    unit = 1.0 if units == "nats" else math.log(2)
    columns = (*COLUMNS, *(SOFT if result.has_targets else HARD))
    rows = [[name, *(cell(losses, unit) for _, cell, _ in columns)] for name, losses in result.named()]
    head = ["scale" if result.scales else "", *(head for head, _, _ in columns)]
    interval = f"±: half-width of the 95 % interval over {result.rows:,} {result.row}s"
    caption = f"{units} per token{f'; {interval}' if result.rows > 1 else ''}"
    full = Table("loss", "", head, rows, caption, rules=(len(result.scales),)).without_empty_columns()
    full = full if result.has_targets else full.without("hard labels")
    table = full if whole else full.fitted(*EXPENDABLE)
    values = {
        "cross": "-sum q ln p" if result.has_targets else "-ln p(label)",
        "epsilon": result.settings["label_smoothing"] or 0.0,
        "source": result.floor_source or "",
    }
    legend = {
        head.replace("\n", " "): meaning.format(**values)
        for head, _, meaning in columns
        if head in table.head and meaning
    }
    lines = [table.text(), "", _headline(result, units, unit), "", definitions(legend)]
    if left_out := [name for name in full.head if name not in table.head]:
        lines.append(wrapped("", f"With --table: {', '.join(left_out)}."))
    found = [
        wrapped(f"{i}. ", f"{'Warning: ' if finding.severity == 'warning' else ''}{finding.message}")
        for i, finding in enumerate(result.findings, 1)
    ]
    return "\n".join([*lines, *(["", *found] if found else [])])


def _headline(result: LossResult, units: str, unit: float) -> str:
    total, log_2 = result.all, math.log(2)
    nats, bits = (number(total.cross_entropy, total.half_width, one) for one in (1.0, log_2))
    return wrapped(
        "",
        f"{total.tokens:,} tokens of {result.rows:,} {result.row}s, {total.ignored:,} ignored; "
        f"{result.vocab_size:,} codes, uniform guess {math.log(result.vocab_size) / unit:.4f} {units} "
        f"per token. Cross-entropy {nats} nats = {bits} bits per token.",
    )
