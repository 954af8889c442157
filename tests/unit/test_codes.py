"""Codes in training: k-means, moving averages, revival, and counts."""

import pytest
import torch

from entropy_cli.engine.codes import DEAD, Codes
from entropy_cli.engine.ranks import Ranks
from entropy_cli.engine.sizes import recipe_of
from entropy_cli.engine.train import Trainer
from entropy_cli.functional.kmeans import cluster_sums, kmeans
from entropy_cli.tokenizers.layout import var_shapes
from entropy_cli.tokenizers.vqvae import Quantiser

V, C, PATCH_NUMS = 6, 3, (1, 2)
GIVEN = {
    "vocab_size": V,
    "latent_dim": C,
    "patch_nums": PATCH_NUMS,
    "image_size": 8,
    "batch_size": 4,
    "steps": 100,
}


def codes_of(**given):
    recipe = recipe_of("tiny", GIVEN | given)
    torch.manual_seed(0)
    return Codes(Quantiser(var_shapes(recipe.sizes), PATCH_NUMS), recipe, Ranks())


def quantised(codes, seed=0, scale=1.0):
    f_BChw = torch.randn(4, C, 2, 2, generator=torch.Generator().manual_seed(seed)) * scale
    with torch.no_grad():
        return codes.quantiser(f_BChw)


def test_averages_and_codes_are_those_of_a_plain_loop_over_tokens():
    codes = codes_of(decay=0.9)
    count = codes.count_V.clone()
    total = codes.sum_VC.clone()
    hits = torch.zeros(len(PATCH_NUMS), V, dtype=torch.float64)
    for step in range(3):
        found = quantised(codes, step)
        of_step, sums = torch.zeros(2, V, dtype=torch.float64), torch.zeros(V, C, dtype=torch.float64)
        for z_LC, idx_L in zip(found.z_BLC, found.idx_BL, strict=True):
            for place, (z_C, idx) in enumerate(zip(z_LC, idx_L, strict=True)):
                of_step[min(place, 1), idx] += 1  # the first token is the first scale
                sums[idx] += z_C.double()
        codes.follow(step, codes.sums(found))
        count = 0.9 * count + 0.1 * of_step.sum(0)
        total = 0.9 * total + 0.1 * sums
        hits = of_step if step == 0 else 0.9 * hits + 0.1 * of_step
        smooth = (count + 1e-5) / (count.sum() + V * 1e-5) * count.sum()
        expected = total / smooth[:, None]
        assert codes.weight_VC.numpy() == pytest.approx(expected.numpy(), rel=1e-6)
        assert codes.quantiser.ema_vocab_hit_SV.numpy() == pytest.approx(hits.numpy(), rel=1e-5)
    assert codes.count_V.sum().item() == pytest.approx(4 * 5)  # tokens of a step


def test_trained_codes_are_left_to_the_optimizer():
    codes = codes_of(codebook="gradient")
    before = codes.weight_VC.clone()
    codes.follow(0, codes.sums(quantised(codes)))
    assert torch.equal(codes.weight_VC, before)
    assert codes.weight_VC.requires_grad
    assert not codes_of().weight_VC.requires_grad


def test_dead_codes_become_vectors_of_the_step_and_stay_there():
    codes = codes_of(decay=0.5)
    with torch.no_grad():
        codes.weight_VC[-1] = 50.0  # nothing is near
    codes.sum_VC = codes.weight_VC.detach().double() * codes.count_V[:, None]
    for step in range(9):
        found = quantised(codes, step)
        codes.follow(step, codes.sums(found))
        assert not codes.revive(step, found.z_BLC).any()
    assert codes.count_V[-1] < DEAD * codes.count_V.mean()
    revived_V = codes.revive(9, found.z_BLC)
    assert revived_V[-1]
    revived = codes.weight_VC[-1].clone()
    assert (found.z_BLC.flatten(0, 1) == revived).all(1).any()
    assert codes.sum_VC[-1].numpy() == pytest.approx((revived.double() * codes.count_V[-1]).numpy())
    codes.follow(10, torch.zeros_like(codes.sums(found)))  # no token at all moves no code
    assert codes.weight_VC[-1].numpy() == pytest.approx(revived.numpy(), rel=1e-4)


@pytest.mark.parametrize(
    ("given", "step", "revives"),
    [
        ({}, 9, True),
        ({}, 8, False),
        ({"revive_every": 3}, 8, True),
        ({"revive_every": 0}, 9, False),
        ({}, 79, True),
        ({}, 89, False),  # in the last fifth of 100 steps codes settle
    ],
)
def test_when_codes_are_revived(given, step, revives):
    codes = codes_of(**given)
    codes.count_V[0] = 0
    assert codes.revive(step, quantised(codes).z_BLC)[0] == revives


def test_the_optimizer_forgets_what_it_knew_of_a_revived_code():
    given = {"codebook": "gradient", "steps": 100, "revive_every": 2, "decay": 0.5, "batch_size": 2}
    trainer = Trainer(recipe_of("tiny", given), torch.device("cpu"), Ranks())
    img_B3HW = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    trainer.step([img_B3HW])
    trainer.codes.count_V[:2] = 0  # and no token comes near them
    with torch.no_grad():
        trainer.codes.weight_VC[:2] = 99.0
    assert trainer.step([img_B3HW])["revived"] >= 2
    moments = trainer.optimizer.state[trainer.codes.weight_VC]
    assert not moments["exp_avg"][:2].any()
    assert not moments["exp_avg_sq"][:2].any()
    assert (trainer.codes.weight_VC[:2] < 99).all()


def test_usage_is_of_the_last_hundred_steps():
    codes = codes_of(codebook="gradient")
    S, wide = len(PATCH_NUMS), torch.zeros(2 * V + V * C, dtype=torch.float64)
    wide[0] = 1
    codes.follow(0, wide)
    assert codes.usage(0) == pytest.approx(1 / V)
    wide[: S * V] = 0
    wide[1] = 1
    codes.follow(99, wide)
    assert codes.usage(99) == pytest.approx(2 / V)
    assert codes.usage(100) == pytest.approx(1 / V)


def test_kmeans_finds_clusters_and_moves_empty_centres():
    generator = torch.Generator().manual_seed(0)
    centre_VC = 10 * torch.randn(8, 4, generator=generator)
    z_NC = centre_VC.repeat(50, 1) + 0.1 * torch.randn(400, 4, generator=generator)
    found_VC = kmeans(z_NC, centre_VC + 1, generator)
    assert torch.cdist(centre_VC, found_VC).amin(1).max() < 0.1
    found_VC[0] = 1000.0  # nothing is near
    moved_VC = kmeans(z_NC, found_VC, generator, iterations=1)
    assert torch.cdist(moved_VC[:1], centre_VC).amin() < 1


def test_kmeans_of_fewer_vectors_than_codes_uses_them_all():
    z_NC = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    found_VC = kmeans(z_NC, z_NC.repeat(4, 1), torch.Generator().manual_seed(0))
    assert found_VC.shape == (12, 2)
    assert torch.cdist(z_NC, found_VC).amin(1).max() < 1e-6
    assert torch.cdist(found_VC, z_NC).amin(1).max() < 1e-6


def test_sums_of_clusters():
    z_NC = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    count_V, sum_VC = cluster_sums(z_NC, torch.tensor([1, 1, 0]), 3)
    assert count_V.tolist() == [1, 2, 0]
    assert sum_VC.tolist() == [[5, 6], [4, 6], [0, 0]]


def test_codes_begin_as_residuals_of_all_scales():
    """Of pictures with few different vectors, each of which then has a code next to it."""
    codes = codes_of(vocab_size=64)
    f_BChw = torch.randn(2, C, 2, 2, generator=torch.Generator().manual_seed(3))
    codes.begin(f_BChw)
    z_NC = codes.quantiser(f_BChw).z_BLC.flatten(0, 1)
    spread = z_NC.square().sum(1).mean()
    nearest_N = torch.cdist(z_NC, codes.weight_VC.detach()).amin(1).square()
    assert nearest_N.mean() < 0.01 * spread
    assert torch.equal(codes.sum_VC, codes.weight_VC.detach().double() * codes.count_V[:, None])
