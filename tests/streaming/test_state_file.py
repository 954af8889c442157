"""The state of a run comes back as it was saved, or is refused."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from entropy_cli.core.errors import StateError
from entropy_cli.entropy.vocabulary import Vocabulary
from entropy_cli.streaming import state_file
from entropy_cli.streaming.progress import Progress
from entropy_cli.streaming.run_settings import RunSettings
from entropy_cli.streaming.state import RunMetadata, RunState
from entropy_cli.tokenizers.base import Scale
from tests.conftest import PATCH_NUMS, SIZES

VOCABULARIES = [Vocabulary(SIZES.vocab_size)] * len(PATCH_NUMS)
METADATA = RunMetadata(
    latent_dim=6,
    scales=[Scale(f"{n} x {n}", n * n, n, of) for n, of in zip(PATCH_NUMS, VOCABULARIES, strict=True)],
    distance_dims=[6, None, 6, 6],
    temperature_asked=True,
    temperature_default="none",
    split="folder",
    images_found=70,
    provenance={"data": "ü"},
)
SETTINGS = RunSettings(
    family="var",
    patch_nums=list(PATCH_NUMS),
    image_size=64,
    rule="l2",
    preprocess="none",
    temperature=[1.0],
    seed=1,
    images_fingerprint="0",
    images=70,
    precision="fp32",
    checkpoint_sha256=None,
    identity={"norm_groups": 32},
)
UNREADABLE = [("a/ü\n.jpg", "why"), *((f"b{i}\udcff.jpg", "not UTF-8") for i in range(5))]


def test_a_state_comes_back_as_it_was(run, tmp_path):
    progress = run(Progress.start(5), [0, 2], 4)
    progress.blocks_done[4], progress.failed = True, UNREADABLE  # all of whose images are unreadable
    progress.pilot = {"images": 3, "hard": [1.0], "steps": [2], "ended": ["steps"]}
    progress.precision_check = {"images": 4}
    progress.runs = [{"device": "cpu", "seconds": 1.5}]
    settings = replace(SETTINGS, temperature=["auto"])
    state = RunState(progress, settings, METADATA, (1, 3))
    state_file.save(tmp_path / "s", state)
    loaded = state_file.load(tmp_path / "s")
    again = loaded.progress
    assert (loaded.settings, loaded.metadata, loaded.shard) == (settings, METADATA, (1, 3))
    assert again.precision_check == progress.precision_check and again.images == progress.images
    assert again.temperatures == progress.temperatures and again.pilot == progress.pilot
    assert again.runs == progress.runs
    assert again.failed == progress.failed and again.history == progress.history
    assert torch.equal(again.blocks_done, progress.blocks_done)
    for name, tensor in progress.tally.state_dict().items():
        assert torch.equal(tensor, again.tally.state_dict()[name])
    with pytest.raises(StateError, match="seed 1, but this run has 2"):
        state_file.check_same(tmp_path / "s", settings, replace(settings, seed=2))


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
    state_file.save(path, RunState(run(Progress.start(5), [0, 2], 4), SETTINGS, METADATA, None))
    assert state_file.load(path).progress.images == 32
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    meta = json.loads(metadata["entropy-cli"])
    DAMAGES[damage](tensors, meta)
    text = json.dumps(meta)
    sha256 = state_file.checksum(text, tensors) if checked else metadata["sha256"]
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"entropy-cli": text, "sha256": sha256})
    with pytest.raises(StateError, match=r"s: a damaged state \(.+\)"):
        state_file.load(path)


def test_one_flipped_bit_is_found(run, tmp_path):
    path = tmp_path / "s"
    state_file.save(path, RunState(run(Progress.start(5), [0, 2], 4), SETTINGS, METADATA, None))
    content = bytearray(path.read_bytes())
    content[-9] ^= 16
    path.write_bytes(content)
    with pytest.raises(StateError, match="a damaged state"):
        state_file.load(path)


def test_a_state_of_an_older_version_names_the_version_that_wrote_it(tmp_path):
    meta = json.dumps({"schema": state_file.SCHEMA, "schema_version": 3})
    save_file({"blocks_done": torch.zeros(1)}, tmp_path / "s", {"entropy-cli": meta})
    with pytest.raises(StateError, match=r"version 3, written by entropy-cli 0\.1\.0 or before"):
        state_file.load(tmp_path / "s")


def test_a_state_of_a_newer_version_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "SCHEMA_VERSION", 99)
    state_file.save(tmp_path / "s", RunState(Progress.start(5), SETTINGS, METADATA, None))
    monkeypatch.undo()
    with pytest.raises(StateError, match="version 99"):
        state_file.load(tmp_path / "s")


@pytest.mark.parametrize("setting", sorted({*SETTINGS.to_json()} - {"norm_groups"}))
def test_a_state_of_any_other_setting_is_refused(tmp_path, setting):
    other = replace(SETTINGS, **{setting: "another"})
    for got, expected in ((other, SETTINGS), (SETTINGS, other)):
        with pytest.raises(StateError, match=r"was saved with .*, or another --state"):
            state_file.check_same(tmp_path / "s", got, expected)
    assert other.fingerprint() != SETTINGS.fingerprint()
    state_file.check_same(tmp_path / "s", SETTINGS, replace(SETTINGS))


@pytest.mark.parametrize("identity", [{}, {"norm_groups": 16}, {"norm_groups": 32, "more": "ema"}])
def test_a_state_of_another_tokenizer_is_refused(tmp_path, identity):
    other = replace(SETTINGS, identity=identity)
    for got, expected in ((other, SETTINGS), (SETTINGS, other)):
        with pytest.raises(StateError, match="Use the same"):
            state_file.check_same(tmp_path / "s", got, expected)
    assert other.fingerprint() != SETTINGS.fingerprint()


def test_metadata_that_is_no_object_is_refused(tmp_path):
    header = b'{"__metadata__": [1]}'
    (tmp_path / "s").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(StateError, match="can't be read as a saved state"):
        state_file.load(tmp_path / "s")
