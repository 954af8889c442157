"""The diffusers family against diffusers itself."""

import re
import warnings

import pytest
import torch

from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.families import diffusers_vq
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import family_checkpoints as tiny

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    diffusers = pytest.importorskip("diffusers")
    VQModel = diffusers.VQModel

PLAIN, ATTENDS = "DownEncoderBlock2D", "AttnDownEncoderBlock2D"
BASE = {"layers_per_block": 1, "latent_channels": 4, "num_vq_embeddings": 50, "norm_num_groups": 32}
CONFIGS = {
    "attention in the middle": {"block_out_channels": (32, 64)},
    "no attention": {"block_out_channels": (32, 64), "mid_block_add_attention": False},
    "attention in a level": {"block_out_channels": (32, 64), "types": (PLAIN, ATTENDS)},
    "attention in all levels": {
        "block_out_channels": (64, 32, 32),
        "types": (ATTENDS,) * 3,
        "layers_per_block": 2,
    },
    "16 groups": {"block_out_channels": (16, 48), "norm_num_groups": 16, "types": (PLAIN, ATTENDS)},
    "codes of another length": {"block_out_channels": (32, 32, 64), "vq_embed_dim": 7},
    "one level": {"block_out_channels": (32,)},
    "as after movq": {"block_out_channels": (32, 64), "norm_type": "spatial", "types": (PLAIN, ATTENDS)},
}


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)


def model_of(types=None, **config):
    """A random model, of which also norms and biases are random."""
    torch.manual_seed(0)
    types = types or (PLAIN,) * len(config["block_out_channels"])
    config = BASE | config | {"down_block_types": types}
    config["up_block_types"] = ("UpDecoderBlock2D",) * len(types)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = VQModel(**config).eval().requires_grad_(requires_grad=False)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.add_(0.3 * torch.randn_like(weight))
        elif name.startswith("quantize."):
            weight.normal_()
    return model


def save(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
    return folder


@torch.no_grad()
def same_tokens(tokenizer, model, pixels):
    latent_BChw = model.encode(pixels / 127.5 - 1).latents
    ours_BChw = tokenizer.encode(pixels)
    torch.testing.assert_close(ours_BChw, latent_BChw, atol=1e-4, rtol=0)
    idx_N = model.quantize(latent_BChw)[2][2].flatten()
    sums = assign(tokenizer.vectors(ours_BChw, 0), tokenizer.codebook(0), [1.0])
    assert torch.equal(sums.idx_Bl.flatten(), idx_N) and len(idx_N.unique()) > 2
    return True


@pytest.mark.parametrize("name", CONFIGS)
def test_latents_and_tokens_are_those_of_diffusers(tmp_path, pixels, name):
    model = model_of(**CONFIGS[name])
    folder = save(model, tmp_path / "vqvae")
    for path in (folder, folder / "diffusion_pytorch_model.safetensors"):
        tokenizer = load_tokenizer(path, settings=TokenizerSettings(32)).tokenizer
        spec = tokenizer.spec
        assert (spec.family, spec.rule, spec.pixels) == ("diffusers", "l2", "[-1, 1]")
        assert (spec.latent_dim, spec.vocab_size) == (model.config.vq_embed_dim or 4, 50)
        side = 32 >> (len(model.config.block_out_channels) - 1)
        assert spec.patch_nums == [side]
        assert same_tokens(tokenizer, model, pixels)


def test_attention_by_its_old_names(tmp_path, pixels):
    model = model_of(block_out_channels=(32, 64), types=(PLAIN, ATTENDS))
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {
        re.sub(r"to_(q|k|v|out\.0)", lambda match: old[match[0]], name): weight
        for name, weight in model.state_dict().items()
    }
    assert "encoder.mid_block.attentions.0.query.weight" in state
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    tokenizer = load_tokenizer(
        tmp_path / "diffusion_pytorch_model.bin", settings=TokenizerSettings(32)
    ).tokenizer
    assert tokenizer.spec.family == "diffusers"
    assert same_tokens(tokenizer, model, pixels)


def test_amused_is_known_by_its_sizes(tmp_path, monkeypatch, pixels):
    shapes = tiny.vq_shapes(tiny.DIFFUSERS, attends=False, widths=(32, 64), latent_dim=6, vocab_size=40)
    weights = tiny.random_weights(shapes)
    torch.save(weights, tmp_path / "x.pt")
    other = load_tokenizer(tmp_path / "x.pt", settings=TokenizerSettings(32)).tokenizer
    assert other.spec.pixels == "[-1, 1]" and not other.spec.notes
    assert diffusers_vq.AMUSED == ((128, 256, 256, 512, 768), 64, 8192)
    for sizes in (((32, 64), 6, 41), ((32, 64), 5, 40), ((64, 64), 6, 40)):
        monkeypatch.setattr(diffusers_vq, "AMUSED", sizes)
        assert find_family(tmp_path / "x.pt").describe().pixels == "[-1, 1]"
    monkeypatch.setattr(diffusers_vq, "AMUSED", ((32, 64), 6, 40))
    amused = load_tokenizer(tmp_path / "x.pt", settings=TokenizerSettings(32)).tokenizer
    assert amused.spec.pixels == "[0, 1]" and "aMUSEd" in amused.spec.notes[0]
    assert "pixels to [0, 1]" in amused.spec.preprocess
    with torch.no_grad():
        expected = other.network.quant_conv(other.network.encoder(pixels / 255))
        torch.testing.assert_close(amused.encode(pixels), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(amused.encode(pixels), other.encode(pixels), atol=1e-2)
