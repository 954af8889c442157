"""Losses of a log beside those that `evaluate` measured of the model. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from entropy_cli.commands.monitor.detectors.noise import MIN_POINTS, spread
from entropy_cli.commands.monitor.logs.series import TOKEN_UNITS, Log, Metric, Series
from entropy_cli.commands.monitor.result import RunFinding
from entropy_cli.commands.monitor.start_findings import other_tokenizer
from entropy_cli.results.evaluation import Losses, read_evaluation
from entropy_cli.results.findings import difference
from entropy_cli.results.floor_checks import NEAR
from entropy_cli.results.floors import Floor, floor_of

Scope = Literal["mean", "last"] | int
DEVIATIONS = 4  # standard errors between a log and an evaluation that are no chance
# What a log prints, as the names of the evaluation's losses, the nearest first.
KINDS = {"as_logged": "as logged, with dropped labels", "cross_entropy": "cross-entropy"}


@dataclass(frozen=True)
class Compared:
    """The last value of a loss beside what was measured of the model, in nats per token."""

    last: float
    value: float  # what was measured
    kind: str  # as_logged or cross_entropy
    difference: float  # last - value
    error: float  # standard error of the difference, with the noise of a point of the log

    @property
    def agrees(self) -> bool:
        """True if the difference may be chance."""
        return abs(self.difference) <= max(DEVIATIONS * self.error, NEAR)


@dataclass(frozen=True)
class Reference:
    """The losses of an evaluation by the tokens that they are the mean over.

    Attributes:
        source: the file, the model and the number of images.
        losses: of all tokens ("mean"), of the final scale ("last"), and of each scale by its side.
        floor: of the same file: which tokenizer it is.
    """

    source: str
    losses: Mapping[Scope, Losses]
    floor: Floor

    def compare(self, series: Series) -> Compared | None:
        """Compare the last value of a loss; None if nothing was measured of its tokens."""
        finite, metric = series.finite, series.metric
        losses = self.losses.get(metric.scope or "mean")
        if losses is None or not len(finite) or not _is_comparable(metric):
            return None
        kind = next(kind for kind in KINDS if getattr(losses, kind).value is not None)
        of, last = getattr(losses, kind), float(finite.value_n[-1])
        noise = spread(finite.value_n) if len(finite) >= MIN_POINTS else 0.0
        error = ((of.se or 0.0) ** 2 + noise**2) ** 0.5
        return Compared(last, of.known, kind, last - of.known, error)


def read_reference(path: Path) -> Reference:
    """Read the losses of a model from a result of `evaluate`.

    Raises:
        ResultError: the file can't be read, or is no result of `evaluate`.
    """
    evaluation = read_evaluation(path)
    estimate, average = evaluation.estimate, evaluation.average
    sides = [scale.patch_num for scale in estimate.scales]
    losses: dict[Scope, Losses] = {"mean": average.token_weighted, "last": average.last_scale}
    losses |= {side: of for side, of in zip(sides, evaluation.scales, strict=True) if side is not None}
    model = Path(estimate.provenance.get("model") or evaluation.model.family).name
    return Reference(
        f"{path}: {model} on {estimate.data.images_used} images",
        losses,
        floor_of(estimate, path),
    )


def reference_findings(
    log: Log, shown: Sequence[Series], reference: Reference | None
) -> Iterator[RunFinding]:
    """Report how far losses at the end of a log are from those that were measured of the model."""
    if reference is None:
        return
    if other := other_tokenizer(log, shown, reference.floor, "reference"):
        yield other
        return
    for series in shown:
        if found := reference.compare(series):
            yield _finding(series, found, reference.source)


def _finding(series: Series, found: Compared, source: str) -> RunFinding:
    split = series.metric.split
    error = f"standard error {found.error:.2g}"
    last, value = f"{found.last:.4f}", f"{found.value:.4f}"
    apart = difference(last, value).lstrip("-")
    measured = f"{value} ({KINDS[found.kind]}; {source})"
    if found.agrees:
        message = (
            f"{split} loss of {last} at the end agrees with the evaluation, {measured}: they differ by "
            f"{apart}, {error}. Nothing to do."
        )
    else:
        side, advice = _advice(found.difference, split)
        message = (
            f"{split} loss of {last} at the end is {apart} {side} the evaluation, {measured}, {error}. "
            f"{advice}."
        )
    return RunFinding("reference", "info", message, series.metric.name, asdict(found))


def _advice(difference: float, split: str) -> tuple[str, str]:
    """Return on which side of the evaluation a loss is, and what to check."""
    if difference > 0:
        return "above", (
            "Check that the checkpoint is of this run and of its end, not of averaged weights (EMA), "
            "and that the log is no mean of an epoch in which the loss still fell"
        )
    if split == "train":
        return "below", (
            "Evaluate on images of the training split too: if their loss is like the log's, the model "
            "has memorised them; else check that the checkpoint and the labels are those of this run"
        )
    return "below", "Check that the checkpoint, the images and their labels are those of this run"


def _is_comparable(metric: Metric) -> bool:
    """Return whether a metric may be a cross-entropy of tokens, in nats after conversion."""
    return metric.has_floor and not metric.is_proxy and metric.unit in TOKEN_UNITS
