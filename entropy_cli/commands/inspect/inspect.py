"""What the program makes of a checkpoint, from its names, shapes and codebooks alone."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.commands.inspect import result as inspection
from entropy_cli.commands.inspect.codebooks import codebooks
from entropy_cli.commands.inspect.result import Inspection
from entropy_cli.commands.inspect.weights import encoder_sizes, parts, quantiser_names, scanned
from entropy_cli.core.errors import CheckpointError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.codebook_notes import codebook_notes
from entropy_cli.tokenizers.registry import FAMILIES, Found, match_family, reasons_against
from entropy_cli.tokenizers.settings import TokenizerSettings

KEYS = {"norm_groups": "norm_num_groups"}  # of config.json, where they have another name
NEAREST = 2  # families shown as candidates where none fits


@dataclass(frozen=True)
class InspectConfig:
    """What to inspect: the file, the family or "auto", and what the user decides."""

    path: Path
    family: str
    settings: TokenizerSettings
    full: bool = False


@dataclass(frozen=True)
class _Told:
    """How far the program gets with a checkpoint, and the sentence with which it stops."""

    checkpoint: Checkpoint
    name: str | None
    fitting: list[str]
    reasons: dict[str, list[str]]
    found: Found | None
    spec: TokenizerSpec | None
    problem: str | None


def inspect(config: InspectConfig, bars: Bars) -> Inspection:
    """Look into a checkpoint.

    Args:
        config: what to inspect.
        bars: makes progress bars.

    Raises:
        CheckpointError: there is no such file or it can't be opened as a checkpoint. Whatever else is
            wrong is in the inspection.
    """
    told = _tell(open_checkpoint(config.path), config)
    checkpoint, name = told.checkpoint, told.name
    sha256, weights = None, parts(checkpoint)
    if config.full:
        with bars("hashing", checkpoint.size, "B") as bar:
            sha256 = checkpoint.sha256(bar.update)
        weights = scanned(checkpoint, weights, bars)
    tokenizer, problem = (None, told.problem) if told.problem else _built(told, full=config.full)
    return Inspection(
        family=name,
        why=_why(told, config),
        doubts=told.reasons[name] if name else [],
        candidates=[] if name else _candidates(told),
        against={other: why for other, why in told.reasons.items() if other != name},
        problem=problem,
        weights_checked=config.full and problem is None,
        file=_file(told, config, sha256),
        tokenizer=_tokenizer(told, config, codebook_notes(tokenizer) if tokenizer else []),
        encoder=encoder_sizes(checkpoint, name),
        parts=weights,
        codebooks=codebooks(checkpoint, name, bars),
    )


def _tell(checkpoint: Checkpoint, config: InspectConfig) -> _Told:
    reasons = reasons_against(checkpoint)
    fitting = [name for name, against in reasons.items() if not against]
    found = spec = problem = None
    try:
        found = match_family(checkpoint, config.family, config.settings)
        spec = found.describe()
    except CheckpointError as error:
        problem = str(error)
    name = fitting[0] if config.family == "auto" and len(fitting) == 1 else None
    if config.family != "auto" and not FAMILIES[config.family].missing_keys(checkpoint):
        name = config.family
    used = found.checkpoint if found else checkpoint
    return _Told(used, name, fitting, reasons, found, spec, problem)


def _candidates(told: _Told) -> list[str]:
    return told.fitting or sorted(told.reasons, key=lambda name: len(told.reasons[name]))[:NEAREST]


def _why(told: _Told, config: InspectConfig) -> list[str]:
    if told.name is None:
        return []
    family = FAMILIES[told.name]
    given = ["asked for by --family"] if config.family != "auto" else []
    told_by = [
        f"has {key}: {words}" for key, words in family.IDENTIFYING_KEYS.items() if _has(told, key)
    ]
    if not told_by:
        required = family.missing_keys(Checkpoint.of_tensors(config.path, {}))
        told_by = [f"has {key}" for key in required if _has(told, key)]
    return given + told_by[:3]


def _has(told: _Told, key: str) -> bool:
    return key in told.checkpoint.shapes


def _built(told: _Told, *, full: bool) -> tuple[Tokenizer | None, str | None]:
    """The tokenizer, or why it can't be built; unless in full, from codes, names and shapes alone."""
    assert told.found is not None
    found, checkpoint = told.found, told.checkpoint
    if not full:
        dtypes, codes = checkpoint.dtypes, found.family.codebooks(checkpoint)
        lists = [name for name in quantiser_names(checkpoint) if dtypes[name].startswith("int")]
        biases = [name.replace(".weight", ".bias") for name in codes]  # of a projection onto logits
        checkpoint = checkpoint.to_meta([*codes, *lists, *biases])
    try:
        return found.family.build(checkpoint, found.settings), None
    except CheckpointError as error:
        return None, str(error)


def _file(told: _Told, config: InspectConfig, sha256: str | None) -> inspection.File:
    checkpoint = told.checkpoint
    return inspection.File(
        path=str(checkpoint.path),
        files=[{"name": file.name, "bytes": file.stat().st_size} for file in checkpoint.files],
        bytes=checkpoint.size,
        formats=list(checkpoint.forms),
        wrapper=checkpoint.wrapper,
        prefix=checkpoint.prefix,
        copies=list(checkpoint.copies),
        weights=checkpoint.weights,
        weights_why=_weights_why(told, config),
        classes=list(checkpoint.classes),
        ignored=list(checkpoint.ignored),
        dtypes=dict(Counter(checkpoint.dtypes.values()).most_common()),
        sha256=sha256,
    )


def _weights_why(told: _Told, config: InspectConfig) -> str:
    checkpoint = told.checkpoint
    if not (checkpoint.has_raw and checkpoint.has_ema):
        return "the only copy"
    if told.found is None:
        return "the default of a family that is not known"
    if config.settings.weights:
        return "asked for by --weights"
    averaged = FAMILIES[told.found.name].EMA_BY_DEFAULT
    kind = "averaged" if averaged else "last"
    return f"the {kind} weights are the default of family {told.found.name}; --weights chooses"


def _tokenizer(told: _Told, config: InspectConfig, notes: list[str]) -> inspection.Tokenizer | None:
    spec = told.spec
    if spec is None:
        return None
    levels = spec.scales[0].vocabulary.levels
    file = told.checkpoint.config.settings(config.settings)
    names = ("image_size", "patch_nums", "rule", "norm_groups", "quant_resi")
    beside = {name: getattr(file, name) for name in names if getattr(config.settings, name) is None}
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
        config=[KEYS.get(name, name) for name, value in beside.items() if value is not None],
        notes=[*spec.notes, *notes],
    )
