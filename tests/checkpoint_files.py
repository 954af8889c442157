"""Small files for the tests that open checkpoints."""

import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def layout(start=0.0, prefix=""):
    """A state dict with the anchor that tells a tokenizer, a name with many dots, and a buffer."""
    shapes = {"encoder.conv_in.weight": (2, 3), "quantize.embedding.weight": (4, 2), "norm.mean": (3,)}
    return {
        prefix + name: torch.arange(float(torch.Size(shape).numel())).reshape(shape) + start
        for name, shape in shapes.items()
    }


def averaged(weights, prefix="", buffers=("norm.mean",)):
    """Lightning's averaged copies of weights, 100 more than they are."""
    names = {name: name.removeprefix(prefix) for name in weights}
    copies = {
        f"{prefix}model_ema.{short.replace('.', '')}": weights[name] + 100
        for name, short in names.items()
        if short not in buffers
    }
    bookkeeping = {"decay": torch.tensor(0.999), "num_updates": torch.tensor(7)}
    return {**copies, **{f"{prefix}model_ema.{name}": value for name, value in bookkeeping.items()}}


def saved(tmp_path, content, name="x.pth", zipped=True):  # noqa: FBT002
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    return tmp_path / name


def holds(checkpoint, weights):
    """Whether a checkpoint gives exactly these tensors."""
    return checkpoint.shapes.keys() == weights.keys() and all(
        torch.equal(checkpoint.tensor(name), weight.float()) and checkpoint.shapes[name] == weight.shape
        for name, weight in weights.items()
    )


def refused(path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
