"""An inspection as tables for a terminal. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING

from rich.filesize import decimal

from entropy_cli.commands.inspect.generator_table import generator_rows, in_one_line
from entropy_cli.commands.inspect.result import Encoder, Generator, Inspection, Scale, Tokenizer
from entropy_cli.core.table import WIDTH, Lines, Table

if TYPE_CHECKING:
    from entropy_cli.entropy.codebook_statistics import Spread

SCREEN = 23  # lines of the short form, beside the prompt
FORMATS = {
    "safetensors": "safetensors",
    "torch-zip": "torch.save",
    "torch-legacy": "torch.save before torch 1.6",
}
RULES = {
    "l2": "nearest by Euclidean distance (l2)",
    "cosine": "nearest by direction (cosine)",
    "dot": "largest dot product (dot)",
    "logits": "largest logit of a linear layer (logits)",
    "sign": "sign of each dimension (sign)",
    "bsq": "sign of each dimension, on the unit sphere (bsq)",
    "levels": "each dimension rounded (levels)",
}
CODEBOOK_HEAD = (
    *("N", "codes", "dimensions", "norm", "norm min", "norm max"),
    *("nearest code", "nearest min", "nearest max"),
    *("zero", "equal", "NaN", "mean", "std", "never used", "rarely used"),
)
# Rows and columns that the short form leaves out.
DETAILS = ("stored as", "ignored", "classes", "published", "config.json")
SPREADS = ("norm min", "norm max", "nearest min", "nearest max", "mean", "std", "rarely used")
EXPENDABLE = ("zero", "dimensions", "equal")  # the first first, where the table is too wide
MEDIANS = "medians of norm and nearest distance"
LEGEND = (
    "norm, nearest code: medians of the codes' Euclidean norm and of the distance to the nearest other "
    "code; zero, equal, NaN: codes that are all zero, that equal another exactly, that hold NaN or "
    "infinity; never used, rarely used: in training, if the checkpoint counted that; rarely is less "
    "than 1 % as often as on average"
)


def render(found: Inspection, *, full: bool) -> str:
    """Render the tables of an inspection; without `full`, only what matters most, on one screen."""
    about, families, codebooks = _description(found), _families(found), _codebooks(found)
    if full:
        tables = [_filled(about), _filled(families), _levels(found.encoder), _parts(found), codebooks]
        tables.append(_usage(found))
        return "\n\n".join(table.text() for table in tables if table.rows)
    about = replace(about, rows=[row for row in about.rows if row[0] not in DETAILS])
    tables = [_filled(about, max_lines=2)]
    if not found.family:
        shown = [row for row in families.rows if str(row[0]).removeprefix("not ") in found.candidates]
        tables.append(_filled(replace(families, rows=shown), max_lines=2))
    room = SCREEN - sum(table.text().count("\n") + 2 for table in tables)
    codebooks = codebooks.without(*SPREADS).fitted(*EXPENDABLE)
    most, notes = max(1, room - 3), codebooks.notes[:-1]
    if (rows := len(codebooks.rows)) > most:
        most = max(1, most - 2)
        notes = [*notes, f"and {rows - most:,} more: --table"]
    tables.append(replace(codebooks, rows=codebooks.rows[:most], notes=notes))
    return "\n\n".join(table.text() for table in tables if table.rows)


def _filled(table: Table, max_lines: int | None = None) -> Table:
    """Return a table of terms and texts with the texts wrapped, and cut to some lines."""
    width = WIDTH - 2 - max(len(str(row[0])) for row in (table.head, *table.rows))
    rows = [
        [term, Lines(fill(str(text), width, max_lines=max_lines, placeholder=" ... (--table)",
                          break_long_words=False, break_on_hyphens=False))]
        for term, text in table.rows
    ]  # fmt: skip
    return replace(table, rows=rows)


def _description(found: Inspection) -> Table:
    """Return a table of the file and the tokenizer, below the family."""
    fits = [name for name in found.candidates if not found.against[name]]
    state = "ambiguous: fits" if fits else "unknown; the nearest" if found.candidates else "unknown"
    head = ["family", found.family or f"{state} {' and '.join(found.candidates)}".rstrip()]
    alone = _alone(found)
    if alone:
        head = ["generator", f"{alone.family}, for evaluate --model"]
    usable = "yes, judging by names, shapes and codes; --full checks all weights"
    if found.problem:
        reason = found.problem.removeprefix(f"{found.file.path}: ")
        usable = f"no: {reason.removeprefix(f'is {alone.words}: ') if alone else reason}"
    elif found.weights_checked:
        usable = f"yes: {'it was' if alone else 'encoder and quantiser were'} built from it"
    terms = {
        "doubts": _first(found.doubts, 3),
        "makes": _makes(found.tokenizer) if found.tokenizer else "",
        "usable": usable,
        **(generator_rows(alone, found.file.ignored) if alone else {}),
        **_file(found),
        "generator": in_one_line(found.generator) if found.generator and not alone else "",
        "encoder": _encoder(found.encoder) if found.encoder else "",
        **(_tokenizer(found.tokenizer) if found.tokenizer else {}),
        "codebook": "" if found.codebooks or alone else "none",
    }
    rows = [(term, text) for term, text in terms.items() if text]
    return Table("checkpoint", found.file.path, head, rows, left=(0, 1))


def _alone(found: Inspection) -> Generator | None:
    """Return the generator that a file holds in place of a tokenizer, if that is what it is."""
    return found.generator if not found.family and not found.candidates else None


def _makes(tokenizer: Tokenizer) -> str:
    side = tokenizer.image_size
    size = f" of {side} x {side} pixels" if side else ""
    tokens = f"{_counted(tokenizer.tokens, 'token')} per image{size}"
    return f"{tokens}, each one of {tokenizer.vocab_size:,} codes"


def _file(found: Inspection) -> dict[str, str]:
    file, parts = found.file, found.parts
    formats = " and ".join(FORMATS[form] for form in file.formats)
    place = f"; weights found under {file.wrapper}" if file.wrapper else ""
    place += f"; names begin with {file.prefix}" if file.prefix else ""
    names = [f"{part['name']} ({decimal(part['bytes'])})" for part in file.files]
    is_named = len(names) == 1 and file.path.endswith(file.files[0]["name"])
    copies = f"{' and '.join(file.copies)}; {file.weights} is used: {file.weights_why}"
    used, other = (
        sum(part.numbers for part in parts if part.makes_tokens is it) for it in (True, False)
    )
    bad = [name for part in parts for name in part.bad or []]
    classes = f"named by the file, neither imported nor run: {_first(file.classes, 5)}"
    return {
        "format": f"{formats}, {decimal(file.bytes)}{place}",
        "files": "" if is_named else _first(names, 4),
        "sha256": file.sha256 or "",
        "copies": copies if len(file.copies) > 1 else "",
        "elements": f"{used:,} make the tokens, {other:,} are not needed" if parts else "",
        "stored as": ", ".join(f"{dtype} ({n:,} tensors)" for dtype, n in file.dtypes.items()),
        "NaN, infinite": f"in {_first(bad, 4)}" if bad else "",
        "not read": "; ".join(text for part in parts for text in (part.unread or {}).values()),
        "ignored": "; ".join(file.ignored),
        "classes": classes if file.classes else "",
    }


def _encoder(encoder: Encoder) -> str:
    pixels = f"{encoder.downsampling} x {encoder.downsampling} pixels"
    if encoder.kind == "transformer":
        layers, width = encoder.blocks[0], encoder.widths[0]
        return f"transformer of {layers} layers, {width} wide, on patches of {pixels}"
    return f"convolutional, {_counted(len(encoder.widths), 'level')}; {pixels} per latent"


def _levels(encoder: Encoder | None) -> Table:
    """Return a table of a convolutional encoder's levels, finest first, and of what follows them."""
    rows: list[list[str | int]] = []
    if encoder and encoder.kind == "convolutional":
        levels = zip(encoder.widths, encoder.blocks, encoder.attention, strict=True)
        rows = [[i, w, n, "yes" if attends else "no"] for i, (w, n, attends) in enumerate(levels, 1)]
        attends = "yes" if encoder.middle_attention else "no"
        rows.append(["middle", encoder.widths[-1], encoder.middle_blocks, attends])
    return Table("levels", "", ["level", "channels", "blocks", "attention"], rows)


LABELS = {
    "hard": "hard labels, the nearest codes",
    "soft": "soft or sampled labels",
    "unknown": "labels that are not known here",
}


def _tokenizer(tokenizer: Tokenizer) -> dict[str, str]:
    bits = f", the signs of {tokenizer.bits} dimensions" if tokenizer.bits else ""
    latents = f"latents of {_counted(tokenizer.latent_dim, 'dimension')}"
    named = ("fitted to the images" if isinstance(t, str) else f"{t:g}" for t in tokenizer.temperatures)
    default = " and ".join(named)
    return {
        "scales": _scales(tokenizer.scales),
        "codes": f"{tokenizer.vocab_size:,}{bits}; {latents}",
        "rule": RULES[tokenizer.rule],
        "temperature": f"{default} by default",
        "labels": f"models on its tokens train on {LABELS[tokenizer.labels]}",
        "published": tokenizer.temperature_source,
        "images": tokenizer.preprocess,
        "config.json": f"sets {', '.join(tokenizer.config)}" if tokenizer.config else "",
        "notes": "; ".join(tokenizer.notes),
    }


def _scales(scales: Sequence[Scale]) -> str:
    if len(scales) == 1:
        grid = f"a grid of {scales[0].name} tokens" if scales[0].patch_num else "without a grid"
        return f"one, {grid}"
    if all(scale.patch_num for scale in scales):
        return f"{len(scales)} grids of side {', '.join(str(scale.patch_num) for scale in scales)}"
    return f"{len(scales)} in turn: {', '.join(f'{s.name} of {s.tokens:,} tokens' for s in scales)}"


def _families(found: Inspection) -> Table:
    """Return a table of the evidence for and against each family."""
    if alone := _alone(found):
        return Table(
            "families", "", ["family", "evidence"], [(alone.family, "; ".join(alone.why))], left=(0, 1)
        )
    rows = [(found.family, "; ".join(found.why))] if found.family else []
    for name, reasons in sorted(found.against.items(), key=lambda item: len(item[1])):
        rows.append((f"not {name}", _first(reasons, 1)) if reasons else (name, "fits"))
    return Table("families", "", ["family", "evidence"], rows, left=(0, 1))


def _parts(found: Inspection) -> Table:
    head = ["part", "for tokens", "tensors", "elements", "size", "NaN", "inf", "largest"]
    rows = [
        [
            part.name,
            "yes" if part.makes_tokens else "no",
            *map(_number, (part.tensors, part.numbers)),
            decimal(part.bytes),
            *map(_number, (part.nan, part.infinite, part.largest)),
        ]
        for part in found.parts
    ]
    return Table("weights", "", head, rows, left=(0, 1)).without_empty_columns()


def _codebooks(found: Inspection) -> Table:
    """Return a table with a row for each codebook: its name, or the numbers in it."""
    patterns = dict.fromkeys(re.sub(r"\d+", "N", codebook.tensor) for codebook in found.codebooks)
    rows = []
    for codebook in found.codebooks:
        numbers = " ".join(re.findall(r"\d+", codebook.tensor))
        of, used = codebook.statistics, next((c for c in codebook.counts if c.never is not None), None)
        cells = (
            (numbers if len(patterns) == 1 else codebook.tensor,),
            (of.codes, of.dims, *_spread(of.norm), *_spread(of.nearest)) if of else [None] * 8,
            (of.zero, of.duplicates, of.non_finite, of.mean, of.std) if of else [None] * 5,
            (used.never, used.rare) if used else (None, None),
        )
        rows.append([_number(cell) for row in cells for cell in row])
    problems = [f"{c.tensor}: {c.problem}" for c in found.codebooks if c.problem]
    padding = "; the last row is padding" if any(c.padding for c in found.codebooks) else ""
    title = f"Codebook{'s' if rows[1:] else ''} {' and '.join(patterns)}"
    notes = [*problems, LEGEND + padding]
    table = Table("codebooks", title, CODEBOOK_HEAD, rows, MEDIANS, notes)
    return table.without_empty_columns() if rows else table


def _usage(found: Inspection) -> Table:
    """Return a table of how often codes were chosen in training, at each scale."""
    counts = [counts for codebook in found.codebooks for counts in codebook.counts]
    rows = []
    for c in counts:
        scale = "all" if c.scale is None else str(c.scale)
        if c.never is not None:
            rows.append([c.tensor, scale, *map(_number, (c.never, c.rare)), f"{c.top_share:.2%}"])
    notes = dict.fromkeys(f"{c.tensor}: {c.meaning}" for c in counts)
    head = ["usage", "scale", "never used", "rarely used", "most frequent"]
    return Table("usage", "", head, rows, notes=list(notes))


def _spread(spread: "Spread | None") -> tuple[float | None, ...]:
    return (spread.median, spread.min, spread.max) if spread else (None, None, None)


def _number(cell: str | float | None) -> str | None:
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}" if isinstance(cell, float) else cell


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
