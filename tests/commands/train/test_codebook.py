"""The codebook in training: initialization, moving averages, restarts of dead codes."""

import pytest
import torch

from entropy_cli.commands.train.recipe import PRESETS
from entropy_cli.commands.train.trainer import Trainer
from entropy_cli.entropy.kmeans import cluster_sums, kmeans
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.vqvae import Quantised

PATCH_NUMS = (1, 2, 4)  # 21 tokens per image
IMAGES, V, C = 3, 7, 4
RECIPE = PRESETS["tiny"].override(
    image_size=16,
    width_mult=(1, 1, 1),
    patch_nums=PATCH_NUMS,
    latent_dim=C,
    vocab_size=V,
    batch_size=IMAGES,
    steps=100,
    codebook_decay=0.9,
    init="uniform",
)


def trainer_of(**given):
    return Trainer(RECIPE.override(**given), torch.device("cpu"), Ranks())


def random_step(seed, vocab_size=V):
    """Return a quantiser's output with random vectors and codes."""
    generator = torch.Generator().manual_seed(seed)
    z_BLC = torch.randn(IMAGES, 21, C, generator=generator)
    idx_BL = torch.randint(vocab_size, (IMAGES, 21), generator=generator)
    zero = torch.zeros(())
    return Quantised(zero, zero, zero, z_BLC, idx_BL)


def plain_averages(codes_VC, steps, decay):
    """Return the codes by moving averages, token by token."""
    tokens = IMAGES * 21
    count_V = [tokens / V] * V
    sum_VC = [[count * x for x in code] for count, code in zip(count_V, codes_VC, strict=True)]
    for step in steps:
        seen_V, seen_VC = [0] * V, [[0.0] * C for _ in range(V)]
        for z, v in zip(step.z_BLC.flatten(0, 1).tolist(), step.idx_BL.flatten().tolist(), strict=True):
            seen_V[v] += 1
            seen_VC[v] = [a + x for a, x in zip(seen_VC[v], z, strict=True)]
        for v in range(V):
            count_V[v] = decay * count_V[v] + (1 - decay) * seen_V[v]
            for c in range(C):
                sum_VC[v][c] = decay * sum_VC[v][c] + (1 - decay) * seen_VC[v][c]
    total = sum(count_V)
    smooth_V = [(count + 1e-5) / (total + V * 1e-5) * total for count in count_V]
    return [[x / smooth for x in row] for row, smooth in zip(sum_VC, smooth_V, strict=True)]


def update(codebook, steps):
    for number, step in enumerate(steps):
        codebook.ema_update(number, codebook.sums(step))


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_codes_are_moving_averages_of_what_they_are_nearest_to(decay):
    codes = trainer_of(codebook_decay=decay).codebook
    before_VC = codes.weight_VC.tolist()
    steps = [random_step(seed) for seed in range(5)]
    update(codes, steps)
    expected_VC = torch.tensor(plain_averages(before_VC, steps, decay))
    torch.testing.assert_close(codes.weight_VC.detach(), expected_VC, atol=1e-7, rtol=1e-6)


def test_a_code_that_is_not_used_stays_where_it_is():
    codes = trainer_of().codebook
    before_VC = codes.weight_VC.detach().clone()
    update(codes, [random_step(seed, vocab_size=3) for seed in range(20)])
    moved_V = (codes.weight_VC - before_VC).abs().amax(1)
    assert (moved_V[:3] > 1e-2).all()
    assert (moved_V[3:] < 1e-4).all()


def test_trained_codes_are_only_counted():
    codes = trainer_of(codebook="gradient").codebook
    before_VC = codes.weight_VC.detach().clone()
    update(codes, [random_step(0)])
    assert torch.equal(codes.weight_VC, before_VC)
    expected_V = 0.9 * IMAGES * 21 / V + 0.1 * torch.bincount(
        random_step(0).idx_BL.flatten(), minlength=V
    )
    torch.testing.assert_close(codes.count_V, expected_V.double())


def test_sums_count_exactly_and_come_together_from_parts():
    codes, step = trainer_of().codebook, random_step(3)
    sums = codes.sums(step)
    count_SV, sum_VC = sums[: 3 * V].view(3, V), sums[3 * V :].view(V, C)
    for count_V, of_scale in zip(count_SV, step.idx_BL.split([1, 4, 16], 1), strict=True):
        assert count_V.tolist() == [(of_scale == v).sum().item() for v in range(V)]
    z_NC, idx_N = step.z_BLC.flatten(0, 1).double(), step.idx_BL.flatten()
    expected_VC = torch.stack([z_NC[idx_N == v].sum(0) for v in range(V)])
    torch.testing.assert_close(sum_VC, expected_VC, atol=1e-12, rtol=0)
    zero = torch.zeros(())
    parts = [Quantised(zero, zero, zero, step.z_BLC[b], step.idx_BL[b]) for b in (slice(1), slice(1, 3))]
    together = sum(codes.sums(part) for part in parts)
    assert torch.equal(together[: 3 * V], sums[: 3 * V])
    torch.testing.assert_close(together, sums, atol=1e-12, rtol=0)


def test_sums_are_exact_where_float32_would_not_be():
    z_NC, idx_N = torch.tensor([[2.0**24], [1.0], [1.0], [3.0]]), torch.tensor([1, 1, 1, 0])
    count_V, sum_VC = cluster_sums(z_NC, idx_N, 3)
    assert count_V.tolist() == [1, 3, 0]
    assert sum_VC.tolist() == [[3], [2**24 + 2], [0]]


def test_kmeans_finds_clusters():
    generator = torch.manual_seed(0)
    centre_VC = 100 * torch.eye(6)[:5]
    z_NC = (centre_VC[:, None] + torch.randn(5, 40, 6, generator=generator)).flatten(0, 1)
    codes_VC = kmeans(z_NC, z_NC[::40], generator)
    torch.testing.assert_close(codes_VC, z_NC.view(5, 40, 6).mean(1), atol=1e-4, rtol=0)


def test_kmeans_moves_a_centre_that_nothing_is_near():
    z_NC = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    codes_VC = kmeans(z_NC, torch.tensor([[5.0], [1e4]]), torch.manual_seed(0), iterations=20)
    assert sorted(codes_VC.flatten().tolist()) == [0.5, 10.5]


def test_kmeans_of_fewer_vectors_than_codes_gives_those_vectors():
    z_NC = torch.randn(3, 4, generator=torch.manual_seed(0))
    codes_VC = kmeans(z_NC, z_NC[[0, 1, 2, 0, 1, 2, 0, 0]], torch.manual_seed(1))
    distance_VN = torch.cdist(codes_VC, z_NC)
    assert (distance_VN.amin(1) < 1e-6).all()
    assert (distance_VN.amin(0) < 1e-6).all()


@pytest.mark.parametrize("vocab_size", [8, 512])
def test_kmeans_codes_are_nearer_to_the_residuals_than_uniform_ones(vocab_size):
    trainer = trainer_of(vocab_size=vocab_size, batch_size=8)
    f_BChw = torch.randn(8, C, 4, 4, generator=torch.manual_seed(4))
    uniform = trainer.model.quantize(f_BChw).commitment_loss.item()
    trainer.codebook.init_kmeans(f_BChw)
    assert trainer.codebook.weight_VC.isfinite().all()
    assert trainer.model.quantize(f_BChw).commitment_loss.item() < 0.95 * uniform
    expected_VC = trainer.codebook.weight_VC.double() * trainer.codebook.count_V[:, None]
    torch.testing.assert_close(trainer.codebook.sum_VC, expected_VC)


def set_dead(codes, dead, share=0.029):
    """Set the counts of some codes to a share of the mean; return a mask of them."""
    mean = codes.count_V.mean()
    codes.count_V[dead] = share * mean
    codes.sum_VC[dead] = 0.5
    codes.count_V[0] += (1 - share) * mean * len(dead)
    return torch.tensor([v in dead for v in range(V)])


def test_dead_codes_become_vectors_of_the_step_and_stay_there():
    codes, z_BLC = trainer_of().codebook, random_step(1).z_BLC
    dead_V = set_dead(codes, [2])
    mean, alive_VC = codes.count_V.mean().item(), codes.weight_VC[~dead_V].clone()
    assert torch.equal(codes.restart_dead_codes(9, z_BLC), dead_V)
    restarted_C = codes.weight_VC[2].detach().clone()
    assert (z_BLC == restarted_C).all(2).any()
    assert torch.equal(codes.weight_VC[~dead_V], alive_VC)
    assert codes.count_V[2] == pytest.approx(mean)
    assert torch.equal(codes.sum_VC[2], restarted_C.double() * codes.count_V[2])
    assert not codes.restart_dead_codes(19, z_BLC).any()
    codes.ema_update(10, codes.sums(random_step(2, vocab_size=2)))  # which does not use it
    torch.testing.assert_close(codes.weight_VC[2], restarted_C, atol=1e-5, rtol=1e-5)


def test_a_code_used_a_little_is_not_dead():
    codes = trainer_of().codebook
    set_dead(codes, [2], share=0.031)
    assert not codes.restart_dead_codes(9, random_step(1).z_BLC).any()


@pytest.mark.parametrize(
    ("every", "step", "restarts"),
    [
        (10, 9, True),
        (10, 8, False),
        (10, 10, False),
        (1, 0, True),
        (10, 79, True),  # the 80th of 100
        (10, 89, False),
        (1, 80, False),
        (1, 99, False),
        (0, 9, False),
    ],
)
def test_codes_are_restarted_every_few_steps_but_not_in_the_last_fifth(every, step, restarts):
    codes = trainer_of(revive_every=every).codebook
    dead_V = set_dead(codes, [1, 4])
    before_VC = codes.weight_VC.detach().clone()
    restarted_V = codes.restart_dead_codes(step, random_step(1).z_BLC)
    assert torch.equal(restarted_V, dead_V & restarts)
    assert torch.equal(codes.weight_VC[~restarted_V], before_VC[~restarted_V])


@pytest.mark.parametrize(("steps", "restarted"), [(30, 4), (60, 0)])
def test_a_short_training_restarts_codes_after_a_third_of_its_steps(steps, restarted):
    """Not after the 115 in which the counts that codes begin with fade to a dead code's."""
    codes = trainer_of(steps=steps, codebook_decay=0.97).codebook
    update(codes, [random_step(seed, vocab_size=3) for seed in range(10)])
    z_BLC = random_step(99).z_BLC
    assert codes.restart_dead_codes(9, z_BLC).sum() == restarted
    assert not codes.restart_dead_codes(9, z_BLC).any()  # what is restarted has time again


def test_the_optimizer_forgets_restarted_codes():
    trainer = trainer_of(codebook="gradient", revive_every=2, steps=1000, warmup=0)
    pictures = torch.randint(256, (IMAGES, 3, 16, 16), generator=torch.manual_seed(6)).byte()
    trainer.step([pictures])
    with_zero = [1, 5]
    state = trainer.optimizer.state[trainer.codebook.weight_VC]
    for name in ("exp_avg", "exp_avg_sq"):
        state[name].fill_(1.0)
    trainer.codebook.count_V[:] = 9.0
    trainer.codebook.count_V[with_zero] = -1e3  # dead, whatever the next step uses
    assert trainer.step([pictures]).read()["revived"] == 2
    for name in ("exp_avg", "exp_avg_sq"):
        forgotten_V = (state[name] == 0).all(1)
        assert forgotten_V.nonzero().flatten().tolist() == with_zero


def test_usage_is_of_the_last_hundred_steps():
    codes = trainer_of().codebook
    assert codes.usage(0) == 0
    codes.ema_update(0, codes.sums(random_step(0)))
    assert codes.usage(0) == codes.usage(99) == 1
    assert codes.usage(100) == 0
    codes.ema_update(100, codes.sums(random_step(1, vocab_size=2)))
    assert codes.usage(100) == codes.usage(199)
    assert codes.usage(100).item() == pytest.approx(2 / V)
    assert codes.usage(200) == 0


def test_hits_of_each_scale_are_averaged_faster_at_first():
    codes = trainer_of().codebook
    expected_SV = torch.zeros(3, V, dtype=torch.float64)
    for step in range(103):
        made = random_step(step)
        codes.ema_update(step, codes.sums(made))
        hit_SV = torch.stack(
            [torch.bincount(idx.flatten(), minlength=V) for idx in made.idx_BL.split([1, 4, 16], 1)]
        )
        kept = 0 if step == 0 else 0.9 if step < 100 else 0.99
        expected_SV = kept * expected_SV + (1 - kept) * hit_SV
    hits_SV = codes.quantiser.ema_vocab_hit_SV
    torch.testing.assert_close(hits_SV.double(), expected_SV, atol=1e-4, rtol=1e-5)
