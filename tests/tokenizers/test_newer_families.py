"""What is particular to the families that came later, against plain arithmetic."""

import json

import pytest
import torch
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import family_checkpoints as tiny
from tests import newer_layouts as newer
from tests.family_checkpoints import random_weights

SMALL, PYRAMID = TokenizerSettings(16), TokenizerSettings(16, (1, 2, 4, 8))


@pytest.fixture
def load(tmp_path):
    """The tokenizer of weights, with a config.json beside them if one is given."""

    def load(weights, settings=SMALL, config=None, family="auto"):
        torch.save(weights, tmp_path / "x.pt")
        (tmp_path / "config.json").write_text(json.dumps(config or {}))
        return load_tokenizer(tmp_path / "x.pt", family, settings).tokenizer

    return load


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(256, (2, 3, 16, 16), generator=torch.manual_seed(1), dtype=torch.uint8)


def plain_encoder(weights, block, mid, x_BChw):
    """MaskGIT's encoder of two levels, in float64."""
    w = {name: weight.double() for name, weight in weights.items()}

    def conv(name, x_BChw, stride=1):
        kernel = w[f"{name}.weight"].shape[-1]
        x_BChw = functional.pad(x_BChw, (0, 1, 0, 1)) if stride == 2 else x_BChw
        padding = kernel // 2 if stride == 1 else 0
        return functional.conv2d(x_BChw, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding)

    def norm(name, x_BChw):
        moments = functional.group_norm(x_BChw, 32, w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)
        return moments * moments.sigmoid()

    def resnet(name, x_BChw):
        h_BChw = conv(f"{name}.conv1", norm(f"{name}.norm1", x_BChw))
        h_BChw = conv(f"{name}.conv2", norm(f"{name}.norm2", h_BChw))
        shortcut = f"{name}.nin_shortcut"
        return h_BChw + (conv(shortcut, h_BChw) if f"{shortcut}.weight" in w else x_BChw)

    h_BChw = resnet(block.format(0, 0), conv("encoder.conv_in", x_BChw))
    if "encoder.down.0.down_conv.weight" in w:
        h_BChw = conv("encoder.down.0.down_conv", h_BChw, stride=2)
    else:
        h_BChw = h_BChw.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    h_BChw = resnet(block.format(1, 0), h_BChw)
    for name in mid:
        h_BChw = resnet(name, h_BChw)
    return conv("encoder.conv_out", norm("encoder.norm_out", h_BChw))


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        (newer.maskgit_shapes(), newer.MASKGIT),
        (newer.maskbit_shapes(), newer.MASKBIT),
        (newer.vqgan_plus_shapes(), newer.MASKBIT),
    ],
    ids=["maskgit", "maskbit", "vqgan+"],
)
def test_shortcuts_take_the_output_and_levels_are_averaged(load, pixels, shapes, names):
    weights = random_weights(shapes)
    expected_BChw = plain_encoder(weights, names["block"], names["mid"], pixels.double() / 255)
    found_BChw = load(weights).encode(pixels)
    torch.testing.assert_close(found_BChw.double(), expected_BChw, atol=1e-5, rtol=0)


def test_vqgan_plus_has_a_codebook_and_the_same_temperature(load):
    spec = load(random_weights(newer.vqgan_plus_shapes())).spec
    assert (spec.family, spec.rule, spec.temperature, spec.vocab_size) == ("maskbit", "l2", 0.01, 40)
    cosine = load(random_weights(newer.vqgan_plus_shapes()), TokenizerSettings(16, rule="cosine")).spec
    assert (cosine.rule, cosine.temperature) == ("cosine", 0.01)


def test_open_muse_resizes_by_other_weights_than_1d_tokenizer(load):
    weights = random_weights(newer.maskgit_shapes())
    assert "BICUBIC" in load(weights).spec.preprocess
    muse = load(weights, config={"_class_name": "MaskGitVQGAN", "resample_with_conv": True}).spec
    assert "BILINEAR" in muse.preprocess and muse.family == "maskgit"


def test_open_muses_vqgan_may_average(load, pixels):
    shapes = newer.without(tiny.vq_shapes(blocks=2), "downsample")
    config = {"_class_name": "VQGANModel", "resample_with_conv": False}
    tokenizer = load(random_weights(shapes), config=config)
    spec = tokenizer.spec
    assert (spec.family, spec.pixels, spec.temperatures) == ("vqgan", "[0, 1]", (1.0,))
    assert "open-muse" in spec.temperature_source and spec.scales[0].tokens == 64
    convolved = tiny.vq_shapes(blocks=2)
    with pytest.raises(CheckpointError, match="resample_with_conv is false, but the weights"):
        load(random_weights(convolved), config=config)
    # An average of 2 x 2 is a convolution of stride 2 with its weights.
    weights = random_weights(shapes)
    name = "encoder.down.0.downsample.conv"
    mean_CC33 = torch.zeros(convolved[f"{name}.weight"])
    mean_CC33[:, :, :2, :2] = torch.eye(len(mean_CC33))[:, :, None, None] / 4
    as_conv = weights | {f"{name}.weight": mean_CC33, f"{name}.bias": torch.zeros(len(mean_CC33))}
    expected_BChw = load(as_conv, config={"_class_name": "VQGANModel"}).encode(pixels)
    torch.testing.assert_close(tokenizer.encode(pixels), expected_BChw, atol=1e-5, rtol=0)


def test_the_first_bit_of_show_o_is_the_most_significant(load):
    codebook = load(random_weights(newer.show_o_shapes(bits=3))).codebook(0)
    z_BlC = torch.tensor([[[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1.0]]])
    sums = assign(z_BlC, codebook, [1.0])
    assert sums.idx_Bl.tolist() == [[4, 2, 1, 6]]
    assert torch.equal(codebook.decoded(sums.idx_Bl[0]), z_BlC[0])
    assert assign(z_BlC[:, :1], codebook.to(torch.device("cpu")), [0.01]).soft_BTE.argmax() == 4


@pytest.mark.parametrize("bits", [1, 7, 32, 63, 64])
def test_infinity_subtracts_its_bits_however_many_they_are(load, pixels, bits):
    tokenizer = load(random_weights(newer.infinity_shapes(bits)), PYRAMID)
    assert tokenizer.spec.vocab_size == 2**bits
    rest_BChw = tokenizer.encode(pixels)
    for s, n in enumerate((1, 2, 4)):
        z_BCnn = functional.interpolate(rest_BChw, size=(n, n), mode="area")
        assert torch.equal(tokenizer.vectors(rest_BChw, s), z_BCnn.flatten(2).transpose(1, 2))
        code_BC1nn = torch.where(z_BCnn > 0, 1, -1)[:, :, None] / bits**0.5
        up_BChw = functional.interpolate(code_BC1nn, size=(1, 8, 8), mode="trilinear")[:, :, 0]
        idx_Bl = assign(tokenizer.vectors(rest_BChw, s), tokenizer.codebook(s), []).idx_Bl
        left_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
        torch.testing.assert_close(left_BChw, rest_BChw - up_BChw, atol=1e-6, rtol=0)
        rest_BChw = left_BChw


def infinity(tmp_path, levels, size, patch_nums=None):
    widths = (32,) * levels
    torch.save(random_weights(newer.infinity_shapes(14, widths)), tmp_path / "x.pt")
    return find_family(tmp_path / "x.pt", settings=TokenizerSettings(size, patch_nums)).describe()


def test_infinitys_scales(tmp_path):
    all_sides = [1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64]
    for size, scales in ((256, 7), (512, 10), (768, 12), (1024, 13)):
        assert infinity(tmp_path, 5, size).patch_nums == all_sides[:scales]
        spec = infinity(tmp_path, 4, size)
        assert spec.patch_nums == [2 * side for side in all_sides[:scales]]
        assert any("one of 56 bits" in note for note in spec.notes)
    assert not any("one of" in note for note in infinity(tmp_path, 5, 256).notes)
    assert infinity(tmp_path, 5, 128, (3, 8)).patch_nums == [3, 8]
    with pytest.raises(CheckpointError, match="patch_nums for 256, 512, 768, 1024 only"):
        infinity(tmp_path, 5, 128)


def test_infinity_without_its_wrappers_names(load, pixels):
    weights = random_weights(newer.infinity_shapes())
    plain = {
        newer.INNER.sub(r".\1.\2", name): weight
        for name, weight in weights.items()
        if name != "quantizer.lfq.mask"
    }
    assert not plain.keys() & {name for name in weights if ".conv." in name}
    assert torch.equal(load(plain, PYRAMID).encode(pixels), load(weights, PYRAMID).encode(pixels))


def plain_time(weights, frame_BChw):
    """Emu3's convolutions over time of four equal frames, in float64."""
    w = {name: weight.double() for name, weight in weights.items()}

    def conv(name, x_BCthw, stride=1):
        side = w[f"{name}.weight"].shape[-1] // 2
        x_BCthw = functional.pad(x_BCthw, (side, side, side, side, 2, 0))
        return functional.conv3d(x_BCthw, w[f"{name}.weight"], w[f"{name}.bias"], (stride, 1, 1))

    def norm(name, x_BCthw):
        moments = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return functional.batch_norm(x_BCthw, *moments, w[f"{name}.weight"], w[f"{name}.bias"])

    h_BCthw = frame_BChw.double()[:, :, None].repeat(1, 1, 4, 1, 1)
    for i in range(2):
        h_BCthw = functional.silu(conv(f"encoder.time_conv.{i}.conv.conv", h_BCthw, 2))
    for i in range(2):
        name = f"encoder.time_res_stack.{i}"
        inner = conv(f"{name}.conv1.conv", functional.silu(norm(f"{name}.norm1", h_BCthw)))
        h_BCthw = h_BCthw + conv(f"{name}.conv2.conv", functional.silu(norm(f"{name}.norm2", inner)))
    return conv("quant_conv.conv", h_BCthw)


def test_emu3_makes_one_latent_of_four_frames(load, pixels):
    weights = random_weights(newer.emu3_shapes())
    tokenizer = load(weights)
    expected_BC1hw = plain_time(weights, tokenizer.encoder(2 * (pixels / 255) - 1))
    assert expected_BC1hw.shape[2] == 1
    found_BChw = tokenizer.encode(pixels)
    torch.testing.assert_close(found_BChw.double(), expected_BC1hw[:, :, 0], atol=1e-5, rtol=0)


def test_emu3_in_transformers(load, pixels):
    weights = random_weights(newer.emu3_shapes())
    renamed = newer.renamed(weights, *newer.TRANSFORMERS)
    assert "encoder.down_block.down.1.attn_norms.0.weight" in renamed
    linear = {  # its layers of attention are linear
        name: weight.flatten(1) if "attn" in name and weight.ndim == 4 else weight
        for name, weight in renamed.items()
    }
    in_model = {f"model.vqmodel.{name}": weight for name, weight in linear.items()}
    config = {"model_type": "emu3", "vq_config": {"model_type": "emu3_vqgan", "num_attention_heads": 1}}
    found_BChw = load(in_model, config=config).encode(pixels)
    assert torch.equal(found_BChw, load(weights).encode(pixels))
    config["vq_config"]["num_attention_heads"] = 2
    with pytest.raises(CheckpointError, match="num_attention_heads is 2, expected 1"):
        load(in_model, config=config)


def test_flexvars_scales_are_all_of_the_whole_latent(load, pixels):
    tokenizer = load(random_weights(newer.flexvar_shapes()), PYRAMID)
    assert not tokenizer.spec.is_residual
    f_BChw = tokenizer.encode(pixels)
    for s, n in enumerate((1, 2, 4, 8)):
        z_BCnn = functional.interpolate(f_BChw, size=(n, n), mode="area")
        assert torch.equal(tokenizer.vectors(f_BChw, s), z_BCnn.flatten(2).transpose(1, 2))
        idx_Bl = assign(tokenizer.vectors(f_BChw, s), tokenizer.codebook(s), []).idx_Bl
        assert torch.equal(tokenizer.subtract(f_BChw, idx_Bl, s), f_BChw)
