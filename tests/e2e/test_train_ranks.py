"""A training of two processes, as torchrun starts them, learns what one learns; none is left hanging."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from entropy_cli.cli import main
from entropy_cli.commands.train.recipe import PRESETS
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.streaming.ranks import Ranks
from tests.conftest import one_thread, python, subprocess_environment, torchrun
from tests.e2e.test_ranks import workers_of
from tests.e2e.test_train_resume import wait_for_step
from tests.trainings import SMALL, entries, steps, weights

ROOT = Path(__file__).parents[2]
STEPS = 20


@pytest.fixture
def start(folder, tmp_path):
    """Start a training of one process, or of more by torchrun, with one thread each."""
    started = []

    def run(processes, *options, out=tmp_path / "out"):
        argv = torchrun(processes) if processes > 1 else [*python(), "-m"]
        argv += ["entropy_cli", "train"]
        argv += ["--json", "--data", folder, "--output", out, *SMALL, *options]
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**subprocess_environment(tmp_path), "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate()


@pytest.fixture
def alone(folder, capfd):
    """Train in this process on one thread; gives the result and stderr."""

    def run(*options, out):
        argv = ["train", "--json", "--data", folder, "--output", out, *SMALL, *options]
        capfd.readouterr()
        with one_thread():
            code = main([str(part) for part in argv])
        printed, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(printed), err

    return run


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def assert_same_training(one, other, tolerance=1e-4):
    """Step by step; of the evaluations, whose few tokens flip between codes by rounding, the PSNR."""
    assert [entry["step"] for entry in entries(one)] == [entry["step"] for entry in entries(other)]
    for a, b in zip(steps(one), steps(other), strict=True):
        norms = a.pop("grad_norm"), b.pop("grad_norm")  # of few pictures: rounding is larger there
        assert norms[0] == pytest.approx(norms[1], rel=10 * tolerance)
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)
    for a, b in zip(entries(one), entries(other), strict=True):
        assert a.get("held_out_psnr_db") == pytest.approx(b.get("held_out_psnr_db"), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--codebook", "ema", "--vocab-size", 200, "--codebook-decay", 0.5, "--revive-every", 4),
        (
            *("--codebook", "gradient", "--vocab-size", 200, "--codebook-decay", 0.5),
            *("--revive-every", 4, "--norm", "batch", "--grad-accum-steps", 2, "--ema-decay", 0.9),
        ),
    ],
    ids=str,
)
def test_two_processes_learn_what_one_learns(start, alone, tmp_path, options):
    options = (*options, "--steps", STEPS, "--eval-every", 10)
    one, both = tmp_path / "one", tmp_path / "both"
    expected, _ = alone(*options, out=one)
    result, _ = finish(start(2, *options, out=both))
    assert len(steps(both)) == STEPS
    if 4 in options:
        assert sum(entry["revived"] for entry in steps(one)) > 0
    assert_same_training(both, one)
    assert (result["provenance"]["processes"], result["images"]) == (2, expected["images"])
    assert result["psnr_db"] == pytest.approx(expected["psnr_db"], abs=0.01)
    others = weights(one)
    for name, weight in weights(both).items():
        if weight.ndim == 1:  # most biases are taken away by a norm: AdamW moves them by rounding alone
            continue
        assert torch.allclose(weight, others[name], rtol=1e-3, atol=1e-3), name


@pytest.mark.slow
def test_a_training_resumes_with_another_number_of_processes(start, alone, tmp_path):
    """Stopped by a signal to all of them, as a scheduler sends it."""
    options = ("--steps", STEPS, "--eval-every", STEPS)
    out = tmp_path / "out"
    first = start(2, *options)
    wait_for_step(out, 4, first)
    first.send_signal(signal.SIGTERM)  # torchrun passes it on
    _, err = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "interrupted by SIGTERM; to resume, run the same command with --resume" in err
    assert (out / "trainer.pt").exists() and (out / "model.safetensors").exists()
    _, err = alone(*options, "--resume", out=out)
    assert "resuming from step" in err
    alone(*options, out=tmp_path / "whole")
    assert_same_training(out, tmp_path / "whole")


@pytest.mark.slow
def test_a_process_that_dies_stops_all_and_spoils_nothing(start, alone, tmp_path):
    out = tmp_path / "out"
    run = start(2, "--steps", 5000, "--eval-every", 5)
    wait_for_step(out, 7, run)
    os.kill(workers_of(run)[1], signal.SIGKILL)
    begin = time.monotonic()
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0 and time.monotonic() - begin < 50
    assert "another process of this run has ended" in err or "interrupted by SIGTERM" in err
    done = len(steps(out))
    more = ("--steps", 5 * (done // 5 + 1), "--eval-every", 5, "--resume")
    result, err = alone(*more, out=out)
    assert "resuming from step" in err and result["steps"] == 5 * (done // 5 + 1)


@pytest.mark.slow
def test_an_error_of_one_ends_all(start, tmp_path):
    """Only the first process locks the folder; a batch of 9 is no two halves."""
    run = start(2, "--steps", 2, "--batch-size", 9)
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0
    assert err.count("Give a multiple of 2, such as 8.") == 2
    assert "entropy_cli/" not in err  # torchrun's own traceback is there, none of the program's


@pytest.mark.parametrize("command", ["train", "estimate"])
def test_processes_that_would_share_a_gpu_are_told_so(
    cli, folder, checkpoint, tmp_path, monkeypatch, command
):
    """Two of them on one machine, as this one sees them."""
    module = {"train": "commands.train.train", "estimate": "runs.estimate"}[command]
    here = lambda **_: contextlib.nullcontext(Ranks(local_world=2))  # noqa: E731
    monkeypatch.setattr(f"entropy_cli.{module}.join", here)
    run = (command, "--data", folder, "--output", tmp_path / "out", "--device", "cuda:0")
    code, _, err = cli(*run, *(("--ckpt", checkpoint) if command == "estimate" else ()))
    assert code == 3 and "2 processes on this machine would share it. Use --device cuda" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_folder_in_use_ends_all(start, tmp_path):
    running = start(1, "--steps", 5000)
    wait_for_step(tmp_path / "out", 1, running)
    run = start(2, "--steps", 5)
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0 and "another run" in err
    assert running.poll() is None


def test_codebooks_that_differ_are_an_error_that_names_their_hashes(monkeypatch):
    recipe = PRESETS["tiny"].override(width_mult=(1, 1), image_size=16, vocab_size=8)
    trainer = Trainer(recipe, torch.device("cpu"), Ranks())
    trainer.check_codes()
    mine = []
    monkeypatch.setattr(Ranks, "all_gather", lambda _, value: mine.append(value) or [value, "0" * 12])
    with pytest.raises(EntropyCliError, match=r"codebooks differ, their sha256 are \w{12}, 0{12}"):
        trainer.check_codes()
    with torch.no_grad():
        trainer.model.quantize.embedding.weight[3, 2] += 1e-6
    with pytest.raises(EntropyCliError, match="codebooks differ"):
        trainer.check_codes()
    assert len(set(mine)) == 2  # one bit of one code is another hash
