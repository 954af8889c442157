"""Files that are no checkpoints, damaged ones, and pickles that would run code."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.errors import CheckpointError
from entropy_cli.tokenizers import load_tokenizer


class Harmful:
    """A pickle of this would make a file when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_files_that_are_no_checkpoints(tmp_path, weights):
    torch.save(weights, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    save_file(weights, tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes(tensors[: len(tensors) // 2])
    (tmp_path / "head.safetensors").write_bytes(tensors[:100])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello, world\n")
    (tmp_path / "lfs.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    (tmp_path / "page.safetensors").write_text("<html></html>")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "numbers.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    for name, words in (
        ("gone.pth", "no such file"),
        ("", "is not a file"),
        ("cut.pth", "not a checkpoint"),
        ("lfs.safetensors", "git lfs pull"),
        ("page.safetensors", "not a checkpoint"),
        ("cut.safetensors", "damaged safetensors"),
        ("head.safetensors", "damaged safetensors"),
        ("empty.pth", "not a checkpoint"),
        ("text.pth", "not a checkpoint"),
        ("zip.pth", "not a checkpoint"),
        ("plain.pth", "not a checkpoint"),
        ("list.pth", "no tensors"),
        ("numbers.pth", "no tensors"),
    ):
        with pytest.raises(CheckpointError, match=words) as caught:
            load_tokenizer(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damage_anywhere_is_an_error_of_one_line(tmp_path):
    """A thousand small files with a byte changed or the end cut off; some of them still load."""
    torch.save({"w": torch.ones(2), "n": 3}, tmp_path / "zip.pth")
    torch.save({"w": torch.ones(2), "n": 3}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    rng = np.random.default_rng(0)
    for name in ("zip.pth", "old.pth", "x.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for i in range(333):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            if i % 3 == 0:
                damaged = damaged[: rng.integers(len(whole))]
            (tmp_path / "damaged").write_bytes(damaged)
            with pytest.raises(CheckpointError) as caught:  # never of a known layout, if it loads
                load_tokenizer(tmp_path / "damaged")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path, zipped):
    trap = tmp_path / "sprung"
    torch.save({"w": Harmful(trap)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"could run code.*open") as caught:
        load_tokenizer(tmp_path / "x.pth")
    assert "\n" not in str(caught.value) and not trap.exists()
