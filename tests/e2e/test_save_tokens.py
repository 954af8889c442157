"""`--save-tokens`: the hard tokens of the images that were read, whatever happened on the way."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from entropy_cli import load_tokenizer
from entropy_cli.core.errors import StateError
from entropy_cli.entropy.tally import Tally
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import find_images
from entropy_cli.streaming.token_file import TokenStore
from tests.conftest import PATCH_NUMS

TOKENS = sum(n * n for n in PATCH_NUMS)


def read(path):
    """Rows and the paths that they are of."""
    lines = path.with_suffix(".paths.txt").read_bytes().splitlines()
    return np.load(path), [line.decode() for line in lines]


def of_latents(tmp_path, z_MX, rule="sign", **files):
    np.save(tmp_path / "z.npy", z_MX)
    for option, array in files.items():
        np.save(tmp_path / f"{option}.npy", array)
    given = [part for option in files for part in (f"--{option}", tmp_path / f"{option}.npy")]
    channels = () if files else ("--channels", "last")
    return ("--latents", tmp_path / "z.npy", "--rule", rule, *channels, *given)


@pytest.fixture
def run(images, checkpoint):
    return ("--data", images, "--ckpt", checkpoint, "--batch-size", 4)


@pytest.fixture
def whole(estimate, run, tmp_path):
    """The tokens of an unbroken run."""
    estimate(*run, "--save-tokens", tmp_path / "whole.npy")
    return read(tmp_path / "whole.npy")


@torch.inference_mode()
def test_rows_are_the_nearest_codes_in_the_order_of_the_paths(images, checkpoint, whole, tmp_path):
    rows, paths = whole
    found = find_images(images)
    assert paths == [found.name(i) for i in range(70)]
    assert rows.shape == (70, TOKENS) and rows.dtype == np.uint8
    tokenizer = load_tokenizer(checkpoint)
    differing = 0
    for row, path in zip(rows[::7], paths[::7], strict=True):
        rest = tokenizer.encode(read_image(images / path, tokenizer.spec.crop.apply)[None])
        start = 0
        for s, n in enumerate(PATCH_NUMS):  # scale after scale
            z_lC = tokenizer.vectors(rest, s)[0].double()
            idx_l = torch.from_numpy(row[start : start + n * n].astype(np.int64))
            codes_VC = tokenizer.codebook(s).codes_VC.double()
            differing += (torch.cdist(z_lC, codes_VC).argmin(1) != idx_l).sum().item()
            if s < 3:
                rest = tokenizer.subtract(rest, idx_l[None], s)
            start += n * n
    assert differing <= 2  # of 850: what lies between two codes
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())


def test_counts_are_those_of_the_result(estimate, run, tmp_path):
    result = estimate(*run, "--save-tokens", tmp_path / "t.npy", "--limit", 37)
    rows, paths = read(tmp_path / "t.npy")
    assert len(rows) == len(paths) == 37
    start = 0
    for scale in result["scales"]:
        part = rows[:, start : start + scale["tokens"]]
        assert np.bincount(part.ravel(), minlength=48).tolist() == scale["code_counts"]
        start += scale["tokens"]


@pytest.mark.parametrize(
    "codes, dtype", [(2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")]
)
def test_the_smallest_type_that_holds_the_codes(estimate, tmp_path, codes, dtype):
    digits = (np.arange(codes)[:, None] >> np.arange(17)) % 2
    codebook = digits.astype(np.float32)
    z = codebook[[0, codes - 1, codes // 2]]
    run = of_latents(tmp_path, z, "l2", codebook=codebook)
    estimate(*run, "--temperature", 1, "--save-tokens", tmp_path / "t.npy")
    rows, paths = read(tmp_path / "t.npy")
    assert rows.dtype == np.dtype(dtype) and rows.shape == (3, 1)
    assert dict(zip(paths, rows[:, 0].tolist(), strict=True)) == {
        "0": 0,
        "1": codes - 1,
        "2": codes // 2,
    }


@pytest.mark.parametrize("bits", [8, 9, 32, 33, 62, 63])
@pytest.mark.parametrize("rule", ["sign", "bsq"])
def test_numbers_of_bits(estimate, tmp_path, rule, bits):
    """The first bit is the least significant, under bsq the most."""
    z = np.random.default_rng(bits).normal(size=(20, 3, bits))
    z[0] = 1
    result = estimate(*of_latents(tmp_path, z, rule), "--save-tokens", tmp_path / "t.npy")
    assert result["data"]["images_used"] == 20
    rows, paths = read(tmp_path / "t.npy")
    assert rows.itemsize == {8: 1, 9: 2, 32: 4}.get(bits, 8) and rows.dtype.kind == "u"
    order = range(bits) if rule == "sign" else range(bits)[::-1]
    for path, row in zip(paths, rows, strict=True):
        for token, number in enumerate(row.tolist()):
            positive = z[int(path), token] > 0
            assert number == sum(int(positive[c]) << place for place, c in enumerate(order))
    assert rows.max() == 2**bits - 1


def test_too_many_codes_are_refused_before_the_work(estimate, tmp_path, monkeypatch):
    monkeypatch.setattr(Tally, "add", None)
    run = of_latents(tmp_path, np.ones((20, 3, 64)))
    code, err = estimate(*run, "--save-tokens", tmp_path / "t.npy")
    assert code == 3 and "codes can't be numbered" in err.splitlines()[-1]
    assert not (tmp_path / "t.npy").exists()


def test_unreadable_images_have_no_row(estimate, images, checkpoint, whole, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    rows, paths = whole
    bad = paths[5], paths[41]
    for path in bad:
        size = (tmp_path / "data" / path).stat().st_size
        (tmp_path / "data" / path).write_bytes(bytes(size))
    estimate("--data", tmp_path / "data", "--ckpt", checkpoint, "--save-tokens", tmp_path / "t.npy")
    found, names = read(tmp_path / "t.npy")
    assert names == [path for path in paths if path not in bad]
    # Batches of other sizes round differently.
    assert (found != np.delete(rows, [5, 41], 0)).mean() < 0.01


def test_shards_together_are_the_whole(estimate, run, whole, tmp_path):
    got = {}
    for i in range(7):  # the last two have no block
        path = tmp_path / f"t{i}.npy"
        estimate_options = (*run, "--shard", f"{i}/7", "--state", tmp_path / f"s{i}")
        try:
            estimate(*estimate_options, "--save-tokens", path)
        except ValueError:  # no JSON of a shard without images
            assert i >= 5
        rows, paths = read(path)
        assert rows.shape == (len(paths), TOKENS) and rows.dtype == np.uint8
        assert bool(paths) == (i < 5)
        got |= dict(zip(paths, rows.tolist(), strict=True))
    assert got == dict(zip(whole[1], whole[0].tolist(), strict=True))


def test_a_stop_at_the_target_keeps_the_rows_read(estimate, tmp_path):
    z = np.random.default_rng(0).normal(size=(3000, 2, 4))
    run = of_latents(tmp_path, z)
    result = estimate(*run, "--target-ci", 0.1, "--save-tokens", tmp_path / "t.npy")
    rows, paths = read(tmp_path / "t.npy")
    assert result["target_reached"] is True
    assert len(rows) == len(paths) == result["data"]["images_used"] < 3000
    wanted = (z[[int(path) for path in paths]] > 0) @ (1 << np.arange(4))
    assert (rows == wanted).all()


def interrupt_at(monkeypatch, number):
    seen, add_images = [], Tally.add

    def add(self, *args):
        add_images(self, *args)
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Tally, "add", add)


def resumable(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_interrupted_and_gone_on_with(estimate, run, whole, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 3)
    tokens = ("--save-tokens", tmp_path / "t.npy")
    assert estimate(*run, *tokens)[0] == 143
    assert not (tmp_path / "t.npy").exists() and not (tmp_path / "t.paths.txt").exists()
    resumable(monkeypatch, tmp_path)
    assert 0 < estimate(*run, *tokens)["provenance"]["images_resumed"] < 70
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())


def test_a_run_with_a_part_that_kept_no_tokens_is_refused(estimate, run, tmp_path, monkeypatch):
    state, tokens = ("--state", tmp_path / "s"), ("--save-tokens", tmp_path / "t.npy")
    interrupt_at(monkeypatch, 2)
    assert estimate(*run, *state)[0] == 143
    resumable(monkeypatch, tmp_path)
    code, err = estimate(*run, *state, *tokens)
    assert code == 3 and "did not keep its tokens" in err.splitlines()[-1]
    assert estimate(*run, *state)["data"]["images_used"] == 70


def test_a_part_without_tokens_between_parts_with_them_leaves_no_gap(
    estimate, run, tmp_path, monkeypatch
):
    state, tokens = ("--state", tmp_path / "s"), ("--save-tokens", tmp_path / "t.npy")
    for options in (tokens, ()):
        interrupt_at(monkeypatch, 2)
        assert estimate(*run, *state, *options)[0] == 143
        resumable(monkeypatch, tmp_path)
    code, err = estimate(*run, *state, *tokens)
    assert code == 3 and "did not keep its tokens" in err.splitlines()[-1]


def test_a_kept_state_gives_the_same_file_again(estimate, run, whole, tmp_path):
    state = ("--state", tmp_path / "s")
    estimate(*run, *state, "--save-tokens", tmp_path / "t.npy")
    first = (tmp_path / "t.npy").read_bytes()
    assert first == (tmp_path / "whole.npy").read_bytes()
    estimate(*run, *state)  # asking for the result alone costs the tokens nothing
    (tmp_path / "t.npy").unlink()
    result = estimate(*run, *state, "--save-tokens", tmp_path / "again.npy")
    assert result["provenance"]["images_resumed"] == 70
    assert (tmp_path / "again.npy").read_bytes() == first


def test_where_it_can_not_be_written(estimate, cli, run, tmp_path):
    code, err = estimate(*run, "--save-tokens", tmp_path / "none" / "t.npy")
    assert code == 3 and "there is no folder" in err.splitlines()[-1]
    (tmp_path / "folder.npy").mkdir()
    code, err = estimate(*run, "--save-tokens", tmp_path / "folder.npy")
    assert code == 3 and "is a folder" in err.splitlines()[-1]
    (tmp_path / "t.paths.txt").mkdir()
    code, err = estimate(*run, "--save-tokens", tmp_path / "t.npy")
    assert code == 3 and "is a folder" in err.splitlines()[-1]
    for name in ("t.npz", "t", "npy"):
        code, _, err = cli("estimate", *run, "--save-tokens", tmp_path / name)
        assert code == 2 and "expected FILE.npy" in err.splitlines()[-1]


def test_a_full_disk_is_one_line_and_the_run_can_go_on(estimate, run, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("os.pwrite", lambda *_: 3)  # bytes of the row
    tokens = ("--save-tokens", tmp_path / "t.npy")
    code, err = estimate(*run, *tokens)
    assert code == 3 and "No space left" in err.splitlines()[-1]
    resumable(monkeypatch, tmp_path)
    assert "data" in estimate(*run, *tokens)
    assert (tmp_path / "t.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_any_name_is_one_line(estimate, images, checkpoint, tmp_path):
    sources = sorted(images.rglob("*.jpg"))[:5]
    names = [b"a\nb.jpg", b"a\\nb.jpg", b"\xff.jpg", b"c\rd.jpg", "\u2028.jpg".encode()]
    (tmp_path / "data").mkdir()
    for source, name in zip(sources, names, strict=True):
        shutil.copy(source, os.fsencode(tmp_path / "data") + b"/" + name)
    estimate("--data", tmp_path / "data", "--ckpt", checkpoint, "--save-tokens", tmp_path / "t.npy")
    lines = (tmp_path / "t.paths.txt").read_bytes().split(b"\n")
    assert lines.pop() == b"" and len(lines) == 5 == len(np.load(tmp_path / "t.npy"))
    escaped = {b"a\\nb.jpg", b"a\\\\nb.jpg", b"\xff.jpg", b"c\\rd.jpg", "\u2028.jpg".encode()}
    assert set(lines) == escaped


def test_a_store_that_was_cut_off_is_an_error_and_no_row_of_zeros(tmp_path):
    store = TokenStore(tmp_path / "s", 4, 3, 256)
    store.create(resumed=False)
    store.open()
    store.write([0, 1, 2], torch.tensor([[1, 2, 3]] * 3))
    store.deliver(tmp_path / "t.npy", [0, 2], ["a", "b"])
    assert np.load(tmp_path / "t.npy").tolist() == [[1, 2, 3]] * 2
    os.truncate(store.path, 5)
    store.write([2], torch.tensor([[1, 2, 3]]))  # grows again, with zeros between
    with pytest.raises(StateError, match="lacks tokens"):
        store.deliver(tmp_path / "t.npy", [0, 1, 2], ["a", "b", "c"])
    store.close()
