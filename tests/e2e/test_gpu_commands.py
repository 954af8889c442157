"""Commands and the Python API on a GPU beside their numbers: precisions, ranks, copies, waits."""

import functools
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import entropy_cli
from entropy_cli.commands.bench import bench, contenders, roofline
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.streaming.device import choose_device
from entropy_cli.tokenizers.layers.var_layout import decoder_shapes
from tests.conftest import SIZES, torchrun
from tests.e2e.test_estimate import assert_same
from tests.family_checkpoints import random_weights
from tests.pretended_gpu import PretendedGPU

CLOSE = 1e-4  # nats a token, of float32 on another device
ROOT = Path(__file__).parents[2]
# By precision: the most by which latents and entropies are off.
OFF = {"tf32": (0.01, 0.002), "fp16": (0.01, 0.002), "bf16": (0.05, 0.04)}


def average(result):
    return result.average.token_weighted.assignment_entropy.value


def test_python_on_a_gpu(gpu_device, images, checkpoint):
    """In the precision, with the workers and with the check of the command."""
    tokenizer = entropy_cli.load_tokenizer(checkpoint)
    exact = entropy_cli.estimate(images, tokenizer, device="cpu", temperature=1)
    result = entropy_cli.estimate(images, tokenizer, device="cuda", precision="fp32", temperature=1)
    assert_same(*(json.loads(r.to_json()) for r in (exact, result)), counts_equal=False, tolerance=CLOSE)
    assert result.provenance["device"].startswith("cuda:0") and result.precision_check is None
    rounded = entropy_cli.estimate(images, tokenizer, temperature=1, workers=2)
    assert rounded.settings.precision == "fp16" and rounded.provenance["workers"] == 2
    check = rounded.precision_check
    assert check["images"] == 64 and 0 < check["latent_relative_error"] < OFF["fp16"][0]
    assert average(rounded) == pytest.approx(average(exact), abs=OFF["fp16"][1])


def test_python_copies_a_batch_of_a_folder_once_and_digests_none(pretended_gpu, images, checkpoint):
    tokenizer = entropy_cli.load_tokenizer(checkpoint)
    entropy_cli.estimate(images, tokenizer, precision="fp32", workers=0)
    counts = pretended_gpu.counts
    assert counts.of(counts.copies, "streaming/reader.py") == 2  # 70 images in a batch of 80, and groups
    assert counts.of(counts.waits, "streaming/reader.py") == 0
    assert not any(what == "to the host" and "in_memory" in line for what, line in counts.copies)


@pytest.mark.usefixtures("gpu_device")
@pytest.mark.parametrize("precision", OFF)
def test_the_check_of_a_precision(estimate, images, checkpoint, precision):
    """It says what two runs differ in: the encoder alone rounds."""
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 48, "--temperature", 1, "--precision")
    exact, rounded = (estimate(*run, p, "--device", "cuda") for p in ("fp32", precision))
    check, (latents, entropy) = rounded["precision_check"], OFF[precision]
    a, b = (r["average"]["token_weighted"]["assignment_entropy"]["value"] for r in (exact, rounded))
    assert 1e-4 < check["latent_relative_error"] < latents and check["reference"] == "fp32"
    assert check["assignment_entropy_difference_token_weighted"] == pytest.approx(b - a, abs=1e-6)
    assert 0 < abs(b - a) < entropy


def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("auto", "cuda"):
        assert [choose_device(name, rank).index for rank in (0, 1)] == [0, 1]
    assert choose_device("cuda:0", 1).index == 0 and choose_device("cpu", 1).type == "cpu"
    assert [device.index for device in chosen] == [0, 1, 0, 1, 0]
    with pytest.raises(
        EntropyCliError, match=r"cuda:2: no such device, .* cuda:0, cuda:1\. .*no more pro"
    ):
        choose_device("auto", 2)


@pytest.mark.slow
def test_two_processes_on_gpus(gpu_device, estimate, images, checkpoint, tmp_path):
    """Each on one of its own, pretended; both on the same, real."""
    run = ("--data", images, "--ckpt", checkpoint, "--limit", 40)
    run += ("--batch-size", 8, "--temperature", 1)
    alone = estimate(*run, "--device", "cuda", "--precision", "tf32")
    module, device = "entropy_cli", "cuda:0"
    if PretendedGPU.running:
        module, device = "tests.pretended_gpu", "auto"
    argv = [*torchrun(2), module, "estimate", "--json", "--workers", "0", *run, "--device", device]
    done = subprocess.run(
        [str(part) for part in (*argv, "--precision", "tf32")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["provenance"]["processes"] == 2
    assert result["provenance"]["device"].startswith("cuda:0")
    assert_same(alone, result, counts_equal=False, tolerance=CLOSE)
    for name in ("images", "latent_relative_error", "tokens_changed_overall"):
        assert result["precision_check"][name] == pytest.approx(alone["precision_check"][name], abs=1e-3)


def test_show_waits_for_what_it_draws(pretended_gpu, cli, images, checkpoint, tmp_path):
    """Three arrays a scale, and what it puts on the device once."""
    save_file(load_file(checkpoint) | random_weights(decoder_shapes(SIZES)), tmp_path / "d.safetensors")
    (tmp_path / "config.json").write_bytes(checkpoint.with_name("config.json").read_bytes())
    image = sorted(images.rglob("*.jpg"))[0]
    code, _, err = cli("show", image, "--ckpt", tmp_path / "d.safetensors", "-o", tmp_path / "f.png")
    assert code == 0, err
    counts = pretended_gpu.counts
    places = {line.partition(":")[0] for what, line in counts.waits if what != "to the device"}
    assert places == {f"commands/show/{name}.py" for name in ("assignments", "code_colours")}
    assert counts.of(counts.waits, "commands/show/assignments.py") == 4 * 4  # a scale
    assert counts.of(counts.waits, "commands/show/code_colours.py") == 4


@pytest.fixture
def time_on_gpu(cli, monkeypatch, images, checkpoint):
    """Run `bench` on the GPU, in this process where it is pretended."""
    monkeypatch.setattr(roofline, "MEASURE_S", 0)
    if PretendedGPU.running:  # a GPU's peak would take a CPU hours to reach
        monkeypatch.setattr(bench, "measure_peak", lambda *_: roofline.Peak(1e12, 1e12))
        threads = functools.partial(ThreadPoolExecutor, 1, initializer=PretendedGPU.enter_thread)
        monkeypatch.setattr(bench, "ProcessPoolExecutor", lambda *_: threads())
        monkeypatch.setattr(contenders, "LEAST_DECODED", 8)

    def run(*options):
        argv = ("bench", "--json", "--device", "cuda", "--ckpt", checkpoint, "--data", images, *options)
        code, out, err = cli(*argv)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.mark.usefixtures("gpu_device")
def test_bench_agrees_with_its_baseline(time_on_gpu):
    """Whose convolutions are in TF32, torch's default; from the same latents both quantise alike."""
    found = time_on_gpu("--images", 8, "--workers", 0, "--baseline", "--precision", "fp32")
    assert found["device"].startswith("cuda:0")
    errors = found["errors"]
    assert errors["tokens"] == 8 * 85 and errors["tokens_changed"] < 0.02 * errors["tokens"]
    assert 1e-5 < errors["latents"] < 0.05 and errors["entropy"] < 0.01
    assert errors["quantiser_tokens_changed"] == 0 and errors["quantiser_entropy"] < 1e-5


def test_bench_times_twice_as_many_batches_as_workers_and_waits_for_them_only(
    pretended_gpu, time_on_gpu, monkeypatch
):
    read = []
    monkeypatch.setattr(contenders, "read_batches", lambda loader: count(loader, read))
    open_here = functools.partial(contenders.open_loader, workers=0)
    monkeypatch.setattr(
        contenders, "open_loader", lambda source, plans, workers, **_: open_here(source, plans)
    )
    found = time_on_gpu("--images", 16, "--batch-size", 8, "--workers", 3, "--rounds", 3)
    assert found["repeats"] == {"decode": 3, "end to end": 3}
    # Six batches in each round of both stages, the first not timed; two to start the workers.
    assert len(read) == 6 * 2 * 4 + 2
    counts = pretended_gpu.counts
    assert counts.of(counts.copies, "streaming/reader.py") == 2 * 6 * 4  # images and groups
    assert counts.of(counts.waits, "streaming/reader.py") == 0
    synchronized = {line for what, line in counts.waits if what == "synchronize"}
    assert {line.partition(":")[0] for line in synchronized} == {"commands/bench/roofline.py"}


def count(loader, read):
    for batch in READ(loader):
        read.append(batch)
        yield batch


READ = contenders.read_batches
