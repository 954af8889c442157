"""Checkpoints that differ in one tensor from one that is read, and the tokens that are made of each."""

import random
from pathlib import Path

import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint
from entropy_cli.tokenizers.registry import match_family

# What tokens don't depend on: a mutation there must change nothing, and is left to other tests.
ASIDE = ("decoder", "post_quant_conv", "loss.", "optimizer")


def mutations(state, seed):
    """Every way of changing one tensor, by name: what is done, to which, and the state dict."""
    rng = random.Random(seed)
    for name in state:
        if name.startswith(ASIDE):
            continue
        rest = {other: tensor for other, tensor in state.items() if other != name}
        yield "drop", name, rest
        yield "rename", name, rest | {_renamed(name, rng): state[name]}
        yield "rename within", name, rest | {_renamed_within(name, rng): state[name]}
        for way, change in CHANGES.items():
            changed = change(state[name])
            if changed.shape != state[name].shape:  # else it is a legal tensor of other numbers
                yield way, name, rest | {name: changed.contiguous()}


CHANGES = {
    "transpose": lambda tensor: tensor.permute(tuple(reversed(range(tensor.dim())))),
    "swap": lambda tensor: tensor.transpose(0, 1) if tensor.dim() > 1 else tensor,
    "flatten": lambda tensor: tensor.flatten(),
    "axis before": lambda tensor: tensor[None],
    "axis after": lambda tensor: tensor[..., None],
}


def _renamed(name, rng):
    return rng.choice([f"{name}_old", f"x.{name}", f"old_{name}", name.upper(), f"{name}.0"])


def _renamed_within(name, rng):
    parts = name.split(".")
    i = rng.randrange(len(parts))
    parts[i] = str(int(parts[i]) + 7) if parts[i].isdigit() else f"{parts[i]}2"
    return ".".join(parts)


@torch.no_grad()
def tokens_of(path: Path, family, settings, pixels):
    """Indices at every scale, as the estimator makes them."""
    found = match_family(open_checkpoint(path), family, settings)
    tokenizer = found.build()
    rest_BChw, idx = tokenizer.encode(pixels), []
    for s in range(len(tokenizer.spec.scales)):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        idx.append(assign(z_BlC, tokenizer.codebook(s), [1.0]).idx_Bl)
        if s + 1 < len(tokenizer.spec.scales):
            rest_BChw = tokenizer.subtract(rest_BChw, idx[-1], s)
    return idx


def outcome(path, family, settings, pixels, expected):
    """What becomes of a mutated checkpoint: "same" tokens, "refused", or what is wrong."""
    try:
        idx = tokens_of(path, family, settings, pixels)
    except CheckpointError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - any is a fault
        return f"{type(error).__name__}: {error}"
    same = len(idx) == len(expected) and all(map(torch.equal, idx, expected))
    return "same" if same else "OTHER TOKENS"
