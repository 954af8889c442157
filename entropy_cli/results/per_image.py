"""The loss of each image, as a table for other programs: CSV or Parquet."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import write_atomically

COLUMNS = ("path", "label", "nats")
PARQUET = ".parquet"


def write_per_image(path: Path, names: Iterable[str], label_M: np.ndarray, nats_M: np.ndarray) -> None:
    """Write a row for each image: its relative path, its class, and the nats of all its tokens.

    Args:
        path: ends in .parquet for Parquet, else CSV is written.
        names: of the M images.
        label_M: their classes, int64.
        nats_M: float64.

    Raises:
        ResultError: the file can't be written.
        EntropyCliError: Parquet needs pyarrow.
    """
    if path.suffix == PARQUET:
        arrow, parquet = parquet_modules()
        # Names that are no UTF-8 are written as Python shows them.
        shown = [name.encode("utf-8", "backslashreplace").decode() for name in names]
        table = arrow.table({"path": shown, "label": label_M, "nats": nats_M})
        write_atomically(path, lambda temporary: parquet.write_table(table, str(temporary)))
        return

    def write_rows(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name, label, nats in zip(names, label_M.tolist(), nats_M.tolist(), strict=True):
                writer.writerow((name, label, repr(nats)))

    write_atomically(path, write_rows)


def parquet_modules() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module; raise EntropyCliError if it is not installed."""
    feature = "writing Parquet"
    return import_extra("pyarrow", "data", feature), import_extra("pyarrow.parquet", "data", feature)
