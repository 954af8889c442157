"""`monitor` of a log that grows, beside TensorBoard and W&B, and of several logs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import subprocess_environment
from tests.dashboards import expected_at, read_events, read_wandb
from tests.e2e.test_monitor import table, wait_for_lines

pytestmark = pytest.mark.xdist_group("ladder_result")
CONTROL = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")
MONITOR = [sys.executable, "-m", "entropy_cli", "monitor"]


def curve(points, lowest=2.5, power=0.3, sigma=0.005, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, points)
    return lowest + 1.3 * np.arange(1, points + 1) ** -power + noise


def overfitted(points=60):
    """A training loss, and a validation loss that rises from the middle on."""
    train = curve(points)
    rise = np.concatenate([np.zeros(points // 2), np.linspace(0, 0.6, points - points // 2)])
    return {"train_loss": train, "val_loss": train + 0.05 + rise}


@pytest.fixture
def a_and_ceilings(ladder_result):
    of = json.loads(ladder_result.read_text())
    mean = of["average"]["token_weighted"]
    rungs = {
        rung["id"]: rung["average"]["token_weighted"]["upper95"] for rung in of["ladder"]["rungs"][2:]
    }
    return mean["assignment_entropy"]["value"], rungs | {"unigram": mean["unigram_bracket"]["upper95"]}


class TestFollow:
    def test_lines_and_then_the_report(self, ladder_result, tmp_path):
        log, out = tmp_path / "log.csv", tmp_path / "out"
        columns = overfitted()
        head = {name: values[:20] for name, values in columns.items()}
        log.write_text(table(**head))
        command = [*MONITOR, "log.csv", "--follow", "--interval", "0.1", "--floor", ladder_result]
        command += ["--tensorboard", tmp_path / "run"]
        environment = subprocess_environment(tmp_path)
        with (
            out.open("w") as stdout,
            subprocess.Popen(command, stdout=stdout, cwd=tmp_path, env=environment) as run,
        ):
            wait_for_lines(out, 1)
            log.write_text(table(**columns))
            wait_for_lines(out, 3)
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 0
        lines, report = out.read_text().split("log.csv: format csv", 1)
        (first, *_, last) = re.findall(r"(?m)^\d\d:\d\d:\d\d  (.*)$", lines)
        assert first.startswith("step 19  train_loss ") and last.startswith("step 59  train_loss ")
        assert f"val_loss {columns['val_loss'][-1]:.4f} (CE - A " in last
        assert lines.count("warning overfitting: val_loss: ") == 1 and "ladder" not in lines
        assert "Findings\nwarning overfitting: val_loss" in report
        events = read_events(tmp_path / "run" / "floor")  # each point once, although it was read twice
        assert list(events["ce_minus_a/train_loss"]) == list(range(60))
        assert list(events["finding/overfitting"]) == [59]

    def test_one_screen_on_a_terminal(self, ladder_result, tmp_path):
        log = tmp_path / "log.csv"
        log.write_text(table(**overfitted()))
        command = [*MONITOR, "log.csv", "--follow", "--interval", "0.1", "--floor", ladder_result]
        environment = subprocess_environment(tmp_path) | {
            "COLUMNS": "80",
            "LINES": "24",
            "TERM": "xterm",
        }
        main, side = pty.openpty()
        with subprocess.Popen(command, stdout=side, stderr=side, cwd=tmp_path, env=environment) as run:
            os.close(side)
            shown = b""
            end = time.monotonic() + 30
            while b"Ctrl-C ends with the report" not in shown and time.monotonic() < end:
                shown += os.read(main, 2**16)
            run.send_signal(signal.SIGINT)
            rest = b""
            try:
                while part := os.read(main, 2**16):
                    rest += part
            except OSError:  # the other end is closed
                pass
            assert run.wait(60) == 0
        os.close(main)
        lines = [line.rstrip() for line in CONTROL.sub("", shown.decode()).splitlines()]
        assert max(map(len, lines)) <= 80 and len(lines) <= 24
        (row,) = [line for line in lines if line.startswith("train_loss")]
        assert re.search(r"step 59  2\.\d{4}  2\.\d{4}  █[▁▂▃▄▅▆▇█]{18}[▁▂]$", row)
        assert any(re.match("warning overfitting +val_loss: ", line) for line in lines)
        assert "below ceiling" in CONTROL.sub("", rest.decode())  # of the report

    def test_one_log(self, cli, tmp_path):
        logs = [tmp_path / name for name in "ab"]
        for log in logs:
            log.write_text(table(loss=curve(20)))
        for options in (["--follow"], ["--wandb"], ["--tensorboard", tmp_path / "run"]):
            code, _, err = cli("monitor", *logs, *options)
            assert code == 2 and f"{options[0]}: got 2 logs, expected one." in err
        assert not (tmp_path / "run").exists()


class TestDashboards:
    def test_beside_the_events_of_the_run_itself(self, cli, ladder_result, a_and_ceilings, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(tmp_path / "run")) as writer:
            for step, loss in enumerate(curve(30)):
                writer.add_scalar("AR_iter_loss/L_mean", loss, 10 * step)
        argv = ("monitor", tmp_path / "run", "--floor", ladder_result, "--tensorboard", tmp_path / "run")
        for _ in range(2):  # the second time replaces the first
            assert cli(*argv)[0] == 0
        found = read_events(tmp_path / "run/floor")
        (entropy, ceilings), name = a_and_ceilings, "AR_iter_loss/L_mean"
        for tag, value in expected_at(curve(30)[-1], name, (entropy, ceilings)).items():
            assert list(found[tag]) == list(range(0, 300, 10))
            assert found[tag][290] == pytest.approx(value, abs=1e-6)
        assert list(found["finding/start_is_not_ln_v"]) == [290]

    def test_wandb_offline(self, cli, ladder_result, a_and_ceilings, tmp_path, monkeypatch):
        wandb = pytest.importorskip("wandb")
        wandb.teardown()  # else it keeps the mode of tests before
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_SILENT", "true")
        log = tmp_path / "log.csv"
        log.write_text(table(**overfitted()))
        code, out, _ = cli("monitor", log, "--floor", ladder_result, "--wandb")
        assert code == 0 and " ".join(out.split()).startswith(f"{log}: format csv")
        rows = read_wandb(tmp_path)
        last = [row for row in rows if row["floor/step"] == 59]
        merged = {name: value for row in last for name, value in row.items()}
        loss = float(f"{overfitted()['train_loss'][-1]:.5f}")
        for name, value in expected_at(loss, "train_loss", a_and_ceilings).items():
            assert merged[name] == pytest.approx(value, abs=1e-9)
        assert merged["finding/overfitting"].startswith("val_loss: lowest at step")

    def test_where_it_can_not_go(self, cli, tmp_path):
        log, file = tmp_path / "log.csv", tmp_path / "file"
        log.write_text(table(loss=curve(20)))
        file.touch()
        code, _, err = cli("monitor", log, "--tensorboard", file)
        assert code == 3 and "can't be written to: Not a directory." in err


class TestComparison:
    @pytest.fixture
    def logs(self, tmp_path):
        """Two runs, the second of which is shorter and counts every second step."""
        paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
        paths[0].write_text(table(**overfitted(100)))
        rows = [f"{2 * i},{loss:.5f}" for i, loss in enumerate(curve(30, lowest=2.2))]
        paths[1].write_text("\n".join(["step,train_loss", *rows]) + "\n")
        return paths

    def test_as_json_a_document_of_each(self, cli, logs, ladder_result):
        code, out, _ = cli("monitor", *logs, "--floor", ladder_result, "--json")
        found = json.loads(out)
        assert code == 0 and (found["schema"], found["schema_version"]) == (
            "entropy-cli/monitor-comparison",
            1,
        )
        assert set(found) == {"schema", "schema_version", "logs"}
        alone = [json.loads(cli("monitor", log, "--floor", ladder_result, "--json")[1]) for log in logs]
        assert found["logs"] == alone

    def test_the_table_compares_where_the_shortest_ends(self, cli, logs, ladder_result, a_and_ceilings):
        code, out, _ = cli("monitor", *logs, "--floor", ladder_result)
        assert code == 0 and max(map(len, out.splitlines())) <= 80
        rows = {tuple(line.split()[:2]): line.split() for line in out.splitlines() if ".csv " in line}
        a, b = overfitted(100)["train_loss"], curve(30, lowest=2.2)
        entropy, _ = a_and_ceilings
        for name, values, at_58 in (
            ("a.csv", a, np.median(a[56:59])),  # the last 5 % of 58 steps
            ("b.csv", b, np.median(b[28:30])),
        ):
            row = rows[name, "train_loss"]
            assert f"{values[-1]:.4f}" in row and row[-1] == f"{at_58:.4f}"
            assert f"{values[-1] - entropy:.4f}" in row
        assert "step 58, where the shortest run ends" in " ".join(out.split())
        assert "Findings: a.csv\nwarning overfitting: val_loss" in out
        assert "reducible" not in out

    @pytest.mark.parametrize("kind", ["png", "html", "json"])
    def test_files(self, cli, logs, ladder_result, tmp_path, kind):
        pytest.importorskip("matplotlib")
        path = tmp_path / f"runs.{kind}"
        assert cli("monitor", *logs, "--floor", ladder_result, "-o", path)[0] == 0
        if kind == "html":
            page = path.read_text()
            assert page.count("<svg") == 2 and "Lowest at step 58: b.csv, " in page
            assert page.count("<code>overfitting</code>") == 1 and 'src="http' not in page
        elif kind == "json":
            assert len(json.loads(path.read_text())["logs"]) == 2
        else:
            assert path.read_bytes().startswith(b"\x89PNG")

    def test_runs_of_one_name_are_told_apart(self, cli, logs, tmp_path):
        other = tmp_path / "other" / "a.csv"
        other.parent.mkdir()
        other.write_text(logs[0].read_text())
        _, out, _ = cli("monitor", logs[0], other)
        assert f"Findings: {other}" in out.replace("\n", "") or str(other) in out

    def test_on_tokens_where_all_logs_count_them(self, cli, tmp_path):
        paths = []
        for name, batch in (("small", 1000), ("large", 4000)):
            lines = [
                {"step": i, "loss": round(float(loss), 5), "num_tokens": batch * i}
                for i, loss in enumerate(curve(41), 1)
            ]
            paths.append(tmp_path / f"{name}.jsonl")
            paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
        code, out, _ = cli("monitor", *paths)
        assert code == 0 and "aligned on tokens" in out
        rows = {line.split()[0]: line.split() for line in out.splitlines() if ".jsonl " in line}
        # at 41,000 tokens, where the small batches end: of the large ones the tenth step alone
        assert rows["large.jsonl"][-1] == f"{curve(41)[9]:.4f}"
        assert rows["small.jsonl"][-1] == f"{np.median(curve(41)[38:]):.4f}"

    def test_without_a_common_unit(self, cli, logs, tmp_path):
        epochs = tmp_path / "epochs.csv"
        epochs.write_text("epoch,loss\n" + "".join(f"{i},{5 - i / 10}\n" for i in range(20)))
        code, _, err = cli("monitor", logs[0], epochs)
        assert (
            code == 3
            and "a.csv has steps, epochs.csv has epochs. Compare logs that count the same" in err
        )

    def test_one_log_twice(self, cli, logs):
        code, _, err = cli("monitor", logs[0], logs[0])
        assert code == 2 and "is given twice" in err
