"""An inspection as text for a terminal. Imports no torch."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from entropy_cli.commands.inspect.result import (
    Codebook,
    Counts,
    Encoder,
    Inspection,
    Part,
    Scale,
    Tokenizer,
)
from entropy_cli.core.text import columns, definitions, wrapped

if TYPE_CHECKING:
    from entropy_cli.entropy.codebook_statistics import Spread

FORMATS = {
    "safetensors": "safetensors",
    "torch-zip": "torch.save",
    "torch-legacy": "torch.save as before torch 1.6",
}
COPIES = {"raw": "as trained last (raw)", "ema": "averaged over the training (EMA)"}
RULES = {
    "l2": "nearest by Euclidean distance (l2)",
    "cosine": "nearest by direction (cosine)",
    "dot": "largest dot product (dot)",
    "logits": "largest logit of a linear layer (logits)",
    "sign": "the sign of each number (sign)",
    "bsq": "the sign of each number, on the unit sphere (bsq)",
    "levels": "each number rounded (levels)",
}
PARTS = {
    "encoder": "encoder",
    "quant_conv": "quant_conv (convolution after it)",
    "quantiser": "quantiser (the codes)",
    "post_quant_conv": "post_quant_conv (before the decoder)",
    "decoder": "decoder",
    "loss": "loss and discriminator",
    "other": "other",
}


def render(found: Inspection) -> str:
    """Family, file, tokenizer, weights by part, and codebooks; at most about 100 columns."""
    sections = [
        ("", definitions(dict(_head(found)))),
        ("Family", definitions(dict(_family(found)))),
        ("File", definitions(dict(_file(found)))),
        ("Tokenizer", definitions(dict(_tokenizer(found)))),
        ("Weights", _weights(found)),
        *_codebooks(found),
    ]
    return "\n\n".join(f"{title}\n{text}".strip() for title, text in sections)


def _head(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "checkpoint", found.file.path
    if found.family:
        yield "family", found.family
    elif fits := [name for name in found.candidates if not found.against[name]]:
        yield "family", f"not settled: fits {' and '.join(fits)}"
    else:
        yield "family", f"unknown; the nearest are {' and '.join(found.candidates)}"
    if found.tokenizer:
        yield "makes", _makes(found.tokenizer)
    if found.problem:
        yield "usable", f"no: {found.problem.removeprefix(f'{found.file.path}: ')}"
    elif found.weights_checked:
        yield "usable", "yes: encoder and quantiser were built from it"
    else:
        yield "usable", "yes, as far as names, shapes and codes tell; --full checks all weights"


def _makes(tokenizer: Tokenizer) -> str:
    size = f" of {tokenizer.image_size} x {tokenizer.image_size} pixels" if tokenizer.image_size else ""
    each = f"each one of {tokenizer.vocab_size:,} codes"
    return f"{_some(tokenizer.tokens, 'token')} of an image{size}, {each}"


def _family(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.family:
        yield found.family, "; ".join(found.why)
    if found.doubts:
        yield "but", f"{_few(found.doubts, 3)}"
    for name, reasons in sorted(found.against.items(), key=lambda item: len(item[1])):
        lead = f"not {name}" if reasons else name
        yield lead, _few(reasons, 1) if reasons else "nothing speaks against it"


def _file(found: Inspection) -> Iterator[tuple[str, str]]:
    file = found.file
    formats = " and ".join(FORMATS[form] for form in file.formats)
    yield "format", f"{formats}, {_bytes(file.bytes)}"
    if len(file.files) > 1 or not file.path.endswith(file.files[0]["name"]):
        yield "files", _few([f"{part['name']} ({_bytes(part['bytes'])})" for part in file.files], 4)
    if file.sha256:
        yield "sha256", file.sha256
    where = f"found under {file.wrapper}" if file.wrapper else "at the top of the file"
    prefix = f", names that begin with {file.prefix}" if file.prefix else ""
    yield "weights", where + prefix
    yield "copies", "; ".join(COPIES[kind] for kind in file.copies)
    if len(file.copies) > 1:
        yield "used", f"{COPIES[file.weights]}: {file.weights_why}"
    yield "stored as", ", ".join(f"{dtype} ({n:,} tensors)" for dtype, n in file.dtypes.items())
    if file.ignored:
        yield "ignored", "; ".join(file.ignored)
    if file.classes:
        yield "classes", f"named by the file, not imported and not run: {_few(file.classes, 5)}"


def _tokenizer(found: Inspection) -> Iterator[tuple[str, str]]:
    tokenizer, encoder = found.tokenizer, found.encoder
    if encoder:
        yield "encoder", _encoder(encoder)
    if not tokenizer:
        yield "tokens", "can't be told: see above"
        return
    if len(tokenizer.scales) > 1:
        yield "scales", f"{len(tokenizer.scales)} {_scales(tokenizer.scales)}"
    else:
        scale = tokenizer.scales[0]
        yield (
            "scales",
            f"one, a grid of {scale.name} tokens" if scale.patch_num else "one, without a grid",
        )
    bits = f", the signs of {tokenizer.bits} numbers" if tokenizer.bits else ""
    yield (
        "codes",
        f"{tokenizer.vocab_size:,}{bits}; a latent is of {_some(tokenizer.latent_dim, 'number')}",
    )
    yield "code chosen", RULES[tokenizer.rule]
    value = tokenizer.temperature
    at = "fitted to the images" if isinstance(value, str) else f"{value:g}"
    yield "temperature", f"{at} by default: {tokenizer.temperature_source}"
    yield "pictures", tokenizer.preprocess
    if tokenizer.config:
        yield "config.json", f"decides {', '.join(tokenizer.config)}"
    for i, note in enumerate(tokenizer.notes, 1):
        yield "note" if len(tokenizer.notes) == 1 else f"note {i}", note


def _scales(scales: Sequence[Scale]) -> str:
    if all(scale.patch_num for scale in scales):
        return f"grids of side {', '.join(str(scale.patch_num) for scale in scales)}"
    return f"one after the other: {', '.join(f'{s.name} of {s.tokens:,} tokens' for s in scales)}"


def _encoder(encoder: Encoder) -> str:
    if encoder.kind == "transformer":
        return (
            f"transformer of {encoder.blocks[0]} layers, {encoder.widths[0]} wide, on patches of "
            f"{encoder.downsampling} x {encoder.downsampling} pixels"
        )
    blocks = "/".join(map(str, encoder.blocks))
    same = len(set(encoder.blocks)) == 1
    levels = [str(i) for i, there in enumerate(encoder.attention, 1) if there]
    places = [f"on level {' and '.join(levels)}"] if levels else []
    places += ["in the middle"] if encoder.middle_attention else []
    return (
        f"convolutional, {_some(len(encoder.widths), 'level')} of "
        f"{', '.join(map(str, encoder.widths))} channels with {encoder.blocks[0] if same else blocks} "
        f"blocks each, {_some(encoder.middle_blocks, 'block')} in the middle; "
        f"attention {' and '.join(places) or 'nowhere'}; "
        f"{encoder.downsampling} x {encoder.downsampling} pixels a latent"
    )


def _weights(found: Inspection) -> str:
    scanned = any(part.nan is not None for part in found.parts)
    head = ["part", "for tokens", "tensors", "numbers", "size"]
    rows = [head + (["NaN", "inf", "largest"] if scanned else [])]
    for part in found.parts:
        rows.append([PARTS[part.name], "yes" if part.makes_tokens else "no", *_sizes([part])])
        if scanned:
            rows[-1] += [f"{part.nan:,}", f"{part.infinite:,}", f"{part.largest:.3g}"]
    rows.append(["all", "", *_sizes(found.parts), *([""] * 3 if scanned else [])])
    lines = [columns(rows, left=2)]
    for part in found.parts:
        if part.bad:
            lines.append(wrapped("NaN or infinite in  ", _few(part.bad, 4)))
        for name, reason in (part.unread or {}).items():
            lines.append(wrapped("not read  ", f"{name}: {reason}"))
    return "\n".join(lines)


def _sizes(parts: Sequence[Part]) -> list[str]:
    totals = [sum(getattr(part, key) for part in parts) for key in ("tensors", "numbers")]
    return [*(f"{total:,}" for total in totals), _bytes(sum(part.bytes for part in parts))]


def _codebooks(found: Inspection) -> Iterator[tuple[str, str]]:
    if not found.codebooks:
        bits = found.tokenizer and found.tokenizer.bits
        why = f"none: a code is the signs of {bits} numbers" if bits else "none was found"
        yield "Codebook", why
    names = {re.sub(r"\d+", "N", codebook.tensor) for codebook in found.codebooks}
    if len(names) < len(found.codebooks) and all(codebook.statistics for codebook in found.codebooks):
        yield f"Codebooks {' and '.join(names)}", _many(found.codebooks)
        return
    for codebook in found.codebooks:
        yield f"Codebook {codebook.tensor}", definitions(dict(_codebook(codebook)))


def _many(codebooks: Sequence[Codebook]) -> str:
    """A row for each, by the number in its name."""
    rows = [["N", "codes", "numbers", "length", "nearest code", "zero", "equal", "NaN", "never used"]]
    for codebook in codebooks:
        of = codebook.statistics
        assert of is not None
        middles = [f"{spread.median:.4g}" if spread else "-" for spread in (of.norm, of.nearest)]
        never = [counts.never for counts in codebook.counts if counts.never is not None]
        row = [" ".join(re.findall(r"\d+", codebook.tensor)), f"{of.codes:,}", f"{of.dims:,}"]
        row += [*middles, *(f"{n:,}" for n in (of.zero, of.duplicates, of.non_finite))]
        rows.append([*row, f"{never[0]:,}" if never else "-"])
    legend = (
        "numbers of a code; medians of the codes' Euclidean length and of the distance to the nearest "
        "other code; codes that are all zero, that equal another exactly, that hold NaN or infinity, "
        "and that were never chosen, if the checkpoint counted it in training"
    )
    if any(codebook.padding for codebook in codebooks):
        legend += "; one more row of each is padding"
    return f"{columns(rows)}\n{wrapped('', legend)}"


def _codebook(codebook: Codebook) -> Iterator[tuple[str, str]]:
    of = codebook.statistics
    if of is None:
        yield "problem", str(codebook.problem)
        return
    padding = "; one more row is padding" if codebook.padding else ""
    yield "codes", f"{of.codes:,} of {_some(of.dims, 'number')}{padding}"
    spread = "" if of.mean is None else f"mean {of.mean:.4g}, standard deviation {of.std:.4g}"
    yield "numbers", spread or "none that are finite"
    yield "length", f"{_spread(of.norm)} (Euclidean norm of a code)"
    unknown = "not computed for so many codes" if of.codes - of.non_finite > 1 else "-"
    yield "nearest code", f"at a distance of {_spread(of.nearest)}" if of.nearest else unknown
    yield "all zero", _share(of.zero, of.codes)
    yield "duplicates", f"{_share(of.duplicates, of.codes)} equal another code exactly"
    yield "NaN, infinite", _share(of.non_finite, of.codes)
    totals = [counts for counts in codebook.counts if counts.scale is None]
    for i, counts in enumerate(totals, 1):
        yield (
            "usage" if len(totals) == 1 else f"usage {i}",
            _usage(counts, [c for c in codebook.counts if c.tensor == counts.tensor]),
        )


def _usage(counts: Counts, of_tensor: Sequence[Counts]) -> str:
    source = f"by {counts.tensor}, the {counts.meaning}"
    if counts.never is None or counts.rare is None or counts.top_share is None:
        return f"nothing was counted ({source})"
    scales = [c for c in of_tensor if c.scale is not None and c.never is not None]
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


def _share(n: int, of: int) -> str:
    return f"{n:,} of {of:,}" + (f" ({n / of:.1%})" if n else "")


def _some(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _few(words: Sequence[str], most: int) -> str:
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 100 * size else f"{n / size:.0f} {unit}"
    return f"{n} B"
