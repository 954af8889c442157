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


def freeze(path: Path, spec: TokenizerSpec) -> Frozen:
    """Read the temperatures of a result, for a tokenizer with the same codes and scales.

    Raises:
        ResultError: the file is no result, or is of a tokenizer that they do not fit.
    """
    result = read_result(path)
    theirs, ours = result.tokenizer, (spec.rule, spec.latent_dim, spec.vocab_size, spec.patch_nums)
    found = theirs.rule, theirs.latent_dim, theirs.vocab_size, theirs.patch_nums
    if found != ours or len(result.scales) != len(spec.scales):
        names = ("rule", "dimensions", "codes", "patch_nums")
        got, expected = (
            ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
            for values in (found, ours)
        )
        raise ResultError(
            f"--temperature-from {path}: got a result of {got}, but this run's tokenizer has "
            f"{expected}. Give a result of this tokenizer, or --temperature."
        )
    return Frozen(
        [at.temperature for at in result.temperatures],
        [[scale.temperature for scale in at.scales] for at in result.temperatures],
        result.provenance.get("temperature_fit"),
    )
