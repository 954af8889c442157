"""A step of a training is the optimizer's on the losses; copies and warnings."""

import logging
import math

import pytest
import torch

from entropy_cli.commands.train.log import TrainingLog
from entropy_cli.commands.train.quality import Quality, round_weights
from entropy_cli.commands.train.sizes import make_recipe, recipe_warnings
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.streaming.ranks import Ranks

SMALL = {"image_size": 16, "patch_nums": (1, 2, 4), "batch_size": 4, "vocab_size": 16, "latent_dim": 4}


def trainer_of(**given):
    return Trainer(make_recipe("tiny", SMALL | given), torch.device("cpu"), Ranks())


def pictures(n=4, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_a_step_is_that_of_adam_on_the_weighted_losses(codebook):
    given = {
        "codebook": codebook,
        "l1": 0.7,
        "l2": 0.4,
        "beta": 0.6,
        "grad_clip": 1e9,
        "init": "uniform",
    }
    trainer = trainer_of(**given)
    reference = trainer_of(**given)
    x_B3HW = pictures().float() / 127.5 - 1
    recon_B3HW, quantised = reference.model(x_B3HW)
    loss = 0.7 * (recon_B3HW - x_B3HW).abs().mean() + 0.4 * (recon_B3HW - x_B3HW).square().mean()
    loss = loss + quantised.codebook_loss + 0.6 * quantised.commitment_loss
    loss.backward()
    metrics = trainer.step([pictures()]).read()
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    gradients = [w.grad for w in reference.model.parameters() if w.grad is not None]
    norm = math.sqrt(sum(gradient.square().sum() for gradient in gradients))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    # Adam's first step is the rate times the sign, but for weights that decay.
    rate = metrics["lr"]
    assert rate == trainer.recipe.lr * trainer.recipe.lr_factor(0)
    moved = trainer.model.decoder.conv_out.bias - reference.model.decoder.conv_out.bias
    sign = reference.model.decoder.conv_out.bias.grad.sign()
    assert moved.detach().numpy() == pytest.approx((-rate * sign).numpy(), rel=1e-3)


def test_a_rounded_copy_leaves_the_original_alone():
    model = trainer_of().model
    before = model.encoder.conv_in.weight.clone()
    half = round_weights(model, torch.float16)
    assert torch.equal(half.encoder.conv_in.weight, before.half().float())
    assert torch.equal(model.encoder.conv_in.weight, before)
    assert not torch.equal(before, before.half().float())


def test_a_first_level_of_lone_channels_is_warned_of():
    assert not recipe_warnings(make_recipe("tiny", {}))
    assert "--norm batch" in recipe_warnings(make_recipe("var", {"width": 32}))[0]
    assert not recipe_warnings(make_recipe("var", {"width": 32, "norm": "batch"}))
    assert not recipe_warnings(make_recipe("var", {}))


def test_a_short_training_warms_up_in_a_part_of_its_steps():
    assert [make_recipe("tiny", {"steps": n}).warmup for n in (5, 70, 7000)] == [0, 10, 100]
    assert make_recipe("tiny", {"steps": 5, "warmup": 4}).warmup == 4


@pytest.mark.parametrize(
    ("step", "psnr_db", "used", "warned"),
    [
        (50, 20.9, 8, ["nothing learned"]),
        (50, 21.1, 8, []),
        (50, 21.1, 1, ["uninformative scales"]),
        (19, 20.9, 1, []),  # too early to say
    ],
)
def test_an_evaluation_warns_of_what_is_worse_than_the_mean_image(
    tmp_path, caplog, step, psnr_db, used, warned
):
    log = TrainingLog(make_recipe("tiny", SMALL | {"steps": 100}), 1, tmp_path, 0, tensorboard=False)
    count_SV = torch.full((3, 16), 5)
    count_SV[1, used:] = 0
    with caplog.at_level(logging.WARNING):
        log.evaluation(step, Quality(psnr_db, count_SV), 21.0)
    log.close()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == warned


def test_the_progress_says_of_which_steps_codes_are_counted(tmp_path):
    log = TrainingLog(make_recipe("tiny", SMALL), 1, tmp_path, 0, tensorboard=False)
    log.step(1, {"loss": 0.5, "psnr_db": 12.34, "usage": 0.988})
    log.close()
    assert log.description == "loss 0.5000, PSNR 12.3 dB, 99 % of codes used in 100 steps"
