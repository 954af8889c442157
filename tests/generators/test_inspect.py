"""`inspect` on generators, and on files that hold a tokenizer, too."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.family_checkpoints import random_weights, var_shapes
from tests.generator_checkpoints import EXAMPLES
from tests.generators.golden import FILES


@pytest.fixture
def inspect(cli):
    def run(*argv):
        code, out, err = cli("inspect", "--json", *argv)
        return code, json.loads(out), err

    return run


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("full", [(), ("--full",)])
def test_golden_generators(inspect, cli, shared, name, full):
    path = shared / "golden" / "generators" / name / FILES[name]
    expected = json.loads((path.parent / "expected.json").read_text())
    code, report, err = inspect(path, *full)
    generator = report["generator"]
    assert (code, err, report["problem"], report["tokenizer"]) == (0, "", None, None)
    assert generator["family"] == expected["model_family"]
    assert generator["parameters"] == expected["parameters"]
    assert generator["patch_nums"] == expected["patch_nums"]
    assert generator["classes"] == generator["null_class"] == 1000
    assert f"{expected['vocab_size']:,} codes" in generator["tokenizers"]
    assert report["weights_checked"] == bool(full)
    _, text, _ = cli("inspect", path, *full)
    assert "for evaluate --model" in text and "not its tokenizer" in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert ("trainer.vae_local" in text) == (name == "var_saln")


def test_a_generator_whose_image_size_nothing_shows(inspect, cli, tmp_path):
    path = tmp_path / "c2i_B_256.pt"
    torch.save({"model": EXAMPLES["llamagen-gpt"].weights()}, path)
    code, report, err = inspect(path, "--heads", 4)
    assert code == 3 and "is LlamaGen's autoregressive transformer, not its tokenizer (vq_ds16" in err
    assert "Give --image-size" in err and "Give --image-size" in report["problem"]
    assert report["generator"]["patch_nums"] == [] and report["generator"]["heads"] == 4
    assert "of a number that nothing in it shows" in cli("inspect", path, "--heads", 4)[1]
    code, report, err = inspect(path, "--heads", 4, "--image-size", 48)
    assert (code, err, report["generator"]["patch_nums"]) == (0, "", [3])


@pytest.mark.parametrize("options", [("--image-size", 6, "--patch-nums", "1,2,3"), ()])
def test_a_file_of_both(inspect, cli, tmp_path, options):
    path = tmp_path / "ar-ckpt-last.pth"
    state = EXAMPLES["var"].weights() | EXAMPLES["var"].buffers
    tokenizer = random_weights(var_shapes(vocab_size=24))
    torch.save({"trainer": {"var_wo_ddp": state, "vae_local": tokenizer}}, path)
    code, report, err = inspect(path, *options)
    assert (code, err, report["family"], report["file"]["wrapper"]) == (
        0,
        "",
        "var",
        "trainer.vae_local",
    )
    assert report["tokenizer"]["vocab_size"] == report["generator"]["vocab_size"] == 24
    assert report["generator"]["wrapper"] == "trainer.var_wo_ddp"
    text = cli("inspect", path, *options)[1]
    assert "generator" in text and "var under trainer.var_wo_ddp: 14 tokens per image" in text


def test_damaged_and_unsupported_ones(inspect, tmp_path):
    path = tmp_path / "x.safetensors"
    state = EXAMPLES["var"].weights()
    save_file(state | {"extra": torch.ones(2)}, path)
    code, report, err = inspect(path)
    assert code == 3 and report["generator"] is None and "has extra, which the layout" in err
    save_file(state | {"text_pooler.weight": torch.ones(2, 2)}, path)
    code, report, err = inspect(path)
    assert code == 3 and "looks like Switti's transformer" in err
    broken = state | EXAMPLES["var"].buffers
    broken["head.bias"][3] = torch.inf
    save_file(broken, path)
    assert inspect(path)[0] == 0
    code, _, err = inspect(path, "--full")
    assert code == 3 and "head.bias holds NaN or infinity" in err


def test_a_plain_tokenizer_has_none(inspect, checkpoint):
    code, report, _ = inspect(checkpoint)
    assert code == 0 and report["generator"] is None
