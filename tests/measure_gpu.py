"""What needs a real GPU, in one pass: its tests, speeds by precision, eager and compiled, and a profile.

Run by `make gpu`; `make gpu DEVICE=cpu` tries it with small sizes. What it prints is the summary.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import typer
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile

from entropy_cli.cli import main
from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.commands.bench.roofline import time_call
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.precision import matmul_precision
from entropy_cli.tokenizers.registry import load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings

DEVICE = torch.device(os.environ.get("DEVICE") or "cuda")
GPU = DEVICE.type == "cuda"
SIDE, WIDTH, CODES, BATCH = (256, 160, 4096, 64) if GPU else (64, 32, 256, 8)
GRIDS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16) if GPU else (1, 2, 4)
PRECISIONS = ("fp16", "bf16", "tf32") if GPU else ("fp32",)
IMAGES, CALLS = (2048, 20) if GPU else (48, 2)
STEADY = 0.45, 0.95  # of the time between first and last kernel: the check of the precision is before


def tests():
    """Run the tests that need a GPU."""
    tested = ["tests"] if GPU else ["tests/streaming/test_gpu.py"]
    argv = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *tested]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join([*failed, done.stdout.strip().splitlines()[-1]])


def benches(precision):
    """Time the stages beside the plain loop."""
    sizes = ("--width", WIDTH, "--vocab-size", CODES, "--image-size", SIDE)
    argv = ("bench", "--baseline", "--device", DEVICE, "--precision", precision, *sizes)
    return run(*argv, "--patch-nums", ",".join(map(str, GRIDS)))


def encoders(checkpoint, precision):
    """Time the encoder as it is and compiled, and how far apart their latents are."""
    generator = torch.Generator().manual_seed(0)
    img_B3HW = torch.randint(256, (BATCH, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    img_B3HW = img_B3HW.contiguous(memory_format=torch.channels_last).to(DEVICE)
    lines, latents = [], []
    for name in ("eager", "compiled"):
        tokenizer = load_tokenizer(checkpoint, settings=TokenizerSettings(SIDE, GRIDS)).tokenizer
        tokenizer = tokenizer.to(DEVICE, precision)
        if name == "compiled":
            network = tokenizer.network
            backend = "inductor" if GPU else "eager"  # a CPU's compiler takes minutes
            network.encoder = torch.compile(network.encoder, dynamic=False, backend=backend)
        first = time_call(lambda: latents.append(tokenizer.encode(img_B3HW)), DEVICE)  # noqa: B023
        tokenizer.encode(img_B3HW)
        taken = min(time_call(lambda: tokenizer.encode(img_B3HW), DEVICE) for _ in range(CALLS))  # noqa: B023
        lines.append(f"{name:9s}{BATCH / taken:8.0f} images/s, first call {first:.1f} s")
    error = ((latents[1] - latents[0]).norm() / latents[0].norm()).item()
    return "\n".join([*lines, f"latents differ by {error:.1e} of their size"])


def profiled(checkpoint, folder):
    """Estimate under torch's profiler: how busy the device is, and with what."""
    grids = ",".join(map(str, GRIDS))
    argv = ("estimate", "--data", folder, "--ckpt", checkpoint, "--image-size", SIDE)
    argv += ("--patch-nums", grids, "--temperature", 1, "--device", DEVICE)
    run(*argv, "--limit", 2 * BATCH)  # kernels are loaded
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]
    start = time.perf_counter()
    with profile(activities=activities) as seen:
        run(*argv, "--seed", 1)
    seconds = time.perf_counter() - start
    kind = torch.autograd.DeviceType.CUDA if GPU else torch.autograd.DeviceType.CPU
    spans = sorted(
        (event.start_ns(), event.end_ns(), event.name())
        for event in seen.profiler.kineto_results.events()
        if event.device_type() == kind
    )
    first, last = spans[0][0], max(end for _, end, _ in spans)
    begin, until = (first + share * (last - first) for share in STEADY)
    busy, reached, by_name = 0.0, begin, Counter()
    for start, end, name in spans:
        inside = max(0.0, min(end, until) - max(start, begin))
        busy += max(0.0, min(end, until) - max(start, reached))
        reached = max(reached, min(end, until))
        by_name[name[:70]] += inside / (until - begin)
    lines = [f"{share:6.1%}  {name}" for name, share in by_name.most_common(12)]
    head = f"{IMAGES / seconds:.0f} images/s with the profiler and the start; device busy"
    return "\n".join([f"{head} {busy / (until - begin):.1%} of the steady part, with", *lines])


def run(*argv):
    """Run a command in this process; gives what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([str(part) for part in argv])
    if code:
        raise RuntimeError(f"{argv[0]} ended with code {code}")
    return out.getvalue()


def measure():
    """Run all steps; gives the number of those that failed."""
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, folder = Path(scratch) / "var.safetensors", Path(scratch) / "images"
        save_file(random_weights(VARSizes(width=WIDTH, vocab_size=CODES), 0), checkpoint)
        write_image_folder(folder, IMAGES, SIDE * 3 // 2, 0, lambda _: None)
        steps = [("tests", tests)]
        steps += [(f"bench {p}", lambda p=p: benches(p)) for p in PRECISIONS]
        steps += [(f"encoder {p}", lambda p=p: encoders(checkpoint, p)) for p in PRECISIONS]
        steps += [("profile", lambda: profiled(checkpoint, folder))]
        for name, step in steps:
            start = time.perf_counter()
            try:
                with torch.inference_mode(), matmul_precision(tf32=False):
                    found = step()
            except Exception as error:  # noqa: BLE001 - the other steps tell something all the same
                failures += 1
                found = f"failed: {type(error).__name__}: {error}"
            typer.echo(f"== {name} ({time.perf_counter() - start:.0f} s)\n{found.strip()}\n")
    return failures


if __name__ == "__main__":
    if GPU and not torch.cuda.is_available():
        sys.exit("there is no CUDA device; DEVICE=cpu tries this with small sizes")
    sys.exit(measure() and 1)
