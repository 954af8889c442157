"""From a checkpoint to its description, read from names, shapes and codebooks alone."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.commands.inspect import result as inspection
from entropy_cli.commands.inspect.codebooks import codebooks
from entropy_cli.commands.inspect.result import Inspection
from entropy_cli.commands.inspect.weights import encoder_sizes, parts, quantiser_names, scan
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.registry import FAMILIES, Found, match_family, reasons_against
from entropy_cli.tokenizers.settings import TokenizerSettings

CONFIG_KEYS = {"norm_groups": "norm_num_groups"}  # names in config.json, where they differ
CANDIDATES = 2  # families to name where none fits


@dataclass(frozen=True)
class InspectConfig:
    """The file to inspect, its family or "auto", and the user's settings."""

    path: Path
    family: str
    settings: TokenizerSettings
    full: bool = False


@dataclass(frozen=True)
class _Match:
    """The family of a checkpoint if it is known, and why `estimate` would refuse it."""

    checkpoint: Checkpoint
    name: str | None
    reasons: dict[str, list[str]]
    found: Found | None
    spec: TokenizerSpec | None
    problem: str | None


def inspect(config: InspectConfig, bars: Bars) -> Inspection:
    """Inspect a checkpoint.

    Args:
        config: the file and the settings.
        bars: makes progress bars.

    Raises:
        CheckpointError: the file is missing or is not a checkpoint. Other problems are reported in
            the inspection.
    """
    match = _match(open_checkpoint(config.path), config)
    checkpoint, name = match.checkpoint, match.name
    sha256, weights = None, parts(checkpoint)
    if config.full:
        with bars("hashing", checkpoint.size, "B") as bar:
            sha256 = checkpoint.sha256(bar.update)
        weights = scan(checkpoint, weights, bars)
    tokenizer, problem = (None, match.problem) if match.problem else _build(match, full=config.full)
    return Inspection(
        family=name,
        why=_evidence(match, config),
        doubts=match.reasons[name] if name else [],
        candidates=[] if name else _candidates(match.reasons),
        against={other: why for other, why in match.reasons.items() if other != name},
        problem=problem,
        weights_checked=config.full and problem is None,
        file=_file(match, config, sha256),
        tokenizer=_tokenizer(match, config, codebook_notes(tokenizer) if tokenizer else []),
        encoder=encoder_sizes(checkpoint, name),
        parts=weights,
        codebooks=codebooks(checkpoint, name, bars),
    )


def _match(checkpoint: Checkpoint, config: InspectConfig) -> _Match:
    reasons, name = reasons_against(checkpoint), config.family
    found = spec = problem = None
    try:
        found = match_family(checkpoint, name, config.settings)
        spec = found.describe()
    except CheckpointError as error:
        problem = str(error)
    if name == "auto":
        fitting = [other for other, against in reasons.items() if not against]
        known = len(fitting) == 1
        name = fitting[0] if known else name
    else:
        known = not FAMILIES[name].missing_keys(checkpoint)
    used = found.checkpoint if found else checkpoint
    return _Match(used, name if known else None, reasons, found, spec, problem)


def _candidates(reasons: dict[str, list[str]]) -> list[str]:
    """Return the families that fit if there are any, else the nearest."""
    fitting = [name for name, against in reasons.items() if not against]
    return fitting or sorted(reasons, key=lambda name: len(reasons[name]))[:CANDIDATES]


def _evidence(match: _Match, config: InspectConfig) -> list[str]:
    if match.name is None:
        return []
    family, shapes = FAMILIES[match.name], match.checkpoint.shapes
    chosen = ["set by --family"] if config.family != "auto" else []
    keys = [f"has {key}: {meaning}" for key, meaning in family.IDENTIFYING_KEYS.items() if key in shapes]
    if not keys:
        required = family.missing_keys(Checkpoint.of_tensors(config.path, {}))
        keys = [f"has {key}" for key in required if key in shapes]
    return chosen + keys[:3]


def _build(match: _Match, *, full: bool) -> tuple[Tokenizer | None, str | None]:
    """Build the tokenizer, or say why it can't be; without `full` only its codes are read."""
    assert match.found is not None
    found, checkpoint = match.found, match.checkpoint
    if not full:
        dtypes, codes = checkpoint.dtypes, found.family.codebooks(checkpoint)
        lists = [name for name in quantiser_names(checkpoint) if dtypes[name].startswith("int")]
        biases = [name.replace(".weight", ".bias") for name in codes]  # of a projection onto logits
        checkpoint = checkpoint.to_meta([*codes, *lists, *biases])
    try:
        return found.family.build(checkpoint, found.settings), None
    except CheckpointError as error:
        return None, str(error)


def _file(match: _Match, config: InspectConfig, sha256: str | None) -> inspection.File:
    checkpoint = match.checkpoint
    return inspection.File(
        path=str(checkpoint.path),
        files=[{"name": file.name, "bytes": file.stat().st_size} for file in checkpoint.files],
        bytes=checkpoint.size,
        formats=list(checkpoint.forms),
        wrapper=checkpoint.wrapper,
        prefix=checkpoint.prefix,
        copies=list(checkpoint.copies),
        weights=checkpoint.weights,
        weights_why=_weights_source(match, config),
        classes=list(checkpoint.classes),
        ignored=list(checkpoint.ignored),
        dtypes=dict(Counter(checkpoint.dtypes.values()).most_common()),
        sha256=sha256,
    )


def _weights_source(match: _Match, config: InspectConfig) -> str:
    checkpoint = match.checkpoint
    if len(checkpoint.copies) < 2:
        return "the only copy"
    if match.found is None:
        return "the default of an unknown family"
    if config.settings.weights:
        return "set by --weights"
    kind = "EMA" if FAMILIES[match.found.name].EMA_BY_DEFAULT else "raw"
    return f"the {kind} weights are the default of family {match.found.name}; --weights changes it"


def _tokenizer(match: _Match, config: InspectConfig, notes: list[str]) -> inspection.Tokenizer | None:
    spec = match.spec
    if spec is None:
        return None
    levels = spec.scales[0].vocabulary.levels
    file = match.checkpoint.config.settings(config.settings)
    names = ("image_size", "patch_nums", "rule", "norm_groups", "quant_resi")
    from_file = {name: getattr(file, name) for name in names if getattr(config.settings, name) is None}
    return inspection.Tokenizer(
        image_size=spec.image_size,
        scales=[
            inspection.Scale(scale.name, scale.tokens, scale.patch_num, scale.vocabulary.size)
            for scale in spec.scales
        ],
        tokens=sum(scale.tokens for scale in spec.scales),
        vocab_size=spec.vocab_size,
        bits=len(levels) if levels and set(levels) == {2} else None,
        latent_dim=spec.latent_dim,
        rule=spec.rule,
        temperature=spec.temperature,
        temperature_source=spec.temperature_source,
        preprocess=spec.preprocess,
        config=[CONFIG_KEYS.get(name, name) for name, value in from_file.items() if value is not None],
        notes=[*spec.notes, *notes],
    )
