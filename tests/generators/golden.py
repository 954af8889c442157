"""The golden fixtures of generators, and their losses for given tokens in plain float64."""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from entropy_cli.generators.base import Generator
from entropy_cli.generators.registry import find_generator
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint

FILES = {
    "var_d4": "var_d4.pth",
    "var_saln": "ar-ckpt-last.pth",
    "llamagen_gpt": "0000300.pt",
}


@dataclass
class Golden:
    """A fixture: its generator, tokens and labels, and what is expected of them."""

    generator: Generator
    checkpoint: Checkpoint
    expected: dict
    values: dict

    @property
    def idx_BL(self):
        return self.values["idx"].long()

    @property
    def label_B(self):
        return self.values["label"].long()

    @property
    def null_B(self):
        return torch.full_like(self.label_B, self.generator.spec.null_class)

    @property
    def inputs_BMC(self):
        return self.values["model_input"].float() if "model_input" in self.values else None


def golden_generator(shared, name, settings=None):
    folder = shared / "golden" / "generators" / name
    found = find_generator(folder / FILES[name], settings=settings)
    expected = json.loads((folder / "expected.json").read_text())
    values = load_file(folder / "expected.safetensors")
    return Golden(found.build(), found.checkpoint, expected, values)


@torch.no_grad()
def logits_of(generator, idx_BL, label_B, inputs_BMC):
    """All logits at once, (B, L, V) float32."""
    hidden_BLC = generator.hidden(idx_BL, label_B, inputs_BMC)
    assert hidden_BLC.dtype == torch.float32 and hidden_BLC.shape[:2] == idx_BL.shape
    logits_NV = generator.logits(hidden_BLC.flatten(0, 1))
    assert logits_NV.dtype == torch.float32
    return logits_NV.unflatten(0, idx_BL.shape)


def losses(logits_BLV, idx_BL):
    """The loss of each token, how many codes are likelier (of equal ones the lower), and the entropy."""
    log_p = logits_BLV.double().log_softmax(-1)
    nll = -log_p.gather(-1, idx_BL[..., None])[..., 0]
    own = logits_BLV.gather(-1, idx_BL[..., None])
    lower = torch.arange(logits_BLV.shape[-1]) < idx_BL[..., None]
    rank = ((logits_BLV > own) | ((logits_BLV == own) & lower)).sum(-1)
    return nll, rank, -(log_p.exp() * log_p).sum(-1)
