"""Tokenizer families: one file and one row each."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.base import Tokenizer, TokenizerSpec
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.evidence import contradictions, foreign_classes
from entropy_cli.tokenizers.families import (
    diffusers_vq,
    ibq,
    llamagen,
    open_magvit2,
    rq_vae,
    titok,
    var,
    vqgan,
)
from entropy_cli.tokenizers.settings import TokenizerSettings
from entropy_cli.tokenizers.unsupported import recognise


class Family(Protocol):
    """What a family's file provides.

    Attributes:
        EMA_BY_DEFAULT: whether its authors evaluate with the averaged weights, where there are any.
        CLASSES: what config.json calls it, by `_class_name`, `model_type` or `architectures`.
        TELLING: weights that it is told by, the most telling first, and what they are.
    """

    EMA_BY_DEFAULT: bool
    CLASSES: tuple[str, ...]
    IDENTIFYING_KEYS: dict[str, str]

    def missing_keys(self, checkpoint: Checkpoint) -> list[str]:
        """The keys a checkpoint lacks to be of this family, the most telling first."""
        ...

    def conflicting_keys(self, checkpoint: Checkpoint) -> list[str]:
        """What a checkpoint has that speaks against this family, unless the user asks for it."""
        ...

    def codebooks(self, checkpoint: Checkpoint) -> list[str]:
        """Names of the weights that hold the codes."""
        ...

    def describe(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> TokenizerSpec:
        """What is known without reading weights."""
        ...

    def build(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> Tokenizer:
        """Read the weights."""
        ...


FAMILIES: dict[str, Family] = {
    "var": var,
    "vqgan": vqgan,
    "llamagen": llamagen,
    "ibq": ibq,
    "open-magvit2": open_magvit2,
    "rq-vae": rq_vae,
    "diffusers": diffusers_vq,
    "titok": titok,
}


@dataclass(frozen=True)
class Found:
    """A checkpoint and the family it is of.

    Attributes:
        checkpoint: the copy of its weights that counts.
        settings: the caller's, then those of config.json beside it.
        against: why it is of none of the other families.
        notes: what config.json says against the family that the user asked for.
    """

    checkpoint: Checkpoint
    name: str
    settings: TokenizerSettings
    against: dict[str, list[str]]
    notes: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The family's file."""
        return FAMILIES[self.name]

    def describe(self) -> TokenizerSpec:
        """Tell what is known without reading weights."""
        return self._noted(self.family.describe(self.checkpoint, self.settings))

    def build(self) -> Tokenizer:
        """Read the weights."""
        tokenizer = self.family.build(self.checkpoint, self.settings)
        tokenizer.spec = self._noted(tokenizer.spec)
        return tokenizer

    def _noted(self, spec: TokenizerSpec) -> TokenizerSpec:
        return replace(spec, notes=(*spec.notes, *self.notes))


@dataclass(frozen=True)
class Loaded:
    """A tokenizer, the file it came from, and what was decided about it."""

    tokenizer: Tokenizer
    checkpoint: Checkpoint
    settings: TokenizerSettings


def load_tokenizer(
    path: Path, family: str = "auto", settings: TokenizerSettings | None = None
) -> Loaded:
    """Open a checkpoint and build its tokenizer; for the arguments and errors see `find_family`."""
    found = find_family(path, family, settings)
    tokenizer = found.build()
    found.checkpoint.close()
    return Loaded(tokenizer, found.checkpoint, found.settings)


def find_family(path: Path, family: str = "auto", settings: TokenizerSettings | None = None) -> Found:
    """Open a checkpoint and tell its family.

    Args:
        path: the checkpoint.
        family: a name in FAMILIES, or "auto" to go by the weights and config.json.
        settings: what the caller decides; the rest comes from config.json beside the checkpoint, then
            from the family.

    Raises:
        CheckpointError: no family, or several, fit the checkpoint; config.json contradicts the only one
            that does; or it is unusable.
    """
    return family_of(open_checkpoint(path), family, settings)


def family_of(
    checkpoint: Checkpoint, family: str = "auto", settings: TokenizerSettings | None = None
) -> Found:
    """Tell the family of an open checkpoint; for the arguments and errors see `find_family`."""
    config, asked = checkpoint.config, family != "auto"
    if config.broken and not asked:
        raise CheckpointError(
            f"{config.path}: {config.broken}. It may say what the checkpoint is: mend or remove it, or "
            "give --family, and --image-size and --patch-nums where the family's own don't fit."
        )
    name = family if asked else detect(checkpoint)
    against = {other: reasons for other, reasons in reasons_against(checkpoint).items() if other != name}
    lacking = FAMILIES[name].missing_keys(checkpoint)
    if lacking:
        raise CheckpointError(f"{checkpoint.path}: not of family {name}: lacks {_some(lacking)}.")
    settings = settings or TokenizerSettings()
    settings = settings.else_from(config.settings(settings))
    if settings.weights:
        checkpoint = checkpoint.with_weights(settings.weights)
    elif FAMILIES[name].EMA_BY_DEFAULT and checkpoint.has_ema:
        checkpoint = checkpoint.with_weights("ema")
    found = Found(checkpoint, name, settings, against)
    return _confronted(found, asked=asked) if config.content or config.broken else found


def _confronted(found: Found, *, asked: bool) -> Found:
    """The same with what config.json says against it, which is an error unless the user chose."""
    config, family = found.checkpoint.config, found.family
    said = [config.broken] if config.broken else foreign_classes(found.checkpoint, family.CLASSES)
    tables = family.codebooks(found.checkpoint)
    said += contradictions(found.checkpoint, found.describe(), tables)
    if said and not asked:
        raise CheckpointError(
            f"{config.path}: {said[0]}: it is of another file, or the checkpoint is no {found.name}. "
            f"Give the config.json that belongs to it, or --family {found.name} to go on all the same."
        )
    said = [f"config.json {words}" if not words.startswith("config") else words for words in said]
    notes = (f"{words}; --family {found.name} decides, options decide the rest" for words in said)
    return replace(found, notes=tuple(notes))


def reasons_against(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Why a checkpoint is of none of the families; no reason for those that it fits."""
    return {
        name: [f"lacks {key}" for key in family.missing_keys(checkpoint)]
        + family.conflicting_keys(checkpoint)
        + foreign_classes(checkpoint, family.CLASSES)
        for name, family in FAMILIES.items()
    }


def detect(checkpoint: Checkpoint) -> str:
    """The one family that a checkpoint's weights, and config.json beside them, fit.

    Raises:
        CheckpointError: none or several do.
    """
    reasons = reasons_against(checkpoint)
    fitting = [name for name, against in reasons.items() if not against]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(
            f"{checkpoint.path}: fits {' and '.join(fitting)}, which assign codes by different rules, "
            "and nothing in it tells which. Choose with --family."
        )
    nearest = sorted(reasons, key=lambda name: len(reasons[name]))[:2]
    if known := recognise(checkpoint.shapes, checkpoint.config.classes):
        likely = [f"if it is {name} give --family {name}" for name in nearest if len(reasons[name]) == 1]
        ways = ", or ".join([*likely[:1], known.advice])
        raise CheckpointError(f"{checkpoint.path}: looks like {known.words}, which is not read: {ways}.")
    candidates = "; ".join(f"{name} ({_some(reasons[name])})" for name in nearest)
    raise CheckpointError(
        f"{checkpoint.path}: unknown layout. The nearest families: {candidates}. It has "
        f"{_some(list(checkpoint.shapes))}. If it is one of them choose with --family, or make latents "
        "with its own code and give --latents."
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
