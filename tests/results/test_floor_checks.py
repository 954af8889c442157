"""Checks of one loss against a floor, the ceilings of hard tokens, and ln V."""

import math
import re
from decimal import Decimal

import pytest

from entropy_cli.results.floor_checks import (
    above_unigram,
    below_floor,
    beside_ladder,
    compare_start,
    start_is_not_ln_v,
    summed_loss,
)
from entropy_cli.results.floors import Level, RungLimit

RUNGS = (RungLimit("class", "folder", 5.6), RungLimit("context", "the parent", 5.2))
LEVEL = Level(4.5, half_width=0.01, ceiling=6.0, rungs=RUNGS)


@pytest.mark.parametrize(
    ("labels", "severity", "words", "never"),
    [
        ("hard", "info", "CE - A may be negative", "impossible"),
        ("soft", "warning", "impossible", "may be negative"),
        ("unknown", "warning", "If the labels are the nearest codes", "may be negative"),
    ],
)
def test_below_its_floor_is_impossible_for_soft_labels_only(labels, severity, words, never):
    one = below_floor(4.4, LEVEL, labels, "train loss")
    assert (one.id, one.severity) == ("below_floor", severity)
    assert one.message.startswith("train loss of 4.4000 lies 0.1000 nats below")
    assert words in one.message and never not in one.message


@pytest.mark.parametrize("value", [4.40004, 4.40006])
def test_the_printed_numbers_add_up(value):
    for one in (below_floor(value, Level(4.50006), "hard"), above_unigram(value, 4.2)):
        first, apart, last = map(Decimal, re.findall(r"\d\.\d{4}", one.message)[:3])
        assert abs(first - last) == apart
    assert "9.000, 0.682 above ln 4096 = 8.318" in start_is_not_ln_v(9.0004, 4096).message


def test_hard_labels_are_sent_to_the_ladder():
    assert "estimate with --ladder" in below_floor(4.4, Level(4.5), "hard").message
    assert "--ladder" not in below_floor(4.4, LEVEL, "hard").message
    beside = beside_ladder(4.4, LEVEL, 0.02)
    assert (beside.id, beside_ladder(5.4, LEVEL, 0.02).id) == ("ladder", "above_rung")
    assert "0.80 nats below the context rung (5.2000)" in beside.message


@pytest.mark.parametrize(
    ("initial", "codes", "is_untrained", "expected"),
    [
        (math.log(4096) + 0.01, 4096, True, (True, None)),
        (8.0, 4096, True, (False, None)),
        (8.0, 4096, False, (True, None)),  # a mean over the first steps
        (8.8, 4096, False, (True, None)),  # a last layer that is not zero
        (9.7, 4096, False, (False, None)),
        (13.744, 1024, False, (False, 2)),
        (4 * math.log(16384), 16384, True, (False, 4)),
        (1.5 * math.log(16384), 16384, True, (False, None)),
    ],
)
def test_the_start_of_a_run_beside_ln_v(initial, codes, is_untrained, expected):
    assert compare_start(initial, codes, is_untrained=is_untrained) == expected


def test_a_wrong_start_says_what_it_is_beside():
    summed = summed_loss(13.744, 1024, 2)
    assert (summed.id, summed.severity) == ("summed_loss", "warning")
    assert "13.744, about 2 times ln 1024 = 6.931" in summed.message
    assert "num_items_in_batch" in summed.message
    above, below = start_is_not_ln_v(9.0, 4096), start_is_not_ln_v(8.0, 4096)
    assert {above.id, below.id} == {"start_is_not_ln_v"}
    assert (above.severity, below.severity) == ("warning", "info")
    assert "9.000, 0.682 above ln 4096 = 8.318" in above.message
    assert "8.000, 0.318 below ln 4096 = 8.318" in below.message
