"""The loss of each image: written as CSV or Parquet, and the images of the largest and smallest."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli import __version__
from entropy_cli.core.escaping import escape_csv
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import PER_IMAGE, write_atomically
from entropy_cli.results.evaluation import Extremes, ImageLoss

FORMATS = (".csv", ".parquet")
SHOWN = 8  # images of either kind


def check_per_image(path: Path) -> None:
    """Check before a run that a file of losses can be written after it.

    Raises:
        EntropyCliError: it is to be Parquet, and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        _parquet()


def write_per_image(
    path: Path, name: Callable[[int], str], label_N: np.ndarray, nats_N: np.ndarray
) -> None:
    """Write a line for each image, atomically: its path, its class, and the nats of all its tokens.

    Args:
        path: a path that ends in one of FORMATS.
        name: returns the relative path of the n-th of N images.
        label_N: their classes, whole numbers.
        nats_N: their losses, float64.

    Raises:
        ResultError: it can't be written.
        EntropyCliError: it is to be Parquet, and pyarrow is not installed.
    """
    columns = (map(name, range(len(nats_N))), label_N.tolist(), nats_N.tolist())
    if path.suffix.lower() == ".parquet":
        arrow, parquet = import_extra("pyarrow", "data", "Parquet"), _parquet()
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in columns[0]]
        table = arrow.table(dict(zip(PER_IMAGE, (texts, *columns[1:]), strict=True)))
        table = table.replace_schema_metadata({"entropy-cli": __version__, "nats": "of all tokens"})
        write_atomically(path, lambda temporary: parquet.write_table(table, temporary))
        return

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(PER_IMAGE)
            for text, *numbers in zip(*columns, strict=True):
                writer.writerow([escape_csv(text), *numbers])

    write_atomically(path, write)


def find_extremes(name: Callable[[int], str], label_N: np.ndarray, nats_N: np.ndarray) -> Extremes:
    """Return the images of the largest and of the smallest losses, none of them twice.

    Arguments are those of `write_per_image`.
    """
    order_N = np.argsort(nats_N, kind="stable").tolist()
    few = min(SHOWN, len(order_N) // 2)
    best, worst = (
        [ImageLoss(name(i), int(label_N[i]), float(nats_N[i])) for i in chosen]
        for chosen in (order_N[:few], order_N[::-1][:few])
    )
    return Extremes(worst, best)


def _parquet() -> Any:  # noqa: ANN401 - a module
    return import_extra("pyarrow.parquet", "data", "a file of losses in Parquet")
