"""Lines in place of a bar, for logs: how often, and what they say."""

import logging
import re

import pytest

from entropy_cli.core.progress_bars import LineBar, SilentBar, duration, stage


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_line_every_thirty_seconds_and_one_at_the_end(clock):
    lines = []
    bar = LineBar("", 50_000, "img", 200, lines.append, clock)
    for _ in range(10):  # 10 images a second, for 100 seconds
        clock.now += 10
        bar.set_postfix_str("A = 5.63 (5.61 to 5.65)")
        bar.update(100)
    assert len(lines) == 3
    bar.close()
    assert len(lines) == 4
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  500/50,000 images  10\.0/s  1:22:30 left  A = 5\.63 \(5\.61 to 5\.65\)\n",
        lines[0],
    )
    assert "1,200/50,000 images" in lines[-1]


def test_what_is_short_writes_nothing(clock):
    lines = []
    bar = LineBar("hashing", 10, "B", 0, lines.append, clock)
    clock.now += 29
    bar.update(10)
    bar.close()
    assert lines == []


def test_what_is_slow_or_has_no_end(clock):
    lines = []
    bar = LineBar("listing images", None, "img", 0, lines.append, clock)
    clock.now += 60
    bar.update(6)
    assert lines[0].endswith("  listing images  6 images  10.0 s each\n")
    assert duration(3_725.4) == "1:02:05"


def test_a_silent_bar_takes_everything():
    bar = SilentBar()
    assert bar.update(1) is bar.set_description("x") is bar.set_postfix_str("y") is None


def test_a_stage_tells_its_seconds(caplog):
    caplog.set_level(logging.DEBUG, "entropy_cli")
    logging.getLogger("entropy_cli").propagate = True
    with stage("hashing"):
        pass
    assert re.search(r"hashing: 0\.0\d s", caplog.text)
