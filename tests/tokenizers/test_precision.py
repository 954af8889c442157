"""TF32 is on or off whatever the caller has set, and the caller's switches come back."""

import itertools
from operator import attrgetter

import pytest
import torch

from entropy_cli.tokenizers import precision
from entropy_cli.tokenizers.precision import matmul_precision

BACKENDS = torch.backends
NEWER = hasattr(BACKENDS, "fp32_precision")
SWITCHES = ("", *precision.BACKENDS) if NEWER else ()
OLDER = tuple(itertools.product(("highest", "high", "medium"), (False, True)))
needs_newer = pytest.mark.skipif(not NEWER, reason="torch has no newer switches")


def backend(name):
    return attrgetter(name)(BACKENDS) if name else BACKENDS


@pytest.fixture(autouse=True)
def restored():
    """The test leaves the switches as torch sets them at its start."""
    yield
    put(dict.fromkeys(SWITCHES, "none"))
    torch.set_float32_matmul_precision("highest")
    BACKENDS.cudnn.allow_tf32 = True
    put({name: "none" for name in SWITCHES if "matmul" in name})


def put(values):
    for name, value in values.items():
        backend(name).fp32_precision = value


def own_values():
    """What each switch was set to itself, not what it takes from a more general one."""
    values = {}
    for name in SWITCHES:
        values[name] = backend(name).fp32_precision
        backend(name).fp32_precision = "none"
    put(values)
    return values


def effective():
    return {name: backend(name).fp32_precision for name in SWITCHES}


def check(before):
    """TF32 is off, on, and off inside of on; no older switch contradicts; what was set comes back."""
    for tf32 in (False, True):
        with matmul_precision(tf32=tf32):
            assert_all(tf32)
            with matmul_precision(tf32=not tf32):
                assert_all(not tf32)
            assert_all(tf32)
        assert effective() == before


def assert_all(tf32):
    assert set(effective().values()) <= {"tf32" if tf32 else "ieee"}
    assert BACKENDS.cudnn.allow_tf32 == BACKENDS.cuda.matmul.allow_tf32 == tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    with BACKENDS.cudnn.flags(enabled=False):  # as a network may
        pass


@needs_newer
@pytest.mark.parametrize("value", ["tf32", "ieee", "none"])
@pytest.mark.parametrize("name", SWITCHES)
def test_each_newer_switch(name, value):
    put({name: value})
    check(effective())


@needs_newer
@pytest.mark.parametrize("general", ["none", "ieee", "tf32", "bf16"])
@pytest.mark.parametrize("older", OLDER)
def test_all_combinations_of_newer_and_older_switches(general, older):
    """An operator follows the more general switches afterwards if it did before."""
    names = ("cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul")
    for values in itertools.product(("none", "ieee", "tf32"), repeat=len(names)):
        torch.set_float32_matmul_precision(older[0])
        BACKENDS.cudnn.allow_tf32 = older[1]
        put({"": general, **dict(zip(names, values, strict=True))})
        own = own_values()
        check(effective())
        assert own_values() == own


@pytest.mark.parametrize("has_newer", [pytest.param(True, marks=needs_newer), False])
@pytest.mark.parametrize(("matmul", "cudnn"), OLDER)
def test_the_older_switches_come_back(monkeypatch, has_newer, matmul, cudnn):
    """Also on a torch that has no others."""
    if not has_newer:
        monkeypatch.setattr(precision, "_backends", list)
    torch.set_float32_matmul_precision(matmul)
    BACKENDS.cudnn.allow_tf32 = cudnn
    for tf32 in (False, True):
        with matmul_precision(tf32=tf32):
            assert BACKENDS.cudnn.allow_tf32 == BACKENDS.cuda.matmul.allow_tf32 == tf32
        assert torch.get_float32_matmul_precision() == matmul
        assert BACKENDS.cudnn.allow_tf32 == cudnn


def test_an_error_restores_too():
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(ValueError, match="stop"), matmul_precision(tf32=False):
        raise ValueError("stop")
    assert torch.get_float32_matmul_precision() == "medium"
