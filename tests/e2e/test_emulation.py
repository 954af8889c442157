"""A precision that the CPU only emulates is told before the work, with what it costs there."""

import platform
import re
import time
from pathlib import Path

import pytest
import torch

from entropy_cli.streaming import emulation
from entropy_cli.streaming.device import choose_precision, choose_training_precision
from entropy_cli.tokenizers.families.var import VARTokenizer
from tests.e2e.test_estimate import assert_same

CPU = torch.device("cpu")
WORDS = re.compile(
    r"warning: --precision (bf16|fp16) is emulated on this CPU \(no [^)]+\): "
    r"([0-9.e-]+) s an image, fp32 ([0-9.e-]+) s\.( Leave out --precision\.)?$",
    re.MULTILINE,
)
TRAIN = ("--image-size", 16, "--vocab-size", 16, "--latent-dim", 4, "--width", 32, "--width-mult", "1,1")
TRAIN += ("--steps", 2, "--batch-size", 4, "--workers", 0, "--device", "cpu")


@pytest.fixture
def old_cpu(monkeypatch):
    """A CPU without any of the instructions."""
    monkeypatch.setattr(emulation, "capabilities", lambda: {"avx2": True})


@pytest.fixture
def encoded(monkeypatch):
    """Precision and number of images of each call of an encoder that is slow in 16 bits."""
    encode, calls = VARTokenizer.encode, []

    def slowly(self, img_B3HW):
        calls.append((self.precision, len(img_B3HW)))
        time.sleep(0 if self.precision == "fp32" else 0.3)
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", slowly)
    return calls


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_times_are_measured_before_the_work_and_change_nothing(
    cli, estimate, images, checkpoint, monkeypatch, encoded, precision
):
    argv = ("--data", images, "--ckpt", checkpoint, "--precision", precision, "--limit", 20)
    monkeypatch.setattr(emulation, "capabilities", lambda: {"avx512_bf16": True, "avx512_fp16": True})
    expected, work = estimate(*argv), list(encoded)
    encoded.clear()
    monkeypatch.setattr(emulation, "capabilities", lambda: {"avx2": True})
    result = estimate(*argv)
    # One image twice in each, for that does not take long.
    assert encoded == [(precision, 1)] * 2 + [("fp32", 1)] * 2 + work
    assert result["data"]["fingerprint"] == expected["data"]["fingerprint"]
    assert_same(expected, result, tolerance=0)
    _, _, err = cli("estimate", *argv, "--workers", 0)
    ((named, slow, fast, advice),) = WORDS.findall(err)
    assert named == precision and float(slow) > 0.3 and float(slow) > float(fast) > 0 and advice


def test_what_takes_long_is_not_done_twice(cli, images, checkpoint, monkeypatch, encoded, old_cpu):
    monkeypatch.setattr(emulation, "LONG_S", 0.2)
    argv = ("--data", images, "--ckpt", checkpoint, "--precision", "bf16", "--limit", 16)
    _, _, err = cli("estimate", *argv, "--workers", 0)
    assert WORDS.search(err) and encoded.count(("bf16", 1)) == 1


def test_where_the_instructions_are_there_is_nothing_to_tell(cli, images, checkpoint, monkeypatch):
    monkeypatch.setattr(emulation, "capabilities", lambda: {"amx_bf16": True, "avx512_fp16": True})
    for precision in ("bf16", "fp16", "fp32"):
        argv = ("--data", images, "--ckpt", checkpoint, "--precision", precision, "--limit", 3)
        code, _, err = cli("estimate", *argv, "--workers", 0)
        assert code == 0 and "emulated" not in err


def test_show_and_train_tell_it_too(cli, images, checkpoint, tmp_path, old_cpu):
    picture = sorted(images.rglob("*.jpg"))[0]
    out = tmp_path / "p.png"
    code, _, err = cli("show", picture, "--ckpt", checkpoint, "--precision", "bf16", "-o", out)
    assert code == 0 and len(WORDS.findall(err)) == 1, err
    for kind in ("bf16", "fp16"):
        folder = tmp_path / kind
        code, _, err = cli("train", "--data", images, "--output", folder, "--precision", kind, *TRAIN)
        assert code == 0 and [found[0] for found in WORDS.findall(err)] == [kind], err
    code, _, err = cli("train", "--data", images, "--output", tmp_path / "plain", *TRAIN)
    assert code == 0 and "emulated" not in err


def test_timing_a_training_leaves_it_as_it_is(cli, images, tmp_path, monkeypatch):
    """Batch norms would count what they see, and a random number would move all that follow."""
    found = []
    for able in ({"avx512_bf16": True}, {}):
        monkeypatch.setattr(emulation, "capabilities", lambda able=able: able)
        folder = tmp_path / str(len(able))
        argv = ("--precision", "bf16", "--norm", "batch", "--seed", 3)
        code, _, err = cli("train", "--data", images, "--output", folder, *argv, *TRAIN)
        assert code == 0 and bool(WORDS.search(err)) == (not able), err
        found.append((folder / "model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.slow
def test_bench_tells_it_before_it_times(cli, images, checkpoint, old_cpu):
    argv = ("--ckpt", checkpoint, "--data", images, "--images", 4, "--precision", "bf16")
    code, _, err = cli("bench", "--device", "cpu", *argv)
    assert code == 0 and len(WORDS.findall(err)) == 1, err


def test_auto_never_picks_it_on_a_cpu(monkeypatch):
    for able in ({}, {"avx512_bf16": True, "avx512_fp16": True}):
        monkeypatch.setattr(emulation, "capabilities", lambda able=able: able)
        assert choose_precision(CPU) == choose_training_precision(CPU) == "fp32"


def cpu_flags():
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if found is None:
        pytest.skip("no /proc/cpuinfo with flags")
    return set(found[1].split())


@pytest.mark.parametrize("ask", [emulation.capabilities, emulation.older_capabilities])
def test_what_the_cpu_can_do_is_what_the_system_says(monkeypatch, ask):
    monkeypatch.setattr(emulation, "capabilities", ask)
    flags = cpu_flags()
    if platform.machine() in ("x86_64", "AMD64"):
        can = {"bf16": {"avx512_bf16", "amx_bf16"} & flags, "fp16": {"avx512_fp16", "amx_fp16"} & flags}
    else:
        can = {"bf16": {"bf16", "svebf16"} & flags, "fp16": set()}
    for precision, names in can.items():
        assert (emulation.missing_instructions(precision, CPU) is None) == bool(names)
    for precision in ("fp32", "tf32"):
        assert emulation.missing_instructions(precision, CPU) is None
    assert emulation.missing_instructions("bf16", torch.device("cuda")) is None
