"""The codebooks of an inspection as text for a terminal. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from entropy_cli.commands.inspect.result import Codebook, Counts, Inspection
from entropy_cli.core.table import Table

if TYPE_CHECKING:
    from entropy_cli.entropy.codebook_statistics import Spread

Section = str | Iterator[tuple[str, str]]  # a text, or terms with their definitions


def codebook_sections(found: Inspection, *, full: bool) -> Iterator[tuple[str, Section]]:
    """Yield the title and the content of the sections on codebooks."""
    if not found.codebooks:
        bits = found.tokenizer and found.tokenizer.bits
        why = f"none: a code is the signs of {bits} dimensions" if bits else "none was found"
        yield "Codebook", why
    names = {re.sub(r"\d+", "N", codebook.tensor) for codebook in found.codebooks}
    if len(names) < len(found.codebooks) and all(codebook.statistics for codebook in found.codebooks):
        yield f"Codebooks {' and '.join(names)}", _codebook_table(found.codebooks, full=full)
        return
    for codebook in found.codebooks:
        yield f"Codebook {codebook.tensor}", _codebook(codebook, full=full)


def _codebook_table(codebooks: Sequence[Codebook], *, full: bool) -> str:
    """Render a row for each codebook, with the number in its name."""
    head = ["N", "codes", "dimensions", "norm", "nearest code", "zero", "equal", "NaN", "never used"]
    rows = []
    for codebook in codebooks:
        found = codebook.statistics
        assert found is not None
        medians = [f"{spread.median:.4g}" if spread else "-" for spread in (found.norm, found.nearest)]
        never = [f"{counts.never:,}" for counts in codebook.counts if counts.never is not None]
        row = [" ".join(re.findall(r"\d+", codebook.tensor)), f"{found.codes:,}", f"{found.dims:,}"]
        row += [*medians, *(f"{n:,}" for n in (found.zero, found.duplicates, found.non_finite))]
        rows.append([*row, never[0] if never else "-"])
    legend = (
        "norm, nearest code: medians of the codes' Euclidean norm and of the distance to the nearest "
        "other code; zero, equal, NaN: codes that are all zero, that equal another exactly, that hold "
        "NaN or infinity; never used: codes never chosen in training, if the checkpoint counted that"
    )
    if any(codebook.padding for codebook in codebooks):
        legend += "; the last row of each codebook is padding and not counted"
    return Table("codebooks", "", head, rows, notes=[legend] if full else []).text()


def _codebook(codebook: Codebook, *, full: bool) -> Iterator[tuple[str, str]]:
    found = codebook.statistics
    if found is None:
        yield "problem", str(codebook.problem)
        return
    padding = "; the last row is padding and not counted" if codebook.padding else ""
    yield "codes", f"{found.codes:,} of {counted(found.dims, 'dimension')}{padding}"
    moments = "" if found.mean is None else f"mean {found.mean:.4g}, standard deviation {found.std:.4g}"
    yield "values", moments or "none is finite"
    yield "norm", f"{_spread(found.norm)} (Euclidean norm of a code)"
    unknown = "not computed for so many codes" if found.codes - found.non_finite > 1 else "-"
    yield "nearest code", f"at a distance of {_spread(found.nearest)}" if found.nearest else unknown
    if found.zero or full:
        yield "all zero", _share(found.zero, found.codes)
    yield "duplicates", f"{_share(found.duplicates, found.codes)} equal another code exactly"
    yield "NaN, infinite", _share(found.non_finite, found.codes)
    totals = [counts for counts in codebook.counts if counts.scale is None]
    for i, counts in enumerate(totals, 1):
        yield (
            "usage" if len(totals) == 1 else f"usage {i}",
            _usage(counts, [c for c in codebook.counts if c.tensor == counts.tensor], full=full),
        )


def _usage(counts: Counts, same_tensor: Sequence[Counts], *, full: bool) -> str:
    source = f"from {counts.tensor}, the {counts.meaning}" if full else f"from {counts.tensor}"
    if counts.never is None or counts.rare is None or counts.top_share is None:
        return f"nothing was counted ({source})"
    scales = [c for c in same_tensor if c.scale is not None and c.never is not None]
    never = ", ".join(f"{c.never:,}" for c in scales)
    any_never = any(c.never for c in scales)
    return (
        f"{_share(counts.never, counts.codes)} never chosen, "
        f"{_share(counts.rare, counts.codes)} rarely: less than 1 % as often as on average; the most "
        f"frequent {counts.top_share:.2%} of the time "
        f"({source})" + (f"; never chosen at each scale: {never}" if any_never else "")
    )


def _spread(spread: "Spread | None") -> str:
    if spread is None:
        return "-"
    return f"{spread.min:.4g} to {spread.max:.4g}, median {spread.median:.4g}"


def _share(n: int, total: int) -> str:
    return f"{n:,} of {total:,}" + (f" ({n / total:.1%})" if n else "")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
