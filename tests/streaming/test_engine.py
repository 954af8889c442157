"""The loop: how a run is cut moves nothing, and the state comes back as it was saved."""

import contextlib
import json
import time
from dataclasses import astuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from entropy_cli.core.errors import DatasetError, EntropyCliError, StateError
from entropy_cli.core.signals import Signals
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import check_points, plan_segments
from entropy_cli.streaming import batch_processor as units
from entropy_cli.streaming import state
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.device import choose_batch_size, choose_device, choose_workers
from entropy_cli.streaming.loop import Estimation
from entropy_cli.streaming.prefetch import ahead, prefetch
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.run_metadata import RunMetadata
from entropy_cli.streaming.saved import Saved
from entropy_cli.tokenizers.base import Scale, sums_layout
from entropy_cli.tokenizers.families.var import VARTokenizer
from entropy_cli.tokenizers.registry import load_tokenizer
from tests.conftest import PATCH_NUMS, SIZES

CPU = torch.device("cpu")
VOCABULARIES = [Vocabulary(SIZES.vocab_size)] * len(PATCH_NUMS)
ABOUT = RunMetadata(
    latent_dim=6,
    scales=[Scale(f"{n} x {n}", n * n, n, of) for n, of in zip(PATCH_NUMS, VOCABULARIES, strict=True)],
    degrees_of_freedom=[6, None, 6, 6],
    temperature_asked=True,
    temperature_default="none",
    split="folder",
    images_found=70,
    provenance={"data": "ü"},
)
SETTINGS = {
    "temperature": [1.0],
    "patch_nums": list(PATCH_NUMS),
    "images": 70,
    "groups": GROUPS,
    "seed": 1,
}
UNREADABLE = [("a/ü\n.jpg", "why"), *((f"b{i}\udcff.jpg", "not UTF-8") for i in range(5))]


@pytest.fixture
def run(images, checkpoint):
    """Run some blocks into a progress; block 4 holds six images, the others sixteen."""
    found, tokenizer = find_images(images), load_tokenizer(checkpoint).tokenizer

    def run(progress, blocks, batch_size, device=CPU, target=None, advance=lambda _: None, **hooks):
        worker = BatchProcessor(tokenizer.to(device, "fp32"), device, batch_size, advance)
        done = progress.blocks_done.tolist()
        points = check_points(len(blocks), early_stop=target is not None)
        legs = plan_segments(70, batch_size, list(blocks), done, points)
        plans = [plan for leg in legs for plan in leg.plans]
        read = read_batches(
            open_loader(CroppedImages(found, tokenizer.spec.crop.apply), plans, workers=0)
        )
        if not progress.accumulators:
            progress.temperatures = [[1.0] for _ in tokenizer.spec.scales]
            progress.place(sums_layout(tokenizer.spec.scales, GROUPS, 1), device)
        with contextlib.closing(prefetch(read, device)) as batches:
            units = worker.encode(batches)
            Estimation(worker, progress, Ranks(), Signals(), target=target, **hooks).run(units, legs)
        return progress

    return run


@pytest.mark.parametrize("batch_size", [3, 16, 32, 48])
@pytest.mark.parametrize("cuts", [[[0], [1, 2, 3, 4]], [[1, 4], [0, 2, 3]], [[4], [3], [2], [1], [0]]])
def test_how_a_run_is_cut_moves_nothing(run, batch_size, cuts):
    whole = run(Progress.start(5), range(5), batch_size)
    pieces = Progress.start(5)
    for blocks in cuts:
        run(pieces, blocks, batch_size)
        assert pieces.finished(range(5)) == (blocks is cuts[-1])
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


def test_a_block_that_was_half_counted_is_not_saved(run, monkeypatch):
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
    monkeypatch.setattr(units, "MOST_SUMS_BYTES", 1)
    single = run(Progress.start(5), range(5), 16)
    for name, tensor in whole.tally.state_dict().items():
        torch.testing.assert_close(tensor, single.tally.state_dict()[name], atol=1e-4, rtol=1e-6)
    assert torch.equal(whole.tally.counts_GSE, single.tally.counts_GSE)


@pytest.mark.parametrize("batch_size", [4, 32])
def test_out_of_memory_halves_what_is_done_at_once(run, monkeypatch, caplog, batch_size):
    whole = run(Progress.start(5), range(5), 2)
    encode = VARTokenizer.encode

    def full(self, img_B3HW):
        if len(img_B3HW) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, img_B3HW)

    monkeypatch.setattr(VARTokenizer, "encode", full)
    halved = run(Progress.start(5), range(5), batch_size)
    assert torch.equal(whole.tally.counts_GSE, halved.tally.counts_GSE)
    monkeypatch.setattr(VARTokenizer, "encode", lambda *_: full(None, range(99)))
    with pytest.raises(EntropyCliError, match="single image"):
        run(Progress.start(5), range(5), batch_size)


def test_the_estimate_is_looked_at_after_the_same_images_however_a_run_is_cut(run):
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


def test_a_state_comes_back_as_it_was(run, tmp_path):
    progress = run(Progress.start(5), [0, 2], 4)
    progress.blocks_done[4], progress.failed = True, UNREADABLE  # all of whose images are unreadable
    progress.pilot = {"images": 3, "hard": [1.0], "steps": [2], "ended": ["steps"]}
    progress.precision_check = {"images": 4}
    settings = {**SETTINGS, "temperature": "auto"}
    saved = Saved(progress, settings, ABOUT, (1, 3))
    state.save(tmp_path / "s", saved)
    loaded = state.load(tmp_path / "s")
    again = loaded.progress
    assert (loaded.settings, loaded.about, loaded.shard) == (settings, ABOUT, (1, 3))
    assert again.precision_check == progress.precision_check and again.images == progress.images
    assert again.temperatures == progress.temperatures and again.pilot == progress.pilot
    assert again.failed == progress.failed and again.history == progress.history
    assert torch.equal(again.blocks_done, progress.blocks_done)
    for name, tensor in progress.tally.state_dict().items():
        assert torch.equal(tensor, again.tally.state_dict()[name])
    with pytest.raises(StateError, match="seed 1, but this run has 2"):
        state.check_same(tmp_path / "s", settings, {**settings, "seed": 2})


DAMAGES = {
    "no images": lambda tensors, meta: tensors["tally.images_G"].zero_(),
    "shape": lambda tensors, meta: tensors.update(half=tensors.pop("tally.entropy_GST")[:1]),
    "fewer groups": lambda tensors, meta: tensors.update(
        {"tally.entropy_GST": tensors["tally.entropy_GST"][:1]}
    ),
    "type": lambda tensors, meta: tensors.update(
        {"tally.entropy_GST": tensors["tally.entropy_GST"].half()}
    ),
    "NaN": lambda tensors, meta: tensors["tally.entropy_GST"].fill_(torch.nan),
    "negative": lambda tensors, meta: tensors["tally.soft_GSTE"].neg_(),
    "above ln V": lambda tensors, meta: tensors["tally.entropy_GST"].mul_(100),
    "counts": lambda tensors, meta: tensors["tally.counts_GSE"].add_(1),
    "probabilities": lambda tensors, meta: tensors["tally.soft_GSTE"].mul_(1.001),
    "tokens": lambda tensors, meta: tensors["tally.tokens_S"].add_(1),
    "blocks": lambda tensors, meta: tensors.update(blocks_done=tensors["blocks_done"][:0]),
    "another block": lambda tensors, meta: tensors["blocks_done"].logical_not_(),
    "pilot": lambda tensors, meta: meta.update(pilot={"a": 1}),
    "no scales": lambda tensors, meta: meta["about"].update(scales=[]),
    "provenance": lambda tensors, meta: meta["about"].update(provenance="x"),
    "temperatures": lambda tensors, meta: meta.update(temperatures=[[1.0]]),
    "other temperatures": lambda tensors, meta: meta.update(temperatures=[[2.0]] * 4),
    "no temperatures": lambda tensors, meta: meta.update(temperatures=None),
    "no sums": lambda tensors, meta: meta.update(accumulators={}),
    "a section's version": lambda tensors, meta: meta["accumulators"]["tally"].update(version=9),
    "another section": lambda tensors, meta: meta["accumulators"].update(ladder={"version": 1}),
    "failed": lambda tensors, meta: meta["failed"].append(["a.jpg", "why"]),
    "images in the settings": lambda tensors, meta: meta["settings"].update(images=10**30),
    "groups": lambda tensors, meta: meta["settings"].update(groups="x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("checked", [False, True], ids=["with the old checksum", "with its own"])
def test_a_damaged_state_is_refused(run, tmp_path, damage, checked):
    """Also one whose checksum was made to fit: its parts contradict each other."""
    path = tmp_path / "s"
    state.save(path, Saved(run(Progress.start(5), [0, 2], 4), SETTINGS, ABOUT, None))
    assert state.load(path).progress.images == 32
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    meta = json.loads(metadata["entropy-cli"])
    DAMAGES[damage](tensors, meta)
    text = json.dumps(meta)
    sha256 = state.checksum(text, tensors) if checked else metadata["sha256"]
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"entropy-cli": text, "sha256": sha256})
    with pytest.raises(StateError, match=r"s: a damaged state \(.+\)"):
        state.load(path)


def test_one_flipped_bit_is_found(run, tmp_path):
    path = tmp_path / "s"
    state.save(path, Saved(run(Progress.start(5), [0, 2], 4), SETTINGS, ABOUT, None))
    content = bytearray(path.read_bytes())
    content[-9] ^= 16
    path.write_bytes(content)
    with pytest.raises(StateError, match="a damaged state"):
        state.load(path)


def test_a_state_of_an_older_version_names_the_version_that_wrote_it(tmp_path):
    meta = json.dumps({"schema": state.SCHEMA, "schema_version": 3})
    save_file({"blocks_done": torch.zeros(1)}, tmp_path / "s", {"entropy-cli": meta})
    with pytest.raises(StateError, match=r"version 3, written by entropy-cli 0\.1\.0 or before"):
        state.load(tmp_path / "s")


def test_a_state_of_a_newer_version_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "SCHEMA_VERSION", 99)
    state.save(tmp_path / "s", Saved(Progress.start(5), SETTINGS, ABOUT, None))
    monkeypatch.undo()
    with pytest.raises(StateError, match="version 99"):
        state.load(tmp_path / "s")


def test_devices_and_choices():
    assert choose_device("cpu") == CPU
    with pytest.raises(EntropyCliError, match="no such device"):
        choose_device("cuda:99")
    assert choose_batch_size(CPU, 256) == 4 and choose_batch_size(CPU, 10_000) == 1
    sizes = [choose_batch_size(torch.device("cuda"), size) for size in (128, 256, 320, 384, 1024)]
    assert sizes == [256, 64, 32, 16, 4]
    assert choose_workers(CPU) >= 1


def test_a_run_cut_right_before_a_look_takes_it_when_it_goes_on(run, monkeypatch):
    monkeypatch.setattr(Estimation, "_look", lambda _: False)
    pieces = run(Progress.start(5), range(2), 4)
    assert pieces.history == []
    monkeypatch.undo()
    assert [point.images for point in run(pieces, range(5), 4).history] == [32, 64, 70]


@pytest.mark.parametrize("late", [False, True])
def test_what_is_not_finite_is_never_saved(run, monkeypatch, late):
    """Also where it is found one unit late, as on a GPU that nobody waits for."""
    saved, encode, settle, calls = [], VARTokenizer.encode, BatchProcessor.check_finite, []

    def breaks(self, img_B3HW):
        calls.append(len(img_B3HW))
        return encode(self, img_B3HW) * (torch.nan if sum(calls) > 36 else 1)

    monkeypatch.setattr(VARTokenizer, "encode", breaks)
    if late:
        monkeypatch.setattr(
            BatchProcessor, "check_finite", lambda self, keep=True: settle(self, keep=keep)
        )
    with pytest.raises(EntropyCliError, match="NaN or infinite"):
        run(Progress.start(5), range(5), 4, save=saved.append, save_every_s=0)
    assert saved and all(progress.tally.entropy_GST.isfinite().all() for progress in saved)
    assert all(progress.images in (16, 32) for progress in saved) or not late


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
    assert choose_device("cuda:0", 1) == torch.device("cuda", 0)
    assert all(device.index is not None for device in chosen)
    with pytest.raises(EntropyCliError, match="no more processes than GPUs"):
        choose_device("cuda", 2)


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("batch_size", [8, 32])
def test_a_gpu_agrees_with_the_cpu(run, batch_size):
    on_cpu = run(Progress.start(5), range(5), 16)
    on_gpu = run(Progress.start(5), range(5), batch_size, device=torch.device("cuda"))
    entropy, other = (p.tally.to("cpu").entropy_GST.sum((0, 2)) for p in (on_cpu, on_gpu))
    torch.testing.assert_close(entropy, other, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_a_gpu_s_other_precisions_are_close_to_float32(checkpoint, pictures, precision):
    tokenizer, cuda = load_tokenizer(checkpoint).tokenizer, torch.device("cuda")
    with torch.inference_mode():
        exact = tokenizer.to(cuda, "fp32").encode(pictures.to(cuda))
        rounded = tokenizer.to(cuda, precision).encode(pictures.to(cuda))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).std() < 0.02 * exact.std()
