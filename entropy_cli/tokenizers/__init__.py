"""Tokenizer families: one file and one row each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from entropy_cli.errors import CheckpointError
from entropy_cli.tokenizers import var
from entropy_cli.tokenizers.autoencoder import Shapes
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.checkpoint import Checkpoint, open_checkpoint
from entropy_cli.tokenizers.settings import TokenizerSettings, read_config


class Family(Protocol):
    """What a family's file provides."""

    def missing(self, shapes: Shapes) -> list[str]:
        """The keys a checkpoint lacks to be of this family; empty if it is."""
        ...

    def from_checkpoint(self, checkpoint: Checkpoint, settings: TokenizerSettings) -> Tokenizer:
        """Build the tokenizer."""
        ...


FAMILIES: dict[str, Family] = {"var": var}


@dataclass(frozen=True)
class Loaded:
    """A tokenizer and the file it came from."""

    tokenizer: Tokenizer
    checkpoint: Checkpoint


def load_tokenizer(
    path: Path, family: str = "auto", settings: TokenizerSettings | None = None
) -> Loaded:
    """Open a checkpoint and build its tokenizer.

    Args:
        path: the checkpoint.
        family: a name in FAMILIES, or "auto" to go by the keys.
        settings: what the caller decides; the rest comes from config.json beside the checkpoint, then
            from the family.

    Raises:
        CheckpointError: no family, or several, fit the checkpoint; or it is unusable.
    """
    checkpoint = open_checkpoint(path)
    name = detect(checkpoint) if family == "auto" else family
    lacking = FAMILIES[name].missing(checkpoint.shapes)
    if lacking:
        raise CheckpointError(f"{path}: not of family {name}: lacks {_some(lacking)}.")
    settings = (settings or TokenizerSettings()).else_from(read_config(path))
    tokenizer = FAMILIES[name].from_checkpoint(checkpoint, settings)
    checkpoint.close()
    return Loaded(tokenizer, checkpoint)


def detect(checkpoint: Checkpoint) -> str:
    """The one family that a checkpoint's keys fit.

    Raises:
        CheckpointError: none or several do.
    """
    lacking = {name: family.missing(checkpoint.shapes) for name, family in FAMILIES.items()}
    fitting = [name for name, names in lacking.items() if not names]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise CheckpointError(f"{checkpoint.path}: fits {', '.join(fitting)}. Choose with --family.")
    nearest = min(lacking, key=lambda name: len(lacking[name]))
    raise CheckpointError(
        f"{checkpoint.path}: unknown layout. The nearest family is {nearest}, but it lacks "
        f"{_some(lacking[nearest])}; it has {_some(list(checkpoint.shapes))}."
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
