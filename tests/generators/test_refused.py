"""What is no generator, or one that is not supported, or not of the tokenizer, is refused by name."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.fits import check_fits
from entropy_cli.generators.registry import find_generator, load_generator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.family_checkpoints import EXAMPLES as TOKENIZERS
from tests.family_checkpoints import random_weights, var_shapes
from tests.generator_checkpoints import EXAMPLES

VAR_LIKE = (
    "pos_start",
    "lvl_embed.weight",
    "word_embed.weight",
    "head.weight",
    "head_nm.ada_lin.1.weight",
)
MASKED = "a masked transformer (MaskGIT, MAGE, aMUSEd)"
LLAMA = ("tok_embeddings.weight", "output.weight", "norm.weight")
KINDS = {
    "Infinity's transformer": (
        *VAR_LIKE,
        "text_proj_for_sos.ca.mat_q",
        "block_chunks.0.module.0.sa.proj.weight",
    ),
    "HART's transformer": (
        *VAR_LIKE,
        "pos_1LC",
        "context_embed.weight",
        "diffloss.net.cond_embed.weight",
    ),
    "Switti's transformer": (
        *VAR_LIKE,
        "pos_1LC",
        "text_pooler.weight",
        "blocks.0.cross_attn.proj.weight",
    ),
    "LlamaGen's text-to-image transformer": (*LLAMA, "cls_embedding.cap_proj.fc1.weight"),
    "GFT's transformer": (*LLAMA, *EXAMPLES["llamagen-gpt"].shapes, "t_embedder.mlp.0.weight"),
    "Open-MAGVIT2's transformer": (
        "transformer.pre_emb.weight",
        "transformer.spatial_blocks.0.attention.wo.weight",
    ),
    "IBQ's transformer": (
        *("transformer.tok_emb.weight", "transformer.blocks.0.attention.wqkv.weight"),
        *("transformer.head_nm.ada_lin.1.weight", "first_stage_model.encoder.conv_in.weight"),
    ),
    "the RQ-Transformer": (
        "pos_emb_hw",
        "body_transformer.blocks.0.ln1.weight",
        "classifier.linear.weight",
    ),
    "RAR": ("cls_token", "embeddings.weight", "target_aware_pos_embed", "lm_head.weight"),
    "Janus": (
        "gen_head.vision_head.weight",
        "gen_aligner.layers.0.weight",
        "gen_vision_model.encoder.conv_in.weight",
    ),
    "Show-o": ("showo.model.embed_tokens.weight", "showo.lm_head.weight"),
    MASKED: ("embed.word_embeddings.weight", "mlm_layer.mlm_dense.weight"),
    "VAR-CLIP's transformer": (*VAR_LIKE, "pos_1LC", "cond_proj.weight", "noise.weight"),
    "FlexVAR's transformer": (*set(VAR_LIKE) - {"lvl_embed.weight"}, "class_emb.weight", "pos_1LC"),
    "M-VAR": (*EXAMPLES["var"].shapes, "blocks.0.mamba.in_proj.weight", "blocks.0.attn.patch_nums"),
    "RandAR": (*EXAMPLES["llamagen-gpt"].shapes, "pos_instruct_embeddings"),
    "PAR": (*EXAMPLES["llamagen-gpt"].shapes, "spe_tok_embeddings.special_embeddings.weight"),
    "taming-transformers' GPT": (
        *("transformer.tok_emb.weight", "transformer.blocks.0.attn.key.weight"),
        "first_stage_model.encoder.conv_in.weight",
    ),
    "MAR, xAR or another model of continuous tokens": (
        *("z_proj.weight", "z_proj_ln.weight", "class_emb.weight", "diffloss.net.cond_embed.weight"),
    ),
}
# Other weights of masked transformers: MAGE, Maskgit-pytorch, and 1d-tokenizer's two.
MASKED_NAMES = (
    ("token_emb.word_embeddings.weight", "mlm_layer.fc.weight", "vqgan.encoder.conv_in.weight"),
    (
        "cls_emb.weight",
        "tok_emb.weight",
        "transformer.layers.0.attn.wq.weight",
        "last_norm.mlp.1.weight",
    ),
    ("embeddings.weight", "in_blocks.0.attn.qkv.weight", "lm_head.weight"),
    ("model.embeddings.word_embeddings.weight", "model.lm_head.weight"),
)
CLASSES = {
    "Emu3": {"architectures": ["Emu3ForCausalLM"]},
    MASKED: {"_class_name": "UVit2DModel"},
    "Janus": {"model_type": "multi_modality"},
}


def refused(path, words, settings=None):
    with pytest.raises(CheckpointError) as caught:
        load_generator(path, settings=settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("words", KINDS)
def test_other_generators_are_called_what_they_are(tmp_path, words):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.ones(4, 4) for name in KINDS[words]}, path)
    said = refused(path, f"looks like {words}, which is not supported: ")
    assert "entropy-cli loss" in said


@pytest.mark.parametrize("names", MASKED_NAMES)
def test_masked_transformers(tmp_path, names):
    save_file({name: torch.ones(4, 4) for name in names}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", f"looks like {MASKED}, which is not supported: its loss depends")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("x_embedder.proj.weight", "t_embedder.mlp.0.weight", "y_embedder.weight"),
            "a diffusion model",
        ),
        (("model.embed_tokens.weight", "lm_head.weight"), "a language model"),
    ],
)
def test_models_of_other_things(tmp_path, names, words):
    save_file({name: torch.ones(4, 4) for name in names}, tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", f"no generator of a known layout. It looks like {words}")


@pytest.mark.parametrize("words", CLASSES)
def test_by_the_class_that_config_names(tmp_path, words):
    save_file({"a.weight": torch.ones(4, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CLASSES[words]))
    refused(tmp_path, f"looks like {words}, which is not supported: ")


@pytest.mark.parametrize("family", TOKENIZERS)
def test_a_tokenizer_is_for_ckpt(tmp_path, family):
    path = tmp_path / "x.safetensors"
    save_file(random_weights(TOKENIZERS[family].shapes), path)
    refused(path, "is a tokenizer, not a generator of its tokens. Give it to --ckpt")


@pytest.mark.parametrize("family", EXAMPLES)
def test_a_generator_is_for_model(tmp_path, family):
    path = tmp_path / "x.pth"
    torch.save({"model": EXAMPLES[family].weights()}, path)
    with pytest.raises(CheckpointError, match="evaluate --model"):
        find_family(path)


def test_other_files(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2), "b.c": torch.ones(2)}, path)
    refused(path, "no generator of a known layout. It has a, b.c. Expected one of var or llamagen-gpt")
    near = EXAMPLES["var"].weights()
    for key in ("pos_start", "head.weight"):
        del near[key]
    save_file(near, path)
    refused(path, "not of family var, which is nearest: lacks pos_start, head.weight")
    refused(tmp_path / "missing.pth", "no such file")


def test_shapes_that_are_none(tmp_path):
    """Strides of 0 make tensors of any size from a few bytes."""
    for key, shape in (
        ("pos_1LC", (1, 2**40, 32)),
        ("lvl_embed.weight", (2**40, 32)),
        ("lvl_1L", (1, 2**30)),
        ("class_emb.weight", (0, 32)),
        ("word_embed.weight", (32,)),
        ("blocks.0.ffn.fc1.weight", (48, 32, 1)),
        ("head.weight", (2**30, 2**30)),
    ):
        state = EXAMPLES["var"].weights() | EXAMPLES["var"].buffers
        torch.save(
            state | {key: torch.zeros(1, dtype=state[key].dtype).expand(shape)}, tmp_path / "x.pth"
        )
        refused(tmp_path / "x.pth", "x.pth: ")


class Harmful:
    """Its pickle would run a command."""

    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("family", EXAMPLES)
def test_files_are_never_run(tmp_path, monkeypatch, family):
    monkeypatch.chdir(tmp_path)
    example = EXAMPLES[family]
    state = example.weights() | example.buffers
    torch.save({"model": state, "args": Harmful(), "optimizer": Harmful()}, "x.pth")
    loaded = load_generator(tmp_path / "x.pth", settings=example.settings)
    assert loaded.checkpoint.classes == ("posix.system",)
    torch.save({**state, "harm": Harmful()}, "x.pth")
    load_generator(tmp_path / "x.pth", settings=example.settings)
    assert not (tmp_path / "harmed").exists()


@pytest.fixture
def both(tmp_path):
    """VAR's file of a training: a tokenizer and a generator of its tokens."""
    tokenizer = random_weights(var_shapes(vocab_size=24))
    state = EXAMPLES["var"].weights() | EXAMPLES["var"].buffers
    trainer = {"config": {}, "var_wo_ddp": state, "vae_local": tokenizer}
    torch.save({"epoch": 3, "trainer": trainer, "args": {"depth": 2}}, tmp_path / "ar-ckpt-best.pth")
    path = tmp_path / "ar-ckpt-best.pth"
    settings = TokenizerSettings(patch_nums=(1, 2, 3), image_size=6)
    return load_tokenizer(path, settings=settings), load_generator(path)


def test_one_file_holds_both(both):
    tokenizer, generator = both
    assert tokenizer.checkpoint.wrapper == "trainer.vae_local"
    assert generator.checkpoint.wrapper == "trainer.var_wo_ddp"
    check_fits(generator.generator.spec, tokenizer.tokenizer.spec)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"vocab_size": 4096}, "predicts 4,096 codes, but the tokenizer has 24"),
        ({"latent_dim": 32}, "takes latents of 32 dimensions, but the tokenizer's have 6"),
        ({"patch_nums": (1, 2, 4)}, "predicts scales 1,2,4, but the tokenizer makes 1,2,3"),
        ({"image_size": 256}, "was trained on images of 256 pixels, but the tokenizer takes 6"),
        ({"rule": "cosine"}, "was trained on tokens by the rule cosine, but the tokenizer's are by l2"),
    ],
)
def test_a_generator_of_another_tokenizer(both, changed, words):
    tokenizer, generator = both
    spec = replace(generator.generator.spec, **changed)
    with pytest.raises(CheckpointError, match=words):
        check_fits(spec, tokenizer.tokenizer.spec)
    same = replace(generator.generator.spec, latent_dim=None, image_size=6, rule="l2")
    check_fits(same, tokenizer.tokenizer.spec)


def test_settings_have_no_effect_on_others(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(EXAMPLES["var"].weights() | EXAMPLES["var"].buffers, path)
    found = find_generator(path, settings=GeneratorSettings(image_size=256, patch_nums=(1, 2)))
    assert found.describe() == find_generator(path).describe()
