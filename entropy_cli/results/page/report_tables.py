"""The headline and the tables of a report of one result, for HTML, Markdown and figures alike."""

import math
from collections.abc import Sequence

from entropy_cli.core.table import Table
from entropy_cli.entropy.quantity import SIGNS, Estimate
from entropy_cli.results import schema
from entropy_cli.results.legend import averages, is_counted
from entropy_cli.results.schema import SOFT, Result

UNKNOWN = "-"
MAX_CODES = 10


def headline(result: Result) -> tuple[str, str]:
    """Return the assignment entropy with its error and unit, and a description of it."""
    average = result.average.token_weighted.assignment_entropy
    used = result.data.images_used
    interval = "no interval"
    if average.ci95 is not None:
        interval = f"95 % interval {average.ci95[0]:.4f} to {average.ci95[1]:.4f}"
    which = "token-weighted average over scales, " if len(result.scales) > 1 else ""
    return (
        f"{format_estimate(average)} nats per token",
        f"Assignment entropy (VAR-style irreducible loss) at {temperature_text(result)}; "
        f"{which}{interval}, {used} image{'s' if used > 1 else ''}",
    )


def temperature_text(result: Result) -> str:
    """Describe the temperature of the headline."""
    temperature = result.settings.temperature
    return "T fitted to each scale" if temperature == "auto" else f"T = {temperature:g}"


def result_name(result: Result) -> str:
    """Return a short name for a result: its checkpoint, else its family."""
    checkpoint = str(result.provenance.get("checkpoint") or "")
    return checkpoint.rpartition("/")[2] or result.tokenizer.family


def format_estimate(estimate: Estimate, digits: int = 4, factor: float = 1.0) -> str:
    """Format an estimate with its standard error; ≥ or ≤ marks a bound."""
    if estimate.value is None:
        return UNKNOWN
    error = "" if estimate.se is None else f" ± {factor * estimate.se:.{digits}f}"
    return f"{estimate.sign}{factor * estimate.value:.{digits}f}{error}"


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
    """Return all tables of a result that have content."""
    found = [soft_table(result)]
    if is_counted(result):
        found.append(hard_table(result))
    if len(result.temperatures) > 1:
        found.append(temperature_table(result))
    codes = codes_table(result)
    return [*found, codes] if codes is not None else found


def soft_table(result: Result) -> Table:
    """Return a table of the soft quantities of every scale, and their averages."""
    tokens = sum(scale.tokens for scale in result.scales)
    rows = [
        [
            scale.name,
            str(scale.tokens),
            f"{scale.tokens / tokens:.1%}",
            f"{scale.temperature:g}",
            *map(format_estimate, scale.soft),
        ]
        for scale in result.scales
    ]
    for kind, words in averages(result).items():
        rows.append([words, "", "", "", *map(format_estimate, getattr(result.average, kind).soft)])
    head = ["scale", "tokens", "share", "T", *(name.replace("_", " ") for name in SOFT)]
    maximum = f"ln V = {math.log(result.tokenizer.vocab_size):.4f}"
    caption = caption_with_bounds(f"nats per token, at most {maximum}; value ± standard error", rows)
    return Table("soft", "Soft assignment", head, rows, caption)


def hard_table(result: Result) -> Table:
    """Return a table of the hard tokens of every scale, and their averages."""
    means = {name: getattr(result.average, kind) for kind, name in averages(result).items()}
    rows = []
    for name, estimates in [*((scale.name, scale) for scale in result.scales), *means.items()]:
        is_scale = isinstance(estimates, schema.ScaleResult)
        coverage = f"{estimates.coverage:.4f}" if is_scale and estimates.coverage is not None else ""
        rows.append(
            [
                name,
                format_estimate(estimates.unigram_entropy),
                format_estimate(estimates.perplexity, 1),
                f"{format_estimate(estimates.usage_estimate, 1, 100)} %",
                dead_codes(estimates) if is_scale else "",
                coverage,
            ]
        )
    head = ["scale", "unigram entropy", "perplexity", "codebook usage", "dead codes", "coverage"]
    caption = "entropy in nats per token; coverage: probability of the codes seen so far (Good-Turing)"
    return Table(
        "hard", "Hard tokens: the nearest codes", head, rows, caption_with_bounds(caption, rows)
    )


def temperature_table(result: Result) -> Table:
    """Return a table of the assignment entropy and the varentropy at every temperature."""
    kinds = averages(result) or {"token_weighted": "assignment entropy"}
    rows = []
    for one in result.temperatures:
        temperature = one.temperature if isinstance(one.temperature, str) else f"{one.temperature:g}"
        cells = [format_estimate(getattr(one.average, kind).assignment_entropy) for kind in kinds]
        rows.append([temperature, *cells, format_estimate(one.average.token_weighted.varentropy)])
    head = ["T", *kinds.values(), "varentropy"]
    caption = "nats per token; varentropy: slope of the token-weighted average in ln T"
    return Table(
        "temperatures", "Assignment entropy at each temperature", head, rows, caption, sortable=True
    )


def codes_table(result: Result) -> Table | None:
    """Return a table of the ten most and the ten least used codes, over all scales that share them."""
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
    where = "all scales" if len(result.scales) > 1 else "all tokens"
    caption = (
        f"the ten most and the ten least used of {len(counts)}, over {where}; {dead} were never nearest"
    )
    return Table(
        "codes", "Codes by usage", ["code", "rank", "tokens", "share"], rows, caption, sortable=True
    )


def total_counts(result: Result) -> list[int] | None:
    """Return how often each code was nearest, over all scales; None if there are too many to count."""
    by_scale = [scale.code_counts for scale in result.scales if scale.code_counts is not None]
    if not by_scale:
        return None
    longest = max(map(len, by_scale))
    if any(len(counts) != longest for counts in by_scale):
        by_scale = by_scale[-1:]  # the scales have codebooks of their own
    return [sum(column) for column in zip(*by_scale, strict=True)]
