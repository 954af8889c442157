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
    "encoder": "encoder",
    "quant_conv": "quant_conv (convolution after it)",
    "quantiser": "quantiser (codebook)",
    "post_quant_conv": "post_quant_conv (before the decoder)",
    "decoder": "decoder",
    "loss": "loss and discriminator",
    "other": "other",
}


def render(found: Inspection) -> str:
    """Render family, file, tokenizer, weights by part, and codebooks in about 100 columns."""
    sections = [
        ("", definitions(dict(_summary(found)))),
        ("Family", definitions(dict(_family(found)))),
        ("File", definitions(dict(_file(found)))),
        ("Tokenizer", definitions(dict(_tokenizer(found)))),
        ("Weights", _weights(found)),
        *_codebooks(found),
    ]
    return "\n\n".join(f"{title}\n{text}".strip() for title, text in sections)


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
        f"{_count(tokenizer.tokens, 'token')} per image{size}, each one of "
        f"{tokenizer.vocab_size:,} codes"
    )


def _family(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.family:
        yield found.family, "; ".join(found.why)
    if found.doubts:
        yield "doubts", _first(found.doubts, 3)
    for name, reasons in sorted(found.against.items(), key=lambda item: len(item[1])):
        lead = f"not {name}" if reasons else name
        yield lead, _first(reasons, 1) if reasons else "fits too"


def _file(found: Inspection) -> Iterator[tuple[str, str]]:
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
    yield "copies", "; ".join(COPIES[kind] for kind in file.copies)
    if len(file.copies) > 1:
        yield "used", f"{COPIES[file.weights]}: {file.weights_why}"
    yield "stored as", ", ".join(f"{dtype} ({n:,} tensors)" for dtype, n in file.dtypes.items())
    if file.ignored:
        yield "ignored", "; ".join(file.ignored)
    if file.classes:
        yield "classes", f"named by the file, neither imported nor run: {_first(file.classes, 5)}"


def _tokenizer(found: Inspection) -> Iterator[tuple[str, str]]:
    tokenizer, encoder = found.tokenizer, found.encoder
    if encoder:
        yield "encoder", _encoder(encoder)
    if not tokenizer:
        yield "tokens", "unknown: see above"
        return
    if len(tokenizer.scales) > 1:
        yield "scales", f"{len(tokenizer.scales)} {_scales(tokenizer.scales)}"
    else:
        scale = tokenizer.scales[0]
        yield (
            "scales",
            f"one, a grid of {scale.name} tokens" if scale.patch_num else "one, without a grid",
        )
    bits = f", the signs of {tokenizer.bits} dimensions" if tokenizer.bits else ""
    yield (
        "codes",
        f"{tokenizer.vocab_size:,}{bits}; latents of {_count(tokenizer.latent_dim, 'dimension')}",
    )
    yield "rule", RULES[tokenizer.rule]
    value = tokenizer.temperature
    default = "fitted to the images" if isinstance(value, str) else f"{value:g}"
    yield "temperature", f"{default} by default: {tokenizer.temperature_source}"
    yield "images", tokenizer.preprocess
    if tokenizer.config:
        yield "config.json", f"sets {', '.join(tokenizer.config)}"
    for i, note in enumerate(tokenizer.notes, 1):
        yield "note" if len(tokenizer.notes) == 1 else f"note {i}", note


def _scales(scales: Sequence[Scale]) -> str:
    if all(scale.patch_num for scale in scales):
        return f"grids of side {', '.join(str(scale.patch_num) for scale in scales)}"
    return f"in turn: {', '.join(f'{s.name} of {s.tokens:,} tokens' for s in scales)}"


def _encoder(encoder: Encoder) -> str:
    if encoder.kind == "transformer":
        return (
            f"transformer of {encoder.blocks[0]} layers, {encoder.widths[0]} wide, on patches of "
            f"{encoder.downsampling} x {encoder.downsampling} pixels"
        )
    same = len(set(encoder.blocks)) == 1
    blocks = (
        _count(encoder.blocks[0], "block") if same else f"{'/'.join(map(str, encoder.blocks))} blocks"
    )
    levels = [str(i) for i, attends in enumerate(encoder.attention, 1) if attends]
    places = [f"on level {' and '.join(levels)}"] if levels else []
    places += ["in the middle"] if encoder.middle_attention else []
    return (
        f"convolutional, {_count(len(encoder.widths), 'level')} of "
        f"{', '.join(map(str, encoder.widths))} channels with {blocks} each, "
        f"{_count(encoder.middle_blocks, 'block')} in the middle; "
        f"attention {' and '.join(places) or 'nowhere'}; "
        f"{encoder.downsampling} x {encoder.downsampling} pixels per latent"
    )


def _weights(found: Inspection) -> str:
    scanned = any(part.nan is not None for part in found.parts)
    head = ["part", "for tokens", "tensors", "elements", "size"]
    rows = [head + (["NaN", "inf", "largest"] if scanned else [])]
    for part in found.parts:
        rows.append([PARTS[part.name], "yes" if part.makes_tokens else "no", *_sizes([part])])
        if scanned:
            rows[-1] += [f"{part.nan:,}", f"{part.infinite:,}", f"{part.largest:.3g}"]
    rows.append(["all", "", *_sizes(found.parts), *([""] * 3 if scanned else [])])
    lines = [columns(rows, left=2)]
    for part in found.parts:
        if part.bad:
            lines.append(wrapped("NaN or infinite in  ", _first(part.bad, 4)))
        for name, reason in (part.unread or {}).items():
            lines.append(wrapped("not read  ", f"{name}: {reason}"))
    return "\n".join(lines)


def _sizes(parts: Sequence[Part]) -> list[str]:
    totals = [sum(getattr(part, key) for part in parts) for key in ("tensors", "numbers")]
    return [*(f"{total:,}" for total in totals), _bytes(sum(part.bytes for part in parts))]


def _codebooks(found: Inspection) -> Iterator[tuple[str, str]]:
    if not found.codebooks:
        bits = found.tokenizer and found.tokenizer.bits
        why = f"none: a code is the signs of {bits} dimensions" if bits else "none was found"
        yield "Codebook", why
    names = {re.sub(r"\d+", "N", codebook.tensor) for codebook in found.codebooks}
    if len(names) < len(found.codebooks) and all(codebook.statistics for codebook in found.codebooks):
        yield f"Codebooks {' and '.join(names)}", _codebook_table(found.codebooks)
        return
    for codebook in found.codebooks:
        yield f"Codebook {codebook.tensor}", definitions(dict(_codebook(codebook)))


def _codebook_table(codebooks: Sequence[Codebook]) -> str:
    """Render a row for each codebook, with the number in its name."""
    rows = [["N", "codes", "dimensions", "norm", "nearest code", "zero", "equal", "NaN", "never used"]]
    for codebook in codebooks:
        found = codebook.statistics
        assert found is not None
        medians = [f"{spread.median:.4g}" if spread else "-" for spread in (found.norm, found.nearest)]
        never = [counts.never for counts in codebook.counts if counts.never is not None]
        row = [" ".join(re.findall(r"\d+", codebook.tensor)), f"{found.codes:,}", f"{found.dims:,}"]
        row += [*medians, *(f"{n:,}" for n in (found.zero, found.duplicates, found.non_finite))]
        rows.append([*row, f"{never[0]:,}" if never else "-"])
    legend = (
        "norm, nearest code: medians of the codes' Euclidean norm and of the distance to the nearest "
        "other code; zero, equal, NaN: codes that are all zero, that equal another exactly, that hold "
        "NaN or infinity; never used: codes never chosen in training, if the checkpoint counted that"
    )
    if any(codebook.padding for codebook in codebooks):
        legend += "; the last row of each codebook is padding and not counted"
    return f"{columns(rows)}\n{wrapped('', legend)}"


def _codebook(codebook: Codebook) -> Iterator[tuple[str, str]]:
    found = codebook.statistics
    if found is None:
        yield "problem", str(codebook.problem)
        return
    padding = "; the last row is padding and not counted" if codebook.padding else ""
    yield "codes", f"{found.codes:,} of {_count(found.dims, 'dimension')}{padding}"
    moments = "" if found.mean is None else f"mean {found.mean:.4g}, standard deviation {found.std:.4g}"
    yield "values", moments or "none is finite"
    yield "norm", f"{_spread(found.norm)} (Euclidean norm of a code)"
    unknown = "not computed for so many codes" if found.codes - found.non_finite > 1 else "-"
    yield "nearest code", f"at a distance of {_spread(found.nearest)}" if found.nearest else unknown
    yield "all zero", _share(found.zero, found.codes)
    yield "duplicates", f"{_share(found.duplicates, found.codes)} equal another code exactly"
    yield "NaN, infinite", _share(found.non_finite, found.codes)
    totals = [counts for counts in codebook.counts if counts.scale is None]
    for i, counts in enumerate(totals, 1):
        yield (
            "usage" if len(totals) == 1 else f"usage {i}",
            _usage(counts, [c for c in codebook.counts if c.tensor == counts.tensor]),
        )


def _usage(counts: Counts, same_tensor: Sequence[Counts]) -> str:
    source = f"from {counts.tensor}, the {counts.meaning}"
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


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _first(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}" if n < 100 * size else f"{n / size:.0f} {unit}"
    return f"{n} B"
