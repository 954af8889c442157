"""Findings about curves: what they say, that their numbers are the log's, and that one fault is one."""

import re
from decimal import Decimal

import numpy as np
import pytest

from entropy_cli.commands.monitor.logs.series import Metric, Series
from tests.findings import curve, falling, findings, ids, noisy


def test_a_loss_that_never_moved_is_no_plateau_too():
    found = findings(curve(noisy(np.full(400, 2.0), 0.001)))
    assert ids(found) == ["never_moved"]
    assert found[0].severity == "warning"
    assert ids(findings(curve(noisy(falling())))) == []


def test_a_constant_part_of_a_model_that_learns_is_no_finding():
    part = curve(np.full(400, 0.5), name="z_loss")
    assert ids(findings(part, curve(noisy(falling())))) == []
    assert ids(findings(part)) == ["never_moved"]


def test_the_end_of_a_longer_run_is_a_plateau_rather():
    steps = np.arange(9000, 9400)
    assert ids(findings(curve(noisy(np.full(400, 2.0), 0.001), kind="cross_entropy", step_n=steps))) == [
        "plateau"
    ]


def test_a_standstill_in_noise():
    still = noisy(np.maximum(8 - 9 * np.arange(4000) / 4000, 5), 0.05)
    (one,) = findings(curve(still, kind="cross_entropy"))
    assert one.id == "plateau"
    assert "flat since step 2000" in one.message
    assert "with a standard error of" in one.message and "±" not in one.message


@pytest.mark.parametrize("target", ["adversary", "sum"])
def test_what_an_adversary_works_against_has_no_alarms_but_nan(target):
    up = noisy(np.linspace(0, 1, 400))
    assert "divergence" in ids(findings(curve(up)))
    assert findings(curve(up, target=target)) == []
    val = curve(noisy(np.abs(np.arange(40) - 15)), "val", "val", target=target)
    assert findings(curve(falling(40), target=target), val) == []
    broken = Series(Metric("d", target=target), up, up, up, nonfinite=1, nonfinite_at={"step": 3})
    assert ids(findings(broken)) == ["nan"]


def test_a_rise_is_from_the_value_that_is_printed():
    level_n = np.interp(np.arange(600), [0, 2, 20, 60, 599], [0.179, 0.083, 0.186, 0.243, 0.145])
    (one,) = findings(curve(noisy(level_n, 0.001), target="latents"))
    lowest, rise, last = re.search(
        r"at ([\d.]+), .* up by ([\d.]+) .* to ([\d.]+),", one.message
    ).groups()
    assert Decimal(last) - Decimal(lowest) == Decimal(rise)
    assert one.evidence["at"] == {"step": 2.0} and one.evidence["position"] == 2.0
    up = findings(curve(noisy(np.linspace(3, 9, 400)), kind="cross_entropy"))
    (one,) = [found for found in up if found.id == "divergence"]
    last, rise, first = re.search(r"at ([\d.]+), ([\d.]+) above .* of ([\d.]+) ", one.message).groups()
    assert Decimal(last) - Decimal(first) == Decimal(rise)


def test_few_epochs_are_judged_by_their_steps():
    steps = curve(noisy(np.linspace(3, 9, 400)), "loss_step")
    few = curve([3.5, 5.0, 6.5, 8.0], "loss_epoch", epochs=True, finer=steps)
    (one,) = findings(few)
    assert (one.id, one.series) == ("divergence", "loss_epoch")
    assert findings(curve([3.5, 5.0, 6.5, 8.0], "loss_epoch", epochs=True)) == []
    many = curve(falling(40), "loss_epoch", epochs=True, finer=steps)
    assert findings(many) == []


def test_training_at_an_evaluation_is_that_of_the_log_since_the_one_before():
    train = curve(falling(400, 0.5), step_n=np.arange(400) * 3)
    steps = np.arange(40) * 30
    val = curve(5 + 0.02 * np.abs(np.arange(40) - 15), "val_loss", "val", step_n=steps)
    (one,) = findings(train, val)
    assert (one.id, one.series) == ("overfitting", "val_loss")
    assert one.evidence["at"] == {"step": 450.0} and one.evidence["position"] == 450.0
    best, last = np.median(train.value_n[141:151]), np.median(train.value_n[381:391])
    assert (one.evidence["train_at_best"], one.evidence["train_last"]) == (best, last)
    assert f"from {best:.4g} to {last:.4g} (medians since the evaluation before)." in one.message
    (one,) = findings(curve(train.value_n[::10], step_n=steps), val)
    assert one.evidence["train_at_best"] == train.value_n[150] and "medians" not in one.message


def test_one_fault_of_several_evaluations_is_one_finding():
    rising = 5 + 0.02 * np.abs(np.arange(40) - 15)
    vals = [curve(rising + i, f"eval_g{i}_loss", "val") for i in range(6)]
    found = findings(curve(falling(40)), *vals)
    assert ids(found) == ["overfitting"]
    assert found[0].series == "eval_g0_loss"
    assert "The same is true of eval_g1_loss, eval_g2_loss, eval_g3_loss and 2 more." in found[0].message
    assert found[0].evidence["also"] == [f"eval_g{i}_loss" for i in range(1, 6)]


def test_an_accuracy_is_reported_where_its_loss_is():
    train, val = curve(falling(40)), 5 + 0.02 * np.abs(np.arange(40) - 15)
    up, down = np.linspace(0.2, 0.5, 40), 0.5 - 0.01 * np.abs(np.arange(40) - 15)
    loss = curve(val, "eval_loss", "val")
    (one,) = findings(train, loss, curve(down, "eval_accuracy", "val", "accuracy"))
    assert "eval_accuracy falls as well, from 0.5 at step 15 to 0.26" in one.message
    (one,) = findings(train, loss, curve(up, "eval_accuracy", "val", "accuracy"))
    assert "eval_accuracy does not fall: best 0.5, last 0.5" in one.message
    healthy = curve(falling(40), "eval_loss", "val")
    (one,) = findings(train, healthy, curve(down, "eval_accuracy", "val", "accuracy"))
    assert (one.id, one.series) == ("overfitting", "eval_accuracy")
    assert "highest at step 15 with 0.5, at most 0.28" in one.message
    other = curve(down, "eval_other_accuracy", "val", "accuracy")
    (one,) = findings(train, loss, other)
    assert (one.series, one.evidence["also"]) == ("eval_loss", ["eval_other_accuracy"])
