"""Very small trainings: their options, and what they left in their folders."""

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
    """Lines of metrics.jsonl without what is about time, in their order."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def steps(out):
    """Those of steps, without those of evaluations."""
    return [entry for entry in entries(out) if "loss" in entry]


def weights(out):
    """Of the tokenizer."""
    return load_file(out / "model.safetensors")


def same_weights(one, other):
    """Whether two folders hold the same tokenizer, bit by bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def last_line(err):
    """Of stderr: the error, if there is one; progress bars rewrite their lines."""
    return err.replace("\r", "\n").strip().splitlines()[-1]
