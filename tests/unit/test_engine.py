"""The loop: how a run is cut moves nothing, and the state comes back as it was saved."""

import os
import signal

import pytest
import torch

from entropy_cli.data.images import GROUPS, find_images
from entropy_cli.data.loader import plan, read_batches
from entropy_cli.engine.estimate import Estimator, Hooks
from entropy_cli.engine.progress import Progress
from entropy_cli.engine.runtime import (
    Interrupted,
    Signals,
    choose_batch_size,
    choose_device,
    choose_workers,
)
from entropy_cli.errors import EntropyCliError, StateError
from entropy_cli.functional.tally import Tally
from entropy_cli.results import state
from entropy_cli.tokenizers import load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def run(images, checkpoint):
    """Run some blocks into a progress; block 4 holds six images, the others sixteen."""
    found, tokenizer = find_images(images), load_tokenizer(checkpoint).tokenizer

    def run(progress, blocks, batch_size, temperatures=(1.0,), **hooks):
        batches = read_batches(found, plan(70, batch_size, blocks), tokenizer.spec.crop.apply, workers=0)
        estimator = Estimator(tokenizer, CPU, batch_size, GROUPS)
        estimator.run(batches, progress, temperatures and list(temperatures), Hooks(**hooks), Signals())
        return progress

    return run


@pytest.mark.parametrize("batch_size", [3, 16, 32, 48])
@pytest.mark.parametrize("cuts", [[[0], [1, 2, 3, 4]], [[1, 4], [0, 2, 3]], [[4], [3], [2], [1], [0]]])
@pytest.mark.parametrize("fitted", [False, True])
def test_how_a_run_is_cut_moves_nothing(run, batch_size, cuts, fitted):
    """Also for a run that goes on with temperatures that its first part had fitted."""
    whole = run(Progress.start(5), range(5), batch_size, temperatures=None if fitted else (1.0,))
    pieces = Progress.start(5)
    if fitted:
        pieces.temperatures, pieces.pilot = whole.temperatures, whole.pilot
    for blocks in cuts:
        run(pieces, blocks, batch_size)
        assert not pieces.finished or blocks is cuts[-1]
    for name, tensor in whole.tally.tensors().items():
        other = pieces.tally.tensors()[name]
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


def test_a_block_that_was_half_counted_is_not_saved(run, monkeypatch):
    saved, add_images = [], Tally.add_images

    def breaks(self, group_B, sums):
        add_images(self, group_B, sums)
        if int(self.images_G.sum()) > 40:
            raise RuntimeError("out of memory, say")

    monkeypatch.setattr(Tally, "add_images", breaks)
    progress = Progress.start(5)
    with pytest.raises(RuntimeError):
        run(progress, range(5), 4, save=lambda p: saved.append(p.images), save_every_s=0)
    assert saved == [16, 32]


def test_a_state_comes_back_as_it_was(run, tmp_path):
    progress = run(Progress.start(5), [0, 2], 4, temperatures=None)
    progress.failed = [("a/ü\n.jpg", "why"), ("b\udcff.jpg", "not UTF-8")]
    settings = {"temperature": "auto", "patch_nums": [1, None], "seed": 1}
    state.save(tmp_path / "s", progress, settings)
    again = state.load(tmp_path / "s", settings)
    assert again.temperatures == progress.temperatures and again.pilot == progress.pilot
    assert again.failed == progress.failed and again.history == progress.history
    assert torch.equal(again.blocks_done, progress.blocks_done)
    for name, tensor in progress.tally.tensors().items():
        assert torch.equal(tensor, again.tally.tensors()[name])
    with pytest.raises(StateError, match="seed 1, but this run has 2"):
        state.load(tmp_path / "s", {**settings, "seed": 2})


def test_a_state_of_a_newer_version_is_refused(run, tmp_path, monkeypatch):
    state_before = Progress.start(2)
    monkeypatch.setattr(state, "SCHEMA_VERSION", 99)
    state.save(tmp_path / "s", state_before, {})
    monkeypatch.undo()
    with pytest.raises(StateError, match="version 99"):
        state.load(tmp_path / "s", {})


def test_a_signal_waits_while_state_changes():
    done = []
    with Signals() as signals:
        with pytest.raises(Interrupted) as caught, signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("still here")
        assert done and caught.value.exit_code == 143

    with Signals() as signals:
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_code == 130
        os.kill(os.getpid(), signal.SIGTERM)  # a second does not cut short what the first began
        with pytest.raises(Interrupted), signals.held():
            done.append("saved")
        assert done[-1] == "saved"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_signal_is_raised_again():
    class Destroyed:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    with Signals() as signals:
        thing = Destroyed()
        del thing  # Python prints and drops what a destructor raises
        with pytest.raises(Interrupted), signals.held():
            pass


def test_devices_and_choices():
    assert choose_device("cpu") == CPU
    with pytest.raises(EntropyCliError, match="no such device"):
        choose_device("cuda:99")
    assert choose_batch_size(CPU, 256) == 4 and choose_batch_size(CPU, 10_000) == 1
    assert choose_workers(CPU) >= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_agrees_with_the_cpu(images, checkpoint, run):
    on_cpu = run(Progress.start(5), range(5), 16)
    found, tokenizer = find_images(images), load_tokenizer(checkpoint).tokenizer
    batches = read_batches(
        found, plan(70, 16, range(5)), tokenizer.spec.crop.apply, workers=0, pin_memory=True
    )
    on_gpu = Progress.start(5)
    Estimator(tokenizer, torch.device("cuda"), 16, GROUPS).run(
        batches, on_gpu, [1.0], Hooks(), Signals()
    )
    entropy, other = (p.tally.to("cpu").entropy_GST.sum((0, 2)) for p in (on_cpu, on_gpu))
    torch.testing.assert_close(entropy, other, rtol=1e-5, atol=1e-5)
