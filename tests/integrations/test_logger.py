"""`FloorLogger`: what it writes, read back from TensorBoard's and W&B's files."""

import logging
import math
import subprocess
import sys

import pytest

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.integrations import FloorLogger
from tests.dashboards import expected_at, read_events, read_wandb

pytestmark = pytest.mark.xdist_group("ladder_result")


def test_events_of_tensorboard(floor, a_and_ceilings, tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        log = FloorLogger(writer, floor)
        for step, loss in enumerate((3.0, 2.5, math.nan, 2.0)):
            log.log({"train/loss": loss, "lr": 0.1}, 10 * step)
    found = read_events(tmp_path)
    assert list(found["finding/nan"]) == [20] and "first at step 20" in found["finding/nan"][20]
    assert found["train/loss"][30] == 2.0 and list(found["lr"]) == [0, 10, 20, 30]
    for step, loss in ((0, 3.0), (10, 2.5), (30, 2.0)):
        for tag, value in expected_at(loss, "train/loss", a_and_ceilings).items():
            assert found[tag][step] == pytest.approx(value, abs=1e-6), tag
    assert math.isnan(found["ce_minus_a/train/loss"][20])


def test_a_run_of_wandb_that_others_write_to(floor, a_and_ceilings, tmp_path):
    wandb = pytest.importorskip("wandb")
    settings = wandb.Settings(console="off", silent=True)
    with wandb.init(mode="offline", dir=tmp_path, project="floor", settings=settings) as run:
        log = FloorLogger(run, floor)
        for step, loss in enumerate((3.0, 2.5, 0.2)):
            run.log({"mine": step}, step=1000 * step)  # W&B's own counter is ahead of ours
            log.log({"L_mean": loss}, step)
    rows = {row["floor/step"]: row for row in read_wandb(tmp_path) if "L_mean" in row}
    for step, loss in enumerate((3.0, 2.5, 0.2)):
        for name, value in expected_at(loss, "L_mean", a_and_ceilings).items():
            assert rows[step][name] == pytest.approx(value, abs=1e-9), name
    (text,) = [
        row["finding/below_floor"] for row in read_wandb(tmp_path) if "finding/below_floor" in row
    ]
    assert "CE - A may be negative" in text


def test_names_of_losses(floor, caplog):
    log = FloorLogger(None, floor)
    added, _ = log.add({"L_tail": 2.0, "vL_mean": 3.0, "L_mean": 2.5, "acc": 5.0}, 0)
    assert added["ce_minus_a/L_tail"] == pytest.approx(2.0 - floor.levels.last.floor)
    assert added["ce_minus_a/vL_mean"] == pytest.approx(3.0 - floor.levels.mean.floor)
    assert set(floor.history()) == {"mean", "last", "val mean"} and not caplog.records
    FloorLogger(None, floor).log({"ce": 2.0}, 0)
    assert "none of ce is known as a loss" in caplog.text
    own = FloorLogger(None, floor, series={"ce": "scale 1"})
    assert own.add({"ce": 2.0}, 1)[0]["ce_minus_a/ce"] == floor.excess_of(2.0, "scale 1").ce_minus_a


def test_findings_are_logged_once_and_stop(floor, caplog):
    log = FloorLogger(None, floor, stop_on="nan")
    with caplog.at_level(logging.INFO):
        losses = enumerate((3.87, 3.7, math.nan, math.nan))
        found = [log.log({"loss": loss}, step) for step, loss in losses]
    assert [[one.id for one in new] for new in found] == [[], [], ["nan"], []]
    assert log.should_stop
    (record,) = caplog.records
    assert record.levelname == "ERROR" and record.message.startswith(
        "step 2: nan: mean: NaN or infinity"
    )


@pytest.mark.parametrize(
    ("writer", "options", "message"),
    [
        (print, {}, "writer: got builtin_function_or_method, expected a SummaryWriter"),
        (None, {"series": {"loss": "tail"}}, "series 'tail': expected mean, last or scale 0"),
        (None, {"stop_on": {"plato"}}, "got plato, expected ids of findings: plateau, overfitting"),
    ],
)
def test_wrong_arguments(floor, writer, options, message):
    with pytest.raises(EntropyCliError, match=message):
        FloorLogger(writer, floor, **options)
    with pytest.raises(EntropyCliError, match="floor: got str, expected a Floor"):
        FloorLogger(None, "result.json")


def test_metrics_are_numbers(floor):
    with pytest.raises(EntropyCliError, match="lr: got 'high', expected a number"):
        FloorLogger(None, floor).log({"loss": 2.0, "lr": "high"}, 0)


def test_the_package_needs_no_framework():
    code = (
        "import sys, entropy_cli.integrations;"
        "assert not {'torch', 'transformers', 'lightning', 'wandb', 'tensorboard'} & set(sys.modules);"
        "from entropy_cli.core.errors import EntropyCliError\n"
        "for name in ('transformers', 'lightning'): sys.modules[name] = None\n"
        "for name in ('hf', 'lightning'):\n"
        "    try: __import__('entropy_cli.integrations.' + name)\n"
        "    except EntropyCliError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split("pip install ")[1] for line in done.stdout.splitlines()] == [
        "'entropy-cli[hf]'.",
        "'entropy-cli[lightning]'.",
    ]
