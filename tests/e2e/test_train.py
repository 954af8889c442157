"""`train`: what a very small one leaves, and that `inspect` and `estimate` read it."""

import json
import math
import re
import shutil

import pytest
from PIL import Image

from entropy_cli.images.synthetic import write_image_folder
from tests.trainings import SMALL, entries, steps, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ of 24 pictures and val/ of 12."""
    root = tmp_path_factory.mktemp("folder")
    write_image_folder(root / "train", images=24, size=22, seed=1)
    write_image_folder(root / "val", images=12, size=22, seed=2)
    return root


@pytest.fixture
def train(cli, tmp_path):
    """A training of four steps; gives its result and its folder."""

    def run(data, *options, steps=4, name="out"):
        out = tmp_path / name
        argv = (
            "--data",
            data,
            "--output",
            out,
            *SMALL,
            "--steps",
            steps,
            "--eval-every",
            steps,
            "--json",
        )
        code, text, err = cli("train", *argv, *options)
        assert code == 0, err
        return json.loads(text), out

    return run


def numbers(value):
    """All that are in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


def test_what_a_training_leaves(train, folder):
    result, out = train(folder)
    files = {"model.safetensors", "config.json", "metrics.jsonl", "trainer.pt", "reconstructions.png"}
    assert {path.name for path in out.iterdir()} == files
    assert [entry["step"] for entry in entries(out)] == [1, 2, 3, 4, 4]
    config = json.loads((out / "config.json").read_text())
    assert (config["image_size"], config["patch_nums"], config["preset"]) == (16, [1, 2, 4], "tiny")
    with Image.open(out / "reconstructions.png") as figure:
        assert figure.width > 4 * 96  # the original, and one for each scale
        assert figure.height > 8 * 96
        assert len(figure.convert("RGB").getcolors(2**20)) > 100
    assert weights(out)["quantize.embedding.weight"].shape == (24, 4)
    assert result["checkpoint"] == str(out / "model.safetensors")


def test_the_result_is_what_the_interface_says(train, folder):
    result, out = train(folder)
    assert (result["schema"], result["schema_version"]) == ("entropy-cli/train", 1)
    assert result["steps"] == 4
    assert all(math.isfinite(number) for number in numbers(result))
    assert [scale["patch_num"] for scale in result["scales"]] == [1, 2, 4]
    for part in (result, *result["scales"]):
        assert 0 < part["usage"] <= 1 and 1 <= part["perplexity"] <= 24
    assert [scale["tokens"] for scale in result["scales"]] == [12, 48, 192]
    assert result["psnr_db"] > 0 and result["psnr_mean_image_db"] > 0 and result["seconds"] > 0
    assert result["images"] == {"train": 24, "held_out": 12, "failed": 0}
    last = entries(out)[-1]
    assert last["held_out_psnr_db"] == result["psnr_db"]
    assert last["held_out_perplexity"] == result["perplexity"]


def test_the_table(cli, folder, tmp_path):
    code, text, _ = cli(
        *(
            "train",
            "--data",
            folder,
            "--output",
            tmp_path / "out",
            *SMALL,
            "--steps",
            2,
            "--norm",
            "batch",
        )
    )
    assert code == 0
    assert "PSNR" in text and "on 12 held-out images" in text
    assert re.search(r"^computed +in fp32 on cpu .*, by 1 process$", text, re.MULTILINE)
    assert "4 x 4" in text and str(tmp_path / "out" / "model.safetensors") in text


def test_synthetic_pictures(train):
    result, _ = train("synthetic", steps=2)
    assert result["images"] == {"train": 4096, "held_out": 256, "failed": 0}
    assert math.isfinite(result["psnr_db"])


@pytest.mark.parametrize(
    "options",
    [(), ("--norm", "batch"), ("--ema-decay", 0.9), ("--codebook", "gradient"), ("--patch-nums", "1,4")],
)
def test_estimate_finds_the_same_codes_on_the_held_out_pictures(train, estimate, folder, options):
    """val/ is what both look at; config.json beside the checkpoint says how."""
    result, out = train(folder, *options, steps=8)
    found = estimate("--data", folder, "--ckpt", out / "model.safetensors")
    assert found["settings"]["image_size"] == 16
    assert found["tokenizer"]["patch_nums"] == result["settings"]["patch_nums"]
    assert found["data"]["images_used"] == 12
    for of_estimate, of_train in zip(found["scales"], result["scales"], strict=True):
        assert of_estimate["tokens"] * 12 == of_train["tokens"]
        assert of_estimate["codes_used"] == of_train["codes_used"]
        assert of_estimate["usage"] == pytest.approx(of_train["usage"])
        plug_in = of_estimate["perplexity"]["plug_in"]
        assert plug_in == pytest.approx(of_train["perplexity"], rel=1e-9)


@pytest.mark.parametrize("options", [(), ("--save-fp16",), ("--norm", "batch")])
def test_inspect_reads_the_checkpoint(train, cli, folder, options):
    _, out = train(folder, *options)
    code, text, err = cli("inspect", out / "model.safetensors", "--json")
    assert code == 0, err
    assert json.loads(text)["schema"] == "entropy-cli/inspect"
    assert "24" in text


def test_half_is_what_was_evaluated_and_what_estimate_reads(train, estimate, folder):
    result, out = train(folder, "--save-fp16", steps=8)
    found = estimate("--data", folder, "--ckpt", out / "model.safetensors")
    for of_estimate, of_train in zip(found["scales"], result["scales"], strict=True):
        assert of_estimate["codes_used"] == of_train["codes_used"]


def test_val_is_held_out_and_else_a_tenth(train, folder, tmp_path, monkeypatch):
    assert train(folder)[0]["images"] == {"train": 24, "held_out": 12, "failed": 0}
    plain = tmp_path / "plain"
    shutil.copytree(folder / "train", plain)
    assert train(plain, name="other")[0]["images"] == {"train": 22, "held_out": 2, "failed": 0}
    monkeypatch.setattr("entropy_cli.commands.train.data.MAX_HELD_OUT", 1)
    assert train(folder, name="few")[0]["images"] == {"train": 24, "held_out": 1, "failed": 0}
    assert train(plain, name="few of all")[0]["images"] == {"train": 23, "held_out": 1, "failed": 0}


@pytest.mark.slow
def test_a_training_lowers_the_loss_and_beats_the_mean_picture(train):
    """On pictures without end: of a small folder so few steps learn too little that holds elsewhere."""
    options = ("--width-mult", "2,1", "--patch-nums", "1,2,4,8", "--vocab-size", 64, "--lr", 3e-3)
    result, out = train("synthetic", *options, steps=100)
    first, last = steps(out)[0], steps(out)[-1]
    assert last["loss"] < first["loss"] / 2
    assert result["psnr_db"] > result["psnr_mean_image_db"]
