"""Checkpoints of other kinds are called what they are, and no family is named where none is near."""

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.tokenizers.registry import find_family
from tests import family_checkpoints as tiny
from tests import newer_layouts as newer
from tests.encoder_shapes import LDM, conv_encoder, layer, random_weights

KINDS = {
    "a language model": [
        ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"),
        ("transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"),
        ("bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"),
        ("tok_embeddings.weight", "layers.0.attention.wq.weight", "output.weight"),
    ],
    "a diffusion model": [
        ("conv_in.weight", "time_embedding.linear_1.weight", "mid_block.resnets.0.conv1.weight"),
        ("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.weight"),
        ("x_embedder.proj.weight", "t_embedder.mlp.0.weight", "blocks.0.attn.qkv.weight"),
        ("double_blocks.0.img_attn.qkv.weight", "img_in.weight"),
    ],
    "an adapter": [("base_model.model.layers.0.self_attn.q_proj.lora_A.weight",)],
    "a network that classifies images": [("conv1.weight", "layer1.0.conv1.weight", "fc.weight")],
    "a continuous autoencoder": [
        (
            "encoder.conv_in.weight",
            "quant_conv.weight",
            "post_quant_conv.weight",
            "decoder.conv_in.weight",
        ),
        ("encoder.layers.0.weight", "decoder.layers.1.weight"),
    ],
    "a model of sound": [("encoder.model.0.conv.conv.weight_v", "quantizer.vq.embed")],
    "a tokenizer or an autoencoder of videos": [
        ("encoder.conv_in.0.conv3d.weight", "quantizer.x.weight", "quant_conv.conv3d.weight"),
    ],
    "a vision transformer without codes": [("embeddings.patch_embeddings.projection.weight",)],
    "a tokenizer of another family": [("encoder.to_patches.0.weight", "quantizer.embedding.weight")],
    "a continuous tokenizer of Cosmos's": [("encoder.conv_in.weight", "encoder.patcher.wavelets")],
    "UniTok": [("encoder.blocks.0.weight", "quantizer.codebooks.0.codebook.weight")],
    "unknown layout, unlike every supported family": [("a", "b.c")],
}
AXES = {"encoder.model.0.conv.conv.weight_v": 3, "encoder.conv_in.0.conv3d.weight": 5}
CASES = [(names, words) for words, several in KINDS.items() for names in several]


@pytest.mark.parametrize(("names", "words"), CASES)
def test_other_networks_are_called_what_they_are(cli, tmp_path, names, words):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.ones([4] * AXES.get(name, 2)) for name in names}, path)
    with pytest.raises(CheckpointError, match=words) as caught:
        find_family(path)
    assert "nearest" not in str(caught.value) and "titok" not in str(caught.value)
    code, out, err = cli("inspect", path)
    assert code == 3 and words in err and "nearest famil" not in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("var_d4/var_d4.pth", "VAR's autoregressive transformer"),
        ("var_saln/ar-ckpt-last.pth", "VAR's autoregressive transformer"),
        ("llamagen_gpt/0000300.pt", "LlamaGen's autoregressive transformer"),
    ],
)
def test_generators_are_called_so_though_a_part_of_a_tokenizer_lies_beside_them(shared, name, words):
    with pytest.raises(CheckpointError, match=words):
        find_family(shared / "golden" / "generators" / name)


def test_means_and_variances_are_of_a_continuous_autoencoder(tmp_path):
    """Of Flux's kind there is no convolution after the encoder."""
    shapes = newer.without(conv_encoder(LDM, 8), "attn") | layer("decoder.conv_in", 64, 4, 3, 3)
    path = tmp_path / "x.pt"
    torch.save(random_weights(shapes), path)
    with pytest.raises(CheckpointError, match=r"continuous autoencoder, .*xAR, NextStep"):
        find_family(path)
    of_titok = newer.without(tiny.titok_shapes(), "quantize|conv_out")
    of_titok |= layer("encoder.conv_out", 8, 64, 1, 1) | layer("decoder.decoder_embed", 64, 4)
    torch.save(random_weights(of_titok), path)
    with pytest.raises(CheckpointError, match="has no tokens: give a tokenizer with codes"):
        find_family(path)
    torch.save(random_weights(shapes | layer("decoder.conv_in", 64, 8, 3, 3)), path)
    with pytest.raises(CheckpointError, match="unknown layout"):
        find_family(path)
