"""VAR's transformer: its variants, its scales and what lies beside it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.registry import load_generator, match_generator
from entropy_cli.generators.settings import GeneratorSettings
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from tests.generator_checkpoints import levels, random_weights, scale_mask, var_shapes
from tests.generators.golden import logits_of
from tests.generators.reference import var_logits


def found(state, settings=None):
    return match_generator(Checkpoint.of_tensors(Path("x"), state), settings=settings)


def arguments(spec):
    seeded = torch.Generator().manual_seed(2)
    idx_BL = torch.randint(spec.vocab_size, (2, spec.tokens), generator=seeded)
    inputs_BMC = torch.randn(2, spec.tokens - spec.tokens_S[0], spec.latent_dim, generator=seeded)
    return idx_BL, torch.tensor([1, spec.null_class]), inputs_BMC


@pytest.mark.parametrize("heads", [4, 0])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("sides", [(1, 2, 3), (2, 3, 6, 7), (1, 9), (3,)])
def test_variants(heads, shared, sides):
    tokens = tuple(n * n for n in sides)
    weights = random_weights(var_shapes(tokens, heads=heads, shared=shared))
    state = weights | {"lvl_1L": levels(*sides)}
    generator = found(state, None if heads else GeneratorSettings(heads=2)).build()
    spec = generator.spec
    assert (spec.patch_nums, spec.heads) == (sides, heads or 2)
    assert ("unit length" in spec.attention) == bool(heads)
    label = arguments(spec)
    expected = var_logits(weights, vars(spec), label[1], label[0], label[2])
    assert (logits_of(generator, *label) - expected).abs().max() < 2e-5


def test_heads_are_those_of_the_published_widths():
    state = random_weights(var_shapes(width=128, heads=0)) | {"lvl_1L": levels(1, 2, 3)}
    assert found(state).describe().heads == 2
    state = random_weights(var_shapes(width=128)) | {"lvl_1L": levels(1, 2, 3)}
    assert found(state).describe().heads == 4
    with pytest.raises(CheckpointError, match=r"scale_mul_1H11 shows that it has 4"):
        found(state, GeneratorSettings(heads=2)).describe()


def test_scales_that_the_file_does_not_show():
    state = random_weights(var_shapes())
    assert found(state).describe().patch_nums == ()
    with pytest.raises(CheckpointError, match=r"Give --patch-nums\.$"):
        found(state).build()
    assert found(state, GeneratorSettings(patch_nums=(1, 2, 3))).build().spec.tokens == 14
    with pytest.raises(CheckpointError, match="places for 14 tokens in 3 scales, but patch_nums 1,3,3"):
        found(state, GeneratorSettings(patch_nums=(1, 3, 3))).describe()


@pytest.mark.parametrize("wrong", [levels(1, 2, 3)[:, 1:], levels(2, 1, 3), levels(1, 2, 3) + 1])
def test_a_damaged_table_of_scales(wrong):
    with pytest.raises(CheckpointError, match=r"weights imply|scales in order|has places for"):
        found(random_weights(var_shapes()) | {"lvl_1L": wrong}).build()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool])
def test_a_network_whose_scales_see_others(dtype):
    """Of the same names and shapes: its mask is all that shows it."""
    mask = scale_mask(1, 2, 3)
    stored = mask == 0 if dtype == torch.bool else mask.to(dtype)
    state = random_weights(var_shapes()) | {"lvl_1L": levels(1, 2, 3)}
    expected = found(state).describe()
    assert found(state | {"attn_bias_for_masking": stored}).describe() == expected
    only_before = stored.clone()
    only_before[..., 5:, 0] = stored[0, 0, 0, 5]  # the last scale does not see the first
    with pytest.raises(CheckpointError, match=r"attn_bias_for_masking is not VAR's.*entropy-cli loss"):
        found(state | {"attn_bias_for_masking": only_before}).describe()


CONFIG = {
    "vae_kwargs": {"using_znorm": True, "vocab_size": 24},
    **{"depth": 2, "embed_dim": 32, "num_heads": 4, "num_classes": 5, "norm_eps": 1e-6},
    **{"patch_nums": [1, 2, 3], "attn_l2_norm": False, "shared_aln": False},
}


@pytest.fixture
def hub(tmp_path):
    def folder(config):
        save_file(random_weights(var_shapes(heads=0)), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return folder


def test_a_folder_of_the_hub(hub, tmp_path):
    spec = load_generator(hub(CONFIG)).generator.spec
    assert (spec.heads, spec.patch_nums, spec.rule) == (4, (1, 2, 3), "cosine")
    (tmp_path / "config.json").write_text(json.dumps({"depth": 2, "num_heads": 8}))
    spec = load_generator(tmp_path, settings=GeneratorSettings(patch_nums=(1, 2, 3))).generator.spec
    assert (spec.heads, spec.rule) == (8, None)
    config = CONFIG | {"vae_kwargs": {"using_znorm": False}, "num_heads": 8}
    spec = load_generator(hub(config)).generator.spec
    assert (spec.heads, spec.rule) == (8, "l2")


def test_its_norms_may_have_another_epsilon(hub):
    generators = [load_generator(hub(CONFIG | {"norm_eps": eps})).generator for eps in (1e-6, 1e-2)]
    label = arguments(generators[0].spec)
    one, other = (logits_of(generator, *label) for generator in generators)
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"depth": 3}, "depth is 3, but the weights have 2"),
        ({"num_classes": 10}, "num_classes is 10, but the weights have 5"),
        ({"shared_aln": True}, "shared_aln is True, but the weights have False"),
        ({"patch_nums": [1, 2, 4]}, "places for 14 tokens"),
        ({"num_heads": "four"}, "'four' heads"),
    ],
)
def test_a_config_of_another_checkpoint(hub, changed, words):
    with pytest.raises(CheckpointError, match=words):
        load_generator(hub(CONFIG | changed))


def test_a_broken_config(hub):
    folder = hub(CONFIG)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: can't be read as JSON"):
        load_generator(folder)


def test_the_config_of_another_model_in_the_same_folder(hub):
    folder = hub({"image_size": 256, "patch_nums": [1, 2], "num_heads": 16})
    settings = GeneratorSettings(patch_nums=(1, 2, 3), heads=4)
    assert load_generator(folder, settings=settings).generator.spec.heads == 4


def test_a_file_of_a_training_that_holds_both(shared):
    """Beside a tokenizer; a whole one is found in it by `load_tokenizer`."""
    path = shared / "golden" / "generators" / "var_saln" / "ar-ckpt-last.pth"
    loaded = load_generator(path)
    assert loaded.checkpoint.wrapper == "trainer.var_wo_ddp"
    assert any("vae_local" in text for text in loaded.checkpoint.ignored)
    assert replace(loaded.settings) == GeneratorSettings()
