"""Commands on a GPU, a pretended one always and a real one where there is one: the CPU's numbers."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.tokenizers.families.var import VARTokenizer
from entropy_cli.tokenizers.layers.var_layout import decoder_shapes
from tests.conftest import SIZES
from tests.e2e.test_estimate import assert_same
from tests.family_checkpoints import EXAMPLES, random_weights
from tests.pretended_gpu import PretendedGPU
from tests.trainings import SMALL, same_weights, steps

CLOSE = 1e-4  # nats a token, of float32 on another device
pytestmark = pytest.mark.usefixtures("gpu_device")
CPU, CUDA = ("--device", "cpu"), ("--device", "cuda")


@pytest.fixture
def exact(estimate, images, checkpoint):
    """Return the CPU's result of the tiny tokenizer on the tiny folder."""
    return estimate("--data", images, "--ckpt", checkpoint, *CPU, "--temperature", 1)


def of(result, quantity="assignment_entropy"):
    """Return a quantity of all scales at each temperature."""
    return [at["average"]["token_weighted"][quantity]["value"] for at in result["temperatures"]]


def test_estimate_with_workers(estimate, images, checkpoint, exact):
    run = ("--data", images, "--ckpt", checkpoint, *CUDA, "--temperature", 1, "--precision", "fp32")
    result = estimate(*run, "--batch-size", 4, "--workers", 2)
    assert result["provenance"]["device"].startswith("cuda:0 (")
    assert_same(exact, result, counts_equal=False, tolerance=CLOSE)
    assert result["data"] == exact["data"]


READ, ADDED = 18, 5  # batches of at most four images, in a folder of seventy; blocks of sixteen


@pytest.mark.parametrize("kind", ["images", "tokens", "levels", "nine temperatures"])
def test_a_batch_waits_for_one_event(pretended_gpu, estimate, images, checkpoint, tmp_path, kind):
    """Images and groups are sent, pinned; what tells that latents are finite comes back, and tokens."""
    run = ("--data", images, "--ckpt", checkpoint, "--precision", "fp32")
    if kind == "levels":
        z_BlC = np.random.default_rng(3).normal(size=(70, 6, 3)).clip(-1, 1)
        np.save(tmp_path / "z.npy", z_BlC.astype(np.float32))
        run = ("--latents", tmp_path / "z.npy", "--levels", "3,4,3", "--channels", "last")
    at = ",".join(map(str, range(1, 10))) if kind == "nine temperatures" else "1"
    tokens = ("--save-tokens", tmp_path / "t.npy") if kind == "tokens" else ()
    estimate(*run, *CUDA, "--temperature", at, "--batch-size", 4, *tokens)
    counts = pretended_gpu.counts
    assert counts.of(counts.event_waits, "streaming/") == ADDED
    assert {what for what, _ in counts.event_waits} == {"blocks"}
    assert counts.of(counts.copies, "streaming/reader.py") == 2 * READ
    assert counts.of(counts.copies, "streaming/batch_processor.py") == ADDED * (1 + bool(tokens))
    assert not any(what == "synchronize" for what, _ in counts.waits)
    for place in (
        "streaming/reader",
        "streaming/batch",
        "entropy/assign",
        "entropy/sums",
        "tokenizers/latents",
    ):
        assert counts.of(counts.waits, place) == 0, place


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_the_pilot_and_what_a_precision_costs(estimate, images, checkpoint, precision):
    run = ("--data", images, "--ckpt", checkpoint, "--temperature", "auto,1", "--limit", 32)
    exact = estimate(*run, *CPU)
    result = estimate(*run, *CUDA, *(() if precision == "fp16" else ("--precision", precision)))
    assert result["settings"]["precision"] == precision  # fp16 of itself
    assert of(result) == pytest.approx(of(exact), abs=0.02)
    check = result["precision_check"]
    assert check["images"] == 32 and 0 <= check["latent_relative_error"] < 0.05
    assert abs(check["assignment_entropy_difference_token_weighted"]) < 0.02


def test_a_family_beside_var(estimate, images, tmp_path):
    """One that runs under autocast."""
    save_file(random_weights(EXAMPLES["titok"].shapes), tmp_path / "t.safetensors")
    run = ("--data", images, "--ckpt", tmp_path / "t.safetensors", "--limit", 20, "--temperature", 0.1)
    exact = estimate(*run, *CPU)
    assert_same(exact, estimate(*run, *CUDA, "--precision", "fp32"), counts_equal=False, tolerance=CLOSE)
    assert of(estimate(*run, *CUDA)) == pytest.approx(of(exact), abs=0.05)


GRIDS = {"bits": ("sign",), "levels": ("levels", "--levels", "3,4,3")}


@pytest.mark.parametrize("rule", GRIDS.values(), ids=GRIDS)
def test_grids(estimate, tmp_path, rule):
    np.save(tmp_path / "z.npy", np.random.default_rng(3).normal(size=(40, 6, 3)).clip(-1, 1))
    run = ("--latents", tmp_path / "z.npy", "--rule", *rule, "--channels", "last")
    run += ("--temperature", "0.7,0.1")
    result = estimate(*run, *CUDA)
    assert_same(estimate(*run, *CPU), result, tolerance=CLOSE)


@pytest.mark.parametrize("bits", [3, 70], ids=lambda bits: f"{bits} bits")
def test_very_many_codes(estimate, tmp_path, bits):
    """Up to more codes than have a number."""
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(20, 6, bits)).astype("f4"))
    run = ("--latents", tmp_path / "z.npy", "--rule", "sign", "--channels", "last", "--temperature", 1)
    assert_same(estimate(*run, *CPU), estimate(*run, *CUDA), tolerance=CLOSE)


def test_resume(estimate, images, checkpoint, monkeypatch, tmp_path, exact):
    encode, calls = VARTokenizer.encode, []

    def stopped(self, img_B3HW):
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return encode(self, img_B3HW)

    run = ("--data", images, "--ckpt", checkpoint, *CUDA, "--precision", "fp32", "--batch-size", 4)
    run += ("--state", tmp_path / "state", "--temperature", 1)
    monkeypatch.setattr(VARTokenizer, "encode", stopped)
    code, err = estimate(*run)
    assert code == 143 and "to resume" in err
    result = estimate(*run)
    assert result["provenance"]["images_resumed"] == 32
    assert_same(exact, result, counts_equal=False, tolerance=CLOSE)


def test_tokens_are_saved(estimate, images, checkpoint, tmp_path):
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 20, "--save-tokens")
    estimate(*run, tmp_path / "cpu.npy", *CPU)
    estimate(*run, tmp_path / "gpu.npy", *CUDA, "--precision", "fp32")
    one, other = (np.load(tmp_path / f"{name}.npy") for name in ("cpu", "gpu"))
    assert (one == other).mean() > 0.999


def test_tokens_that_could_not_be_written_late_are_written_again(
    estimate, images, checkpoint, tmp_path, monkeypatch
):
    """Those of a batch are written with the next: nothing is saved after the one that failed."""
    run = ("--data", images, "--ckpt", checkpoint, *CUDA, "--precision", "fp32", "--temperature", 1)
    run += ("--batch-size", 16, "--save-tokens")
    estimate(*run, tmp_path / "whole.npy", "--state", tmp_path / "whole")
    write, rows = os.pwrite, []

    def fills_up(file, row, at):
        rows.append(row)
        return write(file, row, at) if len(rows) <= 40 else 0

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", fills_up)
        code, err = estimate(*run, tmp_path / "t.npy", "--state", tmp_path / "state")
        assert code == 3 and "No space left" in err.splitlines()[-1]
    assert "data" in estimate(*run, tmp_path / "t.npy", "--state", tmp_path / "state")
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_show(cli, images, checkpoint, tmp_path):
    weights = load_file(checkpoint) | random_weights(decoder_shapes(SIZES))
    save_file(weights, tmp_path / "d.safetensors")
    (tmp_path / "config.json").write_bytes(checkpoint.with_name("config.json").read_bytes())
    image = sorted(images.rglob("*.jpg"))[0]
    run = ("show", image, "--ckpt", tmp_path / "d.safetensors", "-o", tmp_path / "f.png", "--json")
    run += ("--precision", "fp32", "--device")
    results = []
    for device in ("cpu", "cuda"):
        code, out, err = cli(*run, device)
        assert code == 0, err
        results.append(json.loads(out))
    torch.testing.assert_close(without(results[0]), without(results[1]), atol=1e-3, rtol=1e-3)


def without(value, names=("device", "provenance", "command")):
    """Return a JSON value's numbers, in their order, without what tells of the machine."""
    if isinstance(value, dict):
        return [n for name, part in value.items() if name not in names for n in without(part)]
    if isinstance(value, list):
        return [number for part in value for number in without(part)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.fixture
def train(cli, folder, tmp_path):
    """Train a few steps; gives the training's folder."""

    def run(name, *options, code=0):
        argv = ("--data", folder, "--output", tmp_path / name, *SMALL, "--steps", 3, "--eval-every", 3)
        got, _, err = cli("train", *argv, "--log-every", 1, *options)
        assert got == code, err
        return tmp_path / name

    return run


@pytest.mark.parametrize(
    "options",
    [
        ("--ema-decay", 0.9, "--revive-every", 2),
        ("--codebook", "gradient", "--norm", "batch", "--grad-accum-steps", 2),
    ],
    ids=["averages", "gradients"],
)
def test_train(train, options):
    """A few steps, as on the CPU."""
    on_cpu = steps(train("cpu", *options))
    on_gpu = steps(train("gpu", *CUDA, "--precision", "fp32", *options))
    assert len(on_gpu) == 3
    # The first update is of the learning rate's size whatever the gradient's: one that is rounding
    # alone, as of biases before a norm, may have either sign.
    for step, (one, other) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        for name, later in {"loss": 0.03, "grad_norm": 0.08}.items():
            assert other[name] == pytest.approx(one[name], rel=later if step else 1e-4), name


@pytest.mark.parametrize(
    "options",
    [("--revive-every", 2), ("--codebook", "gradient", "--precision", "fp16", "--grad-accum-steps", 2)],
    ids=["averages", "gradients"],
)
def test_a_step_of_a_training_waits_for_one_event(pretended_gpu, train, options):
    """That of the metrics of the step before."""
    totals, counts = [], pretended_gpu.counts
    for taken in (2, 8):
        train(str(taken), *CUDA, "--steps", taken, "--eval-every", 9, "--ema-decay", 0.9, *options)
        totals.append((counts.waits.total(), counts.event_waits.total()))
    (waits, events), (more_waits, more_events) = totals
    assert more_waits - waits <= waits  # the second had no more of them than the first, which is short
    assert (events, more_events) == (2, 10)


def test_a_loss_that_is_no_number_stops_a_training_a_step_later(train, monkeypatch):
    """With nothing changed by it and by what followed, so that it can be resumed."""
    options = (*CUDA, "--steps", 5, "--eval-every", 5, "--ema-decay", 0.9, "--norm", "batch")
    whole, backward, taken = train("whole", *options), Trainer._backward, []

    def broken(self, *args):
        losses, *rest = backward(self, *args)
        taken.append(self.steps_done)
        return (losses * (float("nan") if self.steps_done == 2 else 1), *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", broken)
        out = train("out", *options, code=3)
    assert taken == [0, 1, 2, 3]
    assert [entry["step"] for entry in steps(out)] == [1, 2]
    train("out", *options, "--resume")
    if PretendedGPU.running:  # a GPU's sums differ from run to run
        assert steps(out) == steps(whole) and same_weights(out, whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_train_and_resume_in_16_bits(train, monkeypatch, precision):
    options = (*CUDA, *(() if precision == "bf16" else ("--precision", precision)))  # bf16 of itself
    options += ("--batch-size", 2)
    whole = train("whole", *options)
    step = Trainer.step

    def stopped(self, *args, **given):
        if self.steps_done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopped)
        train("out", *options, code=143)
    out = train("out", *options, "--resume")
    assert all(np.isfinite(entry["loss"]) for entry in steps(whole))
    if PretendedGPU.running:  # a GPU's sums differ from run to run
        assert steps(out) == steps(whole) and same_weights(out, whole)
