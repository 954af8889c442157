"""What a pickle names stays inert: classes that are not there, code that would run, bombs."""

import argparse
import collections
import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
import types
import warnings
import zipfile

import numpy as np
import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.checkpoints import pickles
from entropy_cli.tokenizers.checkpoints.arrays import open_array
from entropy_cli.tokenizers.checkpoints.checkpoint import open_checkpoint
from tests.checkpoint_files import ZIPPED, holds, layout, refused, saved


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
def test_the_weights_of_a_pickled_model_are_read(tmp_path, zipped, foreign):
    warnings.simplefilter("ignore")  # the source of a class is not found when it is saved
    model = foreign.Model()
    expected = {name: weight.detach() for name, weight in model.state_dict().items()}
    inside = {"model": model, "epoch": 1}
    paths = [saved(tmp_path, c, f"{i}.pt", zipped) for i, c in enumerate((model, inside))]
    del sys.modules[foreign.__name__]
    for path in paths:
        checkpoint = open_checkpoint(path)
        assert holds(checkpoint, expected) and "lightning_like.Model" in checkpoint.classes


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


def legacy(path, body):
    """A file of torch before 1.6 with a pickle of these instructions, and no storages."""
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    path.write_bytes(b"".join([*head, body, pickle.dumps([], 2)]))
    return path


def deflated(path, *parts):
    """A torch file whose pickle is compressed: parts that are repeated a number of times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"".join(part * times for part, times in parts))
    return path


def stored_under(name):
    """Instructions that keep what is on top of the stack, and take it off."""
    return b"q" + bytes([name]) + b"0"


PAIR, AGAIN = b"h\x01h\x00\x85R", 20_000
BIG_LIST = b"](" + b"K\x01" * 300_000 + b"e"
BIG_DICT = b"}(" + b"".join(text(f"k{i}") + b"N" for i in range(30_000)) + b"u"
LAUGHS = (
    b"]"
    + stored_under(0)
    + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"e" + stored_under(i + 1)
        for i in range(40)
    )
)  # 10^40 lists in 41
LAUGHS_OF_TUPLES = (
    b")"
    + stored_under(0)
    + b"".join((b"h" + bytes([i])) * 3 + b"\x87" + stored_under(i + 1) for i in range(60))
)
CALLS = {
    "dict": (BIG_DICT, b"cfoo\nBar\n"),
    "ordered": (b"](" + (text("a") + b"N\x86") * 100_000 + b"e", b"ccollections\nOrderedDict\n"),
    "encode": (text("x" * 500_000), b"c_codecs\nencode\n"),
    "size": (BIG_LIST, b"ctorch\nSize\n"),
    "spread": (BIG_LIST, b"cfoo\nBar\n"),
}
BOMBS = {
    **{
        name: b"\x80\x02" + big + b"q\x000" + kind + b"q\x010(" + PAIR * AGAIN + b"t."
        for name, (big, kind) in CALLS.items()
    },
    "forwarded": b"\x80\x02"
    + BIG_LIST
    + b"q\x000ccopyreg\n__newobj__\nq\x010ctorch\nSize\nq\x020("
    + b"h\x01h\x02h\x00\x86R" * AGAIN
    + b"t.",
    "into itself": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00](h\x00Nh\x00eq\x01"
    b"0h\x01h\x01N\x87R.",
    "state": b"\x80\x02" + BIG_DICT + b"q\x000cfoo\nBar\n(tR" + b"h\x00b" * AGAIN + b".",
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "nested": b"\x80\x02" + b"](" * 5000 + b"e" * 5000 + b".",
    "placeholders": b"\x80\x02cfoo\nBar\nq\x00(" + b"h\x00)R" * 500_000 + b"t.",
    "named": b"\x80\x04" + text("x" * 500_000) + b"q\x000" + b"h\x00h\x00\x930" * AGAIN + b".",
    "long keys": b"\x80\x02\x8b"
    + struct.pack("<I", 500_000)
    + b"\x01" * 500_000
    + b"q\x000}("
    + b"h\x00N" * 100_000
    + b"u.",
    "numbers": b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"\x01.",
    "digits": b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.",
    "lists": b"\x80\x02" + LAUGHS + b"h\x28.",
    "tuples": b"\x80\x02" + LAUGHS_OF_TUPLES + b"h\x3c.",
    "shape": with_tensor(b"N", LAUGHS + tensor_code(size=b"h\x28\x85", stride=b"K\x01\x85")),
    "shape of tuples": with_tensor(b"N", LAUGHS_OF_TUPLES + tensor_code(size=b"h\x3c")),
    "offset": with_tensor(b"N", LAUGHS + tensor_code(offset=b"h\x28")),
    "reference": b"\x80\x02" + LAUGHS + b"(h\x28h\x28h\x28h\x28h\x28tQ.",
    "key": b"\x80\x02" + LAUGHS + b"(" + text("storage") + b"ctorch\nFloatStorage\nh\x28h\x28K\x01tQ.",
    **{
        f"length field {code:#x}": b"\x80\x04" + bytes([code]) + struct.pack("<Q", 2**40) + b"."
        for code in b"\x8d\x8e\x95\x96"
    },
}


def assert_cheap(path, monkeypatch):
    """Assert that a file is refused in one line, in seconds and within 100 MB beyond its size."""
    started = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert time.process_time() - started < 5
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    monkeypatch.setattr(pickles, "MOST_STEPS", 10**5)  # tracing is slow: a tenth of the work and memory
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        open_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkeypatch.undo()
    assert peak < 10**7 + 2 * pickles.MOST_EXPANDED + 10 * path.stat().st_size, f"{peak / 1e6:.0f} MB"


@ZIPPED
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_takes_neither_memory_nor_time(tmp_path, monkeypatch, name, zipped):
    path = by_hand(tmp_path, BOMBS[name]) if zipped else legacy(tmp_path / "x.pt", BOMBS[name])
    assert_cheap(path, monkeypatch)


@pytest.mark.parametrize("part", [b"}", b"]", b"(", b"\x8f", b"N\x85", b")2", b"]\x94", b"G0000000"])
def test_a_compressed_pickle_takes_neither_memory_nor_time(tmp_path, monkeypatch, part):
    head, times = b"\x80\x04", 4_000_000 // len(part)
    assert_cheap(deflated(tmp_path / "x.pth", (head, 1), (part, times), (b".", 1)), monkeypatch)
    assert_cheap(deflated(tmp_path / "y.pth", (head, 1), (part, 10 * times), (b".", 1)), monkeypatch)


def test_a_larger_file_may_take_more_steps(tmp_path):
    """A list of as many numbers as a data set has images is no attack beside weights of that size."""
    numbers = list(range(300, 1_100_300))
    with pytest.raises(CheckpointError, match=r"takes more than 8.* steps to read"):
        open_checkpoint(saved(tmp_path, {**layout(), "order": numbers}))
    content = {**layout(), "order": numbers, "w": torch.zeros(5 * 2**20)}
    assert open_checkpoint(saved(tmp_path, content)).shapes["w"] == (5 * 2**20,)


def test_lists_of_the_same_lists_are_opened_as_arrays_once(tmp_path):
    tensor = torch.ones(2)
    inner = [tensor] * 20_000
    path = saved(tmp_path, [[inner] * 20_000] * 20_000)
    assert open_array(f"{path}:0.0.19999", "floating-point numbers").shape == (2,)


def test_the_other_byte_order(tmp_path):
    for order in "<>":
        checkpoint = open_checkpoint(by_hand(tmp_path, with_tensor(b"N"), order))
        assert checkpoint.tensor("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_legacy_view_starts_where_its_storage_says(tmp_path):
    """Old files name a part of a storage: the key of the whole, then the first number and how many."""

    class View:
        def __reduce__(self):
            arguments = (STORAGE, 1, (2, 2), (2, 1), False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            whole = ("storage", torch.FloatStorage, "0", "cpu", 10)
            return (*whole, ("1", 4, 6)) if value is STORAGE else None

    STORAGE, body = object(), io.BytesIO()
    Pickler(body, 2).dump({"w": View()})
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    numbers = struct.pack("<q10f", 10, *range(10))
    path = tmp_path / "x.pt"
    path.write_bytes(b"".join([*head, body.getvalue(), pickle.dumps(["0"], 2), numbers]))
    assert open_checkpoint(path).tensor("w").tolist() == [[5, 6], [7, 8]]


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


class Scripted(torch.nn.Module):
    """A module with all that a state dict has, and a constant that it lacks."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        self.scale = torch.nn.Parameter(torch.rand(2))
        self.register_buffer("levels", torch.tensor([8, 5]), persistent=False)

    def forward(self, x):
        return self.encoder(x * self.scale)


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_the_weights_of_a_torchscript_program_are_read_and_nothing_is_run(tmp_path, how):
    module = Scripted().eval()
    make = torch.jit.script if how == "script" else lambda m: torch.jit.trace(m, torch.rand(4, 2))
    torch.jit.save(make(module), tmp_path / "x.jit")
    expected = {name: weight.detach() for name, weight in module.state_dict().items()}
    checkpoint = open_checkpoint(tmp_path / "x.jit")
    for name, weight in expected.items():
        assert torch.equal(checkpoint.numbers(name), weight)
    assert checkpoint.integers("levels").tolist() == [8, 5]
    assert checkpoint.shapes.keys() == expected.keys() | {"levels"}


def test_a_damaged_torchscript_program_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"x/{name}", "x")
    refused(tmp_path / "x.pt", "not a checkpoint, or a damaged one")


def test_modules_nested_deeper_than_any_are_refused(tmp_path, foreign):
    module = foreign.Model()
    for _ in range(60):
        outer = torch.nn.Module()
        outer.inner = module
        module = outer
    refused(saved(tmp_path, module), "nested more than 50 deep")


@pytest.mark.parametrize("name", ["TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_torchs_environment_changes_nothing(tmp_path, monkeypatch, name, foreign):
    monkeypatch.setenv(name, "1")
    path = saved(tmp_path, {"state_dict": layout(), "x": foreign.Config(a=1)})
    assert holds(open_checkpoint(path), layout())
