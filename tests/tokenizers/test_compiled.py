"""The compiled encoder: batches of one size, what can't be compiled, and the numbers it gives."""

import json
import shutil

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

import entropy_cli
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.tokenizers import compiled
from entropy_cli.tokenizers.compiled import PAYS_FROM, CompiledEncoder, is_worth_compiling

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
HAS_COMPILER = any(map(shutil.which, ("g++", "c++", "clang++", "gcc")))


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the batches that `torch.compile` would see; in its place the network as it is."""
    seen = []

    def stand_in(network, dynamic):
        assert not dynamic

        def run(x_B3HW):
            seen.append(len(x_B3HW))
            return network(x_B3HW)

        return run

    monkeypatch.setattr(torch, "compile", stand_in)
    return seen


def batch(images):
    return torch.randn(images, 3, 4, 4, generator=torch.manual_seed(images))


def test_batches_are_filled_up_to_one_size(sizes):
    network = torch.nn.Conv2d(3, 2, 3)
    encoder = CompiledEncoder(network, 8, required=False)
    for images in (5, 8, 1):
        torch.testing.assert_close(encoder(batch(images)), network(batch(images)))
    assert sizes == [8, 8, 8]


def test_after_running_out_of_memory_the_size_is_that_of_the_next_batch(sizes):
    def network(x_B3HW):
        if len(x_B3HW) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x_B3HW

    encoder = CompiledEncoder(network, 8, required=False)
    with pytest.raises(torch.OutOfMemoryError):
        encoder(batch(8))
    assert len(encoder(batch(4))) == 4 and len(encoder(batch(2))) == 2
    assert encoder.works and sizes == [8, 4, 4]


@pytest.mark.parametrize("when", ["at once", "later"])
def test_what_can_not_be_compiled_runs_as_it_is_or_is_an_error(monkeypatch, caplog, when):
    def refuse(*_, **__):
        error = {"at once": RuntimeError, "later": TorchDynamoException}[when]
        raise error("\nno compiler\nlong trace")

    monkeypatch.setattr(torch, "compile", refuse if when == "at once" else lambda *_, **__: refuse)
    encoder = CompiledEncoder(torch.neg, 8, required=False)
    assert torch.equal(encoder(batch(3)), -batch(3)) and torch.equal(encoder(batch(4)), -batch(4))
    (record,) = caplog.records
    assert record.getMessage() == "the encoder is not compiled, it runs as it is: no compiler"
    with pytest.raises(
        EntropyCliError, match=r"--compile on: .* here: no compiler\. Give --compile off"
    ):
        CompiledEncoder(torch.neg, 8, required=True)(batch(3))


def test_auto_compiles_long_runs_on_a_gpu():
    assert is_worth_compiling("auto", GPU, PAYS_FROM)
    assert not is_worth_compiling("auto", GPU, PAYS_FROM - 1)
    assert not is_worth_compiling("auto", CPU, PAYS_FROM)
    assert is_worth_compiling("on", CPU, 1) and not is_worth_compiling("off", GPU, PAYS_FROM)


def kernels_and_warnings(cli, *argv):
    code, out, err = cli("estimate", "--json", "--workers", 0, "--device", "cuda", *argv)
    assert code == 0, err
    return json.loads(out)["provenance"]["kernels"], [
        line for line in err.splitlines() if "not comp" in line
    ]


@pytest.mark.usefixtures("pretended_gpu")
def test_a_run_says_what_ran_its_encoder(cli, images, checkpoint, sizes, monkeypatch):
    argv = "--data", images, "--ckpt", checkpoint, "--batch-size", 16, "--precision", "fp32"
    assert kernels_and_warnings(cli, *argv) == ("fused norms", [])
    monkeypatch.setattr(compiled, "PAYS_FROM", 70 * 32**2)
    assert kernels_and_warnings(cli, *argv) == ("compiled", [])
    assert set(sizes) == {16}
    for shorter in (["--compile", "off"], ["--target-ci", 9], ["--shard", "0/2"]):
        assert kernels_and_warnings(cli, *argv, *shorter) == ("fused norms", [])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="torch compiles for a CPU with a C++ compiler")
def test_a_compiled_run_gives_the_same_numbers(estimate, images, checkpoint, baseline, pictures):
    """In batches of 4 with a last one of 2, compiled once; the fingerprint is that of any run."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    argv = "--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--compile", "on"
    found = estimate(*argv)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert found["provenance"]["kernels"] == "compiled" and baseline["provenance"]["kernels"] == "torch"
    assert found["data"]["fingerprint"] == baseline["data"]["fingerprint"]
    for kind in ("assignment_entropy", "marginal_entropy"):
        for scale, expected in zip(found["scales"], baseline["scales"], strict=True):
            assert scale[kind]["value"] == pytest.approx(expected[kind]["value"], abs=1e-5)


def test_from_python_a_callable_is_not_compiled(pictures):
    with pytest.raises(EntropyCliError, match="compile on: a callable"):
        entropy_cli.estimate([pictures], torch.neg, codebook=torch.eye(3), compile="on")
    with pytest.raises(EntropyCliError, match="compile 'fast': expected auto, on, off"):
        entropy_cli.estimate([pictures], torch.neg, codebook=torch.eye(3), compile="fast")
