"""Tables keep their cells whole on every target, and no cell can leave its table."""

import csv
import io
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from entropy_cli.core import table as tables
from entropy_cli.core.escaping import escape_csv, escape_terminal, markdown_code
from entropy_cli.core.table import Lines, Table, definitions

HOSTILE = ["<script>alert(1)</script>", "a|b", "=1+1", "\x1b[2J", Lines("two\nlines"), "a\nb", "日本"]


def example(**changes):
    rows = [["1 x 1", "0.1234 ± 0.0012", 3, None], ["all", Lines("-0.5\n-0.6 to -0.4"), 12.5, ""]]
    return Table("t", "Title", ["scale", "entropy", "tokens", "empty"], rows, **changes)


def test_text_aligns_the_first_column_left_and_the_others_right():
    assert example(caption="in nats", notes=["A note."], rules=[1]).text() == (
        "Title, in nats\n"
        "scale          entropy  tokens  empty\n"
        "-------------------------------------\n"
        "1 x 1  0.1234 ± 0.0012       3\n"
        "-------------------------------------\n"
        "all               -0.5    12.5\n"
        "          -0.6 to -0.4\n"
        "\n"
        "A note."
    )


def test_left_names_the_columns_aligned_left():
    lines = Table("", "", ["a", "b", "c"], [["long", "long", "long"]], left=[0, 1]).text().splitlines()
    assert lines[0] == "a     b        c"


@pytest.mark.parametrize("width", [1, 20, 22, 40])
def test_a_wide_table_is_split_below_each_other_with_the_first_column_and_whole_cells(width):
    table = example(rules=[1])
    parts = table.text(width).removeprefix("Title\n").split("\n\n")
    assert len(parts) == {1: 3, 20: 2, 22: 2, 40: 1}[width]
    heads = [part.splitlines()[0].split() for part in parts]
    assert all(head[0] == "scale" for head in heads)
    assert [name for head in heads for name in head[1:]] == table.head[1:]
    assert all(part.count("\n--") == 2 for part in parts)
    for cell in ("0.1234 ± 0.0012", "-0.6 to -0.4", "12.5"):
        assert sum(part.count(cell) for part in parts) == 1


def test_text_has_no_control_characters_and_counts_wide_letters_twice():
    text = Table("", HOSTILE[3], ["x", "y"], [[one, "1"] for one in HOSTILE], HOSTILE[3]).text()
    assert "\x1b" not in text and text.count("\\x1b[2J") == 3
    lines = text.splitlines()
    assert len({len(line) + 2 * line.count("日本") for line in lines if line.endswith("1")}) == 1


def test_text_has_a_bold_head_on_a_terminal_only(monkeypatch):
    assert "\x1b" not in example().text()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[1m" in example().text()


def test_columns_are_selected_with_their_alignment():
    table = example(left=[0, 2])
    assert table.without("entropy").head == ["scale", "tokens", "empty"]
    assert table.without("entropy").left == [0, 1]
    assert table.without_empty_columns().head == ["scale", "entropy", "tokens"]


def test_columns_that_do_not_fit_are_left_out_in_the_order_given():
    table = example()
    assert table.fitted("tokens") == table
    assert table.fitted("empty", "tokens", width=31).head == ["scale", "entropy", "tokens"]
    assert table.fitted("empty", "tokens", width=1).head == ["scale", "entropy"]


def test_markdown_has_no_html_and_as_many_cells_as_columns():
    text = Table("t", "<b>", ["x", "y"], [[one, one] for one in HOSTILE], "<i>", ["<u>"]).markdown()
    assert "<" not in text.replace("<br>", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 3 for line in rows)
    assert len(rows) == len(HOSTILE) + 2
    assert rows[1] == "| --- | ---: |"


def test_html_has_the_cells_as_text():
    class Cells(HTMLParser):
        texts: tuple = ()
        tags: tuple = ()

        def handle_starttag(self, tag, attrs):
            self.tags += (tag,)

        def handle_data(self, data):
            self.texts += (data,)

    cells = Cells()
    html = Table("t", "<b>", ["x"], [[one] for one in HOSTILE], "<i>", ["<u>"], rules=[2]).html()
    cells.feed(html)
    assert not {"script", "b", "i", "u"} & set(cells.tags)
    assert {*HOSTILE[:3], "two", "lines", "<b>", "<i>", "<u>"} <= set(cells.texts)
    assert html.count("below-rule") == 1


def test_csv_keeps_numbers_and_disarms_formulas():
    text = Table("t", "", ["name", "value"], [["=1+1", -0.1], ["@x", None], ["a", 1e-17]]).csv()
    assert list(csv.reader(io.StringIO(text))) == [
        ["name", "value"],
        ["'=1+1", "-0.1"],
        ["'@x", ""],
        ["a", "1e-17"],
    ]
    assert [escape_csv(one + "x") for one in "+-\t\ra"] == ["'+x", "'-x", "'\\tx", "'\\rx", "ax"]
    assert [escape_csv(one) for one in ("-1.5", "+2e-7", "-1-1")] == ["-1.5", "+2e-7", "'-1-1"]


def test_code_in_markdown_can_not_be_left():
    assert markdown_code("a b") == "`a b`"
    assert markdown_code("a `b``\n\nc") == "``` a `b`` c ```"


def test_terms_are_escaped_and_wrapped_with_a_hanging_indent():
    lines = definitions({"term": "word " * 30, "x": "\x07"}).splitlines()
    assert lines[0].startswith("term  word") and lines[1].startswith("      word")
    assert max(map(len, lines)) <= tables.WIDTH
    assert lines[-1] == "x     \\x07"
    assert escape_terminal("a\nb\udcff") == "a\nb\\udcff"


def test_rich_is_imported_for_a_terminal_only():
    code = "import sys, entropy_cli.core.table as t; t.Table('', '', ['a'], []).markdown();" + (
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
