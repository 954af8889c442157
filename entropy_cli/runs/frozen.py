"""The temperatures of another run's result, taken as they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entropy_cli.core.errors import ResultError
from entropy_cli.entropy.quantity import TemperatureChoice
from entropy_cli.results.schema import read_result
from entropy_cli.tokenizers.base import TokenizerSpec


@dataclass(frozen=True)
class Frozen:
    """Temperatures to use as they are.

    Attributes:
        choices: what each one was chosen as, the headline first: a number or "auto".
        values_TS: the value of each at every scale.
        pilot: the record of how "auto" was fitted.
    """

    choices: list[TemperatureChoice]
    values_TS: list[list[float]]
    pilot: dict[str, Any] | None


def freeze(
    path: Path, spec: TokenizerSpec, checkpoint_sha256: str | None, option: str = "--temperature-from"
) -> Frozen:
    """Read the temperatures of a result of the same tokenizer.

    Raises:
        ResultError: the file is no result, or is of another tokenizer.
    """
    result = read_result(path)
    theirs = result.tokenizer
    found = _describe(theirs.rule, theirs.latent_dim, theirs.vocab_size, [s.name for s in result.scales])
    ours = _describe(spec.rule, spec.latent_dim, spec.vocab_size, [s.name for s in spec.scales])
    advice = "Give a result of this checkpoint"
    advice += ", or --temperature" if option == "--temperature-from" else ""
    if found != ours:
        raise ResultError(
            f"{option} {path}: got a result of {found}, but this run's tokenizer has {ours}. {advice}."
        )
    if theirs.checkpoint_sha256 != checkpoint_sha256:
        raise ResultError(
            f"{option} {path}: is of another checkpoint, whose distances are others. {advice}."
        )
    return Frozen(
        [at.temperature for at in result.temperatures],
        [[scale.temperature for scale in at.scales] for at in result.temperatures],
        result.provenance.get("temperature_fit"),
    )


def _describe(rule: str, latent_dim: int, vocab_size: int, scales: list[str]) -> str:
    return f"rule {rule}, {latent_dim} dimensions, {vocab_size} codes, scales {', '.join(scales)}"
