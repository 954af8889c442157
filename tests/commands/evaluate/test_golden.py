"""Published code's values of its own pictures, from the command line."""

import json

import numpy as np
import pytest
import torch

from entropy_cli.streaming.scorer import Scorer
from entropy_cli.tokenizers.registry import load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.commands.evaluate.conftest import parts_of
from tests.family_checkpoints import golden_checkpoint
from tests.generators.golden import FILES, golden_generator

TOKENIZERS = {"var_d4": "var_l2", "var_saln": "var_l2", "llamagen_gpt": "llamagen"}
NAMES = ("cross_entropy", "predictive_entropy", "accuracy_top1", "accuracy_top5")


@pytest.fixture(scope="module", params=FILES)
def name(request):
    return request.param


def options_of(shared, name):
    golden = shared / "golden"
    expected = json.loads((golden / "generators" / name / "expected.json").read_text())
    tokenizer = golden / TOKENIZERS[name]
    model = golden / "generators" / name / FILES[name]
    inputs = ("--data", tokenizer / "images", "--ckpt", golden_checkpoint(tokenizer))
    temperatures = ",".join(expected["conditional"]["scales"][0]["target"])
    options = (*inputs, *expected["options"], "--temperature", temperatures)
    return expected, options, ("--model", model)


@pytest.fixture
def found(shared, evaluate, name, tmp_path):
    expected, options, model = options_of(shared, name)
    files = ("--per-image", tmp_path / "nats.csv")
    return expected, evaluate(*options, *model, *files), tmp_path / "nats.csv"


def test_from_the_pictures(found, estimate, shared, name):
    expected, result, nats = found
    conditional = expected["conditional"]
    of_null = expected["unconditional"]
    images = len(expected["files"])
    assert result["data"]["images_used"] == images == result["labels"]["classes_seen"]
    theirs = [*conditional["scales"], *(conditional["average"][kind] for kind in result["average"])]
    null = [*of_null["scales"], *(of_null["average"][kind] for kind in result["average"])]
    for (part, got), want, without in zip(parts_of(result), theirs, null, strict=True):
        for quantity in NAMES:
            close = 1e-9 if quantity.startswith("accuracy") else 1e-5
            assert got[quantity]["value"] == pytest.approx(want[quantity], abs=close), (part, quantity)
        assert got["cross_entropy_null"]["value"] == pytest.approx(without["cross_entropy"], abs=1e-5)
        assert got["perplexity"]["value"] == pytest.approx(want["perplexity"], rel=1e-5)
        assert got["unigram_entropy"]["plug_in"] == pytest.approx(want["unigram_plug_in"], abs=1e-9)
    for t, temperature in enumerate(conditional["scales"][0]["target"]):
        for got, want in zip(result["temperatures"][t]["scales"], conditional["scales"], strict=True):
            target = want["target"][temperature]
            assert got["kl"]["value"] == pytest.approx(target["kl"], abs=1e-5)
            assert got["target_cross_entropy"]["value"] == pytest.approx(
                target["cross_entropy"], abs=2e-5
            )
    for key in ("nats_per_image", "bits_per_pixel"):
        assert result["total"][key] == pytest.approx(conditional[key], rel=1e-5)
    values = golden_generator(shared, name).values["nll"].sum(1).tolist()
    lines = [line.split(",") for line in nats.read_text().splitlines()[1:]]
    assert {path: int(label) for path, label, _ in lines} == dict(
        zip(expected["files"], expected["labels"], strict=True)
    )
    for path, _, value in lines:
        assert float(value) == pytest.approx(values[expected["files"].index(path)], abs=2e-3)


def test_the_assignment_entropy_is_the_estimates_bit_for_bit(found, estimate, shared, name):
    _, result, _ = found
    _, options, _ = options_of(shared, name)
    alone = estimate(*options)
    for (_, got), (_, want) in zip(parts_of(result), parts_of(alone), strict=True):
        for quantity in ("assignment_entropy", "unigram_entropy", "varentropy"):
            assert got[quantity] == want[quantity]
    pairs = zip(result["temperatures"], alone["temperatures"], strict=True)
    for got, want in pairs:
        for scale, other in zip(got["scales"], want["scales"], strict=True):
            assert scale["assignment_entropy"] == other["assignment_entropy"]


def test_what_var_logs(found, name):
    """`as_logged` is a mixture of labels and null class; without it, eval_ep says our two means."""
    expected, result, _ = found
    got, of_null = result["average"]["token_weighted"], expected["unconditional"]["average"]
    mean = expected["conditional"]["average"]["token_weighted"]["cross_entropy"]
    mixed = 0.9 * mean + 0.1 * of_null["token_weighted"]["cross_entropy"]
    assert got["as_logged"]["value"] == pytest.approx(mixed, abs=1e-5)


def test_nll_of_given_tokens(shared, name):
    """Each token by itself, through the scorer: sums of single scales of images are its nll."""
    golden = golden_generator(shared, name)
    expected = golden.expected
    patch_nums = tuple(expected["patch_nums"]) if name != "llamagen_gpt" else None
    settings = TokenizerSettings(expected["image_size"], patch_nums)
    path = golden_checkpoint(shared / "golden" / TOKENIZERS[name])
    tokenizer = load_tokenizer(path, "auto", settings).tokenizer
    scorer = Scorer(golden.generator, tokenizer, golden.label_B, len(golden.label_B), soft=False)
    with torch.inference_mode():
        losses = scorer.score(range(len(golden.idx_BL)), golden.idx_BL, (), ())
    tokens = [scale["tokens"] for scale in expected["conditional"]["scales"]]
    for values, sums_BS in (
        ("nll", losses.cross_entropy_BS),
        ("nll.unconditional", losses.null_BS),
        ("predictive_entropy", losses.predictive_entropy_BS),
    ):
        want_BS = [part.sum(1) for part in golden.values[values].split(tokens, 1)]
        difference_BS = sums_BS - torch.stack(want_BS, 1)
        assert (difference_BS.abs() / torch.tensor(tokens)).max() < 5e-6  # of a token
        mean = (difference_BS.sum() / golden.idx_BL.numel()).abs()
        assert mean < 1e-6
    rank_BL = golden.values["rank"]
    for got_BS, most in ((losses.top1_BS, 1), (losses.top5_BS, 5)):
        want_BS = torch.stack([(part < most).sum(1) for part in rank_BL.split(tokens, 1)], 1)
        assert (got_BS == want_BS).all()


@pytest.mark.parametrize("wrong", [1, 2])
def test_labels_that_are_rolled_are_found_out(shared, cli, tmp_path, wrong):
    """Each image the class of another: on enough images that is no accident."""
    expected, options, model = options_of(shared, "var_d4")
    rolled = np.roll(expected["labels"], wrong)
    lines = [f"{path},{label}" for path, label in zip(expected["files"], rolled, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    argv = (*options, *model, "--labels", tmp_path / "labels.csv", "--workers", 0)
    code, out, _ = cli("evaluate", *argv, "-o", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and result["labels"]["source"] == "file"
    assert result["labels"]["check"]["gain"]["value"] < 0
    (check,) = [check for check in result["checks"] if check["id"] == "labels"]
    assert check["severity"] == "wrong" and "labels are probably wrong" in " ".join(out.split())
