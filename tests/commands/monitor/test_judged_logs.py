"""What is said of whole logs: of those too short to judge, of published ones and of like ones."""

import json
from collections import Counter

import pytest

from entropy_cli.commands.monitor.logs.names import infer_target
from entropy_cli.commands.monitor.monitor import MonitorConfig, monitor_log
from entropy_cli.results.floors import read_floor
from tests.findings import WORDS_OF_ADVICE, falling


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
