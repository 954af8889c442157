"""What can't be evaluated is refused in one line that says what to do, before any work."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from entropy_cli.results.evaluation import read_evaluation
from tests.commands.evaluate.conftest import model_weights
from tests.conftest import PATCH_NUMS
from tests.family_checkpoints import EXAMPLES as TOKENIZERS
from tests.family_checkpoints import random_weights as tokenizer_weights
from tests.generator_checkpoints import EXAMPLES, gpt_shapes, levels, random_weights


@pytest.fixture
def refused(cli, options):
    """The last line of stderr of a run that is refused, with its code."""

    def run(*more, code=3, options=options):
        got, out, err = cli("evaluate", *options, "--workers", 0, *more)
        assert (got, out) == (code, ""), err
        assert "Traceback" not in err and "resuming" not in err
        return " ".join(err.split()) if code == 2 else err.splitlines()[-1]

    return run


def saved(path, weights, *sides):
    save_file({**weights, "lvl_1L": levels(*(sides or PATCH_NUMS))}, path)
    return path


def test_checkpoints_that_were_swapped(refused, checkpoint, model):
    words = refused("--ckpt", model, "--model", checkpoint)
    assert "is a tokenizer, not a generator of its tokens. Give it to --ckpt" in words
    words = refused("--ckpt", model)
    assert "transformer" in words and "tokenizer" in words
    assert "is a tokenizer" in refused("--model", checkpoint)


@pytest.mark.parametrize(
    "state, sides, words",
    [
        (model_weights(codes=40), (), "predicts 40 codes, but the tokenizer has 48"),
        (
            model_weights(tokens=(1, 4, 64)),
            (1, 2, 8),  # not as the tokenizer's config.json says
            "predicts scales 1,2,8, but the tokenizer makes 1,2,4,8 at 32 pixels",
        ),
        (
            model_weights() | {"word_embed.weight": torch.zeros(32, 7)},
            (),
            "takes latents of 7 dimensions, but the tokenizer's have 6",
        ),
    ],
)
def test_models_of_other_tokens(refused, tmp_path, state, sides, words):
    model = saved(tmp_path / "m.safetensors", state, *sides)
    line = refused("--model", model)
    assert words in line and "--model and --ckpt don't fit" in line


def test_models_of_another_image_size(refused, tmp_path):
    """The tokenizer's scales at twice the size are others."""
    assert "--patch-nums" in refused("--image-size", 64)
    torch.save(tokenizer_weights(TOKENIZERS["llamagen"].shapes), tmp_path / "vq.pth")
    torch.save(random_weights(gpt_shapes(codes=40)), tmp_path / "gpt.pth")
    pair = ("--ckpt", tmp_path / "vq.pth", "--model", tmp_path / "gpt.pth", "--temperature", 1)
    assert "Give --image-size, such as 256 or 384" in refused(*pair)
    trained = {"model": random_weights(gpt_shapes(codes=40)), "args": Namespace(image_size=96)}
    torch.save(trained, tmp_path / "gpt.pth")
    assert "was trained on images of 96 pixels. Leave out --image-size" in refused(
        *pair, "--image-size", 32
    )


def test_a_models_file_without_a_tokenizer(refused, options, model):
    without = [*options[:2], *options[4:]]
    words = refused(options=without)
    assert "--ckpt is missing, and the model's file has none to use" in words


def test_a_training_file_holds_both(evaluate, options, checkpoint, model, whole, tmp_path):
    trainer = {"var_wo_ddp": load_file(model), "vae_local": load_file(checkpoint)}
    torch.save({"epoch": 3, "trainer": trainer}, tmp_path / "ar-ckpt-best.pth")
    both = [*options[:2], "--model", str(tmp_path / "ar-ckpt-best.pth"), *options[6:]]
    result = evaluate(*both, "--image-size", 32)
    assert (
        result["average"]["token_weighted"]["cross_entropy"]
        == (whole[0]["average"]["token_weighted"]["cross_entropy"])
    )


@pytest.mark.parametrize("option", ["-o", "--report", "--state", "--per-image", "--save-tokens"])
@pytest.mark.parametrize("what", ["model", "ckpt", "labels"])
def test_no_output_takes_the_place_of_an_input(
    refused, options, checkpoint, model, images, tmp_path, option, what
):
    suffix = {"-o": ".json", "--report": ".csv", "--per-image": ".csv", "--save-tokens": ".npy"}
    path = tmp_path / f"x{suffix.get(option, '.pth')}"
    if what == "labels":
        lines = [f"{p.relative_to(images)},0" for p in images.rglob("*.jpg")]
        path.write_text("\n".join(lines))
        more = ("--labels", path)
    else:
        other = tmp_path / "weights.safetensors"
        shutil.copy(model if what == "model" else checkpoint, other)
        path.symlink_to(other)
        more = (f"--{what}", other)
    before = path.read_bytes()
    words = refused(*more, option, path, "--overwrite", *(("--image-size", 32) * (what == "ckpt")))
    assert f"is the same file as --{what}" in words
    assert path.read_bytes() == before


def test_a_models_folder_is_not_written_into(refused, model, tmp_path):
    shutil.copy(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    words = refused("--model", tmp_path, "-o", tmp_path / "config.json", "--overwrite")
    assert "is the same file as --model" in words
    words = refused("--model", tmp_path, "--state", tmp_path / "model.safetensors")
    assert "is the same file as --model" in words


@pytest.mark.parametrize(
    "more",
    [
        *(("--data", "."), ("--split", "val"), ("--limit", "3"), ("--seed", "1")),
        *(("--cluster", "folder"), ("--temperature", "1"), ("--shard", "0/2"), ("--ladder",)),
        *(("--save-tokens", "t.npy"), ("--compile", "on"), ("--target-ci", "1")),
    ],
)
def test_options_of_images_have_no_use_with_tokens(refused, options, whole, more):
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
    words = refused(*more, code=2, options=[*map(str, given), *options[2:6]])
    assert more[0] in words


@pytest.mark.parametrize(
    "drop, words",
    [
        ("--model", "--model"),
        ("--data", "--data / --tokens"),
    ],
)
def test_what_is_missing_is_named(refused, options, drop, words):
    at = options.index(drop)
    assert words in refused(code=2, options=[*options[:at], *options[at + 2 :]])


def test_other_wrong_usage(refused, options, whole):
    assert "--tokens / --result" in refused("--tokens", whole[1]["tokens"], code=2)
    assert "--path" in refused("--path", "drawn", code=2)  # evaluated on the nearest codes only
    assert "no such file" in refused("--labels", "none.csv", code=2)
    assert "--label-check" in refused("--label-check", "-1", code=2)
    assert "--heads" in refused("--heads", 0, code=2)
    assert "--target-ci" in refused("--target-ci", 1, "--shard", "0/2", code=2)
    assert ".parquet" in refused("--per-image", "nats.txt", code=2)


def test_tokens_of_another_run(refused, estimate, options, whole, tmp_path):
    def words(tokens, result):
        given = ("--tokens", tokens, "--result", result)
        return refused(options=[*map(str, given), *options[2:6]])

    tokens, result = whole[1]["tokens"], whole[1]["result"]
    few = ("--limit", 20, "--save-tokens", tmp_path / "f.npy", "-o", tmp_path / "f.json")
    estimate(*options[:4], *options[6:], *few)
    assert "got 20 rows" in words(tmp_path / "f.npy", result)
    rows = np.load(tokens)
    rows[0, 0] = (rows[0, 0] + 1) % 48
    np.save(tmp_path / "changed.npy", rows)
    shutil.copy(tokens.with_suffix(".paths.txt"), tmp_path / "changed.paths.txt")
    assert "has other tokens than the run counted" in words(tmp_path / "changed.npy", result)
    np.save(tmp_path / "alone.npy", rows)
    assert "alone.paths.txt" in words(tmp_path / "alone.npy", result)


def test_a_result_of_another_tokenizer_is_named_as_such(refused, options, whole, weights, tmp_path):
    save_file({**weights, "decoder.x": torch.zeros(1)}, tmp_path / "tiny.safetensors")
    shutil.copy(options[3].replace("tiny.safetensors", "config.json"), tmp_path)
    given = ("--tokens", whole[1]["tokens"], "--result", whole[1]["result"])
    words = refused(
        options=[*map(str, given), "--ckpt", str(tmp_path / "tiny.safetensors"), *options[4:6]]
    )
    assert "--result" in words and "another checkpoint" in words and "--temperature" not in words


@pytest.mark.parametrize("option", ["-o", "--report", "--state", "--per-image"])
@pytest.mark.parametrize("what", ["tokens", "result", "paths"])
def test_no_output_takes_the_place_of_saved_tokens(refused, options, whole, tmp_path, option, what):
    for path in whole[1].values():
        shutil.copy(path, tmp_path)
    shutil.copy(whole[1]["tokens"].with_suffix(".paths.txt"), tmp_path)
    files = {"tokens": "tokens.npy", "result": "result.json", "paths": "tokens.paths.txt"}
    target = tmp_path / files[what]
    given = ["--tokens", str(tmp_path / "tokens.npy"), "--result", str(tmp_path / "result.json")]
    suffix = {"-o": ".json", "--report": ".csv", "--per-image": ".csv", "--state": ""}[option]
    link = tmp_path / f"link{suffix}"
    link.symlink_to(target)
    before = target.read_bytes()
    option_of = "--result" if what == "result" else "--tokens"
    words = refused(option, link, "--overwrite", options=[*given, *options[2:6]])
    assert f"is the same file as {option_of}" in words and target.read_bytes() == before


def test_a_folder_without_images(refused, tmp_path):
    assert "no images" in refused("--data", tmp_path)


def test_unreadable_images_are_counted_and_end_with_4(cli, options, images, tmp_path):
    shutil.copytree(images, tmp_path / "data")
    broken = sorted((tmp_path / "data").rglob("*.jpg"))[::10]
    for path in broken:
        path.write_bytes(b"broken")
    run = ("evaluate", *options, "--data", tmp_path / "data", "--workers", 0)
    code, out, err = cli(*run, "--per-image", tmp_path / "n.csv")
    assert code == 4 and "63 of 70 images" in out
    names = [str(path.relative_to(tmp_path / "data")) for path in broken]
    lines = (tmp_path / "n.csv").read_text().splitlines()[1:]
    assert len(lines) == 63 and not {line.split(",")[0] for line in lines} & set(names)
    assert cli(*run, "--max-failed", 0.2)[0] == 0
    code, _, err = cli(*run, "--on-error", "fail")
    assert code == 3 and "--on-error fail" in err.splitlines()[-1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(refused, tmp_path, value):
    weights = model_weights()
    weights["blocks.1.ffn.fc1.bias"][3] = value
    model = saved(tmp_path / "m.safetensors", weights)
    assert "blocks.1.ffn.fc1.bias" in refused("--model", model)


def test_losses_that_are_no_numbers(evaluate, options, tmp_path):
    """Finite weights whose products are not: no result, and no state of it."""
    weights = model_weights()
    weights["head.weight"] *= 1e38
    model = saved(tmp_path / "m.safetensors", weights)
    code, err = evaluate(*options, "--model", model, "--state", tmp_path / "s")
    assert code == 3 and "the model's loss is NaN or infinite" in err.splitlines()[-1]
    assert not (tmp_path / "s").exists() or "losses.images_G" not in load_file(tmp_path / "s")


def test_losses_too_large_for_a_perplexity(cli, options, tmp_path):
    weights = model_weights()
    weights["head.weight"] *= 1e4
    model = saved(tmp_path / "m.safetensors", weights)
    run = ("evaluate", *options, "--model", model, "--workers", 0)
    code, out, err = cli(*run, "--explain", "--table", "-o", tmp_path / "r.json")
    assert code == 0, err
    assert "perplexity over 1e308" in out
    found = read_evaluation(tmp_path / "r.json").average.token_weighted
    assert found.cross_entropy.value > 710 and found.perplexity.value is None and found.perplexity.note


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_a_precision_costs_is_measured(cli, evaluate, options, tmp_path, precision):
    run = (*options, "--limit", 16, "--labels", "none", "--batch-size", 16)
    exact = evaluate(*run)
    files = ("--workers", 0, "-o", tmp_path / "r.json", "--explain")
    code, out, _ = cli("evaluate", *run, "--precision", precision, *files)
    assert code == 0 and "against fp32 on the first 16" in " ".join(out.split())
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["model"]["precision"] == precision == result["settings"]["precision"]
    check = result["model_precision_check"]
    assert check["images"] == 16 and check["reference"] == "fp32"
    got, want = ([s["cross_entropy"]["value"] for s in each["scales"]] for each in (result, exact))
    assert got != want and exact["model_precision_check"] is None
    for a, b, difference in zip(got, want, check["cross_entropy_difference"], strict=True):
        assert a - b == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_unknown_weights_are_listed(refused, tmp_path, name):
    weights = EXAMPLES[name].weights() | {"adapter.weight": torch.zeros(2, 2)}
    torch.save(weights, tmp_path / "m.pth")
    assert "adapter.weight" in refused("--model", tmp_path / "m.pth", "--image-size", 48)
