"""An inspection as text for a terminal. Imports no torch."""

from collections.abc import Iterator, Sequence

from entropy_cli.commands.inspect.codebook_text import Section, codebook_sections, counted
from entropy_cli.commands.inspect.result import (
    Encoder,
    Inspection,
    Part,
    Scale,
    Tokenizer,
)
from entropy_cli.core.table import Table, definitions, wrapped

FORMATS = {
    "safetensors": "safetensors",
    "torch-zip": "torch.save",
    "torch-legacy": "torch.save before torch 1.6",
}
COPIES = {"raw": "raw (last step)", "ema": "EMA (averaged over the training)"}
RULES = {
    "l2": "nearest by Euclidean distance (l2)",
    "cosine": "nearest by direction (cosine)",
    "dot": "largest dot product (dot)",
    "logits": "largest logit of a linear layer (logits)",
    "sign": "sign of each dimension (sign)",
    "bsq": "sign of each dimension, on the unit sphere (bsq)",
    "levels": "each dimension rounded (levels)",
}
PARTS = {
    "quant_conv": "quant_conv (convolution after it)",
    "quantiser": "quantiser (codebook)",
    "post_quant_conv": "post_quant_conv (before the decoder)",
    "loss": "loss and discriminator",
}
# Lines that only --table shows.
DETAILS = ("classes", "ignored", "config.json", "values")


def render(found: Inspection, *, full: bool) -> str:
    """Render family, file, tokenizer, weights and codebooks; `full` adds evidence, parts and details."""
    sections: list[tuple[str, Section]] = [
        ("", _summary(found)),
        ("Family", _family(found, full=full)),
        ("File", _file(found, full=full)),
        ("Tokenizer", _tokenizer(found, full=full)),
        ("Weights", _weights(found, full=full)),
        *codebook_sections(found, full=full),
    ]
    texts = []
    for title, content in sections:
        if not isinstance(content, str):
            terms = {term: text for term, text in content if full or term not in DETAILS}
            content = definitions(terms) if terms else ""
        texts += [f"{title}\n{content}".strip()] if content else []
    return "\n\n".join(texts)


def _summary(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "checkpoint", found.file.path
    if found.family:
        yield "family", found.family
    elif fits := [name for name in found.candidates if not found.against[name]]:
        yield "family", f"ambiguous: fits {' and '.join(fits)}"
    else:
        yield "family", f"unknown; the nearest are {' and '.join(found.candidates)}"
    if found.tokenizer:
        yield "makes", _makes(found.tokenizer)
    if found.problem:
        yield "usable", f"no: {found.problem.removeprefix(f'{found.file.path}: ')}"
    elif found.weights_checked:
        yield "usable", "yes: encoder and quantiser were built from it"
    else:
        yield "usable", "yes, judging by names, shapes and codes; --full checks all weights"


def _makes(tokenizer: Tokenizer) -> str:
    size = f" of {tokenizer.image_size} x {tokenizer.image_size} pixels" if tokenizer.image_size else ""
    return (
        f"{counted(tokenizer.tokens, 'token')} per image{size}, each one of "
        f"{tokenizer.vocab_size:,} codes"
    )


def _family(found: Inspection, *, full: bool) -> Iterator[tuple[str, str]]:
    """Yield the evidence for and against the families; in short, that of a doubtful one alone."""
    if found.family and full:
        yield found.family, "; ".join(found.why)
    if found.doubts:
        yield "doubts", _first(found.doubts, 3)
    for name, reasons in sorted(found.against.items(), key=lambda item: len(item[1])):
        if full or name in found.candidates:
            yield f"not {name}" if reasons else name, _first(reasons, 1) if reasons else "fits too"


def _file(found: Inspection, *, full: bool) -> Iterator[tuple[str, str]]:
    file = found.file
    formats = " and ".join(FORMATS[form] for form in file.formats)
    yield "format", f"{formats}, {_bytes(file.bytes)}"
    if len(file.files) > 1 or not file.path.endswith(file.files[0]["name"]):
        yield "files", _first([f"{part['name']} ({_bytes(part['bytes'])})" for part in file.files], 4)
    if file.sha256:
        yield "sha256", file.sha256
    location = f"found under {file.wrapper}" if file.wrapper else "at the top of the file"
    prefix = f", names that begin with {file.prefix}" if file.prefix else ""
    yield "weights", location + prefix
    if full or len(file.copies) > 1:
        yield "copies", "; ".join(COPIES[kind] for kind in file.copies)
    if len(file.copies) > 1:
        yield "used", f"{COPIES[file.weights]}: {file.weights_why}"
    used, other = (sum(p.numbers for p in found.parts if p.makes_tokens is it) for it in (True, False))
    yield "elements", f"{used:,} for tokens, {other:,} not"
    yield "stored as", ", ".join(f"{dtype} ({n:,} tensors)" for dtype, n in file.dtypes.items())
    if file.ignored:
        yield "ignored", "; ".join(file.ignored)
    if file.classes:
        yield "classes", f"named by the file, neither imported nor run: {_first(file.classes, 5)}"


def _tokenizer(found: Inspection, *, full: bool) -> Iterator[tuple[str, str]]:
    tokenizer, encoder = found.tokenizer, found.encoder
    if encoder:
        yield "encoder", _encoder(encoder, full=full)
    if not tokenizer:
        yield "tokens", "unknown: see above"
        return
    yield "scales", _scales(tokenizer.scales)
    bits = f", the signs of {tokenizer.bits} dimensions" if tokenizer.bits else ""
    yield (
        "codes",
        f"{tokenizer.vocab_size:,}{bits}; latents of {counted(tokenizer.latent_dim, 'dimension')}",
    )
    yield "rule", RULES[tokenizer.rule]
    value = tokenizer.temperature
    default = "fitted to the images" if isinstance(value, str) else f"{value:g}"
    source = f": {tokenizer.temperature_source}" if full else ""
    yield "temperature", f"{default} by default{source}"
    yield "images", tokenizer.preprocess
    if tokenizer.config:
        yield "config.json", f"sets {', '.join(tokenizer.config)}"
    for i, note in enumerate(tokenizer.notes, 1):
        yield "note" if len(tokenizer.notes) == 1 else f"note {i}", note


def _scales(scales: Sequence[Scale]) -> str:
    if len(scales) == 1:
        return (
            f"one, a grid of {scales[0].name} tokens" if scales[0].patch_num else "one, without a grid"
        )
    if all(scale.patch_num for scale in scales):
        return f"{len(scales)} grids of side {', '.join(str(scale.patch_num) for scale in scales)}"
    return f"{len(scales)} in turn: {', '.join(f'{s.name} of {s.tokens:,} tokens' for s in scales)}"


def _encoder(encoder: Encoder, *, full: bool) -> str:
    if encoder.kind == "transformer":
        return (
            f"transformer of {encoder.blocks[0]} layers, {encoder.widths[0]} wide, on patches of "
            f"{encoder.downsampling} x {encoder.downsampling} pixels"
        )
    pixels = f"{encoder.downsampling} x {encoder.downsampling} pixels per latent"
    if not full:
        return f"convolutional, {counted(len(encoder.widths), 'level')}; {pixels}"
    same = len(set(encoder.blocks)) == 1
    blocks = (
        counted(encoder.blocks[0], "block") if same else f"{'/'.join(map(str, encoder.blocks))} blocks"
    )
    levels = [str(i) for i, attends in enumerate(encoder.attention, 1) if attends]
    places = [f"on level {' and '.join(levels)}"] if levels else []
    places += ["in the middle"] if encoder.middle_attention else []
    return (
        f"convolutional, {counted(len(encoder.widths), 'level')} of "
        f"{', '.join(map(str, encoder.widths))} channels with {blocks} each, "
        f"{counted(encoder.middle_blocks, 'block')} in the middle; "
        f"attention {' and '.join(places) or 'nowhere'}; {pixels}"
    )


def _weights(found: Inspection, *, full: bool) -> str:
    lines = [_parts_table(found.parts).text()] if full else []
    for part in found.parts:
        if part.bad:
            lines.append(wrapped("NaN or infinite in  ", _first(part.bad, 4)))
        for name, reason in (part.unread or {}).items():
            lines.append(wrapped("not read  ", f"{name}: {reason}"))
    return "\n".join(lines)


def _parts_table(parts: Sequence[Part]) -> Table:
    head = ["part", "for tokens", "tensors", "elements", "size", "NaN", "inf", "largest"]
    rows: list[list[str | None]] = [
        [
            PARTS.get(part.name, part.name),
            "yes" if part.makes_tokens else "no",
            f"{part.tensors:,}",
            f"{part.numbers:,}",
            _bytes(part.bytes),
            None if part.nan is None else f"{part.nan:,}",
            None if part.infinite is None else f"{part.infinite:,}",
            None if part.largest is None else f"{part.largest:.3g}",
        ]
        for part in parts
    ]
    tensors, numbers, size = (
        sum(getattr(p, key) for p in parts) for key in ("tensors", "numbers", "bytes")
    )
    rows.append(["all", None, f"{tensors:,}", f"{numbers:,}", _bytes(size), None, None, None])
    return Table("weights", "", head, rows, left=(0, 1)).without_empty_columns()


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 100 * size else f"{n / size:.0f} {unit}"
    return f"{n} B"
