"""The schema of results of `evaluate`: those of `estimate` with a generator's losses in every part.

Losses and entropies are in nats per token, accuracies are shares. Imports no torch.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from entropy_cli.core.documents import from_json
from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import write_text
from entropy_cli.entropy.quantity import Averages, Estimate, HistoryPoint, LabelSource, ModelInfo
from entropy_cli.results import schema
from entropy_cli.results.consistency import check_consistency
from entropy_cli.results.evaluations.consistency import check_evaluation
from entropy_cli.results.evaluations.merging import divided, merge
from entropy_cli.results.result_files import check_version, not_of, read_json
from entropy_cli.results.schema import EVALUATION_SCHEMA, Result

SCHEMA_VERSION = 1
AGAIN = "Evaluate again"  # advice
FEWEST_CHECKED = 16  # images from which a gain within its error is a finding


@dataclass(frozen=True, kw_only=True)
class SoftLosses:
    """The losses against the soft assignments q at one temperature.

    Their value is None with a note where q is not known: without the latents.
    """

    target_cross_entropy: Estimate  # -sum q ln p = H(q) + KL(q || p)
    kl: Estimate


@dataclass(frozen=True, kw_only=True)
class Losses(SoftLosses):
    """The losses of a scale or an average; those against q are at the headline's temperature."""

    cross_entropy: Estimate  # of the hard tokens, given the images' classes
    accuracy_top1: Estimate
    accuracy_top5: Estimate
    predictive_entropy: Estimate  # H(p)
    perplexity: Estimate  # exp of the cross-entropy
    cross_entropy_null: Estimate  # given the null class, of the images of the label check
    as_logged: Estimate  # of the same images, as VAR logs it: with its share of dropped labels
    reducible: Estimate  # cross-entropy - assignment entropy: may be negative
    gain: Estimate  # unigram entropy - cross-entropy


@dataclass(frozen=True)
class TemperatureLosses:
    """The losses against q at one of several temperatures."""

    scales: list[SoftLosses]
    average: Averages[SoftLosses]


@dataclass(frozen=True)
class LabelCheck:
    """How much worse the null class predicts than the images' own classes.

    Attributes:
        images: the number of images, the first ones of the run.
        gain: nats per image by which the classes lower the loss, with the standard error of the paired
            difference.
    """

    images: int
    gain: Estimate

    @property
    def is_doubtful(self) -> bool:
        """Whether the classes do not help by more than two standard errors: they may be wrong."""
        value, se = self.gain.value, self.gain.se
        return value is not None and se is not None and value <= 2 * se

    @property
    def is_too_small(self) -> bool:
        """Whether the images are too few to tell classes that help a little from wrong ones."""
        return self.images < FEWEST_CHECKED and self.gain.known + 2 * (self.gain.se or 0) > 0


@dataclass(frozen=True)
class LabelsInfo:
    """The classes that the generator was given; `check` is None if it was off or impossible."""

    source: LabelSource
    classes_seen: int
    check: LabelCheck | None
    notes: list[str]


@dataclass(frozen=True)
class Total:
    """The cross-entropy of all tokens of an image.

    Attributes:
        nats_per_image: their sum.
        bits_per_pixel: the length of the tokens by pixels of the image, None without an image size.
    """

    nats_per_image: float
    bits_per_pixel: float | None


@dataclass(frozen=True)
class ModelPrecisionCheck:
    """The measured effect of the generator's precision on the cross-entropy."""

    images: int
    reference: str
    cross_entropy_difference: list[float]  # at each scale
    cross_entropy_difference_token_weighted: float


@dataclass(frozen=True)
class ImageLoss:
    """The loss of one image: its relative path, its class, and the nats of all its tokens."""

    path: str
    label: int
    nats: float


@dataclass(frozen=True)
class Extremes:
    """The images of the largest and of the smallest losses, the most extreme first."""

    worst: list[ImageLoss]
    best: list[ImageLoss]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        estimate: what `estimate` says of the same images; its `replicates` also hold `cross_entropy`,
            its `checks` those of the losses, its provenance `model` and `model_notes`, and
            `target_reached` is about the cross-entropy.
        temperatures: at each of the estimate's temperatures.
        cross_entropy_history: the token-weighted cross-entropy as it grew.
    """

    estimate: Result
    model: ModelInfo
    labels: LabelsInfo
    scales: list[Losses]
    average: Averages[Losses]
    temperatures: list[TemperatureLosses]
    total: Total
    cross_entropy_history: list[HistoryPoint]
    model_precision_check: ModelPrecisionCheck | None = None
    extremes: Extremes | None = None

    def __repr__(self) -> str:
        """Return a line: the model, the images, and the cross-entropy with its interval."""
        name = Path(self.estimate.provenance.get("model") or self.model.family).name
        entropy = self.average.token_weighted.cross_entropy
        interval = "({:.4f} to {:.4f})".format(*entropy.ci95) if entropy.ci95 else "(no interval)"
        images = f"{self.estimate.data.images_used} images"
        return f"Evaluation({name!r}, {images}, CE = {entropy.known:.4f} {interval} nats per token)"

    def to_json(self) -> str:
        """Return the result as JSON text: the keys of the estimate, with the losses among them.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        losses = asdict(self)
        merged = merge(losses.pop("estimate"), losses)
        merged |= {"schema": EVALUATION_SCHEMA, "schema_version": SCHEMA_VERSION}
        return json.dumps(merged, allow_nan=False, indent=1)

    def write(self, path: str | Path) -> None:
        """Write the result as JSON, atomically.

        Raises:
            ResultError: the file can't be written.
        """
        write_text(Path(path), self.to_json() + "\n")


# The parts of a file that hold estimates and losses, and which losses.
SHARED = {"scales": Losses, "average": Losses, "temperatures": SoftLosses}


def read_evaluation(path: str | Path) -> Evaluation:
    """Read a result file of `evaluate`.

    Raises:
        ResultError: it can't be read, is not a result of `evaluate`, or has another version or other
            keys.
    """
    return from_dict(read_json(path), str(path))


def read_any(path: str | Path) -> Result | Evaluation:
    """Read a result file of `estimate` or `evaluate`.

    Raises:
        ResultError: it can't be read, is neither, or has another version or other keys.
    """
    content = read_json(path)
    is_evaluation = isinstance(content, dict) and content.get("schema") == EVALUATION_SCHEMA
    return from_dict(content, str(path)) if is_evaluation else schema.from_dict(content, str(path))


def estimate_in(result: Result | Evaluation) -> Result:
    """Return the estimate that an evaluation holds, or the result itself."""
    return result.estimate if isinstance(result, Evaluation) else result


def from_dict(content: Any, source: str = "result") -> Evaluation:  # noqa: ANN401 - JSON
    """Check and convert what `Evaluation.to_json` wrote.

    Raises:
        ResultError: naming the path of the first thing that is not as it should be.
    """
    if not isinstance(content, dict) or content.get("schema") != EVALUATION_SCHEMA:
        raise not_of("evaluate", content, source)
    check_version(content, (SCHEMA_VERSION, SCHEMA_VERSION), source, AGAIN)
    try:
        evaluation = from_json(_split(content), Evaluation)
        check_consistency(evaluation.estimate)
        check_evaluation(evaluation)
    except ValueError as error:
        reason = str(error).replace("`$.estimate", "`$")
        raise ResultError(f"{source}: {reason}. {AGAIN}, or give another result.") from error
    return evaluation


def _split(content: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of an Evaluation from that of a file: the estimate apart from the losses."""
    own = {field.name for field in fields(Evaluation)}
    estimate = {key: part for key, part in content.items() if key not in own}
    losses = {key: part for key, part in content.items() if key in own}
    for key, kind in SHARED.items():
        if key in content:
            names = {field.name for field in fields(kind)}
            estimate[key], losses[key] = divided(content[key], names)
    version = {"schema": schema.SCHEMA, "schema_version": schema.SCHEMA_VERSION}
    return {**losses, "estimate": estimate | version}
