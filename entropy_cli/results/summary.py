"""The summary of a result: one screen on what it is, what it is a floor of, and how sure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from entropy_cli.core.remote.address import recorded_name
from entropy_cli.core.table import Table, wrapped
from entropy_cli.entropy.quantity import Averages, Estimate
from entropy_cli.results.checks import find_checks
from entropy_cli.results.ladder import at_most, round_up, unit
from entropy_cli.results.path import is_drawn, is_on_other_path, labels_of, subtracted
from entropy_cli.results.provenance import SPLITS
from entropy_cli.results.published import is_var_style
from entropy_cli.results.schema import Check, Result
from entropy_cli.results.tables import UNKNOWN

MAX_TEMPERATURES = 4
LINES, NAME_WIDTH = 24, 48
MIN_DIGITS, MAX_DIGITS = 2, 4


def summary(result: Result, units: str = "nats") -> str:
    """Return at most 24 lines of at most 80 columns.

    Args:
        result: the result to show.
        units: "nats" or "bits".
    """
    what = [tokenizer_line(result), images_line(result)]
    numbers = [_table(result, units), *usage(result)]
    checks = [check for check in checks_of(result) if check.id != "labels_of_floor"]
    return one_screen([what, numbers, _readers(result, units)], checks)


def one_screen(parts: Sequence[Sequence[str]], checks: Sequence[Check]) -> str:
    """Return the lines of parts, and the checks as far as they fit a screen below."""
    head = "\n\n".join(map("\n".join, parts))
    return "\n".join([head, *_shown_checks(checks, LINES - len(head.splitlines()))])


def digits(half_width: float | None) -> int:
    """Return the decimals to show of a number: to the first digit of its interval's half-width."""
    if not half_width:
        return MIN_DIGITS
    return min(MAX_DIGITS, max(MIN_DIGITS, -math.floor(math.log10(half_width))))


def file_name(path: str | None, default: str) -> str:
    """Return the name of a file, cut to what fits a line, or a default if there is no file."""
    name = (path or "").rpartition("/")[2] or default
    return name if len(name) <= NAME_WIDTH else f"...{name[3 - NAME_WIDTH :]}"


def tokenizer_line(result: Result) -> str:
    """Return a line on the tokenizer: its file, codes, scales and tokens."""
    tokenizer, scales = result.tokenizer, result.scales
    sides = [scale.patch_num for scale in scales]
    names = f"{sides[0]} to {sides[-1]}" if None not in sides else f"{scales[0].name} ..."
    where = f"{len(scales)} scales ({names})" if len(scales) > 1 else scales[0].name
    tokens = f"{sum(scale.tokens for scale in scales)} tokens"
    words = [f"{tokenizer.vocab_size:,} codes", *([] if where == tokens else [where]), tokens]
    name = file_name(recorded_name(result.provenance, "checkpoint"), tokenizer.family)
    subject = name if name == tokenizer.family else f"{name}: {tokenizer.family}"
    return wrapped("", f"{subject}, {', '.join(words)} an image")


def images_line(result: Result) -> str:
    """Return a line on the images, and how they were encoded."""
    data, settings = result.data, result.settings
    split = f" ({data.split})" if data.split in SPLITS else ""
    failed = f", {data.images_failed:,} unreadable" if data.images_failed else ""
    size = f", {settings.image_size} px" if settings.image_size else ""
    found = f"{data.images_used:,} of {data.images_found:,} images{split}{failed}"
    return wrapped("", f"{found}{size}, {settings.precision}, seed {settings.seed}{_target(result)}")


def _target(result: Result) -> str:
    """Return the outcome of early stopping, if the run had a target."""
    if result.target_reached is None:
        return ""
    verb = "reached" if result.target_reached else "did not reach"
    return f"; {verb} its target of ± {result.provenance['target_ci']:g} nats"


def summary_table(result: Result, units: str = "nats") -> Table:
    """Return the assignment entropies beside the unigram entropy: value, interval, share of ln V."""
    log_vocab = math.log(result.tokenizer.vocab_size)
    rows = []

    def add(name: str, of: Averages[Any], quantity: str, most: float | None = None) -> None:
        number, interval, final = summary_cells(of, quantity, units, most)
        value = getattr(of.token_weighted, quantity).value
        share = f"{100 * value / log_vocab:.0f}" if value is not None and log_vocab else ""
        rows.append([name, number, interval, share, final])

    for at in result.temperatures[:MAX_TEMPERATURES]:
        name = "T fitted" if at.temperature == "auto" else f"T = {at.temperature:g}"
        add(f"assignment entropy A, {name}", at.average, "assignment_entropy")
    average = result.average
    if labels_of(result) == "soft":
        add("marginal entropy M", average, "marginal")
    name = f"unigram entropy U ({'drawn' if is_drawn(result) else 'hard'} tokens)"
    add(name, average, "unigram_entropy", average.token_weighted.ceiling)
    return summary_of_rows(rows, ["% of\nln V"], units, several=len(result.scales) > 1)


def summary_cells(of: Averages[Any], quantity: str, units: str, most: float | None) -> list[str]:
    """Return a quantity's value, its interval or the limit `most`, and the value at the final scale."""
    per_nat, mean = unit(units), getattr(of.token_weighted, quantity)
    places = digits(None if mean.half_width is None else per_nat * mean.half_width)
    interval = "-" if most is None else f"≤ {round_up(per_nat * most, places)} held out"
    if mean.ci95 is not None:
        interval = " to ".join(f"{per_nat * end + 0.0:.{places}f}" for end in mean.ci95)
    final = number_text(getattr(of.last_scale, quantity), places, per_nat)
    return [number_text(mean, places, per_nat), interval, final]


def summary_of_rows(rows: list[list[str]], more: Sequence[str], units: str, *, several: bool) -> Table:
    """Return the table of a summary; `more` are the columns before that of the final scale."""
    head = ["", f"{units}/\ntoken", "95 % interval", *more, "final\nscale"]
    caption = f"{units} per token, averaged over all tokens" if several else f"{units} per token"
    return Table("summary", "Summary", head, rows, caption).select(range(len(head) - (not several)))


def checks_table(result: Result) -> Table:
    """Return every check of a result, the most severe first."""
    rows = [[c.severity, c.id.replace("_", " "), c.message] for c in checks_of(result)]
    return Table("checks", "Checks", ["", "check", "finding"], rows, left=(0, 1, 2))


def checks_of(result: Result) -> list[Check]:
    """Return the checks of a result; those of version 1 are made now."""
    return result.checks or find_checks(result)


def _table(result: Result, units: str) -> str:
    table = replace(summary_table(result, units), title="", caption="")
    more = len(result.temperatures) - MAX_TEMPERATURES
    return table.text() + (f"\n{more} more temperatures: --table" if more > 0 else "")


def number_text(estimate: Estimate, places: int, factor: float = 1.0) -> str:
    """Return the value with its sign if it is a bound."""
    if estimate.value is None:
        return UNKNOWN
    return f"{estimate.sign}{factor * estimate.value + 0.0:.{places}f}"


def usage(result: Result) -> list[str]:
    """Return a line on the hard tokens of all scales, if they share a codebook."""
    pooled = result.pooled
    if pooled is None or pooled.usage.value is None:
        return []
    scales = ", all scales pooled" if len(result.scales) > 1 else ""
    usage = f"{pooled.usage.sign}{100 * pooled.usage.value:.1f} %"
    perplexity = f"{pooled.perplexity.sign}{pooled.perplexity.known:,.0f}"
    codes = f"{result.tokenizer.vocab_size:,}"
    return [wrapped("", f"codebook usage {usage}, perplexity {perplexity} of {codes}{scales}")]


def _readers(result: Result, units: str) -> list[str]:
    """Return what the number means for a model's loss, by the labels it trains on."""
    is_hot = any(c.id == "above_unigram" and c.severity == "wrong" for c in checks_of(result))
    is_named = is_var_style(result) and not is_hot and not is_drawn(result)
    name = " (VAR-style irreducible loss)" if is_named else ""
    path = f" ({codes} subtracted)" if (codes := subtracted(result)) else ""
    lines = [f"soft or sampled labels{path}: loss >= A at their T{name}"]
    if is_on_other_path(result):
        lines.append(f"{result.tokenizer.family}'s models subtract drawn codes: take --path drawn")
    family = f" ({result.tokenizer.family})" if result.tokenizer.labels == "hard" else ""
    ceiling = "" if result.average.token_weighted.ceiling is None else "; U is a ceiling"
    if result.ladder is not None:
        who = "drawn labels:" if is_drawn(result) else f"hard labels{family}: A is no floor;"
        lines.append(f"{who} {at_most(result.ladder, units)}")
    elif labels_of(result) != "soft":
        lines.append(f"hard labels{family}: A is no floor, a loss may fall below it{ceiling}")
    return [wrapped("", line) for line in lines]


def _shown_checks(checks: Sequence[Check], lines: int) -> list[str]:
    """Return in so many lines each check that is not ok, and one line for all that are."""
    texts = [check_text(check) for check in checks if check.severity != "ok"]
    fine = "; ".join(check.message for check in checks if check.severity == "ok")
    texts += [wrapped("ok    ", fine)] if fine else []
    shown: list[str] = []
    for i, text in enumerate(texts):
        left = lines - sum(len(one.splitlines()) for one in shown)
        if len(text.splitlines()) + (i + 1 < len(texts)) > left:
            return [*shown, f"{len(texts) - i} more: --explain"]
        shown.append(text)
    return shown


def check_text(check: Check) -> str:
    """Return a check as text for a terminal."""
    return wrapped(f"{check.severity:<5} ", check.message)
