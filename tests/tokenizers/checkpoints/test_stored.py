"""A tensor in a file is read whole or in part, in any layout, and what is damaged is refused."""

import zipfile

import numpy as np
import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints import zips
from entropy_cli.tokenizers.checkpoints.arrays import open_array
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint

ARRAY = np.random.default_rng(0).normal(size=(7, 5, 3)).astype("f4")


def saved(folder, layout):
    path = folder / "x"
    if layout == "npz":
        np.savez(folder / "x.npz", a=ARRAY)
        return folder / "x.npz"
    if layout == "packed npz":
        np.savez_compressed(folder / "x.npz", a=ARRAY)
        return folder / "x.npz"
    if layout in ("C", "Fortran", "swapped"):
        array = {"C": ARRAY, "Fortran": np.asfortranarray(ARRAY), "swapped": ARRAY.astype(">f4")}[layout]
        np.save(folder / "x.npy", array)
        return folder / "x.npy"
    tensor = torch.from_numpy(ARRAY)
    if layout == "strided":  # every second number of a larger storage
        tensor = torch.stack([tensor, torch.zeros_like(tensor)], -1)[..., 0]
    if layout == "permuted":
        tensor = tensor.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    torch.save(tensor, path, _use_new_zipfile_serialization=layout != "legacy")
    return path


LAYOUTS = ["npz", "packed npz", "C", "Fortran", "swapped", "torch", "legacy", "strided", "permuted"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_those_of_the_whole(tmp_path, layout):
    array = open_array(str(saved(tmp_path, layout)), "floating-point numbers")
    assert array.shape == ARRAY.shape and array.dtype == torch.float32
    assert np.array_equal(array.read().numpy(), ARRAY)
    for index in (
        (slice(2, 4),),
        (slice(6, 9), slice(1, 3)),
        (slice(3, 3),),
        (slice(None), slice(4, 5)),
    ):
        assert np.array_equal(array.read(*index).numpy(), ARRAY[index])


def flipped(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_bit_in_an_npz_is_found(tmp_path):
    path = saved(tmp_path, "npz")
    flipped(path, path.read_bytes().find(ARRAY.tobytes()) + 9)
    with pytest.raises(CheckpointError, match="damaged"):
        open_array(str(path), "floating-point numbers")


@pytest.mark.parametrize("record", [0, 1])
def test_a_flipped_bit_in_a_checkpoint_is_found_by_the_pass_that_hashes(tmp_path, record, monkeypatch):
    monkeypatch.setattr("entropy_cli.core.reading.PIECE_BYTES", 37)  # records across many pieces
    tensors = {"a": torch.arange(99.0), "b": torch.arange(100.0, 300.0)}
    path = tmp_path / "x.pth"
    torch.save(tensors, path)
    whole = open_checkpoint(path)
    assert len(whole.sha256()) == 64
    content = tensors["ab"[record]].numpy().tobytes()
    flipped(path, path.read_bytes().find(content) + 50)
    with pytest.raises(CheckpointError, match=f"data/{record} is damaged"):
        open_checkpoint(path).sha256()
    with pytest.raises(CheckpointError, match="can't be used"):
        whole.sha256()


def test_the_hash_is_of_the_weights_that_were_read(tmp_path):
    path, other = tmp_path / "x.pth", tmp_path / "y.pth"
    torch.save({"a": torch.zeros(9)}, path)
    torch.save({"a": torch.ones(9)}, other)
    before = open_checkpoint(path).sha256()
    checkpoint = open_checkpoint(path)
    other.replace(path)
    assert checkpoint.tensor("a").sum() == 0 and checkpoint.sha256() == before


def test_a_zip_whose_record_is_said_to_lie_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=ARRAY)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[0]
    at = content.rfind(b"PK\1\2") + 20  # the sizes in the directory
    longer = (info.compress_size + 10**6).to_bytes(4, "little") * 2
    path.write_bytes(content[:at] + longer + content[at + 8 :])
    with pytest.raises(CheckpointError):
        open_array(str(path), "floating-point numbers").read()


@pytest.mark.parametrize("layout", ["packed npz", "torch"])
def test_compressed_records_take_little_more_memory_than_their_file(tmp_path, monkeypatch, layout):
    path = saved(tmp_path, layout)
    with (
        zipfile.ZipFile(path) as plain,
        zipfile.ZipFile(tmp_path / "y", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    spare = sum(info.file_size for info in packed.infolist()) - (tmp_path / "y").stat().st_size
    for fewer in (0, 1):
        monkeypatch.setattr(zips, "MOST_UNPACKED", spare - fewer)
        if not fewer:
            array = open_array(str(tmp_path / "y"), "floating-point numbers")
            assert np.array_equal(array.read().numpy(), ARRAY)
            continue
        with pytest.raises(CheckpointError, match=r"compressed records take .* without compression"):
            open_array(str(tmp_path / "y"), "floating-point numbers")


def test_a_record_that_is_longer_than_it_says_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.zeros((100, 5), "f4"))
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2") + 24
    size = int.from_bytes(content[at : at + 4], "little")
    content[at : at + 4] = (size - 400).to_bytes(4, "little")
    path.write_bytes(content.replace(b"(100, 5)", b"(80, 5) "))
    with pytest.raises(CheckpointError):
        open_array(str(path), "floating-point numbers").read()
