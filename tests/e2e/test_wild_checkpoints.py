"""What must not go unnoticed about a checkpoint: settings beside it, half an average, its files."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.family_checkpoints import EXAMPLES, random_weights, vq_shapes


@pytest.fixture
def weights():
    """State dict of a family's small example."""
    return lambda name, seed=0: random_weights(EXAMPLES[name].shapes, seed)


@pytest.fixture
def run(cli, images):
    """Run `estimate --json` at 16 pixels; gives exit code, result and the last line of stderr."""

    def run(ckpt, *options):
        code, out, err = cli(
            *("estimate", "--json", "--workers", 0, "--data", images, "--limit", 4, "--ckpt", ckpt),
            *("--image-size", 16, *options),
        )
        return code, json.loads(out) if code == 0 else None, err.splitlines()[-1] if err else ""

    return run


def value(result):
    return result["average"]["token_weighted"]["assignment_entropy"]["value"]


@pytest.mark.parametrize("name", ["vqgan", "diffusers"])
def test_norm_groups_of_config_json_are_part_of_the_run(run, weights, tmp_path, name):
    """They change the number, so a state saved with others is not gone on from."""
    torch.save(weights(name), tmp_path / "vq.pt")
    config = tmp_path / "config.json"
    kept = ("--state", tmp_path / "kept.state")
    _, plain, _ = run(tmp_path / "vq.pt", *kept)
    config.write_text(json.dumps({"norm_num_groups": 16}))
    _, other, _ = run(tmp_path / "vq.pt")
    assert abs(value(other) - value(plain)) > 1e-4
    assert other["data"]["fingerprint"] != plain["data"]["fingerprint"]
    code, _, error = run(tmp_path / "vq.pt", *kept)
    assert code == 3 and "norm_groups" in error


def test_config_json_is_not_asked_what_was_decided(run, weights, tmp_path):
    torch.save(weights("vqgan"), tmp_path / "vq.pt")
    (tmp_path / "config.json").write_text(json.dumps({"image_size": [64, 64], "rule": "nearest"}))
    assert run(tmp_path / "vq.pt")[0] == 3
    code, result, _ = run(tmp_path / "vq.pt", "--rule", "l2")
    assert code == 0 and result["settings"]["image_size"] == 16


def test_half_an_average_is_refused(run, weights, tmp_path):
    raw, other = weights("open-magvit2"), weights("open-magvit2", seed=1)
    twins = {f"model_ema.{name.replace('.', '')}": weight for name, weight in other.items()}
    torch.save({"state_dict": raw | twins}, tmp_path / "whole.ckpt")
    code, result, _ = run(tmp_path / "whole.ckpt")
    assert code == 0 and result["provenance"]["checkpoint_weights"] == "ema"
    twins.pop("model_ema.encoderconv_outweight")
    torch.save({"state_dict": raw | twins}, tmp_path / "half.ckpt")
    code, _, error = run(tmp_path / "half.ckpt")
    assert code == 3 and "encoder.conv_out.weight" in error and "--weights raw" in error
    assert run(tmp_path / "half.ckpt", "--weights", "raw")[0] == 0


def test_vaex_is_evaluated_with_its_average(run, weights, tmp_path):
    state = {
        "quantize.quant_resi" + name.removeprefix("quantize.quant_resi.qresi_ls.0")
        if name.startswith("quantize.quant_resi.qresi_ls.0")
        else name: weight
        for name, weight in weights("var").items()
        if not name.startswith("quantize.quant_resi.qresi_ls.") or "qresi_ls.0" in name
    }
    average = {name: weight * 1.1 for name, weight in state.items()}
    torch.save({"trainer": {"vae_wo_ddp": state, "vae_ema": average}}, tmp_path / "vaex.pth")
    code, result, error = run(tmp_path / "vaex.pth")
    assert code == 0, error
    assert result["provenance"]["checkpoint_wrapper"] == "trainer.vae_ema"
    assert len(result["scales"]) == 1


def test_two_tokenizers_in_one_file_are_not_chosen_between(run, weights, tmp_path):
    two = {
        f"{part}.{name}": weight
        for seed, part in enumerate(("a", "b"))
        for name, weight in weights("vqgan", seed).items()
    }
    torch.save(two, tmp_path / "two.pt")
    code, _, error = run(tmp_path / "two.pt")
    assert code == 3 and "several tokenizers" in error and "a." in error and "b." in error


def test_no_file_of_the_checkpoint_is_overwritten(cli, images, weights, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    state = weights("vqgan")
    names = sorted(state)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    for target in sorted(folder.iterdir()):
        before = target.read_bytes()
        code, _, err = cli("estimate", "--data", images, "--ckpt", folder, "-o", target)
        assert code == 3 and "is the same file as --ckpt" in err.splitlines()[-1], err
        assert target.read_bytes() == before


def test_what_lies_beside_a_state_stays(run, weights, tmp_path):
    torch.save(weights("vqgan"), tmp_path / "vq.pt")
    (tmp_path / "run.state.tokens").write_text("mine")
    for options in ((), ("--save-tokens", tmp_path / "t.npy")):
        assert run(tmp_path / "vq.pt", "--state", tmp_path / "run.state", *options)[0] in (0, 3)
        assert (tmp_path / "run.state.tokens").read_text() == "mine"


def test_janus_without_its_prefix_is_asked_about(run, tmp_path):
    """Names and sizes are those of latent diffusion's f16, whose rule is another."""
    torch.save(random_weights(vq_shapes(latent_dim=8, vocab_size=16384)), tmp_path / "vq.pt")
    code, _, error = run(tmp_path / "vq.pt")
    assert code == 3 and "fits vqgan and llamagen" in error and "--family" in error
    code, result, _ = run(tmp_path / "vq.pt", "--family", "llamagen")
    assert (code, result["tokenizer"]["rule"], result["settings"]["temperature"]) == (0, "cosine", 0.01)


def test_which_copy_of_the_weights_is_part_of_the_run(run, weights, tmp_path):
    raw, other = weights("vqgan"), weights("vqgan", seed=1)
    twins = {f"model_ema.{name.replace('.', '')}": weight for name, weight in other.items()}
    torch.save({"state_dict": raw | twins}, tmp_path / "both.ckpt")
    kept = ("--state", tmp_path / "kept.state")
    code, of_raw, _ = run(tmp_path / "both.ckpt", "--weights", "raw", *kept)
    assert code == 0
    _, of_ema, _ = run(tmp_path / "both.ckpt", "--weights", "ema")
    assert value(of_raw) != value(of_ema)
    assert of_raw["data"]["fingerprint"] != of_ema["data"]["fingerprint"]
    code, _, error = run(tmp_path / "both.ckpt", "--weights", "ema", *kept)
    assert code == 3 and "checkpoint_weights" in error
    torch.save({"state_dict": other}, tmp_path / "ema.ckpt")
    assert value(run(tmp_path / "ema.ckpt")[1]) == value(of_ema)
