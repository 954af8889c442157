"""Findings about losses beside ln V, a floor and its ceilings."""

import math
from dataclasses import replace

import numpy as np
import pytest

from entropy_cli.commands.monitor.monitor import MonitorConfig, monitor_log
from entropy_cli.results.floors import Level, RungLimit
from tests.findings import curve, falling, findings, floor_of, ids, noisy


def test_a_sum_of_several_losses_is_said_and_has_no_floor():
    floor, level = floor_of(1024, labels="unknown"), Level(4.5)
    curves = [
        curve(2 * (math.log(1024) - 4.5) * np.arange(1, 201) ** -0.3 + 9, "loss", kind="cross_entropy"),
        curve(
            (math.log(1024) - 4.5) * np.arange(1, 201) ** -0.3 + 4.5, "eval_loss", "val", "cross_entropy"
        ),
    ]
    (one,) = findings(*curves, floor=floor)
    assert (one.id, one.evidence["times"], one.evidence["times_validation"]) == ("summed_loss", 2, 2)
    (one,) = findings(*curves)  # by the validation loss alone
    assert (one.id, one.evidence["times_validation"]) == ("summed_loss", 2)
    assert "num_items_in_batch" in one.message
    low = [
        curve(of.value_n - 3, of.metric.name, of.metric.split, "cross_entropy", level=level)
        for of in curves
    ]
    assert "summed_loss" not in ids(findings(*low, floor=floor))


@pytest.mark.parametrize(
    ("start", "expected"),
    [(math.log(4096), []), (8.0, ["start_is_not_ln_v"]), (10.5, ["start_is_not_ln_v"])],
)
def test_a_start_beside_ln_v(start, expected):
    run = curve(
        noisy(start - 2 * (1 - np.arange(1, 401) ** -0.3)), kind="cross_entropy", untrained_value=start
    )
    assert ids(findings(run, floor=floor_of())) == expected


@pytest.mark.parametrize("kind", ["cross_entropy", "loss"])
def test_a_sum_that_the_start_does_not_show(kind):
    """A resumed run: only its validation loss tells."""
    steps = np.arange(5000, 5200)
    losses = 5 + np.arange(1, 201) ** -0.3
    run = curve(4 * losses, "train_loss", kind=kind, step_n=steps, level=Level(4.5))
    val = curve(losses[::20], "val_loss", "val", kind, step_n=steps[::20], level=Level(4.5))
    (one,) = findings(run, val, floor=floor_of())
    assert (one.id, one.series, one.evidence["times_validation"]) == ("summed_loss", "train_loss", 4)


def test_a_start_that_the_log_does_not_show_is_not_judged():
    run = curve(noisy(falling()), kind="cross_entropy", step_n=np.arange(5000, 5400))
    assert findings(run, floor=floor_of()) == []


@pytest.mark.parametrize(
    ("start", "arguments", "words"),
    [
        (math.log(16384), {}, "loss starts at 9.704 = ln 16384, the floor has 4096 codes"),
        (math.log(4096), {"vocab_size": "1024"}, "vocab_size is 1024, the floor has 4096 codes"),
        (math.log(4096), {"patch_nums": "(1, 2, 3)"}, "its scales are 1, 2, 3, those of the floor 1, 2"),
    ],
)
def test_a_floor_of_another_tokenizer_is_one_finding(start, arguments, words):
    run = curve(
        start - 6 * (1 - np.arange(1, 401) ** -0.3), kind="cross_entropy", level=Level(4.5, ceiling=5)
    )
    floor = floor_of(labels="soft")
    found = findings(run, floor=floor, **arguments)
    assert ids(found) == ["other_tokenizer"] and words in found[0].message
    same = curve(run.value_n - start + math.log(4096), kind="cross_entropy", level=Level(4.5, ceiling=5))
    assert ids(findings(same, floor=floor)) == ["below_floor"]
    scale = curve(falling(), "L_48", kind="cross_entropy", scope=3)
    assert "it has scales 3" in findings(scale, floor=floor)[0].message


def test_hard_labels_go_by_the_ladder():
    rungs = (RungLimit("class", "folder", 5.6), RungLimit("context", "the parent", 5.2))
    level = Level(4.5, ceiling=6.0, rungs=rungs)
    low = curve(noisy(8.3 - 4.2 * (1 - np.arange(1, 401) ** -0.5)), kind="cross_entropy", level=level)
    found = findings(low, floor=floor_of(rungs=rungs))
    assert ids(found) == ["below_floor", "ladder"]
    assert found[0].severity == "info" and "impossible" not in found[0].message
    assert "nats below the context rung" in found[1].message
    high = curve(noisy(np.linspace(8.3, 5.4, 400)), kind="cross_entropy", level=level)
    (one,) = findings(high, floor=floor_of(rungs=rungs))
    assert one.id == "above_rung" and "the context rung (5.2000)" in one.message
    stuck = curve(noisy(np.linspace(8.3, 6.5, 400)), kind="cross_entropy", level=level)
    assert ids(findings(stuck, floor=floor_of(rungs=rungs))) == ["above_unigram"]


@pytest.mark.parametrize(
    ("start", "times", "codes", "expected"),
    [
        (math.log(4096), 4, 4096, "summed_loss"),
        (math.log(16384), 1, 4096, "other_tokenizer"),
        (math.log(50257), 1, 4096, "start_is_not_ln_v"),  # of text: it is above the unigram entropy too
        (math.log(1000) + 0.01, 1, 1000, None),  # may be ln 1024 too
        (math.log(4096), 1, 4096, None),
    ],
)
def test_a_loss_of_unknown_kind_is_judged_as_one_of_tokens(tmp_path, start, times, codes, expected):
    level = Level(3.0, ceiling=7.0)
    floor = replace(floor_of(codes, labels="unknown"), mean=level)
    log = tmp_path / "log.csv"
    losses = times * (start - 2 * (1 - np.arange(1, 201) ** -0.3))
    log.write_text("step,loss\n" + "".join(f"{i},{x:.5f}\n" for i, x in enumerate(losses)))
    result = monitor_log(MonitorConfig(log, "auto", None, floor)).result
    assert ids(result.findings) == ([expected] if expected else [])
    is_set_beside = expected in (None, "start_is_not_ln_v")
    assert [one.floor for one in result.series] == [3.0 if is_set_beside else None]


def test_one_fault_of_several_scales_is_one_finding():
    level = Level(4.5)
    scales = [
        curve(
            noisy(8.3 - 6 * (1 - np.arange(1, 401) ** -0.5)),
            f"L_{16 * side}",
            "train",
            "cross_entropy",
            scope=side,
            level=level,
        )
        for side in (1, 2)
    ]
    (one,) = findings(*scales, floor=floor_of())
    assert (one.id, one.series, one.evidence["also"]) == ("below_floor", "L_16", ["L_32"])


def test_rules_of_thumb_need_the_scales_of_256_pixels():
    sides = "(1, 2, 3, 4, 5, 6, 8, 10, 13, 16)"

    def run():
        start = math.log(4096)
        return curve(
            start - 2 * (1 - np.arange(1, 401) ** -0.3),
            "Lm",
            kind="cross_entropy",
            scope="mean",
            untrained_value=start,
        )

    assert set(ids(findings(run(), log_format="var", patch_nums=sides))) == {"rule_of_thumb"}
    assert findings(run(), log_format="var") == []
    assert findings(run(), log_format="var", patch_nums="(1, 2, 3, 4, 6, 9, 13, 18, 24, 32)") == []
