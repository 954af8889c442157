"""The entropies and colours of `show`, and the decoders that it reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from entropy_cli.commands.show.assignments import assign_image, assign_tokens, encode_images
from entropy_cli.commands.show.code_colours import code_colours
from entropy_cli.commands.show.decoding import load_decoder
from entropy_cli.commands.show.result import ShownImage, ShownScale, ShowResult, render
from entropy_cli.entropy.codebook import Codebook, Grid
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.var_layout import VARSizes, decoder_shapes
from entropy_cli.tokenizers.registry import FAMILIES, load_tokenizer
from tests.family_checkpoints import EXAMPLES, random_weights
from tests.reference import codes_of, reference

CPU = torch.device("cpu")
TINY = VARSizes(width=32, width_mult=(1, 2), blocks=1, latent_dim=6)


def scales_of(tokenizer, img_3HW, temperatures):
    processor = BatchProcessor(tokenizer, CPU, 1)
    f_BChw = encode_images(processor, ["x"], img_3HW[None])
    return assign_image(processor, "x", img_3HW, f_BChw, temperatures)[0]


def by_hand(z_lC, code_VC, rule, temperature):
    """Return the reference result of each token, in float64, one by one."""
    return [reference(z_1C[None], code_VC, rule, temperature) for z_1C in z_lC[:, None].double().numpy()]


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_entropies_of_tokens_are_those_of_a_plain_computation(checkpoint, pictures, temperature):
    tokenizer = load_tokenizer(checkpoint).tokenizer
    scales = scales_of(tokenizer, pictures[0], [temperature] * 4)
    rest_BChw = tokenizer.encode(pictures[:1])
    for s, scale in enumerate(scales):
        z_BlC = tokenizer.vectors(rest_BChw, s)
        code_VC = tokenizer.codebook(s).codes_VC.double().numpy()
        found = by_hand(z_BlC[0], code_VC, "l2", temperature)
        expected_l = np.array([one["assignment_entropy"] for one in found])
        np.testing.assert_allclose(scale.token_entropy, expected_l, atol=2e-5)
        distance_lV = torch.cdist(z_BlC[0].double(), torch.from_numpy(code_VC)) ** 2
        best = (-distance_lV / temperature).softmax(1).topk(3)
        np.testing.assert_allclose(scale.probabilities, best.values, atol=2e-5)
        idx_l = torch.tensor(scale.codes)[:, 0]
        assert torch.equal(idx_l, best.indices[:, 0])
        rest_BChw = tokenizer.subtract(rest_BChw, idx_l[None], s)


@torch.inference_mode()
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_family_can_be_shown(name):
    example = EXAMPLES[name]
    weights = random_weights(example.shapes)
    opened = Checkpoint.of_tensors(Path("x"), weights)
    tokenizer = FAMILIES[name].build(opened, example.settings)
    img_3HW = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0))
    temperatures = [0.5] * len(tokenizer.spec.scales)
    scales = scales_of(tokenizer, img_3HW.to(torch.uint8), temperatures)
    for s, (scale, (_, tokens, side)) in enumerate(zip(scales, example.scales, strict=True)):
        assert scale.grid == ((1, tokens) if name == "titok" else (side or 8, side or 8))
        assert len(scale.token_entropy) == tokens
        assert np.sum(scale.probabilities, 1).max() <= 1 + 1e-6
        colours_l3 = code_colours(torch.tensor(scale.codes)[:, 0], tokenizer.codebook(s))
        assert colours_l3.shape == (tokens, 3)
        assert ((colours_l3 >= 0) & (colours_l3 <= 1)).all()


class Bits:
    """Latents of bits as they are, in place of a tokenizer."""

    def __init__(self, bits):
        self.bits = bits

    def codebook(self, _):
        return Grid.of_bits(self.bits, "sign")


def test_of_more_bits_than_can_be_counted_the_best_code_has_the_product_of_its_bits(monkeypatch):
    z_lC = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    listed = assign_tokens(z_lC, Bits(6).codebook(0), 1.5)
    monkeypatch.setattr("entropy_cli.entropy.vocabulary.MAX_COUNTED", 2)
    product = assign_tokens(z_lC, Bits(6).codebook(0), 1.5)
    assert product[1].shape == (5, 1)
    assert torch.equal(listed[1][:, :1], product[1])
    torch.testing.assert_close(listed[2][:, :1], product[2])
    found = by_hand(z_lC, codes_of("sign", dims=6), "sign", 1.5)
    expected_l = [one["assignment_entropy"] for one in found]
    np.testing.assert_allclose(product[0].numpy(), expected_l, atol=1e-9)
    assert assign_tokens(torch.randn(2, 70), Bits(70).codebook(0), 1.5)[1].shape == (2, 0)


def test_codes_of_similar_vectors_get_similar_colours_whatever_their_order():
    generator = torch.Generator().manual_seed(3)
    code_VC = torch.randn(30, 5, generator=generator)
    code_VC[7] = code_VC[4] + 1e-3
    colour_V3 = code_colours(torch.arange(30), Codebook(code_VC, "l2"))
    assert (colour_V3[7] - colour_V3[4]).abs().max() < 0.01
    assert (colour_V3[:, None] - colour_V3).abs().sum(2).max() > 0.5
    order_V = torch.randperm(30, generator=generator)
    shuffled_V3 = code_colours(torch.arange(30), Codebook(code_VC[order_V], "l2"))
    torch.testing.assert_close(shuffled_V3, colour_V3[order_V], atol=1e-5, rtol=0)


def llamagen_names(shapes):
    """Rename the mirrored decoder's weights as LlamaGen does."""
    renamed = {}
    for name, shape in shapes.items():
        for ours, theirs in (
            ("decoder.up.1.", "decoder.conv_blocks.0."),
            ("decoder.up.0.", "decoder.conv_blocks.1."),
            (".block.", ".res."),
            ("mid.block_1", "mid.0"),
            ("mid.attn_1", "mid.1"),
            ("mid.block_2", "mid.2"),
        ):
            name = name.replace(ours, theirs)
        renamed[name] = shape
    return renamed


@torch.inference_mode()
def test_llamagens_decoder_is_the_same_with_its_levels_the_other_way_and_unit_codes():
    weights = random_weights(decoder_shapes(TINY))
    mirrored, _ = load_decoder(Checkpoint.of_tensors(Path("x"), weights), "vqgan")
    renamed, why = load_decoder(Checkpoint.of_tensors(Path("x"), llamagen_names(weights)), "llamagen")
    assert not why
    f_BChw = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    assert mirrored(f_BChw).shape == (1, 3, 8, 8)
    torch.testing.assert_close(renamed(f_BChw), mirrored(functional.normalize(f_BChw, dim=1)))


@pytest.mark.parametrize(("groups", "expected"), [(None, {32}), (16, {16})])
def test_norms_of_a_decoder_have_as_many_groups_as_the_encoders(groups, expected):
    opened = Checkpoint.of_tensors(Path("x"), random_weights(decoder_shapes(TINY)))
    decoder, _ = load_decoder(opened, "vqgan", groups=groups)
    norms = [module for module in decoder.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == expected


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("vqgan", {"decoder.more.weight": (3,)}, "published layout"),
        ("titok", {}, "not supported"),
        ("vqgan", {"quantize.proj.weight": (4, 6)}, "not supported"),
    ],
)
def test_unsupported_decoders_are_not_built_and_the_reason_is_given(family, change, words):
    weights = random_weights(decoder_shapes(TINY) | change)
    decoder, why = load_decoder(Checkpoint.of_tensors(Path("x"), weights), family)
    assert decoder is None
    assert words in why
    assert load_decoder(Checkpoint.of_tensors(Path("x"), {}), family) == (
        None,
        "the checkpoint holds no decoder",
    )


@torch.inference_mode()
def test_a_decoder_of_pixels_from_zero_to_one_gives_the_same_range():
    weights = random_weights(decoder_shapes(TINY))
    checkpoint = Checkpoint.of_tensors(Path("x"), weights)
    usual, _ = load_decoder(checkpoint, "vqgan")
    unit, _ = load_decoder(checkpoint, "vqgan", "[0, 1]")
    f_hat_BChw = torch.randn(1, 6, 4, 4, generator=torch.manual_seed(2))
    assert torch.equal(unit(f_hat_BChw), 2 * usual(f_hat_BChw) - 1)


def test_the_share_above_1_nat_of_all_tokens_is_that_of_each_weighted_by_its_tokens():
    entropies = ([2.0], [2.0, 0.5, 0.5, 0.5])
    scales = [
        ShownScale(s, str(s), None, (1, len(of)), 1.0, None, of, [[]] * len(of), [[]] * len(of))
        for s, of in enumerate(entropies)
    ]
    tokenizer = {"family": "var", "vocab_size": 16, "rule": "l2"}
    settings = {"image_size": 8, "temperature_source": "", "precision": "fp32", "no_decoder": None}
    shown = ShowResult(tokenizer, settings, [ShownImage("x.jpg", "x.png", scales, 8)])
    (row,) = [line for line in render(shown).splitlines() if line.startswith("all")]
    assert "40.0%" in row  # two of five; the mean over the scales is 62.5 %


def test_a_scale_names_its_most_undecided_token_by_row_and_column_and_counts_those_above_1_nat():
    entropies = [0.5, 1.0, 1.01, 0.2, 1.5, 0.1, 2.5, 0.9]
    scale = ShownScale(1, "2 x 4", None, (2, 4), 1.0, None, entropies, [[]] * 8, [[]] * 8)
    assert (scale.grid, scale.most_undecided, scale.largest) == ((2, 4), (1, 2), 2.5)
    assert scale.share_above_1_nat == 3 / 8
    assert scale.assignment_entropy == pytest.approx(7.71 / 8)
    assert scale.nats_per_image == pytest.approx(7.71)
