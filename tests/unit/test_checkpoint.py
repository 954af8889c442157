"""Files that are no checkpoints, damaged ones, pickles that would run code, and good ones."""

import argparse
import collections
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tracemalloc
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.errors import CheckpointError
from entropy_cli.tokenizers import load_tokenizer
from entropy_cli.tokenizers.checkpoint import open_checkpoint

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


@pytest.fixture
def foreign():
    """A module with classes that are not there any more when the file is read."""
    module = types.ModuleType("lightning_like")

    class ModelCheckpoint:
        pass

    class Config(dict):
        pass

    class Slots:
        __slots__ = ("a",)

    class Bag(list):
        pass

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Linear(2, 3)
            self.scale = torch.nn.Parameter(torch.ones(2))

    for kind in (ModelCheckpoint, Config, Slots, Bag, Model):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


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
        ("page.safetensors", "not a checkpoint"),
        ("cut.safetensors", "damaged safetensors"),
        ("head.safetensors", "damaged safetensors"),
        ("empty.pth", "not a checkpoint"),
        ("text.pth", "not a checkpoint"),
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


@ZIPPED
def test_a_training_checkpoint_of_classes_that_are_not_installed(tmp_path, zipped, foreign):
    """As lightning writes them: callbacks, configurations and loops beside the weights."""
    slots, callback = foreign.Slots(), foreign.ModelCheckpoint()
    slots.a, callback.best, callback.path = 1, torch.ones(1), {"x": torch.zeros(2)}
    content = {
        "epoch": 3,
        "callbacks": {foreign.ModelCheckpoint: {"best": callback}},
        "loops": [slots, foreign.Bag([1, 2]), collections.Counter("aab"), {1, 2}, frozenset([3])],
        "hyper_parameters": foreign.Config(lr=1e-4, device=torch.device("cpu"), raw=b"\xff\x00"),
        "args": argparse.Namespace(depth=16),
        "metric": np.float64(0.5),
        "state_dict": layout(),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    }
    path = saved(tmp_path, content, zipped=zipped)
    del sys.modules[foreign.__name__]
    checkpoint = open_checkpoint(path)
    assert foreign.__name__ not in sys.modules
    assert holds(checkpoint, layout())
    assert (checkpoint.wrapper, checkpoint.prefix, checkpoint.weights) == ("state_dict", "", "raw")
    ours = [name for name in checkpoint.classes if not name.startswith("numpy")]
    kinds = ("Bag", "Config", "ModelCheckpoint", "Slots")
    assert ours == [f"lightning_like.{kind}" for kind in kinds]
    assert "epoch, callbacks, loops, hyper_parameters, args, metric and 1 more" in checkpoint.ignored


@ZIPPED
def test_a_state_dict_in_a_dict_of_its_own_class_is_found(tmp_path, zipped, foreign):
    path = saved(tmp_path, foreign.Config(net=foreign.Config(layout())), zipped=zipped)
    del sys.modules[foreign.__name__]
    checkpoint = open_checkpoint(path)
    assert holds(checkpoint, layout()) and checkpoint.wrapper == "net"


@ZIPPED
def test_a_pickled_model_is_told_from_a_state_dict(tmp_path, zipped, foreign):
    warnings.simplefilter("ignore")  # the source of a class is not found when it is saved
    inside = {"model": foreign.Model(), "epoch": 1}
    paths = [saved(tmp_path, c, f"{i}.pt", zipped) for i, c in enumerate((foreign.Model(), inside))]
    del sys.modules[foreign.__name__]
    for path in paths:
        refused(path, r"pickled model of class lightning_like\.Model, not a state dict")


class Calls:
    """A pickle of this would call a function when it is read."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


class Remote:
    """Stands in a pickle for something that needs attributes of attributes."""

    def __init__(self, chain, *arguments):
        self.chain, self.arguments = chain, arguments

    def __reduce__(self):
        function = Calls(getattr, Calls(__import__, self.chain[0]), self.chain[1])
        return Calls, (function, *self.arguments)


def traps(canary):
    script = f"open({str(canary)!r}, 'w').close()"
    yield Calls(open, str(canary), "w")
    yield Calls(os.system, f"touch {canary}")
    yield Calls(eval, script)
    yield Calls(exec, script)
    yield Remote(("os", "system"), f"touch {canary}")
    yield Calls(torch.serialization._get_layout, Calls(eval, script))
    yield Calls(torch._utils._rebuild_parameter, Calls(eval, script), True, {})  # noqa: FBT003
    yield Calls(torch._tensor._rebuild_from_type_v2, eval, torch.Tensor, (script,), {})
    yield Calls(collections.OrderedDict, [(Calls(eval, script), 1), ("a", Calls(exec, script))])
    yield Calls(map, exec, [script])
    yield Calls(np.fromfile, str(canary))
    yield Calls(torch.hub.load, str(canary))


@ZIPPED
def test_nothing_that_a_pickle_calls_is_run(tmp_path, zipped):
    canary = tmp_path / "sprung"
    for i, trap in enumerate(traps(canary)):
        path = saved(tmp_path, {"state_dict": layout(), "trap": trap}, f"{i}.pth", zipped)
        canary.unlink(missing_ok=True)
        checkpoint = open_checkpoint(path)
        assert holds(checkpoint, layout()) and checkpoint.classes
        assert not canary.exists()
    pickle.loads(pickle.dumps(next(traps(canary)))).close()
    assert canary.exists()  # or the rest would prove nothing


@ZIPPED
def test_a_pickle_that_would_run_code_does_not(tmp_path, zipped):
    trap = tmp_path / "sprung"
    path = saved(tmp_path, {"w": Calls(open, str(trap), "w")}, zipped=zipped)
    refused(path, "no tensors by name")
    assert not trap.exists()
    path = saved(tmp_path, {"w": Calls(open, str(trap), "w"), **layout()}, zipped=zipped)
    checkpoint = open_checkpoint(path)
    assert checkpoint.classes == (f"{open.__module__}.open",) and not trap.exists()
    assert checkpoint.ignored == ("w (no tensors)",)


def by_hand(tmp_path, body, order="<"):
    """A torch file with a pickle of these instructions in place of its own."""
    path = tmp_path / "by_hand.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", struct.pack(f"{order}6f", *range(6)))
        archive.writestr("archive/byteorder", "little" if order == "<" else "big")
        archive.writestr("archive/version", "3")
    return path


def tensor_code(size=b"K\x02K\x03\x86", stride=b"K\x03K\x01\x86", numel=b"K\x06", offset=b"K\x00"):
    """Instructions that rebuild a tensor of the storage 0."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numel + b"tQ" + offset + size + stride
    ) + b"\x89}tR"


def with_tensor(code, tensor=None):
    """A pickle of a tensor w and of whatever some instructions push."""
    return (
        b"\x80\x04}(X\x01\x00\x00\x00w"
        + (tensor or tensor_code())
        + b"X\x01\x00\x00\x00x"
        + code
        + b"u."
    )


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def test_every_instruction_that_could_call_or_change_something_is_inert(tmp_path):
    canary = tmp_path / "sprung"
    command = text(f"touch {canary}")
    original = torch._utils._rebuild_tensor_v2.__defaults__
    instructions = {
        "reduce": b"cos\nsystem\n" + command + b"\x85R",
        "inst": b"(" + command + b"ios\nsystem\n",
        "obj": b"(cos\nsystem\n" + command + b"o",
        "newobj": b"cos\nsystem\n" + command + b"\x85\x81",
        "newobj_ex": b"cos\nsystem\n" + command + b"\x85}\x92",
        "stack_global": text("os") + text("path.join") + b"\x93" + command + b"\x85R",
        "nested": text("entropy_cli.tokenizers")
        + text("checkpoint.open_checkpoint")
        + b"\x93"
        + command
        + b"\x85R",
        "state": b"cos\nsystem\n)R}" + text("__setstate__") + b"cos\nsystem\nsb",
        "slots": b"cos\nsystem\n)RN}" + text("a") + command + b"s\x86b",
        "defaults": b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__defaults__") + b"(K\x01ts\x86b",
        "append": b"cos\nsystem\n)R" + command + b"a",
        "appends": b"cos\nsystem\n)R(" + command + b"e",
        "item": b"cos\nsystem\n" + command + command + b"s",
        "items": b"cos\nsystem\n)R(" + command + command + b"u",
        "add": b"\x8f(" + command + b"\x90",
        "frozen": b"(" + command + b"\x91",
        "called twice": b"cos\nsystem\n)R" + command + b"\x85R",
        "copyreg": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR",
        "old dict": b"(" + command + command + b"d",
    }
    for name, code in instructions.items():
        checkpoint = open_checkpoint(by_hand(tmp_path, with_tensor(code)))
        assert checkpoint.tensor("w").tolist() == [[0, 1, 2], [3, 4, 5]], name
        assert not canary.exists(), name
    assert torch._utils._rebuild_tensor_v2.__defaults__ == original
    for code in (b"\x82\x01", b"Pother\n", text("module") + b"\x85Q", b"K\x01Q"):
        refused(by_hand(tmp_path, with_tensor(code)), "not a checkpoint")


def test_bombs_and_impossible_tensors_are_an_error(tmp_path):
    deep = b")" + b"\x85" * 200_000
    wide = b"K\x01\x8a\x08" + b"\xff" * 7 + b"\x7f\x86"
    for code in (
        b"}" + deep + b"K\x01s",  # a deep tuple as a key, which to hash overflows the stack
        b"(" + deep + b"K\x01d",
        b"\x8f(" + deep + b"\x90",
        deep,
        b"ccollections\nOrderedDict\n](" + deep + b"K\x01\x86e\x85R",
    ):
        assert open_checkpoint(by_hand(tmp_path, with_tensor(code))).shapes == {"w": (2, 3)}
    for tensor in (
        tensor_code(numel=b"K\x07"),  # a storage longer than its record
        tensor_code(offset=b"K\x01"),
        tensor_code(size=b"K\x03K\x03\x86"),
        tensor_code(stride=b"K\x04K\x01\x86"),
        tensor_code(size=b"K\x06\x85"),
        tensor_code(size=b"J\xfe\xff\xff\xffK\x03\x86"),
        tensor_code(size=wide, stride=b"K\x00K\x00\x86"),
        tensor_code(size=deep),
    ):
        refused(by_hand(tmp_path, with_tensor(b"N", tensor)), "not a checkpoint")
    many = tensor_code(size=b"J\xff\xff\xff\x7fK\x03\x86", stride=b"K\x00K\x01\x86")
    with pytest.raises(
        CheckpointError, match="can't read w: repeats 3 numbers until they are 6442450941"
    ):
        open_checkpoint(by_hand(tmp_path, with_tensor(b"N", many))).tensor("w")
    for code in b"\x8d\x8e\x95\x96":  # text, bytes, a frame, a bytearray: of 8 GiB that are not there
        length = struct.pack("<Q", 2**33)
        tracemalloc.start()
        refused(by_hand(tmp_path, with_tensor(bytes([code]) + length)), "not a checkpoint")
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()


def test_the_other_byte_order(tmp_path):
    for order in "<>":
        checkpoint = open_checkpoint(by_hand(tmp_path, with_tensor(b"N"), order))
        assert checkpoint.tensor("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_legacy_storage_of_another_length_than_its_pickle_says_is_refused(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(2)}, zipped=False)
    whole = path.read_bytes()
    assert whole[-16:-8] == struct.pack("<q", 2)
    path.write_bytes(whole[:-16] + struct.pack("<q", 1) + whole[-8:])
    refused(path, "not a checkpoint")


def test_legacy_files_write_no_patches(tmp_path, monkeypatch):
    """torch would compare the source of a class with what the file says, and write the difference."""
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, layout(), zipped=False)
    plain = path.read_bytes()
    stream = io.BytesIO(plain)
    for _ in range(3):
        pickle.load(stream)
    start = stream.tell()
    module = b"\x80\x02(X\x06\x00\x00\x00modulecevil\nModel\nX\x01\x00\x00\x00fX\x03\x00\x00\x00srctQ0"
    path.write_bytes(plain[:start] + module + plain[start + 2 :])
    checkpoint = open_checkpoint(path)
    assert holds(checkpoint, layout()) and checkpoint.classes == ("evil.Model",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pth"]


def test_a_torchscript_program_is_not_run(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"x/{name}", "x")
    refused(tmp_path / "x.pt", r"TorchScript program.*state_dict\(\)")


@pytest.mark.parametrize("name", ["TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_torchs_environment_changes_nothing(tmp_path, monkeypatch, name, foreign):
    monkeypatch.setenv(name, "1")
    path = saved(tmp_path, {"state_dict": layout(), "x": foreign.Config(a=1)})
    assert holds(open_checkpoint(path), layout())


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


WRAPPERS = [
    "trainer.vae_local",
    "trainer.vae_wo_ddp",
    "state_dict",
    "model",
    "vae",
    "net",
    "other.vae",
    "model_state_dict",
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(tmp_path, wrapper):
    """Beside larger mappings of tensors that are no tokenizer."""
    larger = {f"blocks.{i}.weight": torch.ones(1) for i in range(20)}
    content = {"a": larger, "trainer": {"var_wo_ddp": larger}, "model": larger, "epoch": 3}
    outer, _, inner = wrapper.rpartition(".")
    (content.setdefault(outer, {}) if outer else content)[inner] = layout()
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.wrapper == wrapper and holds(checkpoint, layout())
    assert "epoch" in checkpoint.ignored[0] and "a" in checkpoint.ignored[0].split(", ")
    assert checkpoint.has_raw and not checkpoint.has_ema
    with pytest.raises(CheckpointError, match=r"--weights ema: .* holds no EMA copy"):
        checkpoint.with_weights("ema")


TWINS = [
    ("trainer.vae_local", "trainer.vae_ema"),
    ("trainer.vae_wo_ddp", "trainer.vae_ema"),
    ("model", "ema"),
    ("vae", "ema"),
    ("state_dict", "state_dict_ema"),
    ("model_state_dict", "model_ema_state_dict"),
]


@pytest.mark.parametrize(("raw", "ema"), TWINS)
def test_an_averaged_copy_in_a_wrapper_of_its_own(tmp_path, raw, ema):
    content = {"epoch": 1}
    for wrapper, start in ((raw, 0), (ema, 50)):
        outer, _, inner = wrapper.rpartition(".")
        (content.setdefault(outer, {}) if outer else content)[inner] = layout(start)
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.has_raw and checkpoint.has_ema
    assert (checkpoint.wrapper, checkpoint.weights) == (raw, "raw") and holds(checkpoint, layout())
    view = checkpoint.with_weights("ema")
    assert (view.wrapper, view.weights) == (ema, "ema") and holds(view, layout(50))
    assert view.ignored == checkpoint.ignored == ("epoch",)
    assert holds(view.with_weights("raw"), layout())


def test_an_averaged_copy_alone(tmp_path):
    checkpoint = open_checkpoint(saved(tmp_path, {"ema": layout(), "optimizer": {"w": torch.ones(1)}}))
    assert (checkpoint.has_raw, checkpoint.has_ema, checkpoint.weights) == (False, True, "ema")
    assert checkpoint.wrapper == "ema" and holds(checkpoint, layout())
    with pytest.raises(CheckpointError, match=r"holds no raw copy\. Use --weights ema"):
        checkpoint.with_weights("raw")
    prefixed = open_checkpoint(saved(tmp_path, layout(prefix="ema_model.")))
    assert (prefixed.weights, prefixed.has_raw, prefixed.prefix) == ("ema", False, "ema_model.")


def test_a_number_in_an_averaged_mapping_is_no_copy(tmp_path):
    checkpoint = open_checkpoint(saved(tmp_path, {**layout(), "ema": {"decay": torch.ones(1)}}))
    assert not checkpoint.has_ema and holds(checkpoint, layout())
    assert checkpoint.ignored == ("ema (no tensors)",)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
@pytest.mark.parametrize("dotted", [False, True])
def test_averaged_copies_beside_the_weights(tmp_path, prefix, dotted):
    """Buffers have no averaged copy and stay as they are."""
    weights = layout(prefix=prefix)
    copies = averaged(weights, prefix)
    if dotted:
        copies = {f"{prefix}model_ema.{name}": w + 100 for name, w in list(layout().items())[:2]}
    checkpoint = open_checkpoint(saved(tmp_path, {"state_dict": {**weights, **copies}}))
    assert holds(checkpoint, layout()) and checkpoint.prefix == prefix
    assert checkpoint.has_raw and checkpoint.has_ema
    told = f"{prefix}model_ema.decay, {prefix}model_ema.num_updates"
    assert checkpoint.ignored == (() if dotted else (told,))
    view = checkpoint.with_weights("ema")
    expected = {n: w if n == "norm.mean" else w + 100 for n, w in layout().items()}
    assert holds(view, expected) and view.dtypes == checkpoint.dtypes


def test_copies_of_a_whole_model_with_the_tokenizer_inside(tmp_path):
    weights = {**layout(prefix="first_stage_model."), "model.diffusion.weight": torch.ones(1)}
    checkpoint = open_checkpoint(saved(tmp_path, {**weights, **averaged(weights)}))
    assert checkpoint.prefix == "first_stage_model." and holds(checkpoint, layout())
    assert checkpoint.with_weights("ema").tensor("encoder.conv_in.weight")[0, 0] == 100


def test_an_averaged_copy_of_another_shape_names_both(tmp_path):
    wrong = {"model_ema.encoderconv_inweight": torch.ones(5)}
    checkpoint = open_checkpoint(saved(tmp_path, {**layout(), **wrong}))
    assert holds(checkpoint, layout())
    with pytest.raises(
        CheckpointError,
        match=r"model_ema\.encoderconv_inweight has shape \[5\], expected \[2, 3\] as encoder\.conv_in",
    ):
        checkpoint.with_weights("ema")


def test_prefixes(tmp_path):
    for anchor in ("conv_in.weight", "conv_in.conv.weight", "latent_token_positional_embedding"):
        for prefix in ("", "module.", "_orig_mod.module.", "model.vqmodel.", "what.ever."):
            weights = {f"encoder.{anchor}": torch.ones(2), "b": torch.zeros(1)}
            content = {prefix + name: weight for name, weight in weights.items()}
            if prefix:
                content |= {f"other.{i}": torch.ones(1) for i in range(1024)}
            checkpoint = open_checkpoint(saved(tmp_path, content))
            assert checkpoint.prefix == prefix and holds(checkpoint, weights)
            outside = (f"1,024 tensors outside {prefix}",) if prefix else ()
            assert checkpoint.ignored == outside


def test_of_several_strange_prefixes_none_is_taken(tmp_path):
    with pytest.raises(CheckpointError, match=r"several tokenizers, under b\., long\."):
        open_checkpoint(saved(tmp_path, layout(0, "long.") | layout(1, "b.")))


@pytest.mark.parametrize(
    ("prefixes", "chosen"),
    [
        (("a.", "first_stage_model."), "first_stage_model."),
        (("ema.", "longer."), "longer."),
        (("", "decoder2."), ""),
        (("vae.", "vae_ema."), "vae."),
    ],
)
def test_of_several_prefixes_one_is_taken_and_the_others_told(tmp_path, prefixes, chosen):
    content = {}
    for i, prefix in enumerate(prefixes):
        content |= layout(i, prefix)
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert checkpoint.prefix == chosen
    assert checkpoint.tensor("norm.mean")[0] == prefixes.index(chosen)
    (other,) = set(prefixes) - {chosen}
    twin = "ema" in other
    assert checkpoint.has_ema == twin
    assert any(other in told and "same layout" in told for told in checkpoint.ignored) != twin
    if twin:
        assert checkpoint.with_weights("ema").tensor("norm.mean")[0] == prefixes.index(other)


def test_an_averaged_copy_of_something_else_is_no_twin(tmp_path):
    content = {**layout(), **layout(1, "cond_stage.ema.")}
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert not checkpoint.has_ema
    assert "cond_stage.ema. (the same layout again)" in checkpoint.ignored


def test_without_anchors_only_what_wrapping_adds_is_stripped(tmp_path):
    for prefix, stripped in (("module._orig_mod.", "module._orig_mod."), ("net.", "")):
        content = {f"{prefix}a.weight": torch.ones(1), f"{prefix}b.weight": torch.ones(1)}
        assert open_checkpoint(saved(tmp_path, content)).prefix == stripped
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert open_checkpoint(saved(tmp_path, mixed)).shapes.keys() == mixed.keys()


def test_what_is_no_tensor_or_has_no_proper_name_is_told(tmp_path):
    odd = {"vocab_usage_record_times": 3, 7: torch.ones(1), "two\nlines": torch.ones(1), "list": [1]}
    checkpoint = open_checkpoint(saved(tmp_path, {"state_dict": {**layout(), **odd}}))
    assert holds(checkpoint, layout())
    assert checkpoint.ignored == ("vocab_usage_record_times, list in state_dict (no tensors)",)


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
