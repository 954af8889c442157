"""Steps of a training: rates, order of pictures, norms, averages; and what does not fit."""

import math

import pytest
import torch

from entropy_cli.data.training import Order, cropped
from entropy_cli.engine.quality import Quality, psnr, rounded
from entropy_cli.engine.ranks import Ranks
from entropy_cli.engine.sizes import check_batches, check_fit, recipe_of, warnings_of
from entropy_cli.engine.train import DivergedError, Trainer
from entropy_cli.errors import EntropyCliError
from entropy_cli.tokenizers.norms import NORM_EPS, BatchNorm, GroupNorm

CPU = torch.device("cpu")
SMALL = {"image_size": 16, "patch_nums": (1, 2, 4), "batch_size": 4, "vocab_size": 16, "latent_dim": 4}


def trainer_of(**given):
    return Trainer(recipe_of("tiny", SMALL | given), CPU, Ranks())


def pictures(n=4, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_batch_of_a_step_does_not_depend_on_who_computes_it(world, parts):
    def batch(step, world, parts, first=0):
        shares = [Order(40, 16, parts, first, 9, 5, (rank, world)) for rank in range(world)]
        items = range((step - first) * parts, (step - first + 1) * parts)
        numbers = [n for order in shares for item in items for n in order[item]]
        corners = [c for order in shares for item in items for c in order.corners(item, 4).tolist()]
        return numbers, corners

    for step in range(9):
        assert batch(step, world, parts) == batch(step, 1, 1)
        if step >= 3:
            assert batch(step, world, parts, first=3) == batch(step, 1, 1)  # resumed after 3


def test_every_picture_comes_once_before_any_comes_again():
    order = Order(10, 4, 1, 0, 10, 0, (0, 1))
    seen = [n for item in range(len(order)) for n in order[item]]
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    other = Order(10, 4, 1, 0, 10, 1, (0, 1))
    assert [n for item in range(len(other)) for n in other[item]] != seen


def test_crops_are_where_they_are_asked_for():
    img_B3HW = pictures(2, size=6)
    corner_B2 = Order(8, 2, 1, 0, 1, 0, (0, 1)).corners(0, 2)
    for img_3HW, found_3HW, (y, x) in zip(
        img_B3HW, cropped(img_B3HW, 4, corner_B2), corner_B2, strict=True
    ):
        assert torch.equal(found_3HW, img_3HW[:, y : y + 4, x : x + 4])
    assert torch.equal(cropped(img_B3HW, 4), img_B3HW[:, :, 1:5, 1:5])


def test_parts_of_a_batch_make_the_same_step():
    whole, in_parts = trainer_of(), trainer_of(accumulate=2)
    img_B3HW = pictures()
    for _ in range(3):
        one, two = whole.step([img_B3HW]), in_parts.step(list(torch.split(img_B3HW, 2)))
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_a_step_is_that_of_adam_on_the_weighted_losses(codebook):
    given = {"codebook": codebook, "l1": 0.7, "l2": 0.4, "beta": 0.6, "clip": 1e9, "init": "uniform"}
    trainer = trainer_of(**given)
    reference = trainer_of(**given)
    x_B3HW = pictures().float() / 127.5 - 1
    recon_B3HW, quantised = reference.model(x_B3HW)
    loss = 0.7 * (recon_B3HW - x_B3HW).abs().mean() + 0.4 * (recon_B3HW - x_B3HW).square().mean()
    loss = loss + quantised.codebook_loss + 0.6 * quantised.commitment_loss
    loss.backward()
    metrics = trainer.step([pictures()])
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    gradients = [w.grad for w in reference.model.parameters() if w.grad is not None]
    norm = math.sqrt(sum(gradient.square().sum() for gradient in gradients))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # Adam's first step is the rate times the sign, but for weights that decay.
    rate = metrics["lr"]
    moved = trainer.model.decoder.conv_out.bias - reference.model.decoder.conv_out.bias
    sign = reference.model.decoder.conv_out.bias.grad.sign()
    assert moved.detach().numpy() == pytest.approx((-rate * sign).numpy(), rel=1e-3)


def test_the_average_of_the_weights_is_that_of_a_plain_loop():
    trainer = trainer_of(average=0.9)
    name = "decoder.conv_out.weight"
    expected = trainer.model.state_dict()[name].clone()
    for step in range(4):
        trainer.step([pictures(seed=step)])
        decay = min(0.9, (step // 2 + 1) / (step // 2 + 10))
        expected = decay * expected + (1 - decay) * trainer.model.state_dict()[name]
    assert trainer.average.state_dict()[name].numpy() == pytest.approx(expected.numpy(), abs=1e-7)
    codes = "quantize.embedding.weight"
    assert torch.equal(trainer.average.state_dict()[codes], trainer.model.state_dict()[codes])


def test_a_loss_that_is_no_number_changes_nothing():
    trainer = trainer_of()
    trainer.step([pictures()])
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.model.decoder.conv_out.register_forward_hook(lambda *arguments: arguments[2] * math.nan)
    with pytest.raises(DivergedError, match=r"step 2: .*--lr"):
        trainer.step([pictures()])
    assert trainer.done == 1
    after = trainer.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_batch_norm_is_torchs_but_for_the_bias_of_the_running_variance():
    ours, torchs = BatchNorm(3), torch.nn.BatchNorm2d(3, eps=NORM_EPS)
    x_BChw = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 + 1
    for norm in (ours, torchs):
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, 2, 3]))
    assert ours(x_BChw).detach().numpy() == pytest.approx(torchs(x_BChw).detach().numpy(), abs=1e-5)
    assert ours.running_mean.numpy() == pytest.approx(torchs.running_mean.numpy(), abs=1e-6)
    n = 4 * 5 * 5
    unbiased = 0.9 + (ours.running_var - 0.9) * n / (n - 1)
    assert unbiased.numpy() == pytest.approx(torchs.running_var.numpy(), rel=1e-5)
    torchs.running_var.copy_(ours.running_var)
    assert ours.eval()(x_BChw).detach().numpy() == pytest.approx(
        torchs.eval()(x_BChw).detach().numpy(), abs=1e-5
    )


def test_group_norm_is_the_same_with_and_without_gradients():
    norm = GroupNorm(64, 32)
    x_BChw = torch.randn(2, 64, 6, 6)
    with torch.no_grad():
        without = norm.then_silu(x_BChw)
    assert norm.then_silu(x_BChw).detach().numpy() == pytest.approx(without.numpy(), abs=1e-5)


def test_quality_in_plain_terms():
    img_B3HW = torch.zeros(2, 3, 4, 4)
    assert psnr(img_B3HW + 0.2, img_B3HW).tolist() == pytest.approx([20, 20])  # a tenth of the range
    assert psnr(img_B3HW + 9, img_B3HW + 1).tolist() == [math.inf, math.inf]  # cut to the range
    quality = Quality(0.0, torch.tensor([[2, 2, 0, 0], [0, 0, 0, 8]]), 4)
    first, second = quality.scales((1, 2))
    assert (first.tokens, first.codes_used, first.usage, second.usage) == (4, 2, 0.5, 0.25)
    assert [first.perplexity, second.perplexity] == pytest.approx([2, 1])
    assert first.usage_of_possible == 0.5


def test_a_rounded_copy_leaves_the_original_alone():
    model = trainer_of().model
    before = model.encoder.conv_in.weight.clone()
    half = rounded(model, torch.float16)
    assert torch.equal(half.encoder.conv_in.weight, before.half().float())
    assert torch.equal(model.encoder.conv_in.weight, before)
    assert not torch.equal(before, before.half().float())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"patch_nums": (1, 2, 4)}, "grows up to 8, such as 1,2,3,5,8. Or give --image-size 16"),
        ({"patch_nums": (1, 3, 3, 8)}, "expected a list that grows up to 8"),
        ({"image_size": 50}, "Give a multiple of 4, such as 48"),
        ({"image_size": 2}, "Give a multiple of 4, such as 4"),
        ({"width": 48}, "Give a multiple of that, such as 64"),
    ],
)
def test_sizes_that_do_not_fit_are_told_what_would(given, words):
    with pytest.raises(EntropyCliError, match=words):
        check_fit(recipe_of("tiny", given))


@pytest.mark.parametrize(
    ("given", "pictures", "processes", "words"),
    [
        ({"batch_size": 6}, 100, 4, "Give a multiple of 4, such as 8"),
        ({"batch_size": 8, "accumulate": 3}, 100, 1, "Give a multiple of 3, such as 9"),
        ({"batch_size": 32}, 30, 4, "30 pictures .* fewer than a batch of 32. Give --batch-size 28"),
        ({"batch_size": 4}, 3, 4, "Give more pictures"),
    ],
)
def test_batches_that_do_not_fit_are_told_what_would(given, pictures, processes, words):
    with pytest.raises(EntropyCliError, match=words):
        check_batches(recipe_of("tiny", given), pictures, processes)


@pytest.mark.parametrize("side", range(1, 70))
def test_grids_that_are_suggested_fit(side):
    recipe = recipe_of("tiny", {"image_size": 4 * side})
    check_fit(recipe)
    assert recipe.patch_nums[-1] == side
    assert recipe.patch_nums[0] == 1


def test_a_first_level_of_lone_channels_is_warned_of():
    assert not warnings_of(recipe_of("tiny", {}))
    assert "--norm batch" in warnings_of(recipe_of("var", {"width": 32}))[0]
    assert not warnings_of(recipe_of("var", {"width": 32, "norm": "batch"}))
    assert not warnings_of(recipe_of("var", {}))
