"""Readers of training logs: each format, and everything that happens to real files."""

import contextlib
import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from entropy_cli.commands.monitor.logs.names import infer_kind, infer_split, stem
from entropy_cli.commands.monitor.logs.read import MAX_SERIES, read_log
from entropy_cli.commands.monitor.logs.series import Log, Metric, Series
from entropy_cli.commands.monitor.monitor import find_repeated_training
from entropy_cli.core.errors import LogError
from entropy_cli.results.excess import Excess
from tests import training_logs as logs
from tests.training_logs import values

LOSSES, SMALL = logs.LOSSES, (0.5, 0.4, 0.3, 0.25, 0.2)


@pytest.fixture
def read(tmp_path):
    def run(content, format_name="auto", loss_name=None, name="log"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_log(path, format_name, loss_name)

    return run


CASES = {  # format, its text, and the losses in it by name and split
    "var": (logs.var_stdout(), {("Lm", "train"): LOSSES, ("Lt", "train"): logs.LAST}),
    "var-log-txt": (logs.var_log_txt(), {("L_mean", "train"): LOSSES, ("vL_mean", "val"): (6.05, 5.95)}),
    "llamagen": (logs.llamagen(), {("Train Loss", "train"): LOSSES}),
    "nanogpt": (logs.nanogpt(), {("train loss", "train"): LOSSES}),
    "jepa": (logs.jepa_stdout(), {("loss", "train"): LOSSES}),
    "ijepa-csv": (logs.ijepa_csv(SMALL, per_epoch=1), {("loss", "train"): SMALL}),
    "vjepa-csv": (logs.vjepa_csv(SMALL), {("loss", "train"): SMALL}),
    "huggingface": (logs.trainer_state(), {("loss", "train"): LOSSES}),
    "lightning": (logs.lightning(), {("train_loss_epoch", "train"): LOSSES}),
    "wandb": (logs.wandb(), {("run-a - train/loss", "train"): LOSSES}),
    "jsonl": (logs.json_lines(), {("train/loss", "train"): LOSSES}),
    "json": (logs.keras_json(), {("loss", "train"): LOSSES}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_format_is_found_by_its_content_and_read(read, name):
    text, expected = CASES[name]
    log = read(text, name="anything.bin")
    assert log.format == name
    assert (log.segments, log.left_out, log.unreadable) == (1, 0, 0)
    for (series, split), numbers in expected.items():
        assert values(log, series, split) == pytest.approx(list(numbers))


@pytest.mark.parametrize("name", CASES)
def test_colours_nulls_carriage_returns_and_other_encodings_change_nothing(read, name):
    text, expected = CASES[name]
    plain = read(text)
    lines = text.replace("\0", "").split("\n")
    for changed in (
        "\r\n".join(lines).encode(),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        text.replace("2", "2\0").encode(),
        "\n".join(f"\x1b[32m{line}\x1b[0m" if line else line for line in lines).encode(),
    ):
        log = read(changed)
        assert log.format == name
        for series, split in expected:
            assert values(log, series, split) == values(plain, series, split)


def test_undecodable_bytes_and_progress_bars_beside_the_values(read):
    noise = b"\xfa\xff 12%|#  | 3/100\r 24%|## | 6/100\r"
    lines = [noise + line for line in logs.llamagen().encode().split(b"\n")]
    assert values(read(b"\n".join(lines)), "Train Loss") == pytest.approx(LOSSES)


def test_v_jepa_2_and_the_descendants_of_nanogpt(read):
    assert values(read(logs.vjepa2_csv()), "loss") == [0.6, 0.5, 0.4]
    log = read(logs.build_nanogpt())
    assert values(log, "train loss") == pytest.approx(LOSSES)
    assert (values(log, "val loss", "val"), values(log, "hella", "val")) == ([10.931], [0.2413])
    log = read(logs.modded_nanogpt())
    assert values(log, "train loss") == pytest.approx(LOSSES)
    assert values(log, "val loss", "val") == [6.6021]


def test_the_current_value_of_an_epoch_is_read_not_the_best(read):
    rebounding = (8.3, 7.0, 7.5, 7.9)
    log = read(logs.var_stdout(rebounding, rebounding))
    assert values(log, "Lm") == list(rebounding)
    assert log.find("Lm").untrained_value == 8.3
    assert log.find("Lm").at(1) == {"epoch": 1.0}


def test_iterations_are_read_where_no_epoch_has_ended(read):
    text = logs.var_stdout().split("Total time")[0]
    log = read(text)
    assert values(log, "Lm") == [LOSSES[0]] * 3
    assert log.find("Lm").at(1) == {"epoch": 0.0, "step": 417.0}


def test_values_that_stand_for_nothing_are_left_out(read):
    text = logs.var_stdout(last=(-1,) * 5)
    assert read(text).find("Lt") is None


def test_stale_and_repeated_rows_count_once(read):
    log = read(logs.var_log_txt())
    assert len(log.find("L_mean")) == len(LOSSES)
    assert log.find("vL_mean", "val").epoch_n.tolist() == [191, 193]


def test_a_tokenizers_summed_loss_has_no_floor(read):
    assert not read(logs.llamagen(tokenizer=True)).find("Train Loss").metric.has_floor
    assert read(logs.llamagen()).find("Train Loss").metric.has_floor


def test_self_supervised_losses_are_told_apart(read):
    log = read(logs.vjepa_csv())
    kinds = {one.metric.name: (one.metric.kind, one.metric.is_proxy) for one in log.series}
    assert kinds == {
        "loss": ("loss", True),
        "loss-jepa": ("loss", True),
        "reg-loss": ("regulariser", True),
        "enc-grad-norm": ("gradient_norm", False),
        "pred-grad-norm": ("gradient_norm", False),
    }


def test_runs_of_one_export_are_kept_apart_and_gaps_are_none(read):
    log = read(logs.wandb())
    assert [(one.metric.name, one.metric.split, len(one)) for one in log.series] == [
        ("run-a - train/loss", "train", 5),
        ("run-a - val/loss", "val", 3),
        ("run-b - train/loss", "train", 5),
        ("run-b - val/loss", "val", 3),
    ]


def test_the_scales_of_var_are_known_in_exports(read):
    names = [f"run-a - AR_iter_loss/{name}" for name in ("L_16", "L_256", "acc_256", "L_mean")]
    head = ",".join(f'"{name}","{name}__MIN","{name}__MAX"' for name in names)
    log = read(f'"Step",{head}\n' + "".join(f"{i}{',8.5' * 12}\n" for i in range(4)))
    found = {one.metric.name: (one.metric.kind, one.metric.scope) for one in log.series}
    kinds = [("cross_entropy", 1), ("cross_entropy", 16), ("accuracy", 16), ("cross_entropy", "mean")]
    assert (log.format, found) == ("wandb", dict(zip(names, kinds, strict=True)))


def test_a_column_by_name(read):
    assert values(read(logs.plain_csv(), loss_name="objective"), "objective") == pytest.approx(LOSSES)
    with pytest.raises(LogError, match=r"begins with step,objective,lr.*--loss COLUMN"):
        read(logs.plain_csv())
    with pytest.raises(LogError, match=r"no series nonsense; it has .*train_loss_epoch"):
        read(logs.lightning(), loss_name="nonsense")
    chosen = read(logs.wandb(), loss_name="run-b - train/loss")
    assert [one.metric.name for one in chosen.series] == ["run-b - train/loss", "run-b - val/loss"]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_give_the_same_values(read, delimiter):
    text = "step,val_loss\n0,2.5\n1,1.25\n".replace(",", delimiter)
    if delimiter == ";":
        text = text.replace("2.5", "2,5").replace("1.25", "1,25")
    assert values(read(text), "val_loss", "val") == [2.5, 1.25]


class TestRestarts:
    def test_a_resumed_run_goes_on_and_replaces_what_it_repeats(self, read):
        text = logs.ijepa_csv([0.4, 0.3, 0.2]) + logs.ijepa_csv([0.25, 0.1], first_epoch=3)
        log = read(text)
        assert (log.segments, log.left_out) == (2, 4)
        assert log.find("loss").value_n[::4].tolist() == [0.4, 0.3, 0.25, 0.1]

    def test_heads_without_rows_are_starts(self, read):
        text = (logs.IJEPA_HEAD + "\n") * 3 + logs.ijepa_csv([0.4, 0.3])
        log = read(text)
        assert (log.starts, log.segments, len(log.find("loss"))) == (4, 1, 8)

    def test_an_aborted_run_before_is_left_out(self, read):
        text = logs.ijepa_csv([0.5]) + logs.ijepa_csv([0.4, 0.3, 0.2])
        log = read(text)
        assert (log.segments, log.left_out) == (2, 4)
        assert log.find("loss").value_n[::4].tolist() == [0.4, 0.3, 0.2]

    def test_of_two_runs_as_long_the_last_is_shown(self, read):
        text = logs.ijepa_csv([0.5, 0.4, 0.3]) + logs.ijepa_csv([0.4, 0.3, 0.2])
        assert read(text).find("loss").value_n[::4].tolist() == [0.4, 0.3, 0.2]

    def test_an_aborted_run_after_is_left_out(self, read):
        text = logs.ijepa_csv([0.4, 0.3, 0.2]) + logs.ijepa_csv([0.5])
        assert read(text).find("loss").value_n[::4].tolist() == [0.4, 0.3, 0.2]

    def test_a_run_that_went_on_from_elsewhere_is_another(self, read):
        text = logs.ijepa_csv([0.5, 0.4]) + logs.ijepa_csv([0.1, 0.2, 0.3], first_epoch=501)
        log = read(text)
        assert log.find("loss").epoch_n[::4].tolist() == [501, 502, 503]

    def test_a_resume_reaches_past_an_aborted_start(self, read):
        text = (
            logs.ijepa_csv([0.5, 0.4, 0.3])
            + logs.ijepa_csv([0.6])
            + logs.ijepa_csv([0.2], first_epoch=4)
        )
        log = read(text)
        assert log.segments == 3
        assert log.find("loss").value_n[::4].tolist() == [0.5, 0.4, 0.3, 0.2]

    def test_without_a_mark_the_place_tells(self, read):
        rows = [(0, 5.0), (1, 4.0), (2, 3.0), (0, 6.0), (1, 2.0), (2, 1.0), (3, 0.5)]
        log = read("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in rows))
        assert log.segments == 2
        assert values(log, "loss") == [6.0, 2.0, 1.0, 0.5]

    def test_steps_within_epochs_are_no_global_ones_though_the_first_epoch_is_short(self, read):
        rows = [(0, 5, 9.0), (1, 10, 8.0), (1, 90, 7.0), (2, 10, 6.0), (2, 90, 5.0)]
        lines = (f'{{"epoch": {epoch}, "step": {step}, "loss": {loss}}}\n' for epoch, step, loss in rows)
        assert values(read("".join(lines)), "loss") == [9, 8, 7, 6, 5]

    def test_writers_that_share_a_file_are_no_restart(self, read):
        steps = [0, 1, 0, 2, 1, 3, 2, 4, 3, 4]
        log = read("step,loss\n" + "".join(f"{step},{9.5 - step}\n" for step in steps))
        assert (log.segments, log.left_out) == (1, 0)
        assert values(log, "loss") == [9.5, 8.5, 7.5, 6.5, 5.5]

    def test_the_newest_on_top(self, read):
        log = read("step,loss\n3,1.0\n2,2.0\n1,3.0\n")
        assert log.segments == 1
        assert values(log, "loss") == [3.0, 2.0, 1.0]


class TestDamage:
    @pytest.mark.parametrize("cut", range(1, 60, 7))
    @pytest.mark.parametrize("name", [n for n in CASES if n not in ("huggingface", "json")])
    def test_a_last_line_that_was_cut_off_gives_no_wrong_number(self, read, name, cut):
        text, expected = CASES[name]
        log = read(text[:-cut])
        for (series, split), numbers in expected.items():
            found = log.find(series, split)
            got = [] if found is None else found.value_n.tolist()
            assert got == pytest.approx(list(numbers)[: len(got)])
            assert len(got) >= len(numbers) - 3

    def test_broken_values_stay_and_are_counted(self, read):
        log = read("step,loss\n0,3.0\n1,nan\n2,inf\n3,2.0\n")
        series = log.find("loss")
        assert (series.nonfinite, series.nonfinite_at) == (2, {"step": 1.0})
        assert series.finite.value_n.tolist() == [3.0, 2.0]
        assert math.isnan(series.value_n[1])

    def test_steps_that_are_no_numbers(self, read):
        series = read("step,loss\n0,3.0\nnan,nan\n2,2.0\n").find("loss")
        assert series.nonfinite_at == {"step": 1.0}
        assert series.position_n.tolist() == [0.0, 1.0, 2.0]

    def test_nan_in_other_formats(self, read):
        text = logs.var_stdout().replace("Lm: 6.810 (6.810), Lt", "Lm: nan (nan), Lt")
        assert read(text).find("Lm").nonfinite == 1
        text = logs.var_log_txt().replace("'L_mean': 7.027", "'L_mean': nan")
        assert read(text).find("L_mean").nonfinite == 1
        text = json.dumps({"log_history": [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.0}]})
        assert read(text).find("loss").nonfinite == 1

    def test_cells_and_lines_that_are_no_values_are_counted(self, read):
        log = read("step,loss\n0,3.0\n1,tensor(2)\n2,1.0,9\n3,2.0\n")
        assert values(log, "loss") == [3.0, 2.0]
        assert log.unreadable == 2

    def test_blank_cells_are_nothing(self, read):
        log = read("step,loss,val_loss\n0,3.0,\n1,,2.5\n2,2.0,None\n")
        assert (values(log, "loss"), values(log, "val_loss", "val"), log.unreadable) == (
            [3.0, 2.0],
            [2.5],
            0,
        )

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "empty, expected a log"),
            (b"\0\0\n", "empty, expected a log"),
            (
                '{"schema": "entropy-cli/evaluate", "loss": 1}',
                "a result of entropy-cli evaluate, expected",
            ),
            (bytes(range(1, 32)) * 9 + b",loss\n1,x", "not text, expected a training log"),
            ((logs.IJEPA_HEAD + "\n") * 29, "no data rows, only the header .*29 times"),
            (json.dumps({"cmd": "x", "Lnll": 0.5}, indent=2), "no loss series found: one JSON object"),
            ("hello\nworld\n", "no losses found in any of"),
            ("null\n", "no losses found in any of"),
            ("# A model\nWe reach CE 0.54, and a loss of 3.2 nats.\n", "a single value of We reach CE"),
            ('{"log_history": [', "can't be read as huggingface"),
            ('{"log_history": []}', "no loss found"),
            (
                '{"log_history": null}',
                "can't be read as huggingface: log_history is None",
            ),
            ("{'ep': '1/2', 'L_mean': [1, 2]}\n", "no loss found, read as var-log-txt"),
            ("step,lr\n1,0.1\n", "no loss found, read as csv"),
        ],
    )
    def test_files_without_losses_are_refused(self, read, content, message):
        with pytest.raises(LogError, match=message):
            read(content)

    def test_no_such_file_and_folders(self, tmp_path):
        with pytest.raises(LogError, match="no such file"):
            read_log(tmp_path / "nothing")
        with pytest.raises(LogError, match="without TensorBoard event files"):
            read_log(tmp_path)
        with pytest.raises(LogError, match="a folder, expected a file of format csv"):
            read_log(tmp_path, "csv")


@pytest.mark.parametrize(
    ("name", "kind", "split"),
    [
        ("loss", "loss", "train"),
        ("val/loss", "loss", "val"),
        ("eval_accuracy", "accuracy", "val"),
        ("train/acc1", "accuracy", "train"),
        ("reg-loss", "regulariser", "train"),
        ("nll", "cross_entropy", "train"),
        ("test_cross_entropy", "cross_entropy", "val"),
        ("grad_norm", "gradient_norm", "train"),
        ("weight_norm", None, "train"),
        ("loss_scale", None, "train"),
        ("loss__MIN", None, "train"),
        ("learning_rate", "learning_rate", "train"),
        ("epoch", None, "train"),
        ("predict_loss", "loss", "val"),
        ("val/L_tail", "cross_entropy", "val"),
    ],
)
def test_what_a_name_says(name, kind, split):
    assert (infer_kind(name), infer_split(name)) == (kind, split)
    assert stem("eval_loss") == stem("train/loss_epoch") == "loss"


def test_positions_grow_from_epoch_to_epoch(read):
    """The axis of pictures and power laws: steps within epochs go on from epoch to epoch."""
    log = read(logs.ijepa_csv([0.4, 0.3], per_epoch=3))
    np.testing.assert_array_equal(log.find("loss").position_n, [1, 2, 3, 4, 5, 6])
    log = read(logs.var_stdout())
    np.testing.assert_array_equal(log.find("Lm").position_n, [0, 1, 2, 3, 4])
    assert log.find("Lm").position_unit == "epoch"


class TestRealFiles:
    def test_a_run_of_var(self, shared):
        log = read_log(shared / "logs" / "varclip_class_conditional_imagenet.log")
        lm, lt = log.find("Lm"), log.find("Lt")
        assert (log.format, log.starts, len(lm), len(lt)) == ("var", 5, 200, 200)
        assert (lm.untrained_value, lm.value_n[0], lm.value_n[-1], lt.value_n[-1]) == (
            8.318,
            8.031,
            6.046,
            5.345,
        )
        assert [round(float(lm.value_n[e]), 3) for e in (9, 49, 99, 149)] == [6.541, 6.252, 6.164, 6.108]
        assert len(log.find("Lm", "val")) == 20
        assert log.arguments["depth"] == "16"

    def test_real_self_supervised_logs_are_proxies(self, shared):
        log = read_log(shared / "logs" / "lazaros_tin_r0.csv")
        assert (log.format, len(log.find("loss"))) == ("ijepa-csv", 64693)
        assert log.find("loss").metric.is_proxy

    def test_real_logs_of_other_formats_are_read(self, shared):
        log = read_log(shared / "logs" / "build_nanogpt_log.txt")
        assert len(log.find("train loss")) == 95
        log = read_log(shared / "logs" / "hf_trainer_state.json")
        assert sum(one.metric.split == "val" and one.metric.is_loss for one in log.series) == 6

    def test_real_logs_without_losses_are_refused(self, shared):
        with pytest.raises(LogError, match="no loss series found"):
            read_log(shared / "logs" / "infinity_vardefense_log.txt")
        with pytest.raises(LogError, match="no data rows"):
            read_log(shared / "logs" / "tijepa_many_headers_r0.csv")


class TestFromAReview:
    """Files that were read wrongly once."""

    def test_i_jepa_prints_without_bars(self, read):
        line = (
            "[INFO    ][2024-01-01 00:00:00][main] [1, {:5d}] loss: {:.3f} masks: 120.0 40.0 [wd: 4e-2]"
        )
        log = read("\n".join(line.format(i, loss) for i, loss in enumerate(SMALL)) + "\n")
        assert (log.format, values(log, "loss")) == ("jepa", list(SMALL))

    def test_tables_of_jepa_with_other_columns(self, read):
        text = "epoch,itr,loss,iter_time(ms)\n" + "".join(f"1,{i},{v},9\n" for i, v in enumerate(SMALL))
        assert read(text).find("loss").metric.is_proxy

    @pytest.mark.parametrize("column", ["mode", "type", "event", "name"])
    def test_a_column_that_says_of_which_data_a_row_is(self, read, column):
        rows = [
            {column: mode, "epoch": i, "loss": i + (mode == "val"), "train_ce": ce}
            for i in range(3)
            for mode, ce in (("train", ""), ("val", i))
        ]
        table = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        for lines in (map(json.dumps, rows), table):
            log = read("".join(f"{line}\n" for line in lines))
            assert values(log, "loss") == values(log, "train_ce") == [0, 1, 2]
            assert values(log, "loss", "val") == [1, 2, 3]

    def test_a_run_that_is_named_a_test_trains(self, read):
        log = read("run,epoch,loss\n" + "".join(f"test,{i},{9 - i}\n" for i in range(3)))
        assert values(log, "loss") == [9, 8, 7]

    def test_steps_go_on_although_an_epoch_falls_back(self, read):
        history = [
            {"step": 10 * i, "epoch": 0.02 * i if i < 51 else 0.01 * i, "loss": 3 - i / 100}
            for i in range(1, 101)
        ]
        log = read(json.dumps({"log_history": history}))
        assert (log.segments, len(log.find("loss"))) == (1, 100)

    def test_a_fresh_start_in_the_last_rows(self, read):
        log = read(logs.ijepa_csv(SMALL) + "1,0,9.00000,1,1,1\n1,1,9.50000,1,1,1\n")
        assert log.find("loss").value_n[0] == SMALL[0]
        assert (log.segments, log.left_out) == (2, 2)

    def test_a_few_rows_of_far_away_do_not_stand_for_a_run(self, read):
        text = logs.ijepa_csv([0.5] * 20) + logs.ijepa_csv([0.1], per_epoch=3, first_epoch=701)
        assert len(read(text).find("loss")) == 80

    def test_steps_that_begin_again_in_every_epoch(self, read):
        rows = "".join(f"{i},{4 - e}\n" for e in range(4) for i in range(5))
        log = read("iter,loss\n" + rows)
        assert (log.segments, len(log.find("loss"))) == (1, 20)
        assert log.find("loss").at(-1) == {"epoch": 3.0, "step": 4.0}

    def test_the_chosen_series_is_shown_whatever_is_beside_it(self, read):
        assert read(logs.lightning(), loss_name="train_loss_step").find("train_loss_step") is not None
        log = read(logs.var_log_txt(), loss_name="L_mean")
        assert log.find("vL_mean", "val") is not None
        assert log.find("L_tail") is None
        assert read(logs.trainer_state(), loss_name="eval_other_loss").find("loss") is not None

    def test_lists_of_other_lengths(self, read):
        log = read(json.dumps({"loss": [3.0, 2.0, 1.0], "val_loss": [3.5, 2.5], "lr": [0.1]}))
        assert (len(log.find("loss")), len(log.find("val_loss", "val"))) == (3, 2)

    def test_what_hugging_face_prints(self, read):
        text = "".join(
            f"10%|# | 3/9\r{{'loss': {loss}, 'epoch': {i / 10}}}\n" for i, loss in enumerate(LOSSES)
        )
        assert values(read(text), "loss") == pytest.approx(LOSSES)

    def test_the_tail_of_a_table_has_its_head_in_the_middle(self, read):
        whole = logs.ijepa_csv([0.4, 0.3, 0.2], first_epoch=5)
        text = whole.split("\n", 3)[3] + logs.ijepa_csv([0.1], first_epoch=8)
        assert len(read(text).find("loss")) == 3 * 4 - 2 + 4

    def test_half_a_line_of_a_log_that_grows(self, tmp_path):
        path = tmp_path / "log.csv"
        path.write_text("step,loss\n1,3.0\n2,2.")
        assert values(read_log(path, growing=True), "loss") == [3.0]

    def test_a_value_that_is_as_good_as_infinite(self, read):
        log = read("step,loss\n0,3.0\n1,1e308\n2,2.0\n")
        assert (log.find("loss").nonfinite, values(log, "loss")[1]) == (1, 1e308)


@pytest.mark.parametrize(("difference", "repeats"), [(0.0, True), (0.00055, True), (0.00065, False)])
def test_validation_that_repeats_training_may_differ_by_rounding(difference, repeats):
    """Three decimals and four: at most 0.00055."""
    epochs = np.arange(5.0)
    training = Series(Metric("L", kind="cross_entropy"), 5 - epochs, epochs, np.full(5, np.nan))
    off = np.array([0, 0, difference, 0, 0])
    repeated = replace(training, metric=replace(training.metric, split="val"), value_n=5 - epochs - off)
    found = find_repeated_training(Log("var", [training, repeated], 1, 1, 0))
    assert found == ({"L": pytest.approx(difference)} if repeats else {})


HARD_LINES = {  # what patterns or loops that are quadratic in the length of a line take minutes for
    "records": json.dumps([{"step": i, "loss": 5 - i / 3e4} for i in range(30_000)]),
    "places": "[1/2] [1/2] " * 50_000,
    "digits": f"(step=1) Train Loss: {'1' * 500_000}x\n",
    "word": f"[1/2] [1/2] Lm: {'a' * 500_000}\n",
    "commas": "," * 500_000,
    "dashes": " - " * 200_000 + "\n1\n",
    "braces": '{"' * 250_000,
    "nested": '{"a":' * 100_000,
    "long column": f"step,{'n_' * 250_000}x,loss\n1,2,3\n2,2,3\n",
    "columns": "\n".join(json.dumps({f"loss_{i}": 1}) for i in range(5000)),
    "lists": json.dumps({"loss": [1.0] * 20_000, **{f"x{i}": [] for i in range(20_000)}}),
    "long name": json.dumps({"x" * 200_000: {f"loss{i}": 1 for i in range(20_000)}}),
    "restarts": "step,loss\n" + "".join(f"{i - 5 * (i % 3 > 0)},1\n" for i in range(60_000)),
    "names of no text": str([{1: 2, (): 3}])[1:-1],
    "literal": f"{{'ep': '1/2', 'L_mean': [{'1,' * 3_000_000}]}}\n",
}


@pytest.mark.parametrize("text", HARD_LINES.values(), ids=HARD_LINES)
def test_long_lines_take_seconds_whatever_they_hold(read, text):
    start = time.process_time()
    with contextlib.suppress(LogError):
        read(text)
    assert time.process_time() - start < 10


def test_only_so_many_series_are_read_as_can_be_shown(read):
    names = [f"t{i}/loss" for i in range(MAX_SERIES + 1)]
    text = f"step,{','.join(names)}\n" + f"1{',2' * len(names)}\n" * 2
    with pytest.raises(LogError, match=r"1,001 series, .* --loss COLUMN"):
        read(text)
    assert [one.metric.name for one in read(text, loss_name="t7/loss").series] == ["t7/loss"]


def test_what_callbacks_add_beside_a_loss_is_none(read):
    added = Excess(4.0, 1.0, 3.0, {"unigram": 0.5, "context_rung": 0.2}).metrics("loss")
    head = ["step", "loss", *added, *(f"train/{name}" for name in added)]
    rows = [",".join(map(str, [i, 4 - i / 8, *[*added.values()] * 2])) for i in range(9)]
    log = read("\n".join([",".join(head), *rows, ""]))
    assert [one.metric.name for one in log.series] == ["loss"]
    dicts = [{"loss": 4 - i / 8, "epoch": i, "step": i, **added} for i in range(9)]
    log = read(json.dumps({"log_history": dicts}))
    assert [one.metric.name for one in log.series] == ["loss"]
