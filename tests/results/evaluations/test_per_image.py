"""The losses of images in a file, and the largest and smallest of them."""

import csv

import numpy as np
import pytest

from entropy_cli.core.errors import ResultError
from entropy_cli.core.files import check_files
from entropy_cli.results.evaluations.per_image import check_per_image, find_extremes, write_per_image

NAMES = ["a/1.png", 'b, "c"/2.png', "=d/3.png", "e/4.png"]
LABELS, NATS = np.array([7, 0, 999, 7]), np.array([10.25, 1 / 3, 4111.0, 2.5])


def test_csv_has_a_line_for_each_image(tmp_path):
    path = tmp_path / "losses.csv"
    write_per_image(path, NAMES.__getitem__, LABELS, NATS)
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["path", "label", "nats"]
    assert [row[0] for row in rows] == [*NAMES[:2], "'=d/3.png", NAMES[3]]  # no formula
    assert [int(row[1]) for row in rows] == LABELS.tolist()
    assert [float(row[2]) for row in rows] == NATS.tolist()


def test_parquet_has_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "losses.parquet"
    check_per_image(path)
    write_per_image(path, [*NAMES[:3], "\udce9.png"].__getitem__, LABELS, NATS)
    table = parquet.read_table(path).to_pydict()
    assert table == {
        "path": [*NAMES[:3], "?.png"],
        "label": LABELS.tolist(),
        "nats": NATS.tolist(),
    }


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_another_run_may_replace_it(tmp_path, suffix):
    pytest.importorskip("pyarrow")
    path = tmp_path / f"losses.{suffix}"
    path.write_text("somebody's")
    with pytest.raises(ResultError, match="is no output of entropy-cli"):
        check_files([], [("--per-image", path)])
    write_per_image(path, NAMES.__getitem__, LABELS, NATS)
    check_files([], [("--per-image", path)])


def test_extremes_are_the_ends_of_the_order_and_none_is_both():
    found = find_extremes(NAMES.__getitem__, LABELS, NATS)
    assert [(image.path, image.label, image.nats) for image in found.worst] == [
        ("=d/3.png", 999, 4111.0),
        ("a/1.png", 7, 10.25),
    ]
    assert [image.path for image in found.best] == [NAMES[1], NAMES[3]]
    nats_N = np.random.default_rng(0).permutation(50.0 + np.arange(50))
    many = find_extremes(lambda n: f"{nats_N[n]:g}", np.zeros(50, int), nats_N)
    assert [image.path for image in many.worst] == [f"{n}" for n in range(99, 91, -1)]
    assert [image.nats for image in many.best] == [float(n) for n in range(50, 58)]
    assert find_extremes(["a"].__getitem__, np.array([1]), np.array([1.0])).worst == []
