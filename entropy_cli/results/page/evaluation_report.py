"""The report of one evaluation: its losses beside the ladder and A, checks, tables and images."""

from collections.abc import Iterator
from pathlib import Path

from entropy_cli.core.table import Cell, Table
from entropy_cli.images.roots import find_image, reopen
from entropy_cli.results.evaluation import Evaluation, ImageLoss
from entropy_cli.results.evaluations.checks import checks_of_losses
from entropy_cli.results.evaluations.merging import RENAMED
from entropy_cli.results.evaluations.notes import notes
from entropy_cli.results.evaluations.provenance import provenance
from entropy_cli.results.evaluations.summary import (
    figures,
    labels_line,
    model_line,
    model_name,
    summary_table,
)
from entropy_cli.results.evaluations.tables import legend, tables
from entropy_cli.results.ladder import report_tables
from entropy_cli.results.page.loss_figures import figure_panels
from entropy_cli.results.page.pictures import Picture, picture
from entropy_cli.results.page.report import (
    COLUMNS,
    NUMBERS,
    Report,
    estimates_of,
    keys_of,
    origin,
    parts_of,
)
from entropy_cli.results.schema import Estimates
from entropy_cli.results.summary import checks_table
from entropy_cli.results.tables import in_words, soft_table

KINDS = {"worst": "largest", "best": "smallest"}
SHOWN = 8  # pictures of each kind


def evaluation_report(evaluation: Evaluation) -> Report:
    """Return the report of one evaluation."""
    estimate, checks = evaluation.estimate, checks_of_losses(evaluation)
    subject = f"{model_name(evaluation)} on {data_name(evaluation)}"
    value = in_words(evaluation.average.token_weighted.cross_entropy)
    lines = (model_line(evaluation), labels_line(evaluation), figures(evaluation))
    details = "; ".join(" ".join(line.split()) for line in lines)
    return Report(
        title=f"{subject}: {value}",
        heading=f"Cross-entropy of {subject}",
        headline=value,
        warnings=[check.message for check in checks if check.severity == "wrong"],
        details=f"{details}.",
        subject=subject,
        panels=figure_panels(evaluation),
        tables=[
            summary_table(evaluation),
            checks_table(estimate),
            *tables(evaluation),
            *report_tables(estimate.ladder),
            soft_table(estimate),
            *extremes_tables(evaluation),
        ],
        terms=legend(evaluation),
        notes=notes(evaluation),
        origins={"": origin(estimate, provenance(evaluation))},
        estimates=Table("estimates", "", [*COLUMNS, *NUMBERS], list(_rows(evaluation))),
        pictures=list(_pictures(evaluation)),
    )


def data_name(evaluation: Evaluation) -> str:
    """Return the last two folders of the data."""
    return "/".join(str(evaluation.estimate.provenance.get("data") or "").split("/")[-2:])


def extremes_tables(evaluation: Evaluation) -> list[Table]:
    """Return a table of the images with the largest and the smallest losses, if they are known."""
    if evaluation.extremes is None:
        return []
    tokens = sum(scale.tokens for scale in evaluation.estimate.scales)
    rows = [
        [
            f"{word} loss",
            f"{image.nats:,.1f}",
            f"{image.nats / tokens:.4f}",
            str(image.label),
            image.path,
        ]
        for kind, word in KINDS.items()
        for image in getattr(evaluation.extremes, kind)
    ]
    head = ["", "nats an image", "nats per token", "class", "image"]
    title = "Images of the largest and of the smallest loss"
    return [Table("extremes", title, head, rows, left=(0, 4), rules=(len(evaluation.extremes.worst),))]


def _pictures(evaluation: Evaluation) -> Iterator[Picture]:
    data = evaluation.estimate.provenance.get("data")
    root = reopen(Path(str(data))) if data and evaluation.extremes is not None else None
    if root is None:
        return
    split = evaluation.estimate.data.split
    for kind, word in KINDS.items():
        images: list[ImageLoss] = getattr(evaluation.extremes, kind)[:SHOWN]
        for i, image in enumerate(images, 1):
            name = image.path.rpartition("/")[2]
            caption = f"{i}. {image.nats:,.1f} nats, class {image.label}, {name}"
            source = find_image(root, split, image.path)
            yield picture(source, image.path, f"{word.capitalize()} loss", caption)


def _rows(evaluation: Evaluation) -> Iterator[list[Cell]]:
    """Iterate over the numbers of scales and averages, and then those at the other temperatures."""
    estimate = evaluation.estimate
    for keys, *parts in zip(keys_of(estimate), parts_of(evaluation), parts_of(estimate), strict=True):
        for part in parts:
            for name, *numbers in estimates_of(part):
                is_renamed = name == "perplexity" and isinstance(part, Estimates)
                yield [*keys, RENAMED if is_renamed else name, *numbers]
