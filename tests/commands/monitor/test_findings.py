"""Findings about a log: what they say, that their numbers are the log's, and that one fault is one."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from entropy_cli.commands.monitor.findings import collect_findings
from entropy_cli.commands.monitor.logs.names import infer_target
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.commands.monitor.monitor import MonitorConfig, monitor_log
from entropy_cli.results.floors import Floor, Level, RungLimit, ScaleFloor, read_floor

WORDS_OF_ADVICE = re.compile(
    r"\b(?:check|use|run|give|judge|lower|stop|resume|divide|do not|nothing to do|unless|compare|"
    r"no mending)\b",
    re.IGNORECASE,
)


def curve(value_n, name="loss", split="train", kind="loss", *, epochs=False, step_n=None, **more):
    """A series of the values, at steps 0, 1, 2 ... or at the epochs."""
    extra = {key: more.pop(key) for key in ("level", "finer", "untrained_value") if key in more}
    value_n = np.asarray(value_n, dtype=float)
    at_n = np.arange(len(value_n), dtype=float) if step_n is None else np.asarray(step_n, dtype=float)
    none_n = np.full(len(value_n), math.nan)
    epoch_n, step_n = (at_n, none_n) if epochs else (none_n, at_n)
    return Series(Metric(name, split, kind, **more), value_n, epoch_n, step_n, **extra)


def findings(*series, floor=None, log_format="csv", **arguments):
    log = Log(log_format, series, starts=1, segments=1, left_out=0, arguments=arguments)
    found = collect_findings(log, series, {}, floor)
    for one in found:
        assert WORDS_OF_ADVICE.search(one.message), one.message
    return found


def ids(found):
    return [one.id for one in found]


def falling(points=400, power=0.3):
    return 5 + 3 * np.arange(1, points + 1) ** -power


def noisy(value_n, sd=0.01, seed=0):
    return np.asarray(value_n) + np.random.default_rng(seed).normal(0, sd, len(value_n))


def floor_of(codes=4096, sides=(1, 2), labels="hard", rungs=(), **more):
    level = Level(4.5, ceiling=8.0, rungs=rungs)
    scales = tuple(ScaleFloor(f"{side}x{side}", side * side, side, level) for side in sides)
    return Floor("r.json", level, level, level, scales, vocab_size=codes, labels=labels, **more)


# Curves


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


# Validation


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
    assert "The same is true of eval_g1_loss, eval_g2_loss, eval_g3_loss, 2 more." in found[0].message
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


# Where a run starts


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


# Floors


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


# What a log is too short for


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (5, "a trend takes 10 points, loss has 5"),
        (20, "a plateau takes 32 points, loss has 20"),
        (40, "none\n"),
    ],
)
def test_too_short_to_judge_is_said_in_place_of_none(cli, tmp_path, points, words):
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(falling(points))))
    _, out, _ = cli("monitor", log)
    found = out.split("Findings\n")[1]
    assert found.startswith(words if words == "none\n" else f"Too short to judge: {words}.")
    _, out, _ = cli("monitor", log, "--json")
    assert bool(json.loads(out)["not_judged"]) == (points < 32)


def test_what_a_few_evaluations_do_is_said(cli, tmp_path):
    log = tmp_path / "log.csv"
    val = [0.3075, 0.3558, 0.4214, 0.4519, 0.4679]
    log.write_text("step,loss,eval_loss\n" + "".join(f"{i},{4 - i},{x}\n" for i, x in enumerate(val, 1)))
    _, out, _ = cli("monitor", log)
    words = " ".join(out.split())
    assert "the log has 5; the last of eval_loss, 0.4679, is 0.1604 above the best, at step 1." in words
    log.write_text("step,loss,eval_loss\n" + "".join(f"{i},{4 - i},{4 - i}\n" for i in range(5)))
    assert "above the best" not in cli("monitor", log)[1]


def test_a_metric_of_a_run_that_is_not_shown_leaves_no_trace(cli, tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"step": i, "aux_loss": 1.0} for i in range(3)]
    rows += [{"step": i, "loss": 5 - 0.01 * i} for i in range(50)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = cli("monitor", log, "--json")
    assert code == 0, err
    assert "loss" in [one["name"] for one in json.loads(out)["series"]]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("critic_loss", "adversary"),
        ("gen_loss", "adversary"),
        ("train/d_loss", "adversary"),
        ("g_loss", "adversary"),
        ("loss", "unknown"),
        ("loss_step", "unknown"),
        ("eval_loss", "unknown"),
    ],
)
def test_names_of_adversarial_parts(name, target):
    assert infer_target(name) == target


def test_a_single_point_has_no_panel(cli, tmp_path):
    pytest.importorskip("matplotlib")
    log, page = tmp_path / "log.csv", tmp_path / "page.html"
    for rows, panels in (("1,3.0,0.1\n", 0), ("1,3.0,0.1\n2,2.0,\n", 1)):
        log.write_text("step,loss,acc\n" + rows)
        assert cli("monitor", log, "-o", page, "--overwrite")[0] == 0
        assert page.read_text().count("<svg") == panels
    assert cli("monitor", log, "-o", tmp_path / "run.png")[0] == 0
    log.write_text("step,loss\n1,3.0\n")
    assert cli("monitor", log, "-o", tmp_path / "one.png")[0] == 0


# Real logs, and logs like those of public reports

HEALTHY: set[str] = set()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cases/early_minimum/jepa_loss.csv", {"rebound"}),
        ("cases/overfitting_that_alternates/train_log.csv", {"overfitting"}),
        ("cases/few_epochs_hide_steps/metrics.csv", {"rebound"}),
        ("cases/jepa_never_learned/jepa_r0.csv", {"never_moved"}),
        ("cases/vqgan_lightning/metrics.csv", HEALTHY),
        ("cases/logged_sum_of_accumulation/trainer_state.json", {"summed_loss"}),
        ("cases/dit_log/log.txt", HEALTHY),
        ("cases/infinity_stdout/train.log", HEALTHY),
        ("cases/var_fork_no_brackets/train.log", {"val_is_train"}),
        ("cases/head_glued_to_first_row/loss.csv", {"rebound"}),
        ("cases/build_nanogpt_stdout/stdout.txt", HEALTHY),
        ("cases/megatron_stdout/train.log", HEALTHY),
        ("cases/mingpt_stdout/stdout.txt", HEALTHY),
        ("cases/nanogpt_with_ppl/train.log", {"overfitting"}),
        ("logs/build_nanogpt_log.txt", HEALTHY),
        ("logs/hf_trainer_state.json", {"overfitting"}),
        ("logs/lazaros_tin_r0.csv", {"rebound"}),
        (
            "logs/varclip_class_conditional_imagenet.log",
            {"val_is_train", "restarts", "rule_of_thumb"},
        ),
    ],
)
def test_real_logs(shared, path, expected):
    found = monitor_log(MonitorConfig(shared / path, "auto", None, None)).result.findings
    assert {one.id for one in found} == expected
    counts = Counter((one.id, one.series) for one in found if one.id != "rule_of_thumb")
    assert set(counts.values()) <= {1}
    assert all(WORDS_OF_ADVICE.search(one.message) for one in found)


def test_a_sum_beside_its_own_tokenizer(shared):
    path = shared / "cases" / "logged_sum_of_accumulation" / "trainer_state.json"
    floor = read_floor(shared / "cases" / "result_llamagen.json")
    result = monitor_log(MonitorConfig(path, "auto", None, floor)).result
    (one,) = [one for one in result.findings if one.id == "summed_loss"]
    assert (one.evidence["times"], one.evidence["times_validation"]) == (2, 2)
    floors = {one.name: one.floor for one in result.series}
    assert floors["loss"] is None and floors["eval_loss"] == floor.mean.floor
