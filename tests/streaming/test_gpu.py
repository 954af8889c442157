"""The loop on a GPU, pretended or real, where something goes wrong."""

import pytest
import torch

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.streaming.progress import Progress
from entropy_cli.tokenizers.families.var import VARTokenizer


def test_out_of_memory_halves_what_is_done_at_once(run, gpu_device, monkeypatch):
    whole = run(Progress.start(5), range(5), 2)
    encode, tried = VARTokenizer.encode, []

    def full(self, img_B3HW):
        tried.append(len(img_B3HW))
        if len(img_B3HW) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", full)
    halved = run(Progress.start(5), range(5), 16, device=gpu_device)
    assert tried[:3] == [16, 8, 4] and set(tried[3:]) <= {4, 2}
    one, other = (progress.tally.to("cpu").entropy_GST for progress in (whole, halved))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at", [3, 18])
def test_latents_that_are_not_finite_are_found_late_and_not_saved(run, gpu_device, monkeypatch, at):
    """With the next batch, or at the end; block 4 holds the last two."""
    encode, calls, saved = VARTokenizer.encode, [], []

    def breaks(self, img_B3HW):
        calls.append(1)
        return encode(self, img_B3HW) * (torch.nan if len(calls) == at else 1)

    monkeypatch.setattr(VARTokenizer, "encode", breaks)
    hooks = {"save": lambda progress: saved.append(progress.images), "save_every_s": 0}
    with pytest.raises(EntropyCliError, match=r"shapes_\d+\.jpg: its latents at scale 0 .* NaN"):
        run(Progress.start(5), range(5), 4, device=gpu_device, **hooks)
    assert all(images % 16 == 0 for images in saved) and (saved[-1:] == [64]) == (at == 18)
