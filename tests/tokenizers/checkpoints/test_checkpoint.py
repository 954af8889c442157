"""Files that are no checkpoints, damaged ones, and good ones: their types, shards and folders."""

import hashlib
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint
from entropy_cli.tokenizers.registry import load_tokenizer
from tests.checkpoint_files import ZIPPED, holds, layout, refused, saved


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
    (tmp_path / "old.tar").write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 512)
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("a.txt", "a")
    for name, words in (
        ("gone.pth", "no such file"),
        ("", "expected one checkpoint"),
        ("pipe", "is not a file"),
        ("cut.pth", "not a checkpoint"),
        ("lfs.safetensors", "git lfs pull"),
        ("page.safetensors", "not a checkpoint, but a page of HTML"),
        ("cut.safetensors", "damaged safetensors"),
        ("head.safetensors", "damaged safetensors"),
        ("empty.pth", "not a checkpoint, but an empty file"),
        ("text.pth", "not a checkpoint, but a text, 'hello, world'"),
        ("zip.pth", "not a checkpoint"),
        ("plain.pth", "not a checkpoint"),
        ("old.tar", "is a tar archive"),
        ("list.pth", "no tensors by name: got no dict"),
        ("numbers.pth", "no tensors by name: got a dict with keys a"),
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


@ZIPPED
def test_what_loads_in_spite_of_damage_can_be_asked_for_anything(tmp_path, zipped):
    path = saved(tmp_path, {"w": torch.ones(2, 2), "n": 3}, zipped=zipped)
    whole, rng, loaded = path.read_bytes(), np.random.default_rng(1), 0
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            checkpoint = open_checkpoint(path)
            loaded += 1
            for name in checkpoint.shapes:
                assert checkpoint.tensor(name).shape == checkpoint.shapes[name]
        except CheckpointError as error:
            assert "\n" not in str(error)
    assert 0 < loaded < 500


@ZIPPED
def test_a_file_cut_off_anywhere_is_refused(tmp_path, zipped):
    path = saved(tmp_path, layout(), zipped=zipped)
    whole = path.read_bytes()
    for end in [*range(0, len(whole), max(1, len(whole) // 150)), len(whole) - 1]:
        path.write_bytes(whole[:end])
        refused(path, "not a checkpoint")


def test_names_of_files_tell_nothing(tmp_path):
    path = saved(tmp_path, layout(), "torch.safetensors")
    assert holds(open_checkpoint(path), layout())
    save_file(layout(), tmp_path / "safetensors.pth")
    assert holds(open_checkpoint(tmp_path / "safetensors.pth"), layout())


def test_a_repacked_archive_reads_the_same(tmp_path):
    path = saved(tmp_path, layout())
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert holds(open_checkpoint(tmp_path / "y.pth"), layout())


@ZIPPED
def test_views_parameters_and_empty_tensors(tmp_path, zipped):
    base = torch.arange(24.0).reshape(4, 6)
    tied = torch.nn.Parameter(torch.ones(2, 3))
    weights = {
        "t": base.t(),
        "row": base[2],
        "part": base[1:3, ::2],
        "wide": torch.ones(1).expand(5),
        "none": torch.empty(0, 3),
        "number": torch.tensor(3.0),
        "tied": tied,
        "tied_too": tied,
        "double": torch.ones(3, dtype=torch.float64) / 3,
    }
    assert holds(open_checkpoint(saved(tmp_path, weights, zipped=zipped)), weights)
    # Of a type without a storage of its own, whose bytes lie in an untyped one.
    part = {"part": torch.arange(12, dtype=torch.int64).to(torch.uint16)[5:9]}
    path = saved(tmp_path, part, zipped=zipped)
    assert open_checkpoint(path).integers("part").tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_types_and_what_each_can_be_asked_for(tmp_path, form):
    tensors = {
        "half": torch.tensor([1.5, -2.0]).half(),
        "brain": torch.tensor([1.5, -3.0]).bfloat16(),
        "double": torch.tensor([0.1], dtype=torch.float64),
        "long": torch.tensor([2**40, -1]),
        "byte": torch.tensor([255], dtype=torch.uint8),
        "flag": torch.tensor([True]),
    }
    if form == "safetensors":
        save_file(tensors, tmp_path / "x")
    else:
        saved(tmp_path, tensors, "x", zipped=form == "zip")
    checkpoint = open_checkpoint(tmp_path / "x")
    assert checkpoint.dtypes == {k: str(v.dtype).removeprefix("torch.") for k, v in tensors.items()}
    for name in ("half", "brain", "double"):
        assert torch.equal(checkpoint.tensor(name), tensors[name].float())
        with pytest.raises(
            CheckpointError, match=f"{name} is a plain tensor .* expected plain integers"
        ):
            checkpoint.integers(name)
    for name in ("long", "byte"):
        assert torch.equal(checkpoint.integers(name), tensors[name].long())
        assert checkpoint.integers(name).dtype == torch.int64
    for name in ("long", "flag"):
        with pytest.raises(CheckpointError, match=f"{name} is .*int64|bool, expected plain floating"):
            checkpoint.tensor(name)
    with pytest.raises(CheckpointError, match="no such tensor"):
        checkpoint.tensor("other")
    checkpoint.close()
    with pytest.raises(CheckpointError, match="closed"):
        checkpoint.tensor("half")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_integers_beyond_int64_are_not_wrapped(tmp_path, form):
    codes = np.array([0, 2**64 - 1, 5], np.uint64)
    tensors = {"used": torch.from_numpy(codes), "fine": torch.from_numpy(codes[:1])}
    if form == "safetensors":
        save_file(tensors, tmp_path / "x")
    else:
        saved(tmp_path, tensors, "x", zipped=form == "zip")
    checkpoint = open_checkpoint(tmp_path / "x")
    assert checkpoint.integers("fine").tolist() == [0]
    with pytest.raises(CheckpointError, match="used holds 18446744073709551615"):
        checkpoint.integers("used")


def test_tensors_that_are_not_plain_are_refused_when_asked_for(tmp_path):
    tensors = {
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "complex": torch.ones(2, dtype=torch.complex64),
        "w": torch.ones(2),
    }
    checkpoint = open_checkpoint(saved(tmp_path, tensors))
    assert checkpoint.shapes == {"sparse": (3, 3), "meta": (2,), "complex": (2,), "w": (2,)}
    assert checkpoint.classes == ()
    for name in ("sparse", "meta", "complex"):
        with pytest.raises(CheckpointError, match=f"{name} is a .*, expected plain floating-point"):
            checkpoint.tensor(name)


def test_a_tensor_is_a_copy(tmp_path):
    save_file(layout(), tmp_path / "x.safetensors")
    for path in (tmp_path / "x.safetensors", saved(tmp_path, layout())):
        checkpoint = open_checkpoint(path)
        checkpoint.tensor("norm.mean").zero_()
        assert holds(checkpoint, layout())


@pytest.fixture(params=["safetensors", "bin"])
def shards(request, tmp_path):
    """A folder with an index and two files."""
    kind = request.param
    stem = "model" if kind == "safetensors" else "pytorch_model"
    files = [f"{stem}-{i:05}-of-00002.{kind}" for i in (1, 2)]
    parts = [dict(list(layout().items())[:2]), dict(list(layout().items())[2:])]
    for file, part in zip(files, parts, strict=True):
        (save_file if kind == "safetensors" else torch.save)(part, tmp_path / file)
    index = tmp_path / f"{stem}.{kind}.index.json"
    # The order of the index is not that of the files.
    names = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(reversed(names.items()))}))
    return index, [tmp_path / file for file in files]


def test_shards_by_every_way_to_name_them(shards):
    index, files = shards
    for path in (index, *files, index.parent):
        checkpoint = open_checkpoint(path)
        assert holds(checkpoint, layout()) and checkpoint.path == path
        assert checkpoint.files == tuple(files) and checkpoint.folder == index.parent
        assert checkpoint.size == sum(len(file.read_bytes()) for file in files)
        read = []
        whole = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        assert checkpoint.sha256(read.append) == whole and sum(read) == checkpoint.size
    index.unlink()
    assert open_checkpoint(files[0]).files == (files[0],)


def test_shards_that_do_not_fit_their_index(shards):
    index, files = shards
    good = json.loads(index.read_text())["weight_map"]
    for name, words in (
        ("../x.bin", "expected files in its own folder"),
        ("/etc/passwd", "expected files in its own folder"),
        ("a/../../x.bin", "expected files in its own folder"),
        ("..\\x.bin", "expected files in its own folder"),
        ("", "expected files in its own folder"),
        ("gone.bin", "gone.bin is missing, one of 3 shards"),
    ):
        index.write_text(json.dumps({"weight_map": {**good, "more": name}}))
        refused(index, words)
    index.write_text(json.dumps({"weight_map": {**good, "more": files[0].name}}))
    refused(index, f"{files[0].name} lacks more, which the index says it has")
    for content in ("{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000):
        index.write_text(content)
        refused(index, "JSON|no weight_map")


def test_folders(tmp_path):
    def folder(*names):
        made = tmp_path / str(len(list(tmp_path.iterdir())))
        made.mkdir()
        for name in names:
            (made / name).parent.mkdir(exist_ok=True)
            if name.endswith(".json"):
                (made / name).write_text('{"_class_name": "VQModel"}')
            else:
                save_file(layout(len(name)), made / name)
        return made

    usual = [
        "diffusion_pytorch_model.safetensors",
        "model.safetensors",
        "pytorch_model.bin",
        "model.bin",
        "consolidated.pth",
    ]
    for i, name in enumerate(usual):
        made = folder(*usual[i:], "config.json", "other.ckpt")
        checkpoint = open_checkpoint(made)
        assert checkpoint.files == (made / name,) and checkpoint.folder == checkpoint.path == made
        assert holds(checkpoint, layout(len(name)))
    assert open_checkpoint(folder("only.ckpt", "config.json")).files[0].name == "only.ckpt"
    refused(folder("a.ckpt", "b.pth"), "holds a.ckpt, b.pth, expected one checkpoint")
    refused(folder("config.json"), "holds config.json, expected one checkpoint")
    refused(folder(), "holds nothing, expected one checkpoint")
    refused(folder("model_index.json", "vqvae/config.json"), r"a whole pipeline.*Give .*/vqvae\.")


def test_opening_a_large_file_reads_only_its_header(tmp_path):
    """Files of half a gigabyte, of which a hole is all but the names."""
    numel = 2**27
    head = json.dumps({"w": {"dtype": "F32", "shape": [numel], "data_offsets": [0, 4 * numel]}}).encode()
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + 4 * numel)
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    assert checkpoint.shapes == {"w": (numel,)} and checkpoint.size > 4 * numel
