"""Tables of points: columns found by name, numbers as people write them, and errors that say where."""

import math
import time

import pytest

from entropy_cli.commands.fit.points import MOST_POINTS, read_points
from entropy_cli.core.errors import DatasetError


@pytest.fixture
def read(tmp_path):
    def read(text, *, with_data_size=False, encoding="utf-8", **columns):
        path = tmp_path / "points.csv"
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return read_points(path, columns, with_data_size=with_data_size)

    return read


def pairs(table):
    return list(zip(table.size_TP[0], table.loss_P, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "N,loss\n310000000,6.05\n2000000000,5.72\n",
        "\ufeffparams,val_loss\n310M,6.05\n2.0B,5.72\n",
        "Model Size;Loss\r\n 310 m ; 6.05 \r\n\r\n2e9;5.72",
        "# VAR\n# from a paper\nname\tn_params\ttest loss\nd16\t310M\t6.05\n\nd30\t0.002T\t5.72\n",
        '"Model Size (parameters)","loss (nats)"\n"310,000,000","6.05"\n2G,5.72\n',
        " size , extra, cross-entropy\n3.1e8,a,6.05\n2E+9,,5.72\n,,\n",
    ],
)
def test_tables_as_people_write_them(read, text):
    assert pairs(read(text)) == [(pytest.approx(310e6), 6.05), (pytest.approx(2e9), 5.72)]


def test_data_sizes_from_their_column_or_from_flop(read):
    table = read("N,D,loss\n1e8,2B,3\n", with_data_size=True)
    assert table.size_TP[1] == 2e9
    table = read("N,FLOP,loss\n1e8,1.2e18,3\n", with_data_size=True)
    assert table.size_TP[1] == pytest.approx(2e9)
    table = read("N,tokens,FLOP,loss\n1e8,7e9,1.2e18,3\n", with_data_size=True, FLOP="FLOP")
    assert table.size_TP[1] == pytest.approx(2e9)
    assert table.columns == {"size": "N", "FLOP": "FLOP", "loss": "loss"}
    assert len(read("N,D,loss\n1e8,2B,3\n").size_TP) == 1


def test_named_columns_win_whatever_their_case(read):
    table = read("N,big n,loss,Val Loss\n1e8,2e8,3,4\n", size="Big N", loss="val loss")
    assert pairs(table) == [(2e8, 4.0)]


@pytest.mark.parametrize("name", ["step", "global_step", "Iteration", "iters", "epoch", "train steps"])
def test_steps_are_told_from_sizes(read, name):
    assert read(f"{name},loss\n100,3\n").are_steps
    assert read(f"N,{name},loss\n1e8,100,3\n").columns["size"] == "N"
    assert not read(f"N,{name},loss\n1e8,100,3\n").are_steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty. Expected a header"),
        ("# nothing\n\n", "empty. Expected a header"),
        ("N,loss\n", "no points"),
        ("N,loss\n1e8,6\n2e8,abc\n", "line 3, column 'loss': got 'abc'"),
        ("N,loss\n1e8,6\n\n# so\n,5\n", "line 5, column 'N': got 'nothing'"),
        ("N,loss\n-1e8,6\n", "got '-1e8', expected a positive number"),
        ("N,loss\n0,6\n", "got '0'"),
        ("N,loss\n1e8,0.0\n", "got '0.0'"),
        ("N,loss\n1e8,nan\n", "got 'nan'"),
        ("N,loss\n1e999,6\n", "got '1e999'"),
        ("N,loss\ninf,6\n", "got 'inf'"),
        ("N,loss\n1e-200,6\n", "got '1e-200'"),
        ("N,loss\n1e8,5K\n", "got '5K'"),
        ("N;loss\n1e8;5,123\n", "got '5,123', expected a positive number with a point"),
        ("N;loss\n0,310B;5\n", "got '0,310B'"),
        ("N;loss\n1,234;5\n", "got '1,234'"),
        ("N,loss\n٣,5\n", "got '٣'"),
        ("N,loss\n1e8,6,7\n", "line 2: 3 cells, but the header has 2"),
        ("N,loss\n1e8\n", "line 2: 1 cells"),
        ("N,loss,N\n1,2,3\n", "'N' exists twice"),
        ("a,loss\n1,2\n", "no column is named as a size; it has 'a', 'loss'. Give --size"),
        ("N,params,loss\n1,2,3\n", "'N', 'params' could all be the size"),
        ("N,b\n1,2\n", "no column is named as a loss"),
        (b"\xff\xfeN\x00", "not UTF-8 text"),
    ],
)
def test_errors_say_where_and_what(read, text, words):
    with pytest.raises(DatasetError) as error:
        read(text)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"size": "M"}, "no column 'M' for --size; it has 'N', 'loss'"),
        ({"size": "loss"}, "one column can't be two"),
        ({"with_data_size": True}, "Give --data-size or --flop"),
        ({"with_data_size": True, "FLOP": "C"}, "no column 'C' for --flop"),
    ],
)
def test_columns_that_are_not_there(read, columns, words):
    with pytest.raises(DatasetError, match="points") as error:
        read("N,loss\n1e8,6\n", **columns)
    assert words in str(error.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match="can't be read: No such file"):
        read_points(tmp_path / "no.csv", {}, with_data_size=False)


@pytest.mark.parametrize(
    ("head", "size", "data", "loss"),
    [
        ("params (M),tokens [billions],loss", 2e6, 3e9, 5.0),
        ("params,tokens,loss (bits)", 2.0, 3.0, 5 * math.log(2)),
        ("params (B),tokens,loss (nats per token)", 2e9, 3.0, 5.0),
        ("params (millions),tokens,loss (bits per token)", 2e6, 3.0, 5 * math.log(2)),
    ],
)
def test_units_in_the_head_are_heeded(tmp_path, head, size, data, loss):
    path = tmp_path / "points.csv"
    path.write_text(f"{head}\n2,3,5\n")
    points = read_points(path, {}, with_data_size=True)
    assert (*points.size_TP[:, 0], points.loss_P[0]) == pytest.approx((size, data, loss))


def test_bits_of_something_else_are_refused(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("params,loss (bits per byte)\n2,5\n")
    with pytest.raises(DatasetError, match="expected nats or bits per token"):
        read_points(path, {}, with_data_size=False)


@pytest.mark.parametrize("name", ["(" * 100_000, ",".join(f"c{i}" for i in range(100_000)), "x"])
def test_headers_and_cells_of_any_length_are_read_in_seconds(read, name):
    cells = "," + "1," * name.count(",") + ("9" * 100_000 + "y" if name == "x" else "1")
    start = time.process_time()
    assert len(read(f"params,loss,{name}\n1e8,3{cells}\n").where) == 1
    with pytest.raises(DatasetError) as caught:
        read(f"params,loss,{name}\n1e8,{'9' * 100_000}x{cells}\n")
    assert time.process_time() - start < 10 and len(str(caught.value)) < 300


def test_more_points_than_models_were_ever_trained_are_refused(read):
    rows = "".join(f"{n + 1},2\n" for n in range(MOST_POINTS))
    assert len(read(f"N,loss\n{rows}").loss_P) == MOST_POINTS
    with pytest.raises(DatasetError, match="5,001 points, expected at most 5,000"):
        read(f"N,loss\n{rows}1,2\n")
