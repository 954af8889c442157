"""The loop: how a run is cut moves nothing."""

import contextlib
import re
import time
from dataclasses import astuple

import pytest
import torch

from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.entropy.tally import Tally
from entropy_cli.streaming import batch_processor
from entropy_cli.streaming.device import (
    choose_batch_size,
    choose_device,
    choose_precision,
    choose_training_precision,
    choose_workers,
)
from entropy_cli.streaming.loop import Loop
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.reader import ahead
from entropy_cli.tokenizers.families.var import VARTokenizer
from entropy_cli.tokenizers.registry import load_tokenizer

CPU = torch.device("cpu")
# Of torch, and as torch passes on what cuDNN, cuBLAS and the CUDA runtime say.
OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
)


@pytest.mark.parametrize("batch_size", [3, 16, 32, 48])
@pytest.mark.parametrize("cuts", [[[0], [1, 2, 3, 4]], [[1, 4], [0, 2, 3]], [[4], [3], [2], [1], [0]]])
def test_how_a_run_is_cut_moves_nothing(run, batch_size, cuts):
    whole = run(Progress.start(5), range(5), batch_size)
    pieces = Progress.start(5)
    for blocks in cuts:
        run(pieces, blocks, batch_size)
        assert bool(pieces.blocks_done.all()) == (blocks is cuts[-1])
    assert pieces.images == whole.images == 70
    for name, tensor in whole.tally.state_dict().items():
        other = pieces.tally.state_dict()[name]
        if tensor.dtype == torch.int64:
            assert torch.equal(tensor, other), name
        else:
            torch.testing.assert_close(tensor, other, atol=1e-9, rtol=1e-12)


def test_saves_come_as_often_as_asked_and_at_the_end(run):
    saved = []
    run(Progress.start(5), range(5), 4, save=lambda p: saved.append(p.images), save_every_s=0)
    assert saved == [16, 32, 48, 64, 70, 70]
    saved.clear()
    run(Progress.start(5), range(5), 4, save=lambda p: saved.append(p.images), save_every_s=1e9)
    assert saved == [70]


def test_an_error_in_the_middle_saves_whole_blocks(run):
    saved, seen = [], []

    def stop(images):
        seen.append(images)
        if sum(seen) > 40:
            raise EntropyCliError("stop")

    progress = Progress.start(5)
    with pytest.raises(EntropyCliError):
        run(progress, range(5), 4, save=lambda p: saved.append(p.images), save_every_s=1e9, advance=stop)
    assert saved == [32] and progress.blocks_done.tolist() == [True, True, False, False, False]


def test_a_block_that_was_half_added_is_not_saved(run, monkeypatch):
    saved, add_images = [], Tally.add

    def breaks(self, group_B, sums):
        add_images(self, group_B, sums)
        if int(self.images_G.sum()) > 40:
            raise RuntimeError("a bug, say")

    monkeypatch.setattr(Tally, "add", breaks)
    progress = Progress.start(5)
    with pytest.raises(RuntimeError):
        run(progress, range(5), 4, save=lambda p: saved.append(p.images), save_every_s=0)
    assert saved == [16, 32]


def test_what_memory_holds_at_once_moves_nothing(run, monkeypatch):
    """Sums over very many codes are formed for a few images at a time."""
    whole = run(Progress.start(5), range(5), 16)
    monkeypatch.setattr(batch_processor, "MOST_SUMS_BYTES", 1)
    single = run(Progress.start(5), range(5), 16)
    for name, tensor in whole.tally.state_dict().items():
        torch.testing.assert_close(tensor, single.tally.state_dict()[name], atol=1e-4, rtol=1e-6)
    assert torch.equal(whole.tally.counts_GSE, single.tally.counts_GSE)


@pytest.mark.parametrize(
    "batch_size, error",
    [(4, OUT_OF_MEMORY[0]), *((32, error) for error in OUT_OF_MEMORY)],
    ids=lambda value: str(value)[:30],
)
def test_out_of_memory_halves_what_is_done_at_once(run, monkeypatch, batch_size, error):
    whole = run(Progress.start(5), range(5), 2)
    encode, tried = VARTokenizer.encode, []

    def full(self, img_B3HW):
        tried.append(len(img_B3HW))
        if len(img_B3HW) > 2:
            raise error
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", full)
    halved = run(Progress.start(5), range(5), batch_size)
    assert sorted({*tried}, reverse=True) == [size for size in (32, 16, 8, 4, 2) if size <= batch_size]
    assert [size for size in tried if size > 2] == sorted({*tried} - {2}, reverse=True)  # each once
    assert torch.equal(whole.tally.counts_GSE, halved.tally.counts_GSE)
    monkeypatch.setattr(VARTokenizer, "encode", lambda *_: full(None, range(99)))
    with pytest.raises(EntropyCliError, match=f"single image .*{re.escape(str(error)[:18])}"):
        run(Progress.start(5), range(5), batch_size)


def test_the_estimate_is_recorded_after_the_same_images_however_a_run_is_cut(run):
    whole = run(Progress.start(5), range(5), 4)
    assert [point.images for point in whole.history] == [16, 32, 64, 70]
    pieces = Progress.start(5)
    with pytest.raises(EntropyCliError):
        run(pieces, range(5), 4, advance=_stop_after(40))
    run(pieces, range(5), 4)
    for point, expected in zip(pieces.history, whole.history, strict=True):
        assert astuple(point) == pytest.approx(astuple(expected))
    assert run(pieces, range(5), 4).history == pieces.history  # everything is done: nothing to note


def _stop_after(images):
    seen = []

    def stop(more):
        seen.append(more)
        if sum(seen) > images:
            raise EntropyCliError("stop")

    return stop


def test_devices_batch_sizes_and_workers_are_chosen_for_the_machine():
    assert choose_device("cpu") == CPU
    with pytest.raises(EntropyCliError, match="no such device"):
        choose_device("cuda:99")
    assert choose_batch_size(CPU, 256) == 4 and choose_batch_size(CPU, 10_000) == 1
    sizes = [choose_batch_size(torch.device("cuda"), size) for size in (128, 256, 320, 384, 1024)]
    assert sizes == [256, 64, 32, 16, 4]
    assert choose_workers(CPU) >= 1


def test_a_run_cut_right_before_a_record_makes_it_when_it_resumes(run, monkeypatch):
    monkeypatch.setattr(Loop, "_record_estimate", lambda _: False)
    pieces = run(Progress.start(5), range(2), 4)
    assert pieces.history == []
    monkeypatch.undo()
    assert [point.images for point in run(pieces, range(5), 4).history] == [32, 64, 70]


def test_what_is_not_finite_is_never_saved(run, monkeypatch):
    """Where it is found a batch late, on a GPU that nobody waits for, see test_gpu.py."""
    saved, encode, calls = [], VARTokenizer.encode, []

    def breaks(self, img_B3HW):
        calls.append(len(img_B3HW))
        return encode(self, img_B3HW) * (torch.nan if sum(calls) > 36 else 1)

    def save(progress):
        assert progress.tally.entropy_GST.isfinite().all()
        saved.append(progress.images)

    monkeypatch.setattr(VARTokenizer, "encode", breaks)
    with pytest.raises(EntropyCliError, match="NaN or infinite"):
        run(Progress.start(5), range(5), 4, save=save, save_every_s=0)
    assert saved and set(saved) <= {16, 32}


def test_a_worker_that_dies_while_the_model_computes_is_one_line(run, monkeypatch):
    encode, calls = VARTokenizer.encode, []

    def dies(self, img_B3HW):
        calls.append(1)
        if len(calls) > 6:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", dies)
    saved = []
    with pytest.raises(DatasetError, match="fewer --workers"):
        run(Progress.start(5), range(5), 4, save=lambda p: saved.append(p.images), save_every_s=1e9)
    assert saved == [16]


def test_a_gpu_is_chosen_by_number(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    assert choose_device("auto", 1) == torch.device("cuda", 1)
    assert choose_device("cuda:0", 0, 1) == torch.device("cuda", 0)
    assert all(device.index is not None for device in chosen)
    with pytest.raises(EntropyCliError, match="no more processes than GPUs"):
        choose_device("cuda", 2)
    assert choose_device("cuda", 1, 2) == torch.device("cuda", 1)
    for rank in range(2):
        with pytest.raises(EntropyCliError, match="2 processes on this machine would share it"):
            choose_device("cuda:1", rank, 2)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_a_precision_that_a_gpu_lacks_is_refused(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    cuda, old = torch.device("cuda", 0), capability < (8, 0)
    assert choose_precision(cuda) == "fp16"
    assert choose_training_precision(cuda) == ("fp16" if old else "bf16")
    for choose, precision in (
        (choose_precision, "bf16"),
        (choose_precision, "tf32"),
        (choose_training_precision, "bf16"),
    ):
        assert choose(CPU, "bf16") == "bf16"  # emulated
        if old:
            with pytest.raises(EntropyCliError, match=f"--precision {precision}: cuda:0 has no .*fp16"):
                choose(cuda, precision)
        else:
            assert choose(cuda, precision) == precision


def test_items_are_made_ready_ahead_and_errors_come_through():
    made, closed = [], []

    def items():
        try:
            yield from range(6)
            raise ValueError("no more")
        finally:
            closed.append(True)

    with contextlib.closing(ahead(items(), lambda i: made.append(i) or i * 10)) as ready:
        assert next(ready) == 0
        time.sleep(0.2)
        assert made == [0, 1, 2, 3]  # three waiting
        with pytest.raises(ValueError, match="no more"):
            list(ready)
    assert closed == [True]
    given_up = ahead(items(), str)
    assert next(given_up) == "0"
    given_up.close()
    assert closed == [True, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and -m gpu")
@pytest.mark.parametrize("batch_size", [8, 32])
def test_a_gpu_agrees_with_the_cpu(run, batch_size):
    on_cpu = run(Progress.start(5), range(5), 16)
    on_gpu = run(Progress.start(5), range(5), batch_size, device=torch.device("cuda"))
    entropy, other = (p.tally.to("cpu").entropy_GST.sum((0, 2)) for p in (on_cpu, on_gpu))
    torch.testing.assert_close(entropy, other, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and -m gpu")
@pytest.mark.parametrize(("precision", "bound"), [("tf32", 0.02), ("fp16", 0.02), ("bf16", 0.04)])
def test_a_gpu_s_other_precisions_are_close_to_float32(checkpoint, pictures, precision, bound):
    tokenizer, cuda = load_tokenizer(checkpoint).tokenizer, torch.device("cuda")
    with torch.inference_mode():
        exact = tokenizer.to(cuda, "fp32").encode(pictures.to(cuda))
        rounded = tokenizer.to(cuda, precision).encode(pictures.to(cuda))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).std() < bound * exact.std()


@pytest.mark.parametrize(("batch_size", "shapes"), [(32, {32}), (48, {48}), (16, {16, 6})])
def test_a_last_batch_of_several_blocks_is_filled_up_to_the_shape_of_all(
    run, monkeypatch, batch_size, shapes
):
    """70 images: kernels round by shape, and how much is left at the end depends on earlier cuts."""
    encode, seen = VARTokenizer.encode, set()

    def noted(self, img_B3HW):
        seen.add(len(img_B3HW))
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", noted)
    assert run(Progress.start(5), range(5), batch_size).images == 70
    assert seen == shapes
