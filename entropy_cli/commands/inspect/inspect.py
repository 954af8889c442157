"""From a checkpoint to its description, read from names, shapes and codebooks alone."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from entropy_cli.commands.inspect import result as inspection
from entropy_cli.commands.inspect.codebooks import codebooks
from entropy_cli.commands.inspect.generators import describe_generator
from entropy_cli.commands.inspect.result import Inspection
from entropy_cli.commands.inspect.weights import encoder_sizes, names_by_part, parts
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.remote.address import origin_of
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.registry import (
    FAMILIES,
    Found,
    match_family,
    nearest_families,
    reasons_against,
)
from entropy_cli.tokenizers.settings import TokenizerSettings

CONFIG_KEYS = {
    "norm_groups": "norm_num_groups",
    "normalised": "rule",
}  # names in config.json, where they differ


def inspect(
    path: Path,
    family: str,
    settings: TokenizerSettings,
    bars: Bars,
    *,
    full: bool,
    heads: int | None = None,
) -> Inspection:
    """Inspect a checkpoint.

    Args:
        path: the file or folder.
        family: its family, or "auto".
        settings: the user's.
        bars: makes progress bars.
        full: whether to hash the file, read all weights and build the tokenizer.
        heads: of a generator, where its weights don't show them.

    Raises:
        CheckpointError: the file is missing or is not a checkpoint. Other problems are reported in
            the inspection.
    """
    checkpoint = open_checkpoint(path)
    reasons = reasons_against(checkpoint)
    fitting = [name for name, against in reasons.items() if not against]
    nearest = nearest_families(checkpoint, reasons)
    name = family if family != "auto" else fitting[0] if len(fitting) == 1 else None
    if name and FAMILIES[name].missing_keys(checkpoint):
        name = None
    found = spec = tokenizer = problem = held = generator = shown = why_not = None
    if family == "auto":
        held, generator, shown, why_not = describe_generator(path, settings, heads, full=full)
    try:
        found = match_family(checkpoint, family, settings, shown)
        checkpoint = found.checkpoint
        spec = found.describe()
        tokenizer = _build(found, full=full)
    except CheckpointError as error:
        problem = str(error)
    if held is not None and not fitting:
        checkpoint, problem, nearest = held, why_not, []
    sha256 = None
    if full:
        with bars("hashing", checkpoint.size, "B") as bar:
            sha256 = checkpoint.sha256(bar.update)
    return Inspection(
        family=name,
        why=_reasons_for(checkpoint, name, is_chosen=family != "auto") if name else [],
        doubts=reasons[name] if name else [],
        candidates=[] if name else fitting or nearest,
        against={other: why for other, why in reasons.items() if other != name},
        problem=problem,
        weights_checked=full and problem is None,
        file=_file(checkpoint, _weights_source(checkpoint, found, settings), sha256),
        tokenizer=_tokenizer(checkpoint, spec, tokenizer, settings) if spec else None,
        generator=generator,
        encoder=encoder_sizes(checkpoint, name, spec),
        parts=[] if checkpoint is held else parts(checkpoint, bars if full else None),
        codebooks=codebooks(checkpoint, name, bars),
    )


def _build(found: Found, *, full: bool) -> Tokenizer:
    """Build the tokenizer, or raise CheckpointError; without `full` only its codes are read."""
    if full:
        return found.build()
    checkpoint = found.checkpoint
    codes = found.family.codebooks(checkpoint)
    # Of a projection onto logits, by torch's names or DALL-E's.
    biases = [re.sub(r"\.(w|b)$", ".b", name.replace(".weight", ".bias")) for name in codes]
    quantiser = names_by_part(checkpoint).get("quantiser", [])
    lists = [name for name in quantiser if checkpoint.dtypes[name].startswith("int")]
    return replace(found, checkpoint=checkpoint.to_meta([*codes, *lists, *biases])).build()


def _reasons_for(checkpoint: Checkpoint, name: str, *, is_chosen: bool) -> list[str]:
    evidence = Found(checkpoint, name, TokenizerSettings()).evidence
    return [*(["set by --family"] if is_chosen else []), *evidence]


def _file(checkpoint: Checkpoint, weights_why: str, sha256: str | None) -> inspection.File:
    names = ("wrapper", "prefix", "copies", "weights", "classes", "ignored")
    return inspection.File(
        path=origin_of(checkpoint.path).get("address", str(checkpoint.path)),
        files=[{"name": file.name, "bytes": file.stat().st_size} for file in checkpoint.files],
        bytes=checkpoint.size,
        formats=checkpoint.forms,
        weights_why=weights_why,
        dtypes=dict(Counter(checkpoint.dtypes.values()).most_common()),
        sha256=sha256,
        **{name: getattr(checkpoint, name) for name in names},
    )


def _weights_source(checkpoint: Checkpoint, found: Found | None, settings: TokenizerSettings) -> str:
    if len(checkpoint.copies) < 2:
        return "the only copy"
    if found is None:
        return "the default of an unknown family"
    if settings.weights:
        return "set by --weights"
    kind = "EMA" if found.family.EMA_BY_DEFAULT else "raw"
    return f"the {kind} weights are the default of family {found.name}; --weights changes it"


def _tokenizer(
    checkpoint: Checkpoint,
    spec: TokenizerSpec,
    tokenizer: Tokenizer | None,
    settings: TokenizerSettings,
) -> inspection.Tokenizer:
    levels = spec.scales[0].vocabulary.levels
    from_file = vars(checkpoint.config.settings(settings))
    from_file = {name: value for name, value in from_file.items() if getattr(settings, name) is None}
    names = ("image_size", "vocab_size", "latent_dim", "rule", "temperature", "temperature_source")
    return inspection.Tokenizer(
        scales=[
            inspection.Scale(scale.name, scale.tokens, scale.patch_num, scale.vocabulary.size)
            for scale in spec.scales
        ],
        tokens=sum(scale.tokens for scale in spec.scales),
        bits=len(levels) if levels and set(levels) == {2} else None,
        config=[CONFIG_KEYS.get(name, name) for name, value in from_file.items() if value is not None],
        notes=[*spec.notes, *(codebook_notes(tokenizer) if tokenizer else [])],
        preprocess=spec.preprocess,
        temperatures=list(spec.temperatures),
        labels=spec.labels,
        **{name: getattr(spec, name) for name in names},
    )
