"""The points of a scaling law from a table, or from results of `evaluate`. Imports no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from entropy_cli.commands.fit.points import Points, read_points
from entropy_cli.core.errors import DatasetError
from entropy_cli.results.evaluation import Evaluation, read_evaluation
from entropy_cli.results.evaluations.comparable import not_comparable
from entropy_cli.results.legend import AVERAGES

RESULT = ".json"


def read_sources(
    paths: Sequence[Path], columns: Mapping[str, str | None], *, with_data_size: bool | None
) -> tuple[Points, list[str]]:
    """Read the points of a table, or of results of `evaluate`, and notes about the latter.

    Args:
        paths: one table, or results, whose names end in .json.
        columns: of a table, see `read_points`; of results the loss may be one of the averages.
        with_data_size: as of `read_points`.

    Raises:
        DatasetError: the table can't be used, the results are not of models of one tokenizer or don't
            say their size, or tables are given beside results.
        ResultError: a result can't be read.
    """
    results = [path for path in paths if path.suffix.lower() == RESULT]
    if not results and len(paths) == 1:
        return read_points(paths[0], columns, with_data_size=with_data_size), []
    if tables := len(paths) - len(results):
        got = f"{tables} table{'s' * (tables > 1)}"
        got += f" and {len(results)} result{'s' * (len(results) > 1)}" if results else ""
        raise DatasetError(
            f"got {got}, expected one table, or results of evaluate (.json) alone. Put all points into "
            "one table."
        )
    return _of_results(results, columns, with_data_size=with_data_size)


def _of_results(
    paths: Sequence[Path], columns: Mapping[str, str | None], *, with_data_size: bool | None
) -> tuple[Points, list[str]]:
    average = columns.get("loss") or "token_weighted"
    given = [kind for kind, name in columns.items() if name is not None and kind != "loss"]
    if given or with_data_size:
        what = "--form chinchilla" if not given else f"--{given[0].lower().replace(' ', '-')}"
        raise DatasetError(
            f"{what}: results of evaluate say the size and the loss of a model, and not what it was "
            "trained on. Put the points into a table with these columns, or leave it out."
        )
    if average not in AVERAGES:
        raise DatasetError(f"--loss {average}: expected one of {', '.join(AVERAGES)}.")
    evaluations = [read_evaluation(path) for path in paths]
    for path, evaluation in zip(paths, evaluations, strict=True):
        if reason := not_comparable(evaluations[0], evaluation):
            raise DatasetError(
                f"{path}: not comparable with {paths[0]}: {reason}. A scaling law is one of models of "
                "the same tokens."
            )
    sizes = [_size(path, one) for path, one in zip(paths, evaluations, strict=True)]
    losses = [getattr(one.average, average).cross_entropy.known for one in evaluations]
    points = Points(
        np.array([sizes], np.float64),
        np.array(losses, np.float64),
        tuple(map(str, paths)),
        {"size": "parameters", "loss": f"cross_entropy ({average})"},
    )
    return points, _other_images(paths, evaluations)


def _size(path: Path, evaluation: Evaluation) -> int:
    if evaluation.model.parameters is None:
        raise DatasetError(
            f"{path}: the number of the model's parameters is not known. Put the points into a table."
        )
    return evaluation.model.parameters


def _other_images(paths: Sequence[Path], evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a note on the results that are of other images than the first."""
    first, *others = (
        (one.estimate.data.images_fingerprint, one.estimate.data.images_used) for one in evaluations
    )
    named = [str(path) for path, images in zip(paths[1:], others, strict=True) if images != first]
    return [f"Of other images than {paths[0]}: {', '.join(named)}."] if named else []
