"""The config.json beside a checkpoint as evidence of what it is."""

import json

import pytest
import torch
from torch.nn import functional

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.tokenizers.layers.residual import phi_of
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import family_checkpoints as tiny
from tests.family_checkpoints import EXAMPLES, random_weights

NOTHING, SMALL = TokenizerSettings(), TokenizerSettings(image_size=16)


@pytest.fixture
def found(tmp_path):
    """Save weights beside a config.json, or text in its place, and tell their family."""

    def found(shapes, config, family="auto", settings=SMALL):
        torch.save(random_weights(shapes), tmp_path / "x.pt")
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
        return find_family(tmp_path / "x.pt", family, settings)

    return found


@pytest.fixture
def pixels():
    return torch.randint(256, (2, 3, 16, 16), generator=torch.manual_seed(1), dtype=torch.uint8)


JANUS_ALONE = {"model_type": "janus_vqgan", "architectures": ["JanusVQVAE"], "num_embeddings": 16384}


def test_janus_saved_alone_compares_directions(found):
    shapes = tiny.vq_shapes(latent_dim=8, vocab_size=16384)
    alone = found(shapes, JANUS_ALONE, settings=NOTHING)
    spec = alone.describe()
    assert (alone.name, spec.rule, spec.temperature, spec.image_size) == (
        "llamagen",
        "cosine",
        0.01,
        384,
    )
    nested = {"model_type": "janus", "vq_config": JANUS_ALONE, "vocab_size": 102400}
    assert found(shapes, nested, settings=NOTHING).name == "llamagen"


def test_chameleon_by_its_config(found):
    config = {"model_type": "chameleon", "vq_config": {"resolution": 64, "embed_dim": 6}}
    assert found(tiny.vq_shapes(), config, settings=NOTHING).describe().image_size == 64


@pytest.mark.parametrize("name", ["vqgan", "diffusers"])
def test_open_muse_is_given_pixels_as_it_was_trained(found, name):
    config = {"_class_name": "VQGANModel", "resolution": 32, "resample_with_conv": True}
    if name == "diffusers":
        with pytest.raises(CheckpointError, match="_class_name VQGANModel"):
            found(EXAMPLES[name].shapes, config)
        return
    spec = found(tiny.vq_shapes(blocks=2), config, settings=NOTHING).describe()
    assert (spec.pixels, spec.image_size, spec.rule) == ("[0, 1]", 32, "l2")
    assert spec.crop.words == "shorter side to 32 (BILINEAR), centre crop 32 x 32"


@pytest.mark.parametrize("name", ["vqgan", "var", "llamagen", "open-magvit2", "rq-vae", "diffusers"])
@pytest.mark.parametrize("family", ["auto", "asked"])
def test_pooling_in_place_of_a_convolution_is_refused(found, name, family):
    """It has no weights, and would be left out."""
    shapes = {key: shape for key, shape in EXAMPLES[name].shapes.items() if "downsample" not in key}
    family = name if family == "asked" else "auto"
    words = "0 downsampling convolutions between 2 levels|lacks .*downsample"
    with pytest.raises(CheckpointError, match=words):
        found(shapes, {}, family, EXAMPLES[name].settings).describe()


@pytest.mark.parametrize("ratio", [0.2, -0.8, 1])
@torch.no_grad()
def test_the_share_of_phi_is_that_of_config_json(found, tmp_path, pixels, ratio):
    shapes = tiny.var_shapes()
    config = {"quant_resi": ratio, "v_patch_nums": [1, 2, 4, 8]}
    assert found(shapes, config).settings.quant_resi == ratio
    tokenizer = load_tokenizer(tmp_path / "x.pt", settings=SMALL).tokenizer
    weights = {key: weight.double() for key, weight in random_weights(shapes).items()}
    rest_BChw = tokenizer.encode(pixels)
    share = abs(ratio)
    for s, side in enumerate((1, 2, 4)):
        idx_Bl = assign(tokenizer.vectors(rest_BChw, s), tokenizer.codebook(s), []).idx_Bl
        codes_BlC = weights["quantize.embedding.weight"][idx_Bl]
        h_BChw = functional.interpolate(
            codes_BlC.transpose(1, 2).unflatten(2, (side, side)), size=(8, 8), mode="bicubic"
        )
        phi = f"quantize.quant_resi.qresi_ls.{phi_of(s, 4, 4)}"
        convolved_BChw = functional.conv2d(
            h_BChw, weights[f"{phi}.weight"], weights[f"{phi}.bias"], padding=1
        )
        expected_BChw = rest_BChw.double() - (1 - share) * h_BChw - share * convolved_BChw
        rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
        torch.testing.assert_close(rest_BChw.double(), expected_BChw, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", [0, 1.5, True, "half"])
def test_a_share_of_phi_that_is_none(found, ratio):
    with pytest.raises(CheckpointError, match=r"quant_resi .* expected a share of phi"):
        found(tiny.var_shapes(), {"quant_resi": ratio})


def test_counts_of_another_number_of_scales_ask_for_patch_nums(found):
    shapes = tiny.var_shapes() | {"quantize.ema_vocab_hit_SV": (3, 40)}
    published = TokenizerSettings(image_size=512)  # where VAR has ten scales
    with pytest.raises(
        CheckpointError, match=r"3 rows, .*10 scales .*--patch-nums \(VAR's are 1,2,3,4,6,9"
    ):
        found(
            tiny.var_shapes(widths=(32,) * 5) | {"quantize.ema_vocab_hit_SV": (3, 40)},
            {},
            settings=published,
        ).describe()
    for config, settings in (
        ({}, TokenizerSettings(16, (1, 2, 4, 8))),
        ({"v_patch_nums": [1, 2, 4, 8]}, SMALL),
    ):
        spec = found(shapes, config, settings=settings).describe()
        assert len(spec.scales) == 4 and "3 scales in training" in spec.notes[0]
    fitting = tiny.var_shapes() | {"quantize.ema_vocab_hit_SV": (4, 40)}
    assert not found(fitting, {}, settings=TokenizerSettings(16, (1, 2, 4, 8))).describe().notes


CONTRADICTIONS = {
    "class": ({"_class_name": "AutoencoderKL"}, "_class_name AutoencoderKL"),
    "unknown class": ({"model_type": "llava"}, "model_type llava"),
    "codes": ({"n_embed": 41}, "n_embed is 41, but the weights have 40"),
    "dimensions": ({"embed_dim": 7}, "embed_dim is 7, but the weights have 6"),
    "levels": ({"ch_mult": [1, 2, 4]}, "ch_mult has 3 levels, .* halve an image 1 times"),
    "pooling": ({"resample_with_conv": False}, "resample_with_conv is false"),
    "activation": ({"act_fn": "gelu"}, "act_fn is gelu"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_contradiction_is_an_error_or_what_the_user_wants(found, kind):
    config, words = CONTRADICTIONS[kind]
    shapes = tiny.vq_shapes()
    with pytest.raises(CheckpointError, match=f"{words}|a continuous autoencoder"):
        found(shapes, config)
    notes = found(shapes, config, "vqgan").describe().notes
    assert len(notes) == 1 and "--family vqgan" in notes[0]
    assert not found(shapes, {"n_embed": 40, "embed_dim": 6, "ch_mult": [1, 2]}).describe().notes


@pytest.mark.parametrize("text", ["{'a': 1", "[1]", "[" * 100_000, "\x00"])
def test_a_config_that_is_no_json_says_how_to_go_on(found, text):
    shapes = tiny.vq_shapes()
    with pytest.raises(CheckpointError, match=r"--family, and --image-size and --patch-nums"):
        found(shapes, text)
    (note,) = found(shapes, text, "vqgan").describe().notes
    assert note.startswith("config.json")


def test_a_missing_convolution_is_an_error_for_the_user_too(found):
    shapes = tiny.vq_shapes()
    less = {key: shape for key, shape in shapes.items() if key != "encoder.conv_out.bias"}
    with pytest.raises(CheckpointError, match=r"lacks encoder\.conv_out\.bias"):
        found(less, {}, "vqgan").describe()
    for surplus in ("encoder.conv_mid.weight", "pre_quant.weight", "normalise.running_mean"):
        with pytest.raises(CheckpointError, match=f"got {surplus}"):
            found(shapes | {surplus: (4, 4, 1, 1)}, {}, "vqgan").describe()


def test_movq_is_a_vqgan_of_any_number_of_blocks(found):
    norm = {"decoder.mid.block_1.norm1.conv_y.weight": (4, 4, 1, 1)}
    spec = found(tiny.vq_shapes(blocks=4) | norm, {}).describe()
    assert (spec.family, spec.rule) == ("vqgan", "l2")
    with pytest.raises(CheckpointError, match="compares distances"):
        found(tiny.vq_shapes(blocks=4) | norm, {}, "ibq").describe()


def test_used_codes_that_are_all_change_nothing(found, tmp_path, pixels):
    weights = random_weights(tiny.vq_shapes())
    expected = load_tokenizer_of(tmp_path, weights)
    all_used = load_tokenizer_of(tmp_path, weights | {"quantize.used": torch.arange(40).flip(0)})
    assert all_used.spec == expected.spec
    z_BlC = expected.vectors(expected.encode(pixels), 0)
    idx = [assign(z_BlC, of.codebook(0), []).idx_Bl for of in (expected, all_used)]
    assert torch.equal(*idx)


def load_tokenizer_of(tmp_path, weights):
    torch.save(weights, tmp_path / "y.pt")
    return load_tokenizer(tmp_path / "y.pt", settings=SMALL).tokenizer


def test_two_names_of_one_weight_are_refused(found):
    shapes = EXAMPLES["diffusers"].shapes
    twice = shapes | {"encoder.mid_block.attentions.0.query.weight": (64, 64)}
    with pytest.raises(CheckpointError, match="are names of the same weight"):
        found(twice, {}).describe()


@pytest.mark.parametrize(
    ("name", "normalised", "rule"),
    [
        *(("llamagen", False, "l2"), ("vqgan", False, "l2"), ("vqgan", True, "cosine")),
        *(("ibq", False, "dot"), ("maskbit", False, "sign"), ("cosmos", True, "levels")),
    ],
)
def test_without_unit_vectors_a_dot_product_stays_one(found, name, normalised, rule):
    config = {"use_l2_norm": normalised, "image_size": 16}
    assert found(EXAMPLES[name].shapes, config, name).describe().rule == rule


def test_flexvar_is_not_llamagen(found):
    shapes = tiny.vq_shapes(tiny.LLAMAGEN, latent_dim=32)
    assert found(shapes, {}).name == "flexvar"
    assert found(shapes, {}, "llamagen").describe().rule == "cosine"
    with pytest.raises(CheckpointError, match="fits llamagen and flexvar, which make other tokens"):
        found(shapes | {"quantize.embedding.weight": (16384, 32)}, {})  # of LlamaGen's own trainings


def test_a_config_that_is_too_large_is_no_config(found):
    with pytest.raises(
        CheckpointError, match=r"config.json: can't be read: 1.0 MiB, expected at most 1 MiB"
    ):
        found(tiny.vq_shapes(), "{" + " " * 2**20 + "}", settings=NOTHING)
