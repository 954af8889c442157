"""Dialects of logs: each row of the table has a fixture of about ten lines, and needs no more."""

from pathlib import Path

import pytest

from entropy_cli.commands.monitor.logs.dialect import ACCURACY, TOKENS, Dialect, like
from entropy_cli.commands.monitor.logs.dialects import DIALECTS
from entropy_cli.commands.monitor.logs.read import read_log

FIXTURES = Path(__file__).parent / "dialects"
# Event files are written in test_logs.
TEXTS = [name for name, dialect in DIALECTS.items() if dialect.container != "events"]


def table(log):
    """The series as lines: name, split, kind, points, first and last value."""
    return {
        " | ".join(
            [
                one.metric.name,
                one.metric.split,
                one.metric.kind,
                str(len(one)),
                f"{one.value_n[0]:.12g}",
                f"{one.value_n[-1]:.12g}",
            ]
        )
        for one in log.series
    }


@pytest.mark.parametrize("name", TEXTS)
def test_each_dialect_is_found_and_read(name):
    path = FIXTURES / f"{name}.log"
    expected = set()
    for line in (FIXTURES / f"{name}.expected").read_text().splitlines():
        *words, first, last = line.split(" | ")
        expected.add(" | ".join([*words, f"{float(first):.12g}", f"{float(last):.12g}"]))
    log = read_log(path)
    assert log.format == name
    assert (log.segments, log.left_out, log.unreadable) == (1, 0, 0)
    found = table(log)
    assert expected <= found
    others = {line for line in found - expected if line.split(" | ")[2] not in SILENT}
    assert not others


SILENT = ("gradient_norm", "learning_rate", "tokens")  # which need not be listed


@pytest.mark.parametrize("name", TEXTS)
def test_each_fixture_is_short_and_read_by_name_too(name):
    path = FIXTURES / f"{name}.log"
    assert len(path.read_text().splitlines()) <= 22
    assert table(read_log(path, name)) == table(read_log(path))


@pytest.mark.parametrize("name", TEXTS)
def test_only_cross_entropies_of_tokens_may_have_a_floor_in_nats(name):
    for one in read_log(FIXTURES / f"{name}.log").series:
        metric = one.metric
        if metric.kind == "cross_entropy":
            assert metric.target in ("tokens", "unknown") and metric.unit
        if metric.target not in ("tokens", "unknown", "latents"):
            assert metric.kind != "cross_entropy" and not metric.has_floor


def test_a_row_is_all_that_a_new_dialect_needs(monkeypatch, tmp_path):
    """A program of our own invention: brackets, two values of one name, a line of a validation."""
    row = Dialect(
        "lines",
        ("tick ", "xe="),
        {
            "xe": (like(TOKENS, "xe"), like(TOKENS, "xe average", statistic="mean")),
            "xe heldout": like(TOKENS, "xe heldout", split="val"),
            "hit": (like(ACCURACY, "hit of all"), like(ACCURACY, "hit of the last")),
        },
        steps=("tick",),
        unplaced="next",
        starts="begin of a run",
        placeholders=(-7,),
    )
    monkeypatch.setitem(DIALECTS, "invented", row)
    path = tmp_path / "log"
    path.write_text(
        "begin of a run\n"
        "xe heldout: 9.5\n"
        "[10:20:30] tick 1 of many: xe=9.2 (9.3) hit 0.1 0.2\n"
        "[10:20:31] tick 2 of many: xe=9.1 (9.2) hit 0.2 -7\n"
        "xe heldout: 9.0\n"
        "[10:20:32] tick 3 of many: xe=9.0 (9.1) hit 0.3 0.4\n"
    )
    log = read_log(path)
    assert log.format == "invented"
    assert table(log) == {
        "xe | train | cross_entropy | 3 | 9.2 | 9",
        "xe average | train | cross_entropy | 3 | 9.3 | 9.1",
        "hit of all | train | accuracy | 3 | 0.1 | 0.3",
        "hit of the last | train | accuracy | 2 | 0.2 | 0.4",
        "xe heldout | val | cross_entropy | 2 | 9.5 | 9",
    }
    assert log.find("xe heldout", "val").step_n.tolist() == [1, 3]
