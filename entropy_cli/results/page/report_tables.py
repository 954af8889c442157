"""What a report of one result says, as text and tables: pages, Markdown and pictures are made of it."""

import math
from collections.abc import Sequence

from entropy_cli.core.page import Table
from entropy_cli.entropy.quantity import SIGNS, Estimate
from entropy_cli.results import schema
from entropy_cli.results.legend import averages, is_counted
from entropy_cli.results.schema import SOFT, Result

UNKNOWN = "-"
MAX_CODES = 10


def headline(result: Result) -> tuple[str, str]:
    """The number with its error and unit; and what it is the number of."""
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
    """The headline's temperature, for people."""
    temperature = result.settings.temperature
    return "T fitted to each scale" if temperature == "auto" else f"T = {temperature:g}"


def result_name(result: Result) -> str:
    """A short name for a result: its checkpoint, else its family."""
    checkpoint = str(result.provenance.get("checkpoint") or "")
    return checkpoint.rpartition("/")[2] or result.tokenizer.family


def format_estimate(estimate: Estimate, digits: int = 4, factor: float = 1.0) -> str:
    """An estimate with its standard error; ≥ or ≤ marks a bound."""
    if estimate.value is None:
        return UNKNOWN
    error = "" if estimate.se is None else f" ± {factor * estimate.se:.{digits}f}"
    return f"{estimate.sign}{factor * estimate.value:.{digits}f}{error}"


def caption_with_bounds(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """A caption that says what the signs before the numbers mean, of those that are there."""
    cells = [cell for row in rows for cell in row]
    for kind, sign in SIGNS.items():
        if sign and any(cell.startswith(sign) for cell in cells):
            caption += f"; {sign}marks {'a lower' if kind == 'lower' else 'an upper'} bound"
    return caption


def dead_codes(scale: schema.ScaleResult) -> str:
    """How many codes were never nearest; at most so many, if other images may have others."""
    if scale.codes_used is None or not scale.usage:
        return UNKNOWN
    dead = round(scale.codes_used / scale.usage) - scale.codes_used
    return f"{SIGNS['upper'] if scale.usage_estimate.bound else ''}{dead}"


def tables(result: Result) -> list[Table]:
    """All tables of a result that there is something to show in."""
    found = [soft_table(result)]
    if is_counted(result):
        found.append(hard_table(result))
    if len(result.temperatures) > 1:
        found.append(temperature_table(result))
    codes = codes_table(result)
    return [*found, codes] if codes is not None else found


def soft_table(result: Result) -> Table:
    """The soft quantities of every scale, and their averages."""
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
    top = f"ln V = {math.log(result.tokenizer.vocab_size):.4f}"
    caption = caption_with_bounds(f"nats per token, at most {top}; value ± standard error", rows)
    return Table("soft", "Soft assignment", caption, head, rows)


def hard_table(result: Result) -> Table:
    """The nearest codes of every scale, and their averages."""
    means = {words: getattr(result.average, kind) for kind, words in averages(result).items()}
    rows = []
    for name, of in [*((scale.name, scale) for scale in result.scales), *means.items()]:
        is_scale = isinstance(of, schema.ScaleResult)
        coverage = f"{of.coverage:.4f}" if is_scale and of.coverage is not None else ""
        rows.append(
            [
                name,
                format_estimate(of.unigram_entropy),
                format_estimate(of.perplexity, 1),
                f"{format_estimate(of.usage_estimate, 1, 100)} %",
                dead_codes(of) if is_scale else "",
                coverage,
            ]
        )
    head = ["scale", "unigram entropy", "perplexity", "codes used", "dead codes", "coverage"]
    caption = "entropy in nats per token; coverage: probability of the codes seen so far (Good-Turing)"
    return Table(
        "hard", "Hard tokens: the nearest codes", caption_with_bounds(caption, rows), head, rows
    )


def temperature_table(result: Result) -> Table:
    """The assignment entropy at every temperature, and how fast it grows there."""
    kinds = averages(result) or {"token_weighted": "assignment entropy"}
    rows = []
    for at in result.temperatures:
        cells = [format_estimate(getattr(at.average, kind).assignment_entropy) for kind in kinds]
        slope = format_estimate(at.average.token_weighted.varentropy)
        rows.append(
            [at.temperature if isinstance(at.temperature, str) else f"{at.temperature:g}", *cells, slope]
        )
    head = ["T", *kinds.values(), "varentropy"]
    caption = "nats per token; varentropy: what the token-weighted average gains for each factor e of T"
    return Table(
        "temperatures", "Assignment entropy at each temperature", caption, head, rows, sortable=True
    )


def codes_table(result: Result) -> Table | None:
    """The ten most and the ten least used codes, over all scales that share them."""
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
        "codes", "Codes by use", caption, ["code", "rank", "tokens", "share"], rows, sortable=True
    )


def total_counts(result: Result) -> list[int] | None:
    """How often each code was nearest, over all scales; None where codes were too many to count."""
    by_scale = [scale.code_counts for scale in result.scales if scale.code_counts is not None]
    if not by_scale:
        return None
    longest = max(map(len, by_scale))
    if any(len(counts) != longest for counts in by_scale):
        by_scale = by_scale[-1:]  # of codebooks of their own
    return [sum(column) for column in zip(*by_scale, strict=True)]
