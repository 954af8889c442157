"""The VAR family: its residual quantiser, the layout's variants, and weights that don't fit."""

import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.commands.bench.random_weights import random_weights
from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.families.var import LAYOUT, phi_of
from entropy_cli.tokenizers.layers.var_layout import VARSizes, var_shapes
from entropy_cli.tokenizers.names import joined_shapes
from entropy_cli.tokenizers.network import Network
from entropy_cli.tokenizers.registry import load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.conftest import IMAGE_SIZE, PATCH_NUMS, SIZES


@torch.no_grad()
def vectors_and_codes(path, pictures, settings=None):
    """Latents and nearest codes at every scale."""
    tokenizer = load_tokenizer(path, settings=settings).tokenizer
    rest_BChw, found = tokenizer.encode(pictures), []
    for s in range(len(tokenizer.spec.scales)):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        idx_Bl = assign(z_BlC, tokenizer.codebook(s), ()).idx_Bl
        found.append((z_BlC, idx_Bl))
        rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
    return found


def same(one, two, **close):
    for (z, idx), (other_z, other_idx) in zip(one, two, strict=True):
        torch.testing.assert_close(z, other_z, **close)
        assert torch.equal(idx, other_idx)
    return True


def test_every_way_of_storing_it_gives_the_same(tmp_path, checkpoint, weights, pictures):
    expected = vectors_and_codes(checkpoint, pictures)
    (tmp_path / "config.json").write_text(checkpoint.with_name("config.json").read_text())
    flat, legacy, wrapped = tmp_path / "flat.pth", tmp_path / "legacy.pt", tmp_path / "ar-ckpt-last.pth"
    torch.save(weights, flat)
    torch.save(weights, legacy, _use_new_zipfile_serialization=False)
    torch.save(
        {
            "epoch": 3,
            "args": {"depth": 16},
            "trainer": {"config": {}, "var_wo_ddp": {"w": torch.ones(1)}, "vae_local": weights},
        },
        wrapped,
    )
    for path in (flat, legacy, wrapped):
        assert same(vectors_and_codes(path, pictures), expected, atol=0, rtol=0)
    assert load_tokenizer(wrapped).checkpoint.wrapper == "trainer.vae_local"
    other = tmp_path / "other.ckpt"
    torch.save(
        {"state_dict": {**weights, 7: torch.ones(1)}, "args": argparse.Namespace(depth=16)}, other
    )
    assert same(vectors_and_codes(other, pictures), expected, atol=0, rtol=0)
    assert load_tokenizer(other).checkpoint.wrapper == "state_dict"


@torch.no_grad()
def test_the_file_is_let_go_of_once_it_is_read(tmp_path, checkpoint, weights, pictures):
    """A run of days must survive that its checkpoint is overwritten, and not hold the decoder."""
    for name in ("x.safetensors", "x.pth"):
        path = tmp_path / name
        both = {**weights, "decoder.big": torch.zeros(1000)}
        save_file(both, path) if path.suffix == ".safetensors" else torch.save(both, path)
        loaded = load_tokenizer(path, settings=TokenizerSettings(IMAGE_SIZE, PATCH_NUMS))
        expected = loaded.tokenizer.encode(pictures)
        path.write_bytes(bytes(path.stat().st_size))
        assert torch.equal(loaded.tokenizer.encode(pictures), expected)
        with pytest.raises(CheckpointError, match="closed"):
            loaded.checkpoint.tensor("decoder.big")


def renamed(weights, keep):
    """The weights with the phi convolutions `keep` stored as another kind of sharing."""
    own = {name: w for name, w in weights.items() if "quant_resi" not in name}
    for pattern, k in keep:
        for leaf in ("weight", "bias"):
            own[pattern + leaf] = weights[f"quantize.quant_resi.qresi_ls.{k}.{leaf}"].clone()
    return own


def test_phi_shared_by_all_scales_or_one_each(tmp_path, weights, pictures):
    settings = TokenizerSettings(IMAGE_SIZE, PATCH_NUMS)
    shared_by_all = renamed(weights, [("quantize.quant_resi.qresi.", 1)])
    save_file(shared_by_all, tmp_path / "shared.safetensors")
    same_four = renamed(weights, [(f"quantize.quant_resi.qresi_ls.{k}.", 1) for k in range(4)])
    save_file(same_four, tmp_path / "same.safetensors")
    expected = vectors_and_codes(tmp_path / "same.safetensors", pictures, settings)
    assert same(
        vectors_and_codes(tmp_path / "shared.safetensors", pictures, settings), expected, atol=0, rtol=0
    )
    # With four scales and four phis, each scale has its own either way.
    save_file(weights, tmp_path / "partly.safetensors")
    own = renamed(weights, [(f"quantize.quant_resi.{k}.", k) for k in range(4)])
    save_file(own, tmp_path / "own.safetensors")
    expected = vectors_and_codes(tmp_path / "partly.safetensors", pictures, settings)
    assert same(
        vectors_and_codes(tmp_path / "own.safetensors", pictures, settings), expected, atol=0, rtol=0
    )
    with pytest.raises(CheckpointError, match="each of 4 scales"):
        load_tokenizer(tmp_path / "own.safetensors", settings=TokenizerSettings(IMAGE_SIZE, (1, 4, 8)))


@pytest.mark.parametrize("phis", [1, 2, 3, 4, 5, 7])
def test_phi_is_chosen_as_the_published_code_chooses(phis):
    start = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = np.linspace(start, 1 - start, phis)
    for scales in range(2, 20):
        for s in range(scales):
            expected = np.argmin(np.abs(ticks - s / (scales - 1))).item()
            assert phi_of(s, scales, phis) == expected, (s, scales)
    assert phi_of(0, 1, phis) == 0


def test_attention_and_levels_are_as_in_the_file(tmp_path, weights, pictures):
    """Without attention keys, and with fewer levels, it is still this family."""
    bare = {name: w for name, w in weights.items() if ".attn" not in name}
    save_file(bare, tmp_path / "bare.safetensors")
    settings = TokenizerSettings(IMAGE_SIZE, PATCH_NUMS)
    tokenizer = load_tokenizer(tmp_path / "bare.safetensors", settings=settings).tokenizer
    assert tokenizer.network.encoder.downsampling == 4
    assert tokenizer.encode(pictures).shape == (len(pictures), SIZES.latent_dim, 8, 8)
    one_level = random_weights(VARSizes(width=32, width_mult=(1,), latent_dim=4, vocab_size=8), seed=0)
    save_file(one_level, tmp_path / "one.safetensors")
    settings = TokenizerSettings(16, (1, 16))
    assert load_tokenizer(tmp_path / "one.safetensors", settings=settings).tokenizer.spec.family == "var"


def test_published_sizes_and_patch_nums(tmp_path):
    """The published layout on the meta device: parameters and grids."""
    shapes = var_shapes(VARSizes())
    sources = LAYOUT.sources(list(shapes))
    with torch.device("meta"):
        network = Network(joined_shapes(shapes, sources), LAYOUT.conventions)
    assert network.encoder.downsampling == 16
    assert {*network.state_dict(), "quantize.embedding.weight"} == set(sources)
    parameters = sum(p.numel() for name, p in network.named_parameters() if name.startswith("encoder"))
    assert 40e6 < parameters < 48e6
    small = random_weights(VARSizes(width=32, latent_dim=4, vocab_size=8), seed=0)
    save_file(small, tmp_path / "small.safetensors")
    for size, scales, tokens in ((None, 10, 680), (256, 10, 680), (512, 10, 2240), (1024, 14, 9451)):
        spec = load_tokenizer(
            tmp_path / "small.safetensors", settings=TokenizerSettings(size)
        ).tokenizer.spec
        assert len(spec.scales) == scales and spec.image_size == (size or 256)
        assert sum(scale.tokens for scale in spec.scales) == tokens


def test_settings_come_from_the_command_line_then_config_json(checkpoint):
    spec = load_tokenizer(checkpoint).tokenizer.spec
    assert (spec.image_size, tuple(spec.patch_nums), spec.rule) == (IMAGE_SIZE, PATCH_NUMS, "l2")
    assert spec.temperature == 1
    settings = TokenizerSettings(64, (1, 16), "cosine")
    spec = load_tokenizer(checkpoint, settings=settings).tokenizer.spec
    assert (spec.image_size, spec.patch_nums, spec.rule) == (64, [1, 16], "cosine")
    assert spec.temperature == "auto" and "no temperature" in spec.temperature_source


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"image_size": "big"}', "image_size"),
        ('{"patch_nums": [1, "x"]}', "patch_nums"),
        ('{"patch_nums": []}', "patch_nums"),
        ('{"using_znorm": 1}', "using_znorm"),
        ('{"rule": "sign"}', "rule 'sign'"),
        ('{"norm_num_groups": 0}', "norm_num_groups 0"),
    ],
)
def test_a_broken_config_json_is_an_error(tmp_path, weights, text, words):
    save_file(weights, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words):
        load_tokenizer(tmp_path / "x.safetensors")


def test_config_json_of_the_switti_and_var_kind(tmp_path, weights):
    save_file(weights, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"reso": 32, "v_patch_nums": [1, 8], "using_znorm": True, "ch": 160})
    )
    spec = load_tokenizer(tmp_path / "x.safetensors").tokenizer.spec
    assert (spec.image_size, spec.patch_nums, spec.rule) == (32, [1, 8], "cosine")
    (tmp_path / "config.json").write_text(
        json.dumps({"image_size": 64, "patch_nums": [16], "rule": "l2"})
    )
    spec = load_tokenizer(tmp_path / "x.safetensors").tokenizer.spec
    assert (spec.image_size, spec.patch_nums, spec.rule) == (64, [16], "l2")


def test_another_number_of_usage_rows_is_only_noted(tmp_path, weights):
    settings = TokenizerSettings(IMAGE_SIZE, PATCH_NUMS)
    for rows, notes in ((4, 0), (10, 1)):
        save_file(
            weights | {"quantize.ema_vocab_hit_SV": torch.zeros(rows, 48)}, tmp_path / "x.safetensors"
        )
        assert (
            len(load_tokenizer(tmp_path / "x.safetensors", settings=settings).tokenizer.spec.notes)
            == notes
        )


@pytest.mark.parametrize(
    "settings, words",
    [
        (TokenizerSettings(32, (1, 2, 4)), "8 x 8"),
        (TokenizerSettings(32, (1, 8, 4, 8)), "grows"),
        (TokenizerSettings(34, (1, 8)), "multiple of 4"),
        (TokenizerSettings(64), "Give --patch-nums, ending in 16"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, weights, settings, words):
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=words):
        load_tokenizer(tmp_path / "x.safetensors", settings=settings)


def damaged(weights, **changes):
    """Weights with some removed (None) or replaced."""
    changed = {**weights, **{name.replace("__", "."): w for name, w in changes.items()}}
    return {name: w for name, w in changed.items() if w is not None}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"quantize__embedding__weight": None}, "unknown layout.*quantize.embedding.weight"),
        ({"encoder__norm_out__bias": None}, "lacks encoder.norm_out.bias"),
        ({"encoder__norm_out__bias": torch.zeros(3)}, "sizes contradict"),
        ({"encoder__extra__weight": torch.zeros(3)}, "got encoder.extra.weight"),
        ({"quantize__embedding__weight": torch.zeros(48, 5)}, "codes of 5 dimensions"),
        ({"encoder__conv_in__weight": torch.zeros(3)}, r"conv_in.weight has shape \(3,\)"),
        ({"encoder__conv_in__weight": torch.zeros(32, 1, 3, 3)}, "1 channels, not 3"),
        ({"quantize__embedding__weight": torch.zeros(0, 6)}, "no codes"),
        ({"quant_conv__bias": torch.zeros(6, dtype=torch.int8)}, "quant_conv.bias is a .*int8"),
        ({"quant_conv__bias": torch.zeros(6, dtype=torch.complex64)}, "expected plain floating"),
        (
            {"encoder__conv_in__weight": torch.full((32, 3, 3, 3), float("nan"))},
            "conv_in.weight holds NaN",
        ),
        (
            {"quantize__quant_resi__qresi_ls__2__bias": torch.full((6,), float("inf"))},
            "qresi_ls.2.bias holds NaN",
        ),
    ],
)
def test_damaged_weights_are_named(tmp_path, weights, changes, words):
    save_file(damaged(weights, **changes), tmp_path / "x.safetensors")
    settings = TokenizerSettings(IMAGE_SIZE, PATCH_NUMS)
    with pytest.raises(CheckpointError, match=words):
        load_tokenizer(tmp_path / "x.safetensors", settings=settings)
