"""However an evaluation is cut, stopped, gone on with or given its tokens, its numbers are the same."""

import json
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from entropy_cli.entropy import stopping
from entropy_cli.entropy.loss_tally import LossTally
from tests.commands.evaluate.conftest import AVERAGES, assert_same_losses, parts_of
from tests.conftest import torchrun
from tests.family_checkpoints import EXAMPLES as TOKENIZERS
from tests.family_checkpoints import random_weights as tokenizer_weights
from tests.generator_checkpoints import gpt_shapes, random_weights

SOFT = ("target_cross_entropy", "kl")


@pytest.fixture
def merge(cli):
    """Run `merge --json`; gives the result, or the exit code and stderr."""

    def run(*argv):
        code, out, err = cli("merge", "--json", *argv)
        return json.loads(out) if code == 0 else (code, err)

    return run


def interrupt_at(patch, number):
    """Let a signal come while the losses of a batch are added."""
    seen, add_images = [], LossTally.add

    def add(self, *args):
        add_images(self, *args)
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(LossTally, "add", add)


@pytest.mark.parametrize("config", ["{}", '{"using_znorm": false}'])
def test_a_model_tells_the_scales_and_the_image_size(evaluate, options, checkpoint, tmp_path, config):
    """As VAR's for 512 pixels does: its tokenizer's file is the same for any size."""
    shutil.copy(checkpoint, tmp_path / "vae.safetensors")
    (tmp_path / "config.json").write_text(config)
    few = (*options, "--limit", "4")
    told = evaluate(*few, "--ckpt", tmp_path / "vae.safetensors")
    assert told["settings"]["image_size"] == 32 and told["tokenizer"]["patch_nums"] == [1, 2, 4, 8]
    assert told["total"] == evaluate(*few)["total"]


@pytest.mark.parametrize("more", [("--batch-size", "3"), ("--batch-size", "48"), ("--workers", "2")])
def test_batches_and_workers_move_nothing(evaluate, options, whole, more):
    assert_same_losses(whole[0], evaluate(*options, *more), 1e-6, but=("accuracy_top1",))


@pytest.mark.parametrize("number", [1, 3, 6])
def test_shards_add_up_to_the_run(cli, merge, options, whole, tmp_path, number):
    states = [tmp_path / f"{i}.state" for i in range(number)]
    for i, state in enumerate(states):
        shard = ("--shard", f"{i}/{number}", "--state", state)
        code, _, err = cli("evaluate", *options, *shard, "--workers", 0)
        assert code == 0, err
    result = merge(*reversed(states))
    assert result["schema"] == "entropy-cli/evaluate"
    assert_same_losses(whole[0], result)
    for key in ("model", "labels"):
        assert result[key] == whole[0][key] or key == "labels"
    assert result["data"] == whole[0]["data"] and result["tokenizer"] == whole[0]["tokenizer"]
    assert result["provenance"]["model"] == whole[0]["provenance"]["model"]


def test_interrupted_and_gone_on_with(evaluate, options, whole, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 3)
        code, err = evaluate(*options, "--state", tmp_path / "s")
    assert code == 143 and "to resume, run the same command" in err.splitlines()[-1]
    saved = int(load_file(tmp_path / "s")["blocks_done"].sum())
    assert 1 <= saved < 5
    more = ("--state", tmp_path / "s", "--per-image", tmp_path / "n.csv")
    result = evaluate(*options, *more)
    assert result["provenance"]["images_resumed"] == 16 * saved
    assert_same_losses(whole[0], result, 1e-12)
    assert result["cross_entropy_history"] == whole[0]["cross_entropy_history"]
    assert (tmp_path / "n.csv").read_bytes() == whole[1]["nats"].read_bytes()
    assert result["extremes"] == whole[0]["extremes"]
    again = evaluate(*options, *more)  # all is done: it is only shown
    assert_same_losses(result, again, 0)


def test_a_signal_in_any_block_loses_nothing(evaluate, options, whole, tmp_path):
    for number in range(1, 6):
        with pytest.MonkeyPatch.context() as patch:
            interrupt_at(patch, 1)
            found = evaluate(*options, "--state", tmp_path / "s")
        if isinstance(found, dict):
            break
        assert found[0] == 143, number
    assert_same_losses(whole[0], evaluate(*options, "--state", tmp_path / "s"), 1e-12)


@pytest.mark.slow
def test_two_processes_go_on_with_a_run(evaluate, options, whole, tmp_path):
    """What was saved counts once."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 2)
        assert evaluate(*options, "--state", tmp_path / "s")[0] == 143
    argv = [*torchrun(2), "entropy_cli", "evaluate", *options, "--workers", "0"]
    files = ["--state", tmp_path / "s", "-o", tmp_path / "r.json", "--per-image", tmp_path / "n.csv"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in (*argv, *files)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert 0 < result["provenance"]["images_resumed"] < 70
    assert result["provenance"]["processes"] == 2
    assert_same_losses(whole[0], result, 1e-6)
    counts = load_file(tmp_path / "s")
    assert counts["losses.images_G"].sum() == counts["tally.images_G"].sum() == 70
    mine, theirs = (
        [line.rsplit(",", 1) for line in path.read_text().splitlines()[1:]]
        for path in (tmp_path / "n.csv", whole[1]["nats"])
    )
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    assert [float(v) for _, v in mine] == pytest.approx([float(v) for _, v in theirs], rel=1e-6)


@pytest.mark.parametrize("cluster", ["image", "folder"])
def test_saved_tokens_give_what_the_images_give(evaluate, estimate, options, tmp_path, cluster):
    """Without the latents there is nothing on soft labels, and KL is null."""
    groups = ("--cluster", cluster)
    files = ("--save-tokens", tmp_path / "t.npy", "-o", tmp_path / "r.json")
    estimate(*options[:4], *options[6:], *groups, *files)
    expected = evaluate(*options, *groups)
    given = ("--tokens", tmp_path / "t.npy", "--result", tmp_path / "r.json")
    result = evaluate(*given, *options[2:6], "--per-image", tmp_path / "n.csv")
    assert_same_losses(expected, result, 1e-6, but=SOFT)
    for _, part in parts_of(result):
        assert part["kl"]["value"] is None and "tokens were given" in part["kl"]["note"]
    assert result["extremes"]["worst"][0]["path"] == expected["extremes"]["worst"][0]["path"]
    assert result["data"] == expected["data"] | {"fingerprint": result["data"]["fingerprint"]}


def test_saved_tokens_with_unreadable_images(evaluate, estimate, options, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.jpg"))[::9]:
        path.write_bytes(bytes(path.stat().st_size))
    data = ("--data", tmp_path / "data")
    files = ("--save-tokens", tmp_path / "t.npy", "-o", tmp_path / "r.json")
    estimate(*options[:4], *options[6:], *data, *files)
    expected = evaluate(*options, *data)
    assert expected["data"]["images_used"] == 62 and len(expected["data"]["failed"]) == 8
    given = ("--tokens", tmp_path / "t.npy", "--result", tmp_path / "r.json")
    result = evaluate(*given, *options[2:6])
    null = ("cross_entropy_null", "as_logged")  # of the first images that could be read
    assert_same_losses(expected, result, 1e-6, but=(*SOFT, *null))
    assert result["data"]["failed"] == expected["data"]["failed"]


def test_an_evaluation_too_can_be_the_result_of_the_tokens(evaluate, options, whole):
    """Two models of one tokenizer, of which the second reads no image."""
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
    result = evaluate(*given, *options[2:6])
    assert_same_losses(whole[0], result, 1e-6, but=SOFT)
    assert result["ladder"] == whole[0]["ladder"]


def test_tokens_tell_the_image_size(estimate, evaluate, images, tmp_path):
    """LlamaGen's weights don't, and its tokenizer's grid at that size is another than the default's."""
    torch.save(tokenizer_weights(TOKENIZERS["llamagen"].shapes), tmp_path / "vq.pth")
    torch.save(random_weights(gpt_shapes(codes=40, rows=5)), tmp_path / "gpt.pth")
    pair = ("--ckpt", tmp_path / "vq.pth", "--model", tmp_path / "gpt.pth", "--heads", 4)
    data = ("--data", images, "--image-size", 16, "--limit", 8, "--temperature", 1)
    expected = evaluate(*data, *pair)
    estimate(*data, *pair[:2], "--save-tokens", tmp_path / "t.npy", "-o", tmp_path / "r.json")
    result = evaluate("--tokens", tmp_path / "t.npy", "--result", tmp_path / "r.json", *pair)
    assert_same_losses(expected, result, 1e-6, but=SOFT)


def test_a_run_stops_at_the_target_of_the_cross_entropy(evaluate, options, whole, monkeypatch):
    monkeypatch.setattr(stopping, "MIN_IMAGES", 20)
    monkeypatch.setattr(stopping, "MIN_IMAGES_PER_GROUP", 0)
    points = whole[0]["cross_entropy_history"]
    target = max(point["widest"] for point in points[1:3])
    entropies = whole[0]["history"][-1]["widest"]
    assert target < points[0]["widest"] and target != pytest.approx(entropies, rel=0.1)
    result = evaluate(*options, "--target-ci", target)
    assert result["target_reached"] is True and result["data"]["images_used"] == 64
    assert [point["images"] for point in result["cross_entropy_history"]] == [16, 32, 64]
    for kind in AVERAGES:
        low, high = result["average"][kind]["cross_entropy"]["ci95"]
        assert (high - low) / 2 <= target * (1 + 1e-9)
    assert evaluate(*options, "--target-ci", 1e-6)["target_reached"] is False


def test_limits_cut_the_same_order(evaluate, options, whole):
    result = evaluate(*options, "--limit", 37)
    assert result["data"]["images_used"] == 37 and result["labels"]["check"]["images"] == 37
    share = np.array([1, 4, 16, 64]) / 85
    sums = load_nats(whole[1]["nats"])[:37].mean() / 85
    got = result["average"]["token_weighted"]["cross_entropy"]["value"]
    assert got == pytest.approx(sums, rel=1e-6)
    assert got == pytest.approx(share @ [s["cross_entropy"]["value"] for s in result["scales"]])


def load_nats(path):
    return np.array([float(line.rsplit(",", 1)[1]) for line in path.read_text().splitlines()[1:]])


@pytest.mark.parametrize("number, checked", [(0, None), (5, 5), (1000, 70)])
def test_label_check_counts_the_first_images(evaluate, options, whole, number, checked):
    result = evaluate(*options, "--label-check", number)
    null = result["average"]["token_weighted"]["cross_entropy_null"]
    if checked is None:
        assert result["labels"]["check"] is None and null["value"] is None and null["note"]
    else:
        assert result["labels"]["check"]["images"] == checked and null["value"] > 0
    assert_same_losses(whole[0], result, 1e-12, but=("cross_entropy_null", "as_logged"))


def test_label_check_across_shards_is_that_of_the_run(cli, merge, evaluate, options, tmp_path):
    more = ("--label-check", 20)
    states = [tmp_path / f"{i}" for i in range(3)]
    for i, state in enumerate(states):
        shard = ("--shard", f"{i}/3", "--state", state)
        assert cli("evaluate", *options, *shard, *more, "--workers", 0)[0] == 0
    result = merge(*states)
    assert result["labels"]["check"]["images"] == 20
    assert_same_losses(evaluate(*options, *more), result)


def test_a_kept_state_is_of_one_model_one_labelling_and_one_set_of_tokens(
    evaluate, estimate, options, model, whole, images, tmp_path
):
    state = ("--state", tmp_path / "s")
    evaluate(*options, *state)
    other = load_file(model)
    other["head.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    names = [path.relative_to(images) for path in images.rglob("*.jpg")]
    (tmp_path / "labels.csv").write_text("\n".join(f"{name},{i % 4}" for i, name in enumerate(names)))
    for more, words in (
        (("--model", tmp_path / "other.safetensors"), "another model than this run's"),
        (("--labels", tmp_path / "labels.csv"), "other labels than this run's"),
        (("--labels", "none"), "label_check 64, but this run has 0"),
        (("--label-check", 3), "label_check 64, but this run has 3"),
        (("--precision", "bf16"), "bf16"),
        (("--limit", 20), "images 70, but this run has 20"),
    ):
        code, err = evaluate(*options, *state, *more)
        assert code == 3 and words in err.splitlines()[-1], err
    code, err = estimate(*options[:4], *options[6:], *state)
    assert code == 3 and "saved by `evaluate`, but this run is of `estimate`" in err.splitlines()[-1]
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
    code, err = evaluate(*given, *options[2:6], *state)
    assert code == 3 and "saved with images, but this run has --tokens" in err.splitlines()[-1]


def test_a_state_of_estimate_is_not_gone_on_with(evaluate, estimate, options, tmp_path):
    state = ("--state", tmp_path / "s")
    estimate(*options[:4], *options[6:], *state)
    code, err = evaluate(*options, *state)
    assert code == 3 and "saved by `estimate`, but this run is of `evaluate`" in err.splitlines()[-1]


def test_states_of_tokens_are_not_merged(evaluate, merge, options, whole, tmp_path):
    """The rest of their result is in a file of the run that made the tokens."""
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
    state = tmp_path / "s"
    assert evaluate(*given, *options[2:6], "--state", state)["data"]["images_used"] == 70
    assert evaluate(*given, *options[2:6], "--state", state)["provenance"]["images_resumed"] == 70
    code, err = merge(state)
    assert code == 3 and "--tokens" in err.splitlines()[-1]


def test_states_of_other_models_are_not_merged(cli, merge, options, model, tmp_path):
    other = load_file(model)
    other["head.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    for i, path in enumerate((model, tmp_path / "other.safetensors")):
        shard = ("--shard", f"{i}/2", "--state", tmp_path / f"{i}")
        assert cli("evaluate", *options, "--model", path, *shard, "--workers", 0)[0] == 0
    code, err = merge(tmp_path / "0", tmp_path / "1")
    assert code == 3 and "another model than" in err.splitlines()[-1]


def test_damaged_states_are_refused_and_kept(evaluate, options, tmp_path):
    path = tmp_path / "s"
    evaluate(*options, "--state", path)
    content, tensors = path.read_bytes(), load_file(path)
    at = content.index(tensors["losses.cross_entropy_GS"].numpy().tobytes())
    flipped = bytearray(content)
    flipped[at + 7] ^= 1
    for damaged in (bytes(flipped), content[:-9], b""):
        path.write_bytes(damaged)
        code, err = evaluate(*options, "--state", path)
        assert code == 3 and str(path) in err.splitlines()[-1]
        assert path.read_bytes() == damaged


def test_both_precisions_are_said_before_the_run(cli, options, whole):
    saved = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"], *options[2:6])
    for given, encoder in ((options, "bf16"), (saved, "fp32")):
        code, _, err = cli("evaluate", *given, "--precision", "bf16", "--workers", 0)
        assert code == 0 and f"; cpu, {encoder}; model var, bf16; " in err


@pytest.mark.parametrize("labels", ["auto", "none"])
def test_a_dry_run_describes_the_model_and_its_labels(cli, options, whole, labels):
    saved = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"], *options[2:6])
    for given in (options, saved):
        code, out, err = cli("evaluate", *given, "--labels", labels, "--workers", 0, "--dry-run")
        assert code == 0, err
        said = " ".join(out.split())
        words = {"auto": "labels by folder order, 4 classes; the first 64 with the null class too"}
        assert f"fp32; {words.get(labels, 'the null class for all images')} images 70 of 70" in said
