"""The headline and the tables of a result, for a terminal and for reports alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from entropy_cli.core.table import Lines, Table, lines
from entropy_cli.entropy.quantity import SIGNS, Estimate
from entropy_cli.results import schema
from entropy_cli.results.checks import number_or_auto, temperature_text
from entropy_cli.results.ladder import unit
from entropy_cli.results.legend import averages, is_counted
from entropy_cli.results.path import is_drawn
from entropy_cli.results.published import is_var_style
from entropy_cli.results.schema import SOFT, Result

UNKNOWN = "-"
MAX_CODES = 10
NARROW = {
    "token_weighted": lines("token-", "weighted"),
    "over_scales": lines("mean of", "scales"),
    "last_scale": lines("final", "scale"),
}


@dataclass(frozen=True)
class Format:
    """How numbers are shown.

    Attributes:
        units: "nats" or "bits", of entropies.
        intervals: whether cells have a second line with the 95 % interval; then names are narrow, so
            that a table fits a terminal.
    """

    units: str = "nats"
    intervals: bool = False

    @property
    def per_nat(self) -> float:
        """The number of units in a nat."""
        return unit(self.units)

    def cell(self, estimate: Estimate, digits: int = 4, factor: float = 1.0, unit: str = "") -> str:
        """Format an estimate with its standard error and, if wanted, its interval."""
        text = format_estimate(estimate, digits, factor, unit)
        if not self.intervals or estimate.value is None:
            return text
        if estimate.ci95 is None:
            return Lines(text.replace(" ± ", "\n± "))
        low, high = (f"{factor * end:.{digits}f}" for end in estimate.ci95)
        return lines(text, f"{low} to {high}")

    def entropy(self, estimate: Estimate) -> str:
        """Format an entropy."""
        return self.cell(estimate, factor=self.per_nat)

    def averages(self, result: Result) -> dict[str, str]:
        """Return the averages to show, by key, with their names."""
        names = averages(result)
        return {kind: NARROW[kind] for kind in names} if self.intervals else names

    def name(self, words: str) -> str:
        """Return the name of a column, on two lines if names are narrow."""
        return words.replace(" ", "\n", 1) if self.intervals else words

    def caption(self, text: str, rows: Sequence[Sequence[str]]) -> str:
        """Return a caption that says the units, `text`, what a cell holds, and what signs mean."""
        below = ", below it the 95 % interval" if self.intervals else ""
        caption = f"{self.units} per token{text}; value ± standard error{below}"
        return caption_with_bounds(caption, rows)


REPORT = Format()


def headline(result: Result, units: str = "nats") -> tuple[str, str, str]:
    """Return what the headline is of, the assignment entropy with unit and interval, and details."""
    which = "token-weighted average over scales, " if len(result.scales) > 1 else ""
    name = "VAR-style irreducible loss, " if is_var_style(result) else ""
    return (
        f"Assignment entropy at {temperature_text(result.settings.temperature)}",
        in_words(result.average.token_weighted.assignment_entropy, units),
        f"{name}{which}images: {result.data.images_used}",
    )


def in_words(entropy: Estimate, units: str = "nats") -> str:
    """Return an entropy with its unit and, if there is one, its interval."""
    value, *ends = (f"{unit(units) * v:.4f}" for v in (entropy.known, *(entropy.ci95 or ())))
    interval = f", 95 % interval {ends[0]} to {ends[1]}" if ends else ""
    return f"{value} {units} per token{interval}"


def format_estimate(estimate: Estimate, digits: int = 4, factor: float = 1.0, unit: str = "") -> str:
    """Format an estimate with its standard error; ≥ or ≤ marks a bound."""
    if estimate.value is None:
        return UNKNOWN
    error = "" if estimate.se is None else f" ± {factor * estimate.se:.{digits}f}"
    rounded = round(factor * estimate.value, digits) + 0.0  # not -0.0000
    return f"{estimate.sign}{rounded:.{digits}f}{error}{unit}"


def caption_with_bounds(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """Append to a caption what the signs ≥ and ≤ mean, if they occur in the rows."""
    cells = [cell for row in rows for cell in row]
    for kind, sign in SIGNS.items():
        if sign and any(cell.startswith(sign) for cell in cells):
            caption += f"; {sign}marks {'a lower' if kind == 'lower' else 'an upper'} bound"
    return caption


def dead_codes(scale: schema.ScaleResult) -> str:
    """Format the number of codes that were never nearest; ≤ if more images could use more codes."""
    if scale.codes_used is None or not scale.usage:
        return UNKNOWN
    dead = round(scale.codes_used / scale.usage) - scale.codes_used
    return f"{SIGNS['upper'] if scale.usage_estimate.bound else ''}{dead}"


def tables(result: Result) -> list[Table]:
    """Return all tables of a report that have content."""
    found = [soft_table(result)]
    if is_counted(result):
        found.append(hard_table(result).without("tokens"))
    if len(result.temperatures) > 1:
        found.append(temperature_table(result))
    codes = codes_table(result)
    return [*found, codes] if codes is not None else found


def soft_table(result: Result, style: Format = REPORT) -> Table:
    """Return a table of the soft quantities of every scale, and their averages."""
    tokens = sum(scale.tokens for scale in result.scales)
    in_names = style.intervals and len({scale.temperature for scale in result.scales}) > 1
    rows = []
    for scale in result.scales:
        temperature = f"{scale.temperature:g}"
        name = lines(scale.name, temperature) if in_names else scale.name
        row = [name, str(scale.tokens), f"{scale.tokens / tokens:.1%}", temperature]
        rows.append([*row, *map(style.entropy, scale.soft)])
    for kind, name in style.averages(result).items():
        soft = getattr(result.average, kind).soft
        rows.append([name, "", "", "", *map(style.entropy, soft)])
    names = (style.name(name.replace("_", " ")) for name in SOFT)
    head = ["scale, T" if in_names else "scale", "tokens", "share", "T", *names]
    log_vocab = math.log(result.tokenizer.vocab_size)
    maximum = "" if style.intervals else f", at most ln V = {log_vocab:.4f}"
    caption, rules = style.caption(maximum, rows), (len(result.scales),)
    return Table("soft", "Soft assignment", head, rows, caption, rules=rules)


def hard_table(result: Result, style: Format = REPORT) -> Table:
    """Return a table of the hard tokens of every scale, and their averages."""
    means = [(name, getattr(result.average, kind)) for kind, name in style.averages(result).items()]
    rows = []
    for name, estimates in [*((scale.name, scale) for scale in result.scales), *means]:
        row = [
            style.entropy(estimates.unigram_entropy),
            style.cell(estimates.perplexity, 1),
            style.cell(estimates.usage_estimate, 1, 100, " %"),
        ]
        if isinstance(estimates, schema.ScaleResult):
            coverage = "" if estimates.coverage is None else f"{estimates.coverage:.4f}"
            rows.append([name, str(estimates.tokens), *row, dead_codes(estimates), coverage])
        else:
            rows.append([name, "", *row, "", ""])
    head = [
        "scale",
        "tokens",
        "unigram entropy",
        "perplexity",
        "codebook usage",
        "dead codes",
        "coverage",
    ]
    meaning = "" if style.intervals else "; coverage: probability of the codes seen so far (Good-Turing)"
    caption, rules = style.caption(meaning, rows), (len(result.scales),)
    title = "Drawn tokens: codes drawn from q" if is_drawn(result) else "Hard tokens: the nearest codes"
    return Table("hard", title, head, rows, caption, rules=rules)


def temperature_table(result: Result, style: Format = REPORT) -> Table:
    """Return a table of the assignment entropy and the varentropy at every temperature."""
    kinds = style.averages(result) or {"token_weighted": "assignment entropy"}
    rows = []
    for one in result.temperatures:
        estimates = [getattr(one.average, kind).assignment_entropy for kind in kinds]
        estimates.append(one.average.token_weighted.varentropy)
        rows.append([number_or_auto(one.temperature), *map(style.entropy, estimates)])
    meaning = "; varentropy: slope of the token-weighted average in ln T"
    title, head = "Assignment entropy at each temperature", ["T", *kinds.values(), "varentropy"]
    return Table("temperatures", title, head, rows, style.caption(meaning, rows), sortable=True)


def codes_table(result: Result) -> Table | None:
    """Return a table of the ten most and the ten least used codes, as counted by `total_counts`."""
    counts = total_counts(result)
    if counts is None or not sum(counts):
        return None
    order = sorted(range(len(counts)), key=lambda code: (-counts[code], code))
    chosen = order if len(order) <= 2 * MAX_CODES else [*order[:MAX_CODES], *order[-MAX_CODES:]]
    total, dead = sum(counts), counts.count(0)
    ranks = {code: rank for rank, code in enumerate(order, 1)}
    rows = [
        [str(code), str(ranks[code]), str(counts[code]), f"{counts[code] / total:.3%}"]
        for code in chosen
    ]
    several = len(result.scales) > 1
    where = "all tokens" if not several else "all scales" if _shares_codes(result) else "the final scale"
    caption = (
        f"the ten most and the ten least used of {len(counts)}, over {where}; {dead} were never nearest"
    )
    return Table(
        "codes", "Codes by usage", ["code", "rank", "tokens", "share"], rows, caption, sortable=True
    )


def total_counts(result: Result) -> list[int] | None:
    """Return how often each code was nearest, over all scales, or at the last if each has its codes.

    None if there are too many to count.
    """
    by_scale = [scale.code_counts for scale in result.scales if scale.code_counts is not None]
    if not by_scale:
        return None
    if not _shares_codes(result):
        by_scale = by_scale[-1:]
    return [sum(column) for column in zip(*by_scale, strict=True)]


def _shares_codes(result: Result) -> bool:
    """Return whether all scales have the same codes; version 1 told only how many each has."""
    numbers = {len(scale.code_counts or ()) for scale in result.scales}
    return result.pooled is not None or (result.schema_version == 1 and len(numbers) == 1)
