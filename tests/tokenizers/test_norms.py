"""Norms in training beside torch's, and in the checkpoint that a training leaves."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from entropy_cli.commands.train.quality import normalize
from entropy_cli.commands.train.recipe import PRESETS
from entropy_cli.commands.train.result import MODEL, save_tokenizer
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.entropy.assign import assign
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.norms import NORM_EPS, BatchNorm, GroupNorm
from entropy_cli.tokenizers.registry import load_tokenizer

CHANNELS = 64


def affine(norm):
    """The same weights for every norm."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * torch.randn(CHANNELS, generator=generator))
        norm.bias.copy_(0.3 * torch.randn(CHANNELS, generator=generator))
    return norm


def features(seed=0, images=3, side=5):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(images, CHANNELS, side, side, generator=generator) + 0.5


def after_loss(module, x_BChw):
    """Output, and gradients of the input, the weight and the bias."""
    x_BChw = x_BChw.clone().requires_grad_()
    out_BChw = module(x_BChw)
    weight_BChw = features(99, len(x_BChw), x_BChw.shape[-1]).to(out_BChw.dtype)
    (out_BChw * weight_BChw).sum().backward()
    return out_BChw.detach(), x_BChw.grad, *(weight.grad for weight in module.parameters())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_batch_norm_is_torchs(training):
    mine = affine(BatchNorm(CHANNELS))
    theirs = affine(nn.BatchNorm2d(CHANNELS, eps=NORM_EPS, momentum=mine.momentum))
    for seed in range(4):
        for norm in (mine, theirs):
            norm(features(seed))
    torch.testing.assert_close(mine.running_mean, theirs.running_mean, atol=1e-6, rtol=1e-5)
    # torch corrects its running variance for the mean, though not the variance that it divides by.
    begun, numbers = (1 - mine.momentum) ** 4, 3 * 5 * 5
    corrected = begun + (mine.running_var - begun) * numbers / (numbers - 1)
    torch.testing.assert_close(theirs.running_var, corrected, atol=1e-6, rtol=1e-5)
    theirs.running_var.copy_(mine.running_var)
    found, expected = (after_loss(norm.train(training), features(9)) for norm in (mine, theirs))
    for mine_T, theirs_T in zip(found, expected, strict=True):
        torch.testing.assert_close(mine_T, theirs_T, atol=1e-4, rtol=1e-5)


def test_evaluation_does_not_count():
    norm = BatchNorm(CHANNELS).eval()
    norm(features())
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()


def test_batch_norm_keeps_digits_far_from_zero():
    x_BChw = features() + 1000
    found_BChw = BatchNorm(CHANNELS)(x_BChw)
    expected_BChw = functional.batch_norm(x_BChw.double(), None, None, training=True, eps=NORM_EPS)
    torch.testing.assert_close(found_BChw.detach().double(), expected_BChw, atol=1e-3, rtol=0)


def test_batch_norm_of_bfloat16_is_computed_in_float32():
    norm, x_BChw = BatchNorm(CHANNELS), features().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found_BChw = norm(x_BChw)
    expected_BChw = functional.batch_norm(x_BChw.float(), None, None, training=True, eps=NORM_EPS)
    assert found_BChw.dtype == torch.bfloat16
    assert torch.equal(found_BChw, expected_BChw.bfloat16())


def test_batch_norm_of_narrow_moments_divides_in_float32():
    norm, x_BChw = affine(BatchNorm(CHANNELS)), features()
    norm(x_BChw)
    half = affine(BatchNorm(CHANNELS)).half().eval()
    half.load_state_dict(norm.state_dict())
    exact = BatchNorm(CHANNELS).eval()
    exact.load_state_dict(half.state_dict())
    torch.testing.assert_close(half(x_BChw), exact(x_BChw), atol=1e-6, rtol=1e-6)


LAYOUTS = {"channels_last": torch.channels_last, "channel order": torch.contiguous_format}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", ["forward", "then_silu"])
@pytest.mark.parametrize("side", [1, 5, 130], ids=lambda side: f"{side} px")
def test_group_norm_is_the_same_with_and_without_gradients(way, side, layout):
    norm = affine(GroupNorm(CHANNELS, 32))
    x_BChw = features(1, 2, side).to(memory_format=LAYOUTS[layout])
    trained_BChw = getattr(norm, way)(x_BChw)
    assert trained_BChw.requires_grad
    with torch.no_grad():
        found_BChw = getattr(norm, way)(x_BChw)
        expected_BChw = functional.group_norm(
            x_BChw.double(), 32, norm.weight.double(), norm.bias.double(), NORM_EPS
        )
    if way == "then_silu":
        expected_BChw = functional.silu(expected_BChw)
    for value_BChw in (trained_BChw.detach(), found_BChw):
        torch.testing.assert_close(value_BChw.double(), expected_BChw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [128, 1024], ids=lambda side: f"{side} px")
@pytest.mark.usefixtures("threads")
@torch.no_grad()
def test_group_norm_keeps_its_digits_whatever_the_size_of_the_picture(side):
    """Beside float64, for a picture of which half is blank, as sums of equal numbers drift furthest."""
    norm = GroupNorm(32, 8)
    around_zero_1Chw = torch.randn(1, 32, side, side, generator=torch.manual_seed(3))
    around_zero_1Chw[..., side // 2 :] = around_zero_1Chw[..., :1, :1]
    for mean in (10, 1000):  # in standard deviations
        x_1Chw = around_zero_1Chw + mean
        torchs_1Chw = functional.group_norm(x_1Chw, 8, eps=NORM_EPS)
        found_1Chw = norm(x_1Chw.to(memory_format=torch.channels_last))
        exact_1Chw = functional.group_norm(x_1Chw.double(), 8, eps=NORM_EPS)
        most = exact_1Chw.abs().max()
        torchs, found = ((out - exact_1Chw).abs().max() / most for out in (torchs_1Chw, found_1Chw))
        assert found < (2e-6 if mean == 10 else 2 * torchs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", ["forward", "then_silu"])
@torch.no_grad()
def test_group_norm_of_16_bits_is_that_of_float32_rounded_once(way, dtype, layout):
    norm = affine(GroupNorm(CHANNELS, 32))
    x_BChw = features(5, 2, 33).to(dtype, memory_format=LAYOUTS[layout])
    exact_BChw = getattr(norm, way)(x_BChw.float())
    found_BChw = getattr(norm, way)(x_BChw)
    assert found_BChw.dtype == dtype
    differs = found_BChw != exact_BChw.to(dtype)
    assert differs.float().mean() < 1e-3  # where float32 is halfway between two


def test_gradients_of_group_norm_and_silu_are_torchs():
    mine, theirs = affine(GroupNorm(CHANNELS, 32)), affine(nn.GroupNorm(32, CHANNELS, NORM_EPS))
    x_BChw = features(2)
    found = after_loss(Silu(mine, joined=True), x_BChw)
    expected = after_loss(Silu(theirs, joined=False), x_BChw)
    for mine_T, theirs_T in zip(found, expected, strict=True):
        torch.testing.assert_close(mine_T, theirs_T, atol=1e-4, rtol=1e-5)


class Silu(nn.Module):
    def __init__(self, norm, *, joined):
        super().__init__()
        self.norm, self.joined = norm, joined

    def forward(self, x_BChw):
        return self.norm.then_silu(x_BChw) if self.joined else functional.silu(self.norm(x_BChw))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_checkpoint_gives_the_latents_and_tokens_of_the_model(tmp_path, norm):
    recipe = PRESETS["tiny"].override(
        image_size=16, width_mult=(1, 1, 2), patch_nums=(1, 2, 4), vocab_size=32, batch_size=6, norm=norm
    )
    trainer = Trainer(recipe, torch.device("cpu"), Ranks())
    pictures = torch.randint(256, (6, 3, 16, 16), generator=torch.manual_seed(6)).byte()
    trainer.init_codebook(pictures)
    for _ in range(3):
        trainer.step([pictures])
    model = trainer.ema_model.eval()
    save_tokenizer(tmp_path, model.state_dict(), recipe.to_json(), as_fp16=False)
    tokenizer = load_tokenizer(tmp_path / MODEL).tokenizer
    with torch.no_grad():
        f_BChw = model.encode(normalize(pictures, torch.device("cpu")))
        quantised = model.quantize(f_BChw)
        rest_BChw = tokenizer.encode(pictures)
        torch.testing.assert_close(rest_BChw, f_BChw, atol=2e-5, rtol=0)
        for s, idx_Bl in enumerate(model.quantize.by_scale(quantised.idx_BL)):
            z_BlC = tokenizer.vectors(rest_BChw, s)
            assert torch.equal(assign(z_BlC, tokenizer.codebook(s), ()).idx_Bl, idx_Bl)
            rest_BChw = tokenizer.subtract(rest_BChw, idx_Bl, s)
    if norm == "batch":  # whose moments must have moved for this to mean anything
        assert (model.encoder.norm_out.running_var - 1).abs().max() > 0.01
