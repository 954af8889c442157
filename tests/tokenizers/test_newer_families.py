"""What is particular to the families that came later, against plain arithmetic."""

import json
import math

import pytest
import torch
from PIL import Image
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.layers.autoencoder import Encoder
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
    assert "if use_l2_normalisation was set give --rule cosine" in spec.notes[0]
    assert not load(random_weights(newer.maskbit_shapes())).spec.notes
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


def test_open_muse_leaves_out_attention_after_the_only_block(load, pixels):
    config = {"_class_name": "VQGANModel"}
    weights = random_weights(tiny.vq_shapes(blocks=1))
    expected_BChw = load(newer.without(weights, "down.1.attn"), config=config).encode(pixels)
    assert torch.equal(load(weights, config=config).encode(pixels), expected_BChw)
    assert not torch.equal(load(weights).encode(pixels), expected_BChw)


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


def test_infinitys_norms_have_24_groups_where_32_do_not_fit(load):
    encoder = load(random_weights(newer.infinity_shapes(7, (48, 96))), PYRAMID).encoder
    for norm, channels, groups in ((encoder.down[0].block[0].norm1, 48, 24), (encoder.norm_out, 96, 32)):
        x_BChw = torch.randn(1, channels, 4, 4)
        expected_BChw = functional.group_norm(x_BChw, groups, norm.weight, norm.bias, 1e-6)
        torch.testing.assert_close(norm(x_BChw), expected_BChw)


def test_infinity_without_its_wrappers_names(load, pixels):
    weights = random_weights(newer.infinity_shapes())
    plain = {
        newer.INNER.sub(r".\1.\2", name): weight
        for name, weight in weights.items()
        if name != "quantizer.lfq.mask"
    }
    assert not plain.keys() & {name for name in weights if ".conv." in name}
    assert torch.equal(load(plain, PYRAMID).encode(pixels), load(weights, PYRAMID).encode(pixels))


def plain_time(weights, frame_BChw, halvings):
    """Emu3's convolutions over time of two equal frames for each halving, in float64."""
    w = {name: weight.double() for name, weight in weights.items()}

    def conv(name, x_BCthw, stride=1):
        side = w[f"{name}.weight"].shape[-1] // 2
        x_BCthw = functional.pad(x_BCthw, (side, side, side, side, 2, 0))
        return functional.conv3d(x_BCthw, w[f"{name}.weight"], w[f"{name}.bias"], (stride, 1, 1))

    def norm(name, x_BCthw):
        moments = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return functional.batch_norm(x_BCthw, *moments, w[f"{name}.weight"], w[f"{name}.bias"])

    h_BCthw = frame_BChw.double()[:, :, None].repeat(1, 1, 2**halvings, 1, 1)
    for i in range(halvings):
        h_BCthw = functional.silu(conv(f"encoder.time_conv.{i}.conv.conv", h_BCthw, 2))
    for i in range(2):
        name = f"encoder.time_res_stack.{i}"
        inner = conv(f"{name}.conv1.conv", functional.silu(norm(f"{name}.norm1", h_BCthw)))
        h_BCthw = h_BCthw + conv(f"{name}.conv2.conv", functional.silu(norm(f"{name}.norm2", inner)))
    return conv("quant_conv.conv", h_BCthw)


@pytest.mark.parametrize("halvings", [2, 1, 0])
def test_emu3_makes_one_latent_of_several_frames(load, pixels, halvings):
    weights = newer.without(random_weights(newer.emu3_shapes()), rf"time_conv\.[{halvings}-9]")
    tokenizer = load(weights)
    expected_BC1hw = plain_time(weights, tokenizer.encoder(2 * (pixels / 255) - 1), halvings)
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


def plain_dvae(weights, x_BChw):
    """DALL-E's logits, in float64."""
    w = {name.removeprefix("blocks."): weight.double() for name, weight in weights.items()}

    def conv(name, x_BChw):
        return functional.conv2d(x_BChw, w[f"{name}.w"], w[f"{name}.b"], padding="same")

    h_BChw = conv("input", x_BChw)
    for group in (1, 2):
        for block in (1, 2):
            name, inner = f"group_{group}.block_{block}", h_BChw
            for k in (1, 2, 3, 4):
                inner = conv(f"{name}.res_path.conv_{k}", inner.clamp(min=0))
            shortcut = f"{name}.id_path"
            h_BChw = (conv(shortcut, h_BChw) if f"{shortcut}.w" in w else h_BChw) + inner / 16
        if group == 1:
            h_BChw = h_BChw.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5))
    return conv("output.conv", h_BChw.clamp(min=0))


def test_the_logits_of_dall_e(load, pixels):
    weights = random_weights(newer.dall_e_shapes())
    logit_BlV = plain_dvae(weights, 0.8 * (pixels.double() / 255) + 0.1).flatten(2).transpose(1, 2)
    log_q_BlV = logit_BlV.log_softmax(2)
    tokenizer = load(weights)
    sums = assign(tokenizer.vectors(tokenizer.encode(pixels), 0), tokenizer.codebook(0), [1.0])
    assert torch.equal(sums.idx_Bl, logit_BlV.argmax(2)) and len(sums.idx_Bl.unique()) > 2
    entropy_B = -(log_q_BlV.exp() * log_q_BlV).sum((1, 2))
    torch.testing.assert_close(sums.entropy_BT[:, 0], entropy_B, atol=1e-4, rtol=0)


def test_flavas_names_and_its_squeezed_pictures(load, pixels):
    weights = random_weights(newer.dall_e_shapes())
    flava = load(newer.renamed(weights, *newer.FLAVA), config={"model_type": "flava_image_codebook"})
    assert torch.equal(flava.encode(pixels), load(weights).encode(pixels))
    assert flava.spec.preprocess == "both sides to 16 (LANCZOS), without a crop, pixels to [0.1, 0.9]"
    picture = Image.new("RGB", (40, 20))
    picture.paste("red", (0, 0, 20, 20))
    assert flava.spec.crop.apply(picture).getpixel((3, 8)) == (255, 0, 0)
    assert flava.spec.crop.apply(picture).getpixel((12, 8)) == (0, 0, 0)
    config = {"model_type": "flava", "image_codebook_config": {"num_groups": 3}}
    with pytest.raises(CheckpointError, match="num_groups is 3, but the weights have 2 groups"):
        load(newer.renamed(weights, *newer.FLAVA), config=config)


def test_the_decoder_of_dall_e_is_told_by_what_it_takes(tmp_path):
    shapes = newer.dall_e_shapes() | {"blocks.input.w": (16, 40, 1, 1)}
    torch.save(random_weights(shapes), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="takes 40 channels, as the decoder does"):
        find_family(tmp_path / "x.pt", settings=SMALL)


def test_cosmos_bounds_its_latents_to_levels(load, pixels):
    """By the published formula, which gives the nearest level the index that it has there."""
    weights = random_weights(newer.cosmos_shapes())
    tokenizer = load(weights)
    network = tokenizer.network
    x_B3HW = 2 * (pixels / 255) - 1
    a, b, c, d = (x_B3HW[:, :, i::2, j::2].double() for i in (0, 1) for j in (0, 1))
    low, high = ((a + b, c + d), (a - b, c - d))  # along a row: sums and differences
    bands = [low[0] + low[1], low[0] - low[1], high[0] + high[1], high[0] - high[1]]
    inner = Encoder.forward(network.encoder, (torch.cat(bands, 1) / 4).float())
    z_BChw = network.quant_conv(inner).double()
    for c, n in enumerate((8, 8, 8, 5, 5, 5)):
        half, offset = (n - 1) * 1.001 / 2, 0.5 if n % 2 == 0 else 0.0
        z_BChw[:, c] = torch.tanh(z_BChw[:, c] + math.atanh(offset / half)) * half - offset
    found_BChw = tokenizer.encode(pixels)
    torch.testing.assert_close(found_BChw.double(), z_BChw, atol=1e-4, rtol=0)
    levels_BlC = z_BChw.round().flatten(2).transpose(1, 2) + torch.tensor([4, 4, 4, 2, 2, 2])
    basis_C = torch.tensor([1, 8, 64, 512, 2560, 12800])
    idx_Bl = assign(tokenizer.vectors(found_BChw, 0), tokenizer.codebook(0), []).idx_Bl
    assert torch.equal(idx_Bl, (levels_BlC * basis_C).sum(2).long())


def test_levels_are_given_or_in_the_file(load):
    weights = random_weights(newer.cosmos_shapes(levels=3))
    for given, words in ((None, "no levels, as continuous ones"), ((8, 8), "have 3 dimensions")):
        with pytest.raises(CheckpointError, match=words):
            load(weights, TokenizerSettings(16, levels=given), family="cosmos" if given else "auto")
    told = load(weights, TokenizerSettings(16, levels=(4, 3, 7)), family="cosmos").spec
    assert told.scales[0].vocabulary.levels == (7, 3, 4) and told.vocab_size == 84
    stored = weights | {"quantizer._levels": torch.tensor([4, 3, 7], dtype=torch.int32)}
    assert load(stored, config={"architectures": ["CosmosTokenizer"]}).spec.scales == told.scales
    with pytest.raises(CheckpointError, match=r"has levels 4,3,7\. Leave out --levels"):
        load(stored, TokenizerSettings(16, levels=(7, 3, 4)))
    with pytest.raises(CheckpointError, match="--levels: the codes of family vqgan are no levels"):
        load(random_weights(tiny.vq_shapes()), TokenizerSettings(16, levels=(4, 3)))
    rearranged = stored | {"encoder.patcher.wavelets": torch.ones(2)}
    with pytest.raises(CheckpointError, match="rearranged pixels, not Haar"):
        load(rearranged)


def test_apertus_names_of_ibq(load, pixels):
    weights = random_weights(tiny.vq_shapes(blocks=2))
    named = newer.renamed(weights, *newer.APERTUS)
    in_model = {f"model.vision_tokenizer.{name}": weight for name, weight in named.items()}
    config = {"model_type": "apertus1p5", "vision_config": {"model_type": "apertus1p5_vision_tokenizer"}}
    tokenizer = load(in_model, config=config)
    assert (tokenizer.spec.family, tokenizer.spec.rule, tokenizer.spec.temperature) == (
        "ibq",
        "dot",
        0.01,
    )
    assert torch.equal(tokenizer.encode(pixels), load(weights, family="ibq").encode(pixels))


def test_janus_alone_is_told_by_its_config_or_its_decoder(load):
    weights = random_weights(tiny.vq_shapes(latent_dim=8, vocab_size=40))
    config = {"model_type": "janus_vqgan", "architectures": ["JanusVQVAE"], "hidden_act": "gelu"}
    decoder = {"decoder.up.0.upsample.conv.weight": torch.zeros(2, 2, 3, 3)}
    for spec in (load(weights, config=config).spec, load(weights | decoder).spec):
        assert (spec.family, spec.rule, spec.temperature) == ("llamagen", "cosine", 0.01)
        assert any("--rule l2" in note for note in spec.notes)
    assert load(weights).spec.family == "vqgan"


def test_chameleons_tokenizer_alone_is_told_by_its_config(load):
    spec = load(random_weights(tiny.vq_shapes()), config={"model_type": "chameleon_vqgan"}).spec
    assert spec.family == "vqgan" and "LANCZOS" in spec.preprocess


def plain_vq_kd(weights, x_BChw):
    """BEiT v2's latents, in float64, with two heads."""
    w = {name.removeprefix("encoder."): weight.double() for name, weight in weights.items()}

    def linear(name, x_BlC):
        return x_BlC @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x_BlC):
        mean, variance = x_BlC.mean(2, keepdim=True), x_BlC.var(2, keepdim=True, correction=0)
        return (x_BlC - mean) / (variance + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name, x_BlC):
        q, k, v = (x_BlC @ part.T for part in w[f"{name}.qkv.weight"].chunk(3))
        q, v = q + w[f"{name}.q_bias"], v + w[f"{name}.v_bias"]
        heads = [
            (a @ b.transpose(1, 2) / 8).softmax(2) @ c
            for a, b, c in zip(*(t.chunk(2, 2) for t in (q, k, v)), strict=True)
        ]
        return linear(f"{name}.proj", torch.cat(heads, 2))

    patches = functional.unfold(x_BChw, 4, stride=4).transpose(1, 2)
    x_BlC = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x_BlC = torch.cat([w["cls_token"].expand(len(x_BlC), -1, -1), x_BlC], 1) + w["pos_embed"]
    for i in range(2):
        x_BlC = x_BlC + attention(f"blocks.{i}.attn", norm(f"blocks.{i}.norm1", x_BlC))
        h_BlC = linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x_BlC))
        h_BlC = h_BlC * (1 + torch.erf(h_BlC / 2**0.5)) / 2
        x_BlC = x_BlC + linear(f"blocks.{i}.mlp.fc2", h_BlC)
    h_BlC = linear("encode_task_layer.0", norm("fc_norm", x_BlC[:, 1:])).tanh()
    z_BlC = linear("encode_task_layer.2", h_BlC)
    return z_BlC / z_BlC.norm(dim=2, keepdim=True)


def test_vq_kd_compares_unit_latents_with_codes_as_they_are(load, pixels):
    weights = random_weights(newer.vq_kd_shapes())
    beside = {"quantize.embedding.initted": torch.ones(1), "teacher_model.x": torch.ones(2)}
    tokenizer = load({"model": weights | beside}, TokenizerSettings())
    z_BlC = tokenizer.vectors(tokenizer.encode(pixels), 0)
    expected_BlC = plain_vq_kd(weights, pixels.double() / 127.5 - 1)
    torch.testing.assert_close(z_BlC.double(), expected_BlC, atol=1e-5, rtol=0)
    distance_BlV = torch.cdist(expected_BlC, weights["quantize.embedding.weight"].double()[None])
    assert torch.equal(assign(z_BlC, tokenizer.codebook(0), []).idx_Bl, distance_BlV.argmin(2))
    with pytest.raises(CheckpointError, match="is 96 wide, expected a multiple of 64"):
        load(random_weights(newer.vq_kd_shapes(width=96)))
