"""The autoencoder in training: the published names and tokens, and who learns from which loss."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from entropy_cli.engine.ranks import Ranks
from entropy_cli.engine.recipe import PRESETS
from entropy_cli.engine.sizes import recipe_of
from entropy_cli.engine.train import Trainer, scaled
from entropy_cli.tokenizers import load_tokenizer
from entropy_cli.tokenizers.layout import VARSizes, decoder_shapes, var_shapes
from entropy_cli.tokenizers.settings import TokenizerSettings
from entropy_cli.tokenizers.vqvae import VQVAE
from tests.published_layout import published

CPU = torch.device("cpu")
GOLDEN_PATCH_NUMS = (1, 2, 3, 4, 6, 8)
# One latent for 4 x 4 pixels, so that few pictures make many tokens.
SMALL = {"width_mult": (1, 1, 1), "vocab_size": 64, "batch_size": 4}


def model_of(**given):
    """As a training begins with, but that the blocks do something."""
    recipe = recipe_of("tiny", {**SMALL, **given})
    model = Trainer(recipe, CPU, Ranks()).model
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 4:
                spread = 1 / weight[0].numel() ** 0.5
                weight.copy_(spread * torch.randn(weight.shape, generator=generator))
        weight = model.quantize.embedding.weight
        weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


def latents_of(model, images=2, side=8):
    f_BChw = torch.randn(
        images, model.quantize.embedding.embedding_dim, side, side, generator=torch.manual_seed(1)
    )
    return f_BChw.requires_grad_()


def pictures(images=2, size=32):
    return torch.rand(images, 3, size, size, generator=torch.manual_seed(2)) * 2 - 1


def test_names_and_shapes_are_the_published_ones():
    model = Trainer(PRESETS["var"].changed(width=32), CPU, Ranks()).model
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == published(32, (1, 1, 2, 2, 4), 2, 32, 4096, 10)
    assert shapes["quantize.ema_vocab_hit_SV"] == (10, 4096)
    # A few as they are in the published file, but for its width.
    assert shapes["encoder.down.2.block.0.nin_shortcut.weight"] == (64, 32, 1, 1)
    assert shapes["encoder.down.4.attn.1.qkv.weight"] == (384, 128, 1, 1)
    assert shapes["decoder.up.3.block.0.nin_shortcut.weight"] == (64, 128, 1, 1)
    assert shapes["quantize.quant_resi.qresi_ls.3.bias"] == (32,)


@pytest.fixture(scope="module")
def golden(shared):
    """A model with the weights of a checkpoint in the published layout, and what belongs to it."""
    folder = shared / "golden" / "var_l2"
    sizes = VARSizes(width=32, latent_dim=16, vocab_size=512)
    model = VQVAE(var_shapes(sizes) | decoder_shapes(sizes), GOLDEN_PATCH_NUMS)
    model.encoder.memory_format = torch.contiguous_format  # in which torch's group norm is precise
    model.load_state_dict(load_file(folder / "ckpt.safetensors"), strict=True)
    return model, load_file(folder / "expected.safetensors"), folder / "ckpt.safetensors"


def test_tokens_in_training_are_those_of_the_published_code_and_of_inference(golden):
    model, arrays, path = golden
    x_B3HW = scaled(arrays["pixels_u8"], CPU)
    f_BChw = model.encode(x_B3HW)
    torch.testing.assert_close(f_BChw.detach().double(), arrays["latent_f64"], atol=1e-4, rtol=0)
    by_scale = model.quantize.by_scale(model.quantize(f_BChw).idx_BL)
    tokenizer = load_tokenizer(path, settings=TokenizerSettings(128, GOLDEN_PATCH_NUMS)).tokenizer
    with torch.no_grad():
        rest_BChw = tokenizer.encode(arrays["pixels_u8"])
        for s, idx_Bl in enumerate(by_scale):
            assert torch.equal(idx_Bl, arrays[f"idx.s{s}"].flatten(1).long())
            z_BlC = tokenizer.vectors(rest_BChw, s)
            nearest_Bl = torch.cdist(z_BlC, tokenizer.codebook(s).codes_VC).argmin(2)
            assert torch.equal(idx_Bl, nearest_Bl)
            rest_BChw = tokenizer.subtract(rest_BChw, nearest_Bl, s)


def test_counts_are_of_each_scale(golden):
    model, arrays, _ = golden
    expected = [arrays[f"idx.s{s}"].flatten(1).long() for s in range(6)]
    count_SV = model.quantize.counts(torch.cat(expected, 1))
    assert torch.equal(
        count_SV, torch.stack([functional.one_hot(idx, 512).sum((0, 1)) for idx in expected])
    )


def test_codes_grow_to_the_reconstruction(golden):
    model, arrays, _ = golden
    with torch.no_grad():
        quantised = model.quantize(arrays["latent_f64"].float())
        grown = list(model.quantize.growing(quantised.idx_BL, 8))
    assert len(grown) == 6
    torch.testing.assert_close(grown[-1], quantised.f_hat_BChw, atol=1e-5, rtol=0)
    assert (grown[0] - grown[-1]).abs().max() > 0.1


def plain_losses(model, f_BChw, idx_BL):
    """Means over scales of |f_hat - f|^2, in float64, from the published description."""
    quantiser, side = model.quantize.double(), f_BChw.shape[-1]
    phis = quantiser.quant_resi["qresi_ls"]
    f_hat_BChw, errors, start, S = 0, [], 0, len(quantiser.patch_nums)
    ticks = np.linspace(1 / 12, 11 / 12, 4)
    for s, n in enumerate(quantiser.patch_nums):
        code_BlC = quantiser.embedding(idx_BL[:, start : start + n * n])
        h_BChw = code_BlC.transpose(1, 2).unflatten(2, (n, n))
        if n < side:
            h_BChw = functional.interpolate(h_BChw, (side, side), mode="bicubic")
        phi = phis[int(np.abs(ticks - s / (S - 1)).argmin())]
        f_hat_BChw = f_hat_BChw + 0.5 * h_BChw + 0.5 * phi(h_BChw)
        errors.append(((f_hat_BChw - f_BChw) ** 2).mean())
        start += n * n
    return sum(errors) / S, f_hat_BChw


def test_losses_are_the_mean_squared_error_of_all_scales():
    model = model_of()
    f_BChw = latents_of(model)
    quantised = model.quantize(f_BChw)
    expected, f_hat_BChw = plain_losses(model, f_BChw.double(), quantised.idx_BL)
    assert quantised.codebook_loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert quantised.commitment_loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(quantised.f_hat_BChw.double(), f_hat_BChw, atol=1e-5, rtol=0)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_phi_and_trained_codes_learn_from_the_codebook_loss_alone(codebook):
    model = model_of(codebook=codebook)
    trained = [weight for weight in model.quantize.parameters() if weight.requires_grad]
    assert len(trained) == 8 + (codebook == "gradient")
    f_BChw = latents_of(model)
    quantised = model.quantize(f_BChw)
    others = quantised.commitment_loss + quantised.f_hat_BChw.square().sum()
    assert all(
        gradient is None
        for gradient in torch.autograd.grad(others, trained, allow_unused=True, retain_graph=True)
    )
    of_latents, *gradients = torch.autograd.grad(
        quantised.codebook_loss, [f_BChw, *trained], allow_unused=True
    )
    assert of_latents is None
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_codes_that_are_averages_have_no_gradient():
    model = model_of(codebook="ema")
    sum(loss_of(model, pictures())).backward()
    assert model.quantize.embedding.weight.grad is None


def test_a_loss_of_the_decoder_passes_straight_to_the_latent():
    model = model_of()
    f_BChw = latents_of(model)
    weight_BChw = torch.randn(f_BChw.shape, generator=torch.manual_seed(3))
    (model.quantize(f_BChw).f_hat_BChw * weight_BChw).sum().backward()
    assert torch.equal(f_BChw.grad, weight_BChw)


def test_the_commitment_loss_pulls_the_latent_to_every_scales_reconstruction():
    model = model_of()
    f_BChw = latents_of(model)
    quantised = model.quantize(f_BChw)
    quantised.commitment_loss.backward()
    mean_BChw = torch.stack(list(model.quantize.growing(quantised.idx_BL, 8))).mean(0)
    expected_BChw = 2 * (f_BChw - mean_BChw) / f_BChw.numel()
    torch.testing.assert_close(f_BChw.grad, expected_BChw.detach(), atol=1e-7, rtol=1e-4)


def loss_of(model, x_B3HW):
    recon_B3HW, quantised = model(x_B3HW)
    return (recon_B3HW - x_B3HW).square().mean(), quantised.codebook_loss, quantised.commitment_loss


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize(
    "patch_nums", [(8,), (2, 8), (1, 3, 8), (1, 2, 3, 5, 8), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)], ids=len
)
def test_everything_that_is_trained_gets_a_gradient(patch_nums, codebook):
    model = model_of(patch_nums=patch_nums, codebook=codebook, image_size=4 * patch_nums[-1])
    sum(loss_of(model, pictures(size=4 * patch_nums[-1]))).backward()
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    assert not [name for name, weight in named if weight.grad is None]


def test_the_quantiser_is_float32_in_autocast():
    model = model_of()
    f_BChw = latents_of(model).bfloat16().detach()
    alone = model.quantize(f_BChw.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encode(pictures()).dtype == torch.bfloat16
        quantised = model.quantize(f_BChw)
    assert quantised.f_hat_BChw.dtype == quantised.z_BLC.dtype == torch.float32
    assert torch.equal(quantised.f_hat_BChw, alone.f_hat_BChw)
    assert torch.equal(quantised.codebook_loss, alone.codebook_loss)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_activations_computed_again_give_the_same_gradients(norm):
    gradients = []
    for recompute in (False, True):
        model = model_of(norm=norm)
        if recompute:
            model.recompute_activations()
        sum(loss_of(model, pictures())).backward()
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.requires_grad})
        gradients[-1] |= dict(model.named_buffers())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-5)


def test_no_matrix_of_all_tokens_and_codes_is_made():
    codes, images = 16_384, 4
    model = model_of(vocab_size=codes, patch_nums=PRESETS["var"].patch_nums, image_size=64)
    f_BChw = latents_of(model, images, 16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        quantised = model.quantize(f_BChw)
        (quantised.codebook_loss + quantised.commitment_loss).backward()
    largest = max(event.cpu_memory_usage for event in found.events())
    assert 0 < largest < 4 * quantised.idx_BL.numel() * codes / 10
