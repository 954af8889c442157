"""Files of latents are read in parts: what a run needs of memory does not depend on their size."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.arrays import open_arrays
from tests.memory import added_memory_kb

ROWS, TOKENS = 24_000, 4_000  # of four float32: 1.5 GB


def write_hole(path, rows, tokens):
    """Latents that are all zero, of which nothing is written."""
    shape, size = (rows, tokens, 4), 16 * rows * tokens
    with path.open("wb") as file:
        if path.suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        else:
            text = json.dumps(
                {"z": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
            ).encode()
            file.write(struct.pack("<Q", len(text)) + text)
        try:
            file.truncate(file.tell() + size)
        except OSError:
            pytest.skip("the file system has no sparse files of this size")


@pytest.mark.parametrize("name", ["z.npy", "z.safetensors"])
def test_a_large_file_needs_little_memory(tmp_path, name):
    """Only the rows that are used are read."""
    codes = tmp_path / "codes.npy"
    np.save(codes, np.eye(5, 4, dtype=np.float32))
    write_hole(tmp_path / name, ROWS, TOKENS)
    argv = ["estimate", "--latents", tmp_path / name, "--codebook", codes, "--limit", 64]
    argv += ["--temperature", 1]
    argv += ["--workers", 0, "-o", tmp_path / "r.json"]
    assert added_memory_kb(tmp_path, "estimate", *argv) < 150_000
    assert json.loads((tmp_path / "r.json").read_text())["data"]["images_found"] == ROWS


@pytest.mark.parametrize("name", ["z.npz", "zip.pt"])
def test_archives_are_read_in_parts(tmp_path, name):
    z = torch.zeros(100_000, 160)  # 64 MB
    np.savez(tmp_path / "z.npz", z=z.numpy()) if name == "z.npz" else torch.save(z, tmp_path / name)
    code = (
        "import resource, sys; from entropy_cli.tokenizers.checkpoints.arrays import open_arrays\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "(z,) = open_arrays(sys.argv[1]).tensors.values()\n"
        "assert z.shape == (100_000, 160)\n"
        "assert all(z.read(slice(i, i + 1)).sum() == 0 for i in range(0, 100_000, 1000))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    argv = [sys.executable, "-c", code, tmp_path / name]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30_000  # kB


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_file_larger_than_the_memory_is_read_in_parts(tmp_path, suffix):
    path, rows = tmp_path / f"z{suffix}", 10**9  # 4 TB
    write_hole(path, rows, 256)
    (z,) = open_arrays(str(path)).tensors.values()
    assert z.shape == (rows, 256, 4) and z.read(slice(rows // 2, rows // 2 + 1)).abs().sum() == 0
    with pytest.raises(CheckpointError, match="has no tensor b"):
        open_arrays(f"{path}:b")
