"""The tokenizer in training: its published layout, its quantiser, its losses and their gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from entropy_cli.commands.train.sizes import make_recipe
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from entropy_cli.tokenizers.layers.residual import latents_of
from entropy_cli.tokenizers.layers.var_layout import VARSizes, batch_normed, decoder_shapes, var_shapes
from entropy_cli.tokenizers.layers.vqvae import VQVAE, load_vqvae
from entropy_cli.tokenizers.registry import load_tokenizer
from tests.published import published_shapes

CPU = torch.device("cpu")
SIZES = VARSizes(width=32, width_mult=(2, 1), blocks=1, latent_dim=4, vocab_size=12, phis=3)
PATCH_NUMS = (1, 2, 4)


@pytest.fixture
def model():
    """A small one, for pictures of 8 x 8."""
    torch.manual_seed(0)
    model = VQVAE(var_shapes(SIZES) | decoder_shapes(SIZES), PATCH_NUMS)
    model.encoder.memory_format = torch.contiguous_format
    torch.nn.init.normal_(model.quantize.embedding.weight, 0, 0.3)
    return model.train()


@pytest.fixture
def x_B3HW():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_preset_var_of_width_32_has_exactly_the_published_keys_and_shapes():
    recipe = make_recipe("var", {"width": 32})
    state = Trainer(recipe, CPU, Ranks()).ema_model.state_dict()
    expected = published_shapes(32, (1, 1, 2, 2, 4), 2, z=32, V=4096, scales=10)
    assert len(expected) == 324
    assert {name: tuple(weight.shape) for name, weight in state.items()} == expected


def test_published_checkpoint_loads_strictly_and_has_its_tokens(shared):
    folder = shared / "golden" / "var_l2"
    weights, expected = (
        load_file(folder / "ckpt.safetensors"),
        load_file(folder / "expected.safetensors"),
    )
    sizes = VARSizes(width=32, latent_dim=16, vocab_size=512)
    model = VQVAE(var_shapes(sizes) | decoder_shapes(sizes), (1, 2, 3, 4, 6, 8))
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=True)
    x_B3HW = expected["pixels_u8"].float() / 127.5 - 1
    with torch.no_grad():
        quantised = model.eval().quantize(model.encode(x_B3HW))
    for s, idx_Bl in enumerate(model.quantize.by_scale(quantised.idx_BL)):
        assert torch.equal(idx_Bl, expected[f"idx.s{s}"].flatten(1).long())


def test_losses_are_what_their_definition_gives_in_float64(model, x_B3HW):
    quantiser = model.quantize
    f_BChw = model.encode(x_B3HW)
    quantised = quantiser(f_BChw)
    rest, f_hat, losses = f_BChw.detach().double(), 0, []
    codes_VC = quantiser.embedding.weight.detach().double()
    phis = quantiser.quant_resi["qresi_ls"]
    for idx_Bl, patch_num, k in zip(
        quantiser.by_scale(quantised.idx_BL), PATCH_NUMS, range(3), strict=True
    ):
        z_BlC = functional.interpolate(rest, size=patch_num, mode="area").flatten(2).transpose(1, 2)
        distance_BlV = (z_BlC[:, :, None] - codes_VC).square().sum(-1)
        assert torch.equal(distance_BlV.argmin(-1), idx_Bl)
        h = codes_VC[idx_Bl].transpose(1, 2).unflatten(2, (patch_num, patch_num))
        if patch_num != 4:
            h = functional.interpolate(h, size=(4, 4), mode="bicubic")
        weight, bias = phis[k].weight.detach().double(), phis[k].bias.detach().double()
        h = 0.5 * h + 0.5 * functional.conv2d(h, weight, bias, padding=1)
        f_hat, rest = f_hat + h, rest - h
        losses.append((f_hat - f_BChw.detach().double()).square().mean().item())
    assert quantised.codebook_loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert quantised.commitment_loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert quantised.f_hat_BChw.detach().numpy() == pytest.approx(f_hat.numpy(), abs=1e-5)


def test_gradients_of_the_decoder_pass_straight_to_the_latent_and_train_no_phi(model):
    f_BChw = torch.randn(2, 4, 4, 4, requires_grad=True)
    weights_BChw = torch.randn(2, 4, 4, 4)
    (model.quantize(f_BChw).f_hat_BChw * weights_BChw).sum().backward()
    assert torch.equal(f_BChw.grad, weights_BChw)
    assert all(weight.grad is None for weight in model.quantize.parameters())


def test_losses_train_what_they_are_for(model):
    phi = model.quantize.quant_resi["qresi_ls"][0].weight
    codes_VC = model.quantize.embedding.weight
    f_BChw = torch.randn(2, 4, 4, 4, requires_grad=True)
    quantised = model.quantize(f_BChw)
    quantised.commitment_loss.backward(retain_graph=True)
    assert f_BChw.grad.abs().sum() > 0
    assert phi.grad is None
    f_BChw.grad = None
    quantised.codebook_loss.backward()
    assert f_BChw.grad is None
    assert phi.grad.abs().sum() > 0
    assert codes_VC.grad.abs().sum() > 0


@pytest.mark.parametrize("patch_nums", [(8,), (1, 8), (1, 4, 8), (1, 2, 3, 4, 5, 6, 8)])
@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_whatever_is_trained_gets_a_gradient(patch_nums, codebook):
    """Or processes that learn together would wait for it."""
    given = {"patch_nums": patch_nums, "codebook": codebook, "width_mult": (2, 1, 2), "batch_size": 2}
    trainer = Trainer(make_recipe("tiny", given), CPU, Ranks())
    trainer.step([torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)])
    without = {
        name for name, w in trainer.model.named_parameters() if w.requires_grad and w.grad is None
    }
    assert not without
    trained = {name for name, w in trainer.model.named_parameters() if w.requires_grad}
    assert ("quantize.embedding.weight" in trained) == (codebook == "gradient")
    assert any(name.startswith("quantize.quant_resi") for name in trained)


def test_the_quantiser_stays_in_float32(model, x_B3HW):
    with torch.autocast("cpu", torch.bfloat16):
        recon_B3HW, quantised = model(x_B3HW)
    assert recon_B3HW.dtype == torch.bfloat16
    assert {quantised.f_hat_BChw.dtype, quantised.z_BLC.dtype} == {torch.float32}


def test_what_grows_scale_by_scale_ends_in_all_of_it(model, x_B3HW):
    with torch.no_grad():
        quantised = model.quantize(model.encode(x_B3HW))
        grown = list(model.quantize.growing(quantised.idx_BL, 4))
    assert len(grown) == len(PATCH_NUMS)
    assert grown[-1].numpy() == pytest.approx(quantised.f_hat_BChw.numpy(), abs=1e-5)
    assert not torch.allclose(grown[0], grown[1])


@pytest.mark.parametrize("normed", [dict, batch_normed], ids=["group", "batch"])
def test_recomputing_activations_changes_no_gradient_and_counts_nothing_twice(normed, x_B3HW):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = VQVAE(normed(var_shapes(SIZES) | decoder_shapes(SIZES)), PATCH_NUMS)
        if recompute:
            model.recompute_activations()
        model(x_B3HW)[0].square().sum().backward()
        gradients = {name: w.grad for name, w in model.named_parameters() if w.grad is not None}
        found.append(gradients | dict(model.named_buffers()))
    before, after = found
    assert before.keys() == after.keys()
    assert len(before) > 50
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_no_matrix_of_all_tokens_and_codes_is_made():
    sizes = VARSizes(width=32, width_mult=(1,), blocks=1, latent_dim=8, vocab_size=16_384)
    quantiser = VQVAE(var_shapes(sizes) | decoder_shapes(sizes), (1, 2, 4, 8, 16)).quantize
    f_BChw = torch.randn(4, 8, 16, 16, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        quantised = quantiser(f_BChw)
        (quantised.codebook_loss + quantised.commitment_loss).backward()
    largest = max(event.cpu_memory_usage for event in found.events())
    assert 0 < largest < 4 * quantised.idx_BL.numel() * 16_384 / 10


@pytest.mark.parametrize("normed", [dict, batch_normed], ids=["group", "batch"])
def test_inference_reads_what_was_trained_and_gives_the_same_latents(tmp_path, normed, x_B3HW):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = VQVAE(normed(var_shapes(SIZES) | decoder_shapes(SIZES)), PATCH_NUMS)
    for _ in range(3):  # moments of batch norms that are not those they begin with
        model.train()(x_B3HW)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"image_size": 8, "patch_nums": [1, 2, 4]}')
    tokenizer = load_tokenizer(tmp_path / "model.safetensors").tokenizer
    img_B3HW = (x_B3HW + 1).mul(127.5).round().byte()
    with torch.no_grad():
        f_BChw = model.eval().encode(img_B3HW.float() / 127.5 - 1)
        assert tokenizer.encode(img_B3HW).numpy() == pytest.approx(f_BChw.numpy(), abs=2e-5)
        rest = tokenizer.encode(img_B3HW)
        for idx_Bl, patch_num, s in zip(
            model.quantize.by_scale(model.quantize(rest).idx_BL), PATCH_NUMS, range(3), strict=True
        ):
            assert torch.equal(tokenizer.vectors(rest, s), latents_of(rest, patch_num))
            nearest = torch.cdist(tokenizer.vectors(rest, s), model.quantize.embedding.weight).argmin(-1)
            assert torch.equal(nearest, idx_Bl)
            rest = tokenizer.subtract(rest, idx_Bl, s)


@pytest.mark.parametrize(("given", "share"), [(None, 0.5), (0.25, 0.25), (-0.8, 0.8)])
def test_the_share_of_phi_in_reconstructions_is_the_one_given(model, given, share):
    checkpoint = Checkpoint.of_tensors(Path("x"), model.state_dict())
    assert load_vqvae(checkpoint, PATCH_NUMS, given).quantize.phi_ratio == share
