"""The schema of result files: a dataclass for each JSON object, and a strict reader.

Entropies are in nats per token. Imports no torch, so that reading a result is fast.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from entropy_cli.core.documents import from_json
from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import write_text
from entropy_cli.core.remote.address import recorded_name
from entropy_cli.entropy.ladder.ladder import Ladder
from entropy_cli.entropy.quantity import (
    AT_MOST,
    Averages,
    Bracket,
    Cluster,
    Estimate,
    HistoryPoint,
    Labels,
    TemperatureChoice,
    TokenPath,
)
from entropy_cli.results.consistency import check_consistency
from entropy_cli.results.result_files import check_version, not_of, read_json

SCHEMA = "entropy-cli/estimate"
SCHEMA_VERSION = 2
EVALUATION_SCHEMA = "entropy-cli/evaluate"
AGAIN = "Estimate again"  # advice
EARLIEST_VERSION = 1  # without checks, pooled estimates and labels
SOFT = ("assignment_entropy", "marginal_entropy", "mutual_information", "varentropy")


@dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer whose entropies were estimated; `labels` is what models on its tokens train on."""

    family: str
    vocab_size: int
    latent_dim: int
    patch_nums: list[int | None]
    rule: str
    checkpoint_sha256: str | None
    labels: Labels


@dataclass(frozen=True)
class DataInfo:
    """The images of an estimate; `fingerprint` identifies the whole run, see guide/json.md."""

    split: str
    images_found: int
    images_used: int
    images_failed: int
    failed: list[str]
    fingerprint: str
    images_fingerprint: str  # of the relative paths and sizes alone


@dataclass(frozen=True)
class SettingsInfo:
    """The other settings that change the result."""

    temperature: TemperatureChoice
    temperature_source: str
    image_size: int | None
    preprocess: str
    precision: str
    seed: int
    groups: int
    path: TokenPath = "hard"  # missing from older results
    cluster: Cluster = "image"  # what the groups keep together


@dataclass(frozen=True, kw_only=True)
class SoftEstimates:
    """The quantities that depend on the temperature.

    Only codes of bits or levels have the bound: the sum of the dimensions' entropies, an upper bound of
    the marginal entropy.
    """

    assignment_entropy: Estimate
    marginal_entropy: Estimate
    mutual_information: Estimate
    varentropy: Estimate
    marginal_entropy_bound: Estimate | None = None

    @property
    def marginal(self) -> Estimate:
        """The marginal entropy, or its upper bound where there are too many codes to count."""
        bound = self.marginal_entropy_bound
        if self.marginal_entropy.value is not None or bound is None:
            return self.marginal_entropy
        return replace(bound, ci95=None, note=AT_MOST)

    @property
    def soft(self) -> list[Estimate]:
        """The estimates to show, in the order of SOFT."""
        return [self.assignment_entropy, self.marginal, self.mutual_information, self.varentropy]


@dataclass(frozen=True, kw_only=True)
class Estimates(SoftEstimates):
    """All quantities; `usage` is the share of codes seen."""

    unigram_entropy: Estimate
    perplexity: Estimate  # exp of the unigram entropy
    usage: float | None
    usage_estimate: Estimate  # of the same, with its error
    unigram_bracket: Bracket | None = None  # missing from older results

    @property
    def ceiling(self) -> float | None:
        """An upper 95 % limit of the unigram entropy, which a constant prediction reaches, if known."""
        if self.unigram_bracket is not None:
            return self.unigram_bracket.upper95
        ci95 = self.unigram_entropy.ci95
        return None if ci95 is None else ci95[1]


@dataclass(frozen=True, kw_only=True)
class ScaleResult(Estimates):
    """The estimates of one scale; `tokens` is the number of tokens of an image at it."""

    scale: int
    name: str
    patch_num: int | None
    tokens: int
    temperature: float
    codes_used: int | None
    coverage: float | None
    code_counts: list[int] | None


@dataclass(frozen=True, kw_only=True)
class SoftScale(SoftEstimates):
    """The estimates of one scale at one of several temperatures."""

    scale: int
    temperature: float


@dataclass(frozen=True)
class TemperatureResult:
    """All estimates at one of several temperatures."""

    temperature: TemperatureChoice
    scales: list[SoftScale]
    average: Averages[SoftEstimates]


Severity = Literal["ok", "care", "wrong"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked about a result, and what was found, in a sentence."""

    id: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class Pooled:
    """Estimates from the hard tokens of all scales together, which share one codebook."""

    unigram_entropy: Estimate
    perplexity: Estimate
    usage: Estimate


@dataclass(frozen=True)
class Result:
    """The result of `estimate`."""

    schema: str
    schema_version: int
    tool_version: str
    created_utc: str
    units: str
    tokenizer: TokenizerInfo
    data: DataInfo
    settings: SettingsInfo
    scales: list[ScaleResult]
    average: Averages[Estimates]
    temperatures: list[TemperatureResult]
    history: list[HistoryPoint]
    replicates: dict[str, Any]
    checks: list[Check]
    pooled: Pooled | None
    precision_check: dict[str, Any] | None
    target_reached: bool | None
    provenance: dict[str, Any]
    ladder: Ladder | None = None  # of the hard tokens; null unless asked for

    def __repr__(self) -> str:
        """Return a line: the tokenizer, the images, and the assignment entropy A with its interval."""
        name = recorded_name(self.provenance, "checkpoint").rpartition("/")[2] or self.tokenizer.family
        entropy = self.average.token_weighted.assignment_entropy
        interval = "({:.4f} to {:.4f})".format(*entropy.ci95) if entropy.ci95 else "(no interval)"
        images = f"{self.data.images_used} images"
        return f"Result({name!r}, {images}, A = {entropy.known:.4f} {interval} {self.units})"

    def to_json(self) -> str:
        """Return the result as JSON text.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        return json.dumps(asdict(self), allow_nan=False, indent=1)

    def write(self, path: str | Path) -> None:
        """Write the result as JSON, atomically.

        Raises:
            ResultError: the file can't be written.
        """
        write_text(Path(path), self.to_json() + "\n")


def read_result(path: str | Path) -> Result:
    """Read a result file of `estimate`, or the estimate in one of `evaluate`.

    Raises:
        ResultError: it can't be read, is not a result, or has another version or other keys.
    """
    return from_dict(read_json(path), str(path))


def from_dict(content: Any, source: str = "result") -> Result:  # noqa: ANN401 - JSON
    """Check and convert what `Result.to_json` wrote, or the estimate in what `Evaluation.to_json` did.

    Raises:
        ResultError: naming the path of the first thing that is not as it should be.
    """
    if isinstance(content, dict) and content.get("schema") == EVALUATION_SCHEMA:
        from entropy_cli.results.evaluation import from_dict as evaluation_from_dict  # it imports this

        return evaluation_from_dict(content, source).estimate
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise not_of("estimate", content, source)
    version = check_version(content, (EARLIEST_VERSION, SCHEMA_VERSION), source, AGAIN)
    try:
        result = from_json(_as_version_2(content) if version == 1 else content, Result)
        check_consistency(result)
    except ValueError as error:
        raise ResultError(f"{source}: {error}. {AGAIN}, or give another result.") from error
    return result


def _as_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """Add what version 1 lacked: nothing was checked or pooled, and labels were not known."""
    tokenizer = content.get("tokenizer")
    if isinstance(tokenizer, dict):
        tokenizer = {**tokenizer, "labels": "unknown"}
    return {**content, "tokenizer": tokenizer, "checks": [], "pooled": None}
