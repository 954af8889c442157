"""Very small trainings: their options, and the contents of their folders."""

import json

import torch
from safetensors.torch import load_file

SMALL = (
    *("--image-size", "16", "--patch-nums", "1,2,4", "--width", "32", "--width-mult", "1,1,1"),
    *("--latent-dim", "4", "--vocab-size", "24", "--batch-size", "8", "--warmup", "2"),
    *("--workers", "0", "--device", "cpu"),
)
TIMES = ("images_per_s",)  # that no two trainings share


def entries(out):
    """Return the lines of metrics.jsonl without timings, in their order."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def steps(out):
    """Return the lines of steps, without those of evaluations."""
    return [entry for entry in entries(out) if "loss" in entry]


def weights(out):
    """Return the weights of the tokenizer."""
    return load_file(out / "model.safetensors")


def same_weights(one, other):
    """Return whether two folders hold bitwise equal tokenizers."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last_line(err):
    """Return the last line of stderr, the error if there is one; progress bars rewrite their lines."""
    return err.replace("\r", "\n").strip().splitlines()[-1]
