"""`entropy-cli monitor` from the command line."""

import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from entropy_cli.results.floors import read_floor
from entropy_cli.tokenizers.families.var import PATCH_NUMS
from tests import training_logs as logs

SERIES_KEYS = {
    "name",
    "split",
    "kind",
    "points",
    "first",
    "best",
    "best_at",
    "last",
    "floor",
    "reducible_first",
    "reducible_last",
}


@pytest.fixture
def monitor(cli, tmp_path):
    """Run `monitor --json` on a text; gives the result, or the exit code and stderr of a failure."""

    def run(text, *argv):
        path = tmp_path / "log"
        path.write_text(text)
        code, out, err = cli("monitor", "--json", path, *argv)
        return json.loads(out) if code == 0 else (code, err)

    return run


def noisy(curve_n, sigma=0.02, seed=0):
    return np.asarray(curve_n) + np.random.default_rng(seed).normal(0, sigma, len(curve_n))


def table(**columns):
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(["step", *names])]
    lines += [",".join([str(i), *(f"{v:.5f}" for v in row)]) for i, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def found(result, name):
    return [one for one in result["findings"] if one["id"] == name]


def series(result, name, split="train"):
    (one,) = [one for one in result["series"] if (one["name"], one["split"]) == (name, split)]
    return one


def falling(points=2000):
    return 5 + 3 * np.arange(1, points + 1) ** -0.3


def test_the_result_as_json(monitor):
    result = monitor(logs.var_stdout(), "--floor-mean", 5.1, "--floor-last", 4.5)
    assert (result["schema"], result["schema_version"]) == ("entropy-cli/monitor", 1)
    assert (result["format"], result["segments"]) == ("var", 1)
    assert all(set(one) >= SERIES_KEYS for one in result["series"])
    lm = series(result, "Lm")
    assert (lm["kind"], lm["points"], lm["first"], lm["best"], lm["last"]) == (
        "cross_entropy",
        5,
        8.318,
        6.81,
        6.81,
    )
    assert lm["best_at"] == {"epoch": 4}
    assert lm["reducible_first"] == pytest.approx(8.318 - 5.1)
    assert lm["reducible_last"] == pytest.approx(6.81 - 5.1)
    assert lm["share_left"] == pytest.approx((6.81 - 5.1) / (8.318 - 5.1))
    assert series(result, "Lt")["floor"] == 4.5
    assert series(result, "Accm")["floor"] is None
    assert series(result, "Accm")["best"] == 4.24  # the highest


def test_validation_that_is_training_is_said_and_left_out(monitor):
    result = monitor(logs.var_stdout())
    (one,) = found(result, "val_is_train")
    assert one["severity"] == "warning"
    assert one["evidence"]["points"] == {"Lm": 2, "Lt": 2}
    assert {one["split"] for one in result["series"]} == {"train"}
    true_ones = monitor(logs.var_stdout(val_is_train=False))
    assert not found(true_ones, "val_is_train")
    assert series(true_ones, "Lm", "val")["points"] == 2


def test_floors_of_a_result_meet_their_series(cli, baseline, tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    result = tmp_path / "result.json"
    result.write_text(json.dumps(baseline))
    writer = SummaryWriter(str(tmp_path / "run"))
    for step, loss in enumerate([3.9, 3.5, 3.0]):
        for tag in ("AR_iter_loss/L_16", "AR_iter_loss/L_64", "AR_ep_loss/L_mean", "AR_ep_loss/L_tail"):
            writer.add_scalar(tag, loss, step)
    writer.close()
    code, out, _ = cli("monitor", tmp_path / "run", "--floor", result, "--json")
    assert code == 0
    shown = {one["name"]: one["floor"] for one in json.loads(out)["series"]}
    average = baseline["average"]
    assert shown == {
        "AR_iter_loss/L_16": baseline["scales"][0]["assignment_entropy"]["value"],
        "AR_iter_loss/L_64": baseline["scales"][2]["assignment_entropy"]["value"],
        "AR_ep_loss/L_mean": average["token_weighted"]["assignment_entropy"]["value"],
        "AR_ep_loss/L_tail": average["last_scale"]["assignment_entropy"]["value"],
    }
    code, out, _ = cli("monitor", tmp_path / "run", "--floor", result)
    assert code == 0
    assert "assignment entropy of var at T = 1, 70 images" in " ".join(out.split())


class TestFindings:
    def test_none_while_it_falls(self, monitor):
        assert monitor(table(loss=noisy(falling())))["findings"] == []

    def test_plateau(self, monitor):
        flat = np.maximum(5.5, falling() - 0.2)
        (one,) = found(monitor(table(nll=noisy(flat, 0.002))), "plateau")
        assert one["severity"] == "warning"
        assert "rate" in one["message"]
        assert one["evidence"]["gain"] < one["evidence"]["tolerance"]

    @pytest.mark.parametrize("unit", [0.01, 1000])
    def test_a_plateau_in_another_unit_is_flat_beside_the_fall_of_the_loss(self, monitor, unit):
        flat = noisy(np.maximum(5.5, falling() - 0.2), 0.002)
        assert found(monitor(table(loss=unit * flat)), "plateau")
        assert not found(monitor(table(loss=unit * noisy(falling(), 0.002))), "plateau")

    def test_overfitting_needs_true_validation(self, monitor):
        train = falling(40)
        val = train + 0.1 + np.concatenate([np.zeros(20), np.linspace(0, 0.5, 20)])
        text = table(train_loss=noisy(train, 0.01), val_loss=noisy(val, 0.01, seed=1))
        (one,) = found(monitor(text), "overfitting")
        assert one["series"] == "val_loss"
        assert 10 <= one["evidence"]["at"]["step"] <= 30
        few = table(train_loss=train[::5], val_loss=val[::5])
        assert not found(monitor(few), "overfitting")
        assert not found(monitor(table(train_loss=noisy(train))), "overfitting")

    def test_training_at_an_evaluation_is_that_of_its_epoch(self, monitor):
        """Steps count within epochs, evaluations have epochs only."""
        train = falling(80)
        val = np.concatenate([np.linspace(6, 5, 10), np.linspace(5.1, 6, 10)])
        lines = []
        for epoch in range(20):
            steps = enumerate(train[4 * epoch : 4 * epoch + 4])
            lines += [{"epoch": epoch, "step": step, "train_loss": loss} for step, loss in steps]
            lines += [{"epoch": epoch, "val_loss": val[epoch]}]
        (one,) = found(monitor("".join(json.dumps(line) + "\n" for line in lines)), "overfitting")
        assert one["evidence"]["at"] == {"epoch": 9}
        expected = [np.median(train[36:40]), np.median(train[76:])]
        assert [one["evidence"][name] for name in ("train_at_best", "train_last")] == expected

    def test_divergence(self, monitor):
        up = np.concatenate([falling(1000), np.linspace(5.4, 9, 1000)])
        (one,) = found(monitor(table(nll=noisy(up))), "divergence")
        assert one["severity"] == "error"

    def test_a_gradient_norm_without_bound(self, monitor):
        norm = np.concatenate([np.full(1000, 0.3), np.geomspace(0.3, 300, 1000)])
        text = table(nll=noisy(falling()), grad_norm=norm)
        (one,) = found(monitor(text), "divergence")
        assert one["series"] == "grad_norm"

    def test_rebound_of_a_self_supervised_loss_is_information(self, monitor):
        losses = np.concatenate([np.geomspace(0.5, 0.03, 100), np.linspace(0.03, 0.1, 200)])
        result = monitor(logs.ijepa_csv(noisy(losses, 0.002), per_epoch=1))
        (one,) = found(result, "rebound")
        assert one["severity"] == "info"
        assert one["evidence"]["at"]["epoch"] == pytest.approx(101, abs=15)
        assert not found(result, "divergence")

    def test_a_regulariser_that_still_falls_is_named(self, monitor):
        loss = np.concatenate([np.geomspace(0.5, 0.1, 150), np.linspace(0.1, 0.3, 150)])
        reg = np.linspace(0.2, 0.05, 300)
        head = "epoch,itr,loss,loss-jepa,reg-loss,enc-grad-norm,pred-grad-norm,gpu-time(ms)"
        noise = np.random.default_rng(0).normal(0, 0.003, (2, 300))
        rows = [
            f"1,{i},{a + n:.5f},{a + n:.5f},{r + m:.5f},0.1,0.1,9"
            for i, (a, r, n, m) in enumerate(zip(loss, reg, *noise, strict=True))
        ]
        result = monitor("\n".join([head, *rows]) + "\n")
        (one,) = [one for one in found(result, "rebound") if one["series"] == "loss"]
        assert one["evidence"]["regularisers_that_fall"] == ["reg-loss"]
        assert series(result, "reg-loss")["kind"] == "regulariser"

    def test_sudden_drop_after_a_rebound(self, monitor):
        losses = np.concatenate(
            [np.geomspace(0.6, 0.1, 600), np.linspace(0.1, 0.4, 600), np.full(600, 0.15)]
        )
        result = monitor(logs.ijepa_csv(noisy(losses, 0.005), per_epoch=1))
        (one,) = found(result, "sudden_drop")
        assert one["severity"] == "warning"
        assert one["evidence"]["at"]["epoch"] == pytest.approx(1200, abs=70)

    def test_nan(self, monitor):
        text = table(loss=falling(50)).replace("\n30,", "\n30,nan\n31,").replace(",nan\n", ",nan\n")
        rows = text.split("\n")
        text = "\n".join(row for row in rows if not row.startswith("31,6"))
        (one,) = found(monitor(text), "nan")
        assert one["severity"] == "error"
        assert one["evidence"]["count"] == 1

    def test_nothing_but_nan(self, monitor):
        result = monitor("step,loss\n0,nan\n1,nan\n")
        assert len(found(result, "nan")) == 1
        assert series(result, "loss")["last"] is None

    def test_below_the_floor(self, monitor):
        curve = noisy(falling(400), 0.01)
        low = float(curve[-1])
        result = monitor(table(nll=curve), "--floor-mean", low + 0.5)
        (one,) = found(result, "below_floor")
        assert "nearest codes" in one["message"]
        assert series(result, "nll")["reducible_last"] == pytest.approx(-0.5, abs=1e-4)
        assert not found(monitor(table(nll=curve), "--floor-mean", low - 0.5), "below_floor")
        assert not found(monitor(table(nll=curve), "--floor-mean", low + 0.005), "below_floor")

    @pytest.mark.parametrize(("depth", "expected"), [(0.015, 0), (0.025, 1)])
    def test_a_few_points_are_below_the_floor_by_more_than_rounding(self, monitor, depth, expected):
        result = monitor(table(nll=[5.0, 4.5, 4.0 - depth]), "--floor-mean", 4)
        assert len(found(result, "below_floor")) == expected

    @pytest.mark.parametrize("points", [5, 50])
    def test_the_error_of_a_floor_is_a_standard_error(self, cli, tmp_path, baseline, points):
        result, log = tmp_path / "result.json", tmp_path / "log"
        result.write_text(json.dumps(baseline))
        log.write_text(table(nll=np.full(points, 0.5)))
        _, out, _ = cli("monitor", log, "--floor", result, "--json")
        (one,) = found(json.loads(out), "below_floor")
        half_width = read_floor(result).mean.half_width
        assert one["evidence"]["bound_se"] == pytest.approx(half_width / 1.96) and half_width > 0

    def test_above_the_unigram_entropy(self, cli, tmp_path, baseline):
        result = tmp_path / "result.json"
        result.write_text(json.dumps(baseline))
        most = read_floor(result).mean.ceiling
        log = tmp_path / "log"
        for offset, expected in ((0.3, 1), (-0.3, 0)):
            log.write_text(table(nll=noisy(np.full(100, most + offset), 0.01)))
            _, out, _ = cli("monitor", log, "--floor", result, "--json")
            above = found(json.loads(out), "above_unigram")
            assert [one["evidence"]["bound"] for one in above] == [most] * expected

    def test_rules_of_thumb_are_no_alarms(self, monitor):
        rules = found(monitor(logs.var_stdout()), "rule_of_thumb")
        assert {one["severity"] for one in rules} == {"info"}
        words = " ".join(one["message"] for one in rules)
        assert "ln 4096 = 8.318" in words
        assert "issue 53" in words

    def test_rules_of_thumb_of_var_are_of_its_own_tokenizer(self, monitor, baseline, tmp_path):
        def sources(text, *argv):
            rules = found(monitor(text, *argv), "rule_of_thumb")
            return sorted({one["evidence"]["source"] for one in rules})

        issues = ["FoundationVision/VAR issue 53", "FoundationVision/VAR issues 130, 143"]
        assert sources(logs.var_stdout()) == [*issues, "ln V"]
        for text in (
            logs.var_stdout(*[(9.704, 9.2, 9.0, 8.8, 8.7)] * 2),  # 16384 codes
            logs.var_stdout().replace("10, 13, 16)", "10, 13, 16, 24, 32)"),
        ):
            assert sources(text) == []
        result = tmp_path / "r.json"
        for changes, expected in (
            ({}, [*issues, "ln V"]),  # the floor is of another tokenizer, the log is as without one
            ({"vocab_size": 4096}, [*issues, "ln V"]),
            ({"vocab_size": 4096, "patch_nums": PATCH_NUMS[256]}, [*issues, "ln V"]),
        ):
            content = {**baseline, "tokenizer": {**baseline["tokenizer"], **changes}}
            result.write_text(json.dumps(content))
            assert sources(logs.var_stdout(), "--floor", result) == expected
        # Of a tokenizer of the same scales and codes that VAR did not publish.
        result.write_text(
            json.dumps({**content, "tokenizer": {**baseline["tokenizer"], "vocab_size": 4096}})
        )
        sides = str(tuple(baseline["tokenizer"]["patch_nums"]))
        text = logs.var_stdout().replace("(1, 2, 3, 4, 5, 6, 8, 10, 13, 16)", sides)
        assert sources(text, "--floor", result) == ["ln V"]

    def test_restarts(self, monitor):
        text = logs.ijepa_csv([0.4, 0.3, 0.2]) + logs.ijepa_csv([0.25, 0.1], first_epoch=3)
        result = monitor(text)
        assert result["segments"] == 2
        (one,) = found(result, "restarts")
        assert one["evidence"] == {"starts": 2, "segments": 2, "rows_left_out": 4}


def test_a_self_supervised_loss_has_no_floor_unless_one_is_given(cli, monitor, baseline, tmp_path):
    text = logs.vjepa_csv()
    assert series(monitor(text, "--floor-mean", 0.1), "loss")["floor"] == 0.1
    result = tmp_path / "result.json"
    result.write_text(json.dumps(baseline))
    assert series(monitor(text, "--floor", result), "loss")["floor"] is None
    tokenizer = monitor(logs.llamagen(tokenizer=True), "--floor-mean", 1)
    assert series(tokenizer, "Train Loss")["floor"] is None


def test_the_power_of_time_is_that_of_the_loss_above_its_floor(monitor):
    curve = 3 + 2 * np.arange(1, 1001) ** -0.5
    assert series(monitor(table(nll=curve), "--floor-mean", 3), "nll")["slope"][0] == pytest.approx(
        -0.5, abs=0.01
    )


def test_bits(monitor):
    in_bits = monitor(table(nll=falling(20) / math.log(2)), "--log-units", "bits")
    assert series(in_bits, "nll")["last"] == pytest.approx(falling(20)[-1], abs=1e-4)
    in_nats, in_bits = (monitor(logs.var_stdout(), "--log-units", unit) for unit in ("nats", "bits"))
    for name in ("initial", "first", "last"):  # the untrained model's too
        expected = series(in_nats, "Lm")[name] * math.log(2)
        assert series(in_bits, "Lm")[name] == pytest.approx(expected)


def test_the_table(cli, tmp_path):
    log = tmp_path / "log"
    log.write_text(logs.var_stdout())
    for options in ([], ["--table"]):
        code, out, err = cli("monitor", log, "--floor-mean", 5.1, "--floor-last", 4.5, *options)
        assert code == 0 and all(line.startswith("wrote ") for line in err.splitlines())
        for words in ("above", "share left", "Findings", "warning val_is_train", "8.3180"):
            assert words in out
        assert all(len(line) <= 80 or str(log) in line for line in out.splitlines())
        assert ("log-log slope\n---" in out) == ("With --table: " not in out) == bool(options)
    assert "Reducible loss, above the floor, nats per token (given); share left: of the" in out


def test_a_log_of_many_losses_fits_a_screen_and_the_rest_is_in_the_table(cli, tmp_path):
    log = tmp_path / "log.csv"
    names = [f"loss_{i}" for i in range(25)]
    rows = [
        ",".join([str(step), *[f"{9 - i / 10 - step / 100:.4f}" for i in range(25)]])
        for step in range(20)
    ]
    log.write_text("\n".join([",".join(["step", *names]), *rows]) + "\n")
    _, out, _ = cli("monitor", log)
    assert len(out.splitlines()) <= 40 and "loss_9 " in out and "loss_10 " not in out
    assert "With --table: 15 more series, noise, slopes and descriptions." in out
    _, out, _ = cli("monitor", log, "--table")
    assert all(f"{name} " in out for name in names)


class TestOutput:
    @pytest.fixture
    def log(self, tmp_path):
        path = tmp_path / "run.csv"
        losses = np.concatenate([np.geomspace(0.5, 0.03, 300), np.linspace(0.03, 0.1, 600)])
        path.write_text(logs.ijepa_csv(noisy(losses, 0.002), per_epoch=1))
        return path

    @pytest.mark.parametrize(
        ("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
    )
    def test_pictures(self, cli, log, tmp_path, kind, head):
        pytest.importorskip("matplotlib")
        code, _, err = cli("monitor", log, "-o", tmp_path / f"run.{kind}")
        assert code == 0 and all(line.startswith("wrote ") for line in err.splitlines())
        content = (tmp_path / f"run.{kind}").read_bytes()
        assert content.startswith(head)
        cli("monitor", log, "-o", tmp_path / f"again.{kind}")
        assert (tmp_path / f"again.{kind}").read_bytes() == content

    def test_page(self, cli, log, tmp_path):
        pytest.importorskip("matplotlib")
        code, out, _ = cli("monitor", log, "-o", tmp_path / "run.html")
        page = (tmp_path / "run.html").read_text()
        assert code == 0
        assert "rebound" in out
        assert "<code>rebound</code>" in page
        assert "<svg" in page
        assert 'src="http' not in page

    def test_page_says_what_the_figures_show(self, cli, tmp_path):
        pytest.importorskip("matplotlib")
        log, page = tmp_path / "log.txt", tmp_path / "run.html"
        log.write_text(logs.var_stdout() + logs.var_stdout())
        assert cli("monitor", log, "--floor-mean", 5.1, "-o", page)[0] == 0
        text = page.read_text()
        for words in (
            "Lm falls from 8.318 to 6.81 and Lt falls from 8.317 to 6.501; ",
            "Reducible loss left: 53.1% of Lm; ",
            "format var, 2 starts with values, entropy-cli",
            "<dt>Acct, train</dt><dd>running maximum: the log has no accuracy of the current epoch</dd>",
        ):
            assert words in text
        assert "segment" not in text

    def test_json(self, cli, log, tmp_path):
        _, out, _ = cli("monitor", log, "-o", tmp_path / "run.json", "--json")
        assert json.loads((tmp_path / "run.json").read_text()) == json.loads(out)

    def test_where_it_can_not_go(self, cli, log, tmp_path):
        code, out, err = cli("monitor", log, "-o", tmp_path / "run.txt")
        assert (code, out) == (2, "")
        assert ".png" in err
        code, _, err = cli("monitor", log, "-o", tmp_path / "nowhere" / "run.png")
        assert (code, "there is no folder" in err) == (3, True)
        code, _, err = cli("monitor", log, "--floor", tmp_path / "r.json", "-o", tmp_path / "r.json")
        assert (code, "same file" in err) == (3, True)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--format", "nonsense"], 2, "expected auto, var"),
        (["--floor-mean", "nan"], 2, "expected a number from 0"),
        (["--floor-mean", "-1"], 2, "expected a number from 0"),
        (["--floor", "x.json", "--floor-mean", "5"], 2, "Give one of them"),
        (["--floor", "x.json"], 3, "x.json"),
        (["--loss", "nonsense"], 3, "no series nonsense"),
        (["--format", "huggingface"], 3, "can't be read as huggingface"),
    ],
)
def test_wrong_usage(monitor, argv, code, message):
    got, err = monitor(logs.var_stdout(), *argv)
    assert got == code
    assert message in err
    assert "Traceback" not in err


def test_a_log_without_losses_is_an_error(monitor):
    code, err = monitor('{\n "cmd": "x",\n "Lnll": 0.5\n}\n')
    assert code == 3
    assert "no loss series found" in err.splitlines()[-1]


def test_needs_no_torch(tmp_path):
    log = tmp_path / "log"
    log.write_text(logs.var_stdout())
    code = (
        "import sys; from entropy_cli.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "monitor", log], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_follow_waits_for_its_log_and_ends_with_the_report(tmp_path):
    """It may be missing at first, rewritten, cut off, away for a while, and replaced."""
    log, out, err, new = (tmp_path / name for name in ("log", "out", "err", "new"))
    command = [
        sys.executable,
        "-m",
        "entropy_cli",
        "monitor",
        log,
        "--follow",
        "--interval",
        "0.1",
        "--json",
    ]
    with (
        out.open("w") as stdout,
        err.open("w") as stderr,
        subprocess.Popen(command, stdout=stdout, stderr=stderr) as run,
    ):
        wait_for_lines(err, 1)
        log.write_text("step,loss\n0,3.0\n1,2.0\n")
        wait_for_lines(out, 1)
        log.write_text('{"log_history": [{"step": 1, "loss"')
        wait_for_lines(err, 2)
        log.write_text("step,loss\n0,3.0\n1,2.0\n2,1.0\n")
        wait_for_lines(out, 2)
        log.unlink()
        wait_for_lines(err, 3)
        new.write_text("step,loss\n0,3.5\n1,2.5\n2,1.5\n")  # of the same size
        new.rename(log)
        wait_for_lines(out, 3)
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0
    shown = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["series"][0]["points"], one["series"][0]["last"]) for one in shown] == [
        (2, 2.0),
        (3, 1.0),
        (3, 1.5),
    ]
    assert err.read_text().count("Waiting for its next change.") == 3


def wait_for_lines(path, number, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end and len(path.read_text().splitlines()) < number:
        time.sleep(0.05)
    assert len(path.read_text().splitlines()) >= number


class TestRealFiles:
    def test_a_healthy_run_of_var(self, cli, shared):
        log = shared / "logs" / "varclip_class_conditional_imagenet.log"
        _, out, _ = cli("monitor", log, "--floor-mean", 5.1, "--floor-last", 4.5, "--json")
        result = json.loads(out)
        assert series(result, "Lm")["reducible_last"] == pytest.approx(0.946, abs=1e-3)
        assert series(result, "Lt")["reducible_last"] == pytest.approx(0.845, abs=1e-3)
        assert series(result, "Lm")["share_left"] == pytest.approx(0.294, abs=1e-3)
        assert series(result, "Lt")["share_left"] == pytest.approx(0.221, abs=1e-3)
        ids = {one["id"] for one in result["findings"]}
        assert ids == {"val_is_train", "restarts", "rule_of_thumb"}
        (one,) = found(result, "val_is_train")
        assert one["evidence"]["points"] == {"Lm": 20, "Lt": 20}

    def test_a_rebound(self, cli, shared):
        _, out, _ = cli("monitor", shared / "logs" / "lazaros_tin_r0.csv", "--json")
        (one,) = found(json.loads(out), "rebound")
        assert one["severity"] == "info"
        assert one["evidence"]["at"]["epoch"] == pytest.approx(17, abs=1.5)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("tijepa_many_headers_r0.csv", "no data rows"),
            ("infinity_vardefense_log.txt", "no loss series found"),
        ],
    )
    def test_no_series(self, cli, shared, name, message):
        code, _, err = cli("monitor", shared / "logs" / name)
        assert code == 3
        assert message in err
