"""The course of a training: learning rates, order of images, crops, averages, micro-batches."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from entropy_cli.commands.train.image_store import BatchSampler, crop
from entropy_cli.commands.train.quality import Quality, ScaleQuality, evaluate
from entropy_cli.commands.train.recipe import PRESETS
from entropy_cli.commands.train.sizes import check_batches, check_sizes, make_recipe, patch_nums_for
from entropy_cli.commands.train.step_metrics import DivergedError
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.psnr import psnr
from entropy_cli.streaming.ranks import Ranks

CPU = torch.device("cpu")
TINY = PRESETS["tiny"]
RECIPE = TINY.override(
    image_size=16, width_mult=(1, 1, 1), patch_nums=(1, 2, 4), vocab_size=32, batch_size=4, warmup=0
)


def batch(seed=0, images=4, size=16):
    return torch.randint(256, (images, 3, size, size), generator=torch.manual_seed(seed)).byte()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # After 10 steps of warm-up 90 of cosine, down to a fifth: a quarter, half and all of the way.
        ("cosine", {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 55: 0.6, 100: 0.2, 120: 0.2}),
        ("staged", {0: 0.1, 9: 1.0, 10: 1.0, 66: 1.0, 67: 0.1, 88: 0.1, 89: 0.01, 99: 0.01}),
    ],
)
def test_rates(schedule, expected):
    recipe = TINY.override(steps=100, warmup=10, final_lr=0.2, schedule=schedule)
    assert {step: recipe.lr_factor(step) for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0, 3, 5])
def test_rates_without_steps_to_fall_in(warmup):
    rates = [TINY.override(steps=5, warmup=warmup).lr_factor(step) for step in range(5)]
    assert all(0 < value <= 1 for value in rates)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])


def test_cosine_falls_as_cosine():
    recipe = TINY.override(steps=40, warmup=0, final_lr=0.0)
    for step in range(40):
        assert recipe.lr_factor(step) == pytest.approx(math.cos(math.pi * step / 80) ** 2)


IMAGES, BATCH, STEPS = 30, 8, 15  # four epochs, whose ends are within batches


def sampler(share=(0, 1), accum_steps=1, first=0, seed=3):
    return BatchSampler(IMAGES, BATCH, accum_steps, first, STEPS, seed, share)


def test_every_image_comes_once_an_epoch_in_another_order():
    numbers = [number for part in sampler() for number in part]
    epochs = [numbers[i : i + IMAGES] for i in range(0, STEPS * BATCH, IMAGES)]
    assert len(epochs) == 4
    assert all(sorted(epoch) == list(range(IMAGES)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert numbers != [number for part in sampler(seed=4) for number in part]


@pytest.mark.parametrize("first", [0, 1, 7, 14])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_images_and_crops_of_a_step_are_the_same_however_they_are_computed(processes, parts, first):
    alone = sampler()
    shares = [sampler((rank, processes), parts, first) for rank in range(processes)]
    assert all(len(share) == (STEPS - first) * parts for share in shares)
    for step in range(first, STEPS):
        found = []
        for item in range((step - first) * parts, (step - first + 1) * parts):
            for share in shares:  # a part of the batch is the same too: batch norms see it together
                corners = share.crop_corners(item, 4).tolist()
                found += zip(share[item], corners, strict=True)
        assert found == list(zip(alone[step], alone.crop_corners(step, 4).tolist(), strict=True))


def test_a_batch_of_more_than_an_epoch_has_every_image_as_often():
    (numbers,) = BatchSampler(5, 10, 1, 0, 1, 0, (0, 1))
    assert sorted(numbers) == sorted([*range(5)] * 2)
    assert sorted(numbers[:5]) == [*range(5)]


def test_crops_are_anywhere_in_the_image():
    corner_N2 = np.concatenate([sampler().crop_corners(step, 2) for step in range(STEPS)])
    assert {tuple(corner) for corner in corner_N2.tolist()} == {
        (y, x) for y in range(3) for x in range(3)
    }
    assert not sampler().crop_corners(0, 0).any()


def test_a_crop_is_the_square_at_its_corner():
    img_B3HW = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6)
    crop_B3HW = crop(img_B3HW, 4, np.array([[0, 2], [1, 0]]))
    assert torch.equal(crop_B3HW[0], img_B3HW[0, :, 0:4, 2:6])
    assert torch.equal(crop_B3HW[1], img_B3HW[1, :, 1:5, 0:4])
    assert torch.equal(crop(img_B3HW, 4), img_B3HW[..., 1:5, 1:5])


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_the_average_of_the_weights_rises_to_its_decay(codebook):
    trainer = Trainer(RECIPE.override(ema_decay=0.3, norm="batch", codebook=codebook), CPU, Ranks())
    expected = {name: weight.detach().double() for name, weight in trainer.model.named_parameters()}
    decays = []
    for step in range(8):
        trainer.step([batch(step)])
        decays.append(min(0.3, (step // 2 + 1) / (step // 2 + 10)))
        for name, weight in trainer.model.named_parameters():
            expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * weight.detach().double()
    assert decays[:2] == [0.1, 0.1]
    assert decays[-1] == 0.3
    expected["quantize.embedding.weight"] = trainer.model.quantize.embedding.weight.detach().double()
    for name, weight in trainer.ema_model.named_parameters():
        torch.testing.assert_close(weight.double(), expected[name], atol=1e-7, rtol=1e-5)
    for name, buffer in trainer.model.named_buffers():
        assert torch.equal(trainer.ema_model.get_buffer(name), buffer)
    assert not torch.equal(
        trainer.ema_model.encoder.conv_in.weight, trainer.model.encoder.conv_in.weight
    )


def test_without_an_average_the_last_weights_count():
    trainer = Trainer(RECIPE.override(ema_decay=0.0), CPU, Ranks())
    assert trainer.ema_model is trainer.model


def test_micro_batches_make_the_same_step():
    whole, halves = (Trainer(RECIPE.override(grad_accum_steps=n), CPU, Ranks()) for n in (1, 2))
    for step in range(3):
        img_B3HW = batch(step)
        expected = whole.step([img_B3HW]).read()
        assert halves.step([*img_B3HW.split(2)]).read() == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(whole.codebook.sum_VC, halves.codebook.sum_VC, atol=1e-4, rtol=1e-4)
        assert torch.equal(whole.codebook.last_V, halves.codebook.last_V)
        # Not of the weights: AdamW makes a whole step of a gradient that is nothing but rounding.
        for weight, other in zip(whole.model.parameters(), halves.model.parameters(), strict=True):
            if weight.requires_grad:
                torch.testing.assert_close(other.grad, weight.grad, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "given", [{}, {"norm": "batch", "ema_decay": 0.9, "codebook": "gradient"}], ids=str
)
def test_a_resumed_training_ends_as_if_it_had_not_stopped(given):
    recipe = RECIPE.override(revive_every=1, **given)
    straight, begun, resumed = (Trainer(recipe, CPU, Ranks()) for _ in range(3))
    for trainer in (straight, begun):
        trainer.init_codebook(batch(9))
        for step in range(2):
            trainer.step([batch(step)])
    resumed.load_state(copy.deepcopy(begun.state()))
    for step in range(2, 4):
        assert straight.step([batch(step)]).read() == resumed.step([batch(step)]).read()
    for name, weight in straight.ema_model.state_dict().items():
        assert torch.equal(resumed.ema_model.state_dict()[name], weight)


def test_a_step_that_diverges_changes_nothing():
    trainer = Trainer(RECIPE.override(ema_decay=0.9, norm="batch"), CPU, Ranks())
    trainer.step([batch(0)])
    with torch.no_grad():
        trainer.model.encoder.conv_in.weight[0, 0, 0, 0] = float("inf")
    before = copy.deepcopy(trainer.state())
    diverged = trainer.step([batch(1)])
    with torch.no_grad():
        trainer.model.encoder.conv_in.weight[0, 0, 0, 0] = 0.1
    before["model"]["encoder.conv_in.weight"][0, 0, 0, 0] = 0.1
    trainer.step([batch(2)])  # taken on a GPU before the loss of the one before is known
    with pytest.raises(DivergedError, match=r"^step 2: .*--lr"):
        diverged.read()
    after = trainer.state()
    for part in ("model", "average", "codes"):
        for name, tensor in before[part].items():
            assert torch.equal(after[part][name], tensor), name
    moments, others = before["optimizer"]["state"], after["optimizer"]["state"]
    for number, moment in moments.items():
        assert all(torch.equal(others[number][name], tensor) for name, tensor in moment.items())


def test_losses_are_weighted():
    recipe = RECIPE.override(l1=0.7, l2=0.3, beta=0.5)
    metrics = Trainer(recipe, CPU, Ranks()).step([batch()]).read()
    parts = 0.7 * metrics["l1"] + 0.3 * metrics["l2"]
    parts += metrics["codebook"] + 0.5 * metrics["commitment"]
    assert metrics["loss"] == pytest.approx(parts, rel=1e-6)


def test_psnr_is_of_images_with_256_levels():
    target_B3HW, img_B3HW = batch(0), batch(1)
    for found, a, b in zip(
        psnr(img_B3HW / 127.5 - 1, target_B3HW / 127.5 - 1), img_B3HW, target_B3HW, strict=True
    ):
        error = np.mean((a.numpy().astype(float) - b.numpy()) ** 2)
        assert found.item() == pytest.approx(10 * np.log10(255**2 / error), abs=1e-4)


def test_values_beyond_white_count_as_white():
    white_B3HW = torch.ones(1, 3, 4, 4)
    assert psnr(white_B3HW * 3, white_B3HW).item() == 100  # the most
    assert psnr(white_B3HW * -3, white_B3HW).item() == pytest.approx(0)


@pytest.mark.parametrize(
    ("counts", "usage", "perplexity"),
    [([5, 5, 5, 5], 1, 4), ([7, 0, 0, 0], 0.25, 1), ([2, 1, 1, 0], 0.75, 2**1.5)],
)
def test_usage_and_perplexity(counts, usage, perplexity):
    found = ScaleQuality.of(1, torch.tensor(counts))
    assert (found.usage, found.perplexity) == (usage, pytest.approx(perplexity))


def test_a_scale_cannot_use_more_codes_than_it_has_tokens():
    quality = Quality(20.0, torch.tensor([[1, 1, 0, 0, 0, 0], [1, 2, 3, 1, 1, 0]]))
    one, two = quality.scales((1, 2))
    assert (one.tokens, one.codes_used, one.usage, one.usage_of_possible) == (2, 2, 2 / 6, 1)
    assert (two.tokens, two.codes_used, two.usage, two.usage_of_possible) == (8, 5, 5 / 6, 5 / 6)


def test_quality_is_the_mean_over_images_in_whatever_batches():
    model = Trainer(RECIPE, CPU, Ranks()).model
    img_B3HW, done = batch(2, images=6), []
    found = evaluate(model, img_B3HW, 4, Ranks(), done.append)
    assert done == [4, 2]
    x_B3HW = img_B3HW / 127.5 - 1
    assert found.count_SV.sum(1).tolist() == [6 * 1, 6 * 4, 6 * 16]
    with torch.no_grad():
        values = [psnr(model(x_B3HW[i : i + 1])[0], x_B3HW[i : i + 1]).item() for i in range(6)]
    assert found.psnr_db == pytest.approx(np.mean(values), abs=1e-4)
    assert model.training


def test_fewer_images_are_evaluated_at_once_when_memory_runs_out(monkeypatch):
    model, img_B3HW, sizes = Trainer(RECIPE, CPU, Ranks()).model, batch(2, images=6), []
    expected = evaluate(model, img_B3HW, 1, Ranks())
    decode = model.decode

    def limited(f_hat_BChw):
        sizes.append(len(f_hat_BChw))
        if sizes[-1] > memory:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(f_hat_BChw)

    monkeypatch.setattr(model, "decode", limited)
    memory = 2
    found = evaluate(model, img_B3HW, 6, Ranks())
    assert sizes == [6, 3, 3 // 2, *[1] * 5]
    assert found.psnr_db == pytest.approx(expected.psnr_db, abs=1e-6)
    assert torch.equal(found.count_SV, expected.count_SV)
    memory = 0
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(model, img_B3HW, 1, Ranks())


@pytest.mark.parametrize("side", range(1, 40))
def test_grids_for_any_side_grow_up_to_it(side):
    patch_nums = patch_nums_for(side)
    assert patch_nums[0] == 1
    assert patch_nums[-1] == side
    assert list(patch_nums) == sorted(set(patch_nums))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"image_size": 30}, "--image-size 30: .* multiple of 4, such as 32"),
        ({"image_size": 2}, "--image-size 2: .* such as 4"),
        (
            {"patch_nums": (1, 2, 4)},
            r"--patch-nums 1,2,4: .* 8 x 8.* such as 1,2,3,5,8\..*--image-size 16",
        ),
        ({"patch_nums": (1, 3, 2, 8)}, "--patch-nums 1,3,2,8: .* grows up to 8, such as 1,2,3,5,8"),
        ({"patch_nums": (1, 2, 2, 8)}, "--patch-nums 1,2,2,8: "),
        ({"width": 48}, "--width 48: .* such as (32|64)"),
        ({"width": 8}, "--width 8: .* such as 32"),
    ],
)
def test_sizes_that_do_not_fit_say_what_would(given, words):
    with pytest.raises(EntropyCliError, match=words) as caught:
        check_sizes(make_recipe("tiny", given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("preset", "size"), [("tiny", 16), ("tiny", 36), ("var", 512), ("var", 48)])
def test_grids_fit_the_size_of_images(preset, size):
    recipe = make_recipe(preset, {"image_size": size})
    check_sizes(recipe)
    assert recipe.patch_nums[-1] == size // recipe.downsampling


@pytest.mark.parametrize(
    ("size", "accum_steps", "processes", "images", "words"),
    [
        (
            6,
            2,
            2,
            100,
            "--batch-size 6: .* 2 processes with 2 micro-batches .* multiple of 4, such as 8",
        ),
        (3, 1, 8, 100, "--batch-size 3: .* such as 8"),
        (8, 2, 2, 7, "7 images .* fewer than a batch of 8. Give --batch-size 4, or more"),
        (8, 4, 2, 7, r"7 images .* Give more images\."),
    ],
)
def test_batches_that_cannot_be_divided_say_what_could(size, accum_steps, processes, images, words):
    recipe = replace(TINY, batch_size=size, grad_accum_steps=accum_steps)
    with pytest.raises(EntropyCliError, match=words):
        check_batches(recipe, images, processes)


def test_as_many_images_as_a_batch_are_enough():
    check_batches(replace(TINY, batch_size=8, grad_accum_steps=2), 8, 4)
