"""The codebook in training: k-means initialization, moving averages, and restarts of dead codes.

Every process sees the sums over all processes and draws the same random numbers, so codes stay equal.

Source:
    van den Oord et al., Neural Discrete Representation Learning, arXiv:1711.00937, appendix A.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from entropy_cli.commands.train.recipe import RESTART_UNTIL, Recipe
from entropy_cli.entropy.kmeans import cluster_sums, kmeans
from entropy_cli.streaming.device import to_device
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.vqvae import Quantised, Quantiser

LAPLACE = 1e-5  # tokens added to each code's average count
DEAD_SHARE = 0.03  # of the mean count, below which a code is dead
LEFT_OUT_AFTER = 1 / 3  # of the steps: the equal counts that codes begin with
RECENT_STEPS = 100  # in which a code counts as used
KMEANS_ROUNDS = 2
VECTORS_PER_CODE = 32  # for k-means
# As VAR, which counts every scale of a step as one: its first hits weigh a tenth in all scales but one.
FIRST_HITS, HITS_DECAY = 100, (0.9, 0.99)  # VAR's counts per scale: first steps, and their decays


class TrainingCodebook:
    """The codebook of a quantiser in training.

    Attributes:
        count_V, sum_VC: moving averages of the number of tokens per step assigned to each code, and of
            the sum of their vectors.
        last_V: the last step in which each code was used.
    """

    def __init__(self, quantiser: Quantiser, recipe: Recipe, ranks: Ranks) -> None:
        self.quantiser, self.recipe, self.ranks = quantiser, recipe, ranks
        self.weight_VC = quantiser.embedding.weight
        self.weight_VC.requires_grad = recipe.codebook == "gradient"
        V = recipe.vocab_size
        self.first_count = recipe.batch_size * sum(quantiser.tokens) / V  # the mean of a step
        device = self.weight_VC.device
        self.count_V = torch.full((V,), self.first_count, dtype=torch.float64, device=device)
        self.last_V = torch.full_like(self.count_V, -RECENT_STEPS, dtype=torch.int64)
        self.sum_VC = self._sums_at(self.weight_VC)

    @torch.no_grad()
    def init_kmeans(self, f_BChw: Tensor) -> None:
        """Initialize codes by k-means of these latents' residuals at all scales, equal in all processes.

        In the first round, each scale is quantised without error; in the second, with the codes of the
        first round.
        """
        generator, V = self._generator(0), self.recipe.vocab_size
        for i in range(KMEANS_ROUNDS):
            scales = self.quantiser.scales(f_BChw, self._lookup() if i else lambda z_BlC: z_BlC)
            z_BLC = torch.cat([z_BlC for z_BlC, _ in scales], 1)
            vectors = z_BLC[..., 0].numel() * self.ranks.world
            z_NC = self._sample(z_BLC, min(VECTORS_PER_CODE * V, vectors), generator)
            first_VC = self._sample(z_BLC, V, generator)
            codes_VC = kmeans(z_NC, self.weight_VC if i else first_VC, generator)
            self.weight_VC.copy_(self.ranks.broadcast(codes_VC))
        self.sum_VC = self._sums_at(self.weight_VC)

    def _lookup(self) -> Callable[[Tensor], Tensor]:
        nearest, embedding = self.quantiser.nearest(), self.quantiser.embedding
        return lambda z_BlC: embedding(nearest(z_BlC))

    def sums(self, quantised: Quantised) -> Tensor:
        """Return counts by scale and vector sums of a step in one float64 tensor, (S * V + V * C,)."""
        z_NC, idx_N = quantised.z_BLC.flatten(0, 1), quantised.idx_BL.flatten()
        _, sum_VC = cluster_sums(z_NC, idx_N, self.recipe.vocab_size)
        count_SV = self.quantiser.counts(quantised.idx_BL)
        return torch.cat([count_SV.double().flatten(), sum_VC.flatten()])

    @torch.no_grad()
    def ema_update(self, step: int, sums: Tensor) -> None:
        """Update the moving averages, and codes in mode "ema", with a step's sums over all processes."""
        S, V = self.quantiser.ema_vocab_hit_SV.shape
        count_SV, sum_VC = sums[: S * V].view(S, V), sums[S * V :].view(V, -1)
        count_V = count_SV.sum(0)
        self.last_V.masked_fill_(count_V > 0, step)
        self._record_hits(step, count_SV)
        self.count_V.lerp_(count_V, 1 - self.recipe.codebook_decay)
        self.sum_VC.lerp_(sum_VC, 1 - self.recipe.codebook_decay)
        if self.recipe.codebook == "ema":
            total, V = self.count_V.sum(), len(self.count_V)
            smooth_V = (self.count_V + LAPLACE) / (total + V * LAPLACE) * total
            self.weight_VC.copy_(self.sum_VC / smooth_V[:, None])

    @torch.no_grad()
    def restart_dead_codes(self, step: int, z_BLC: Tensor) -> Tensor:
        """Replace dead codes by random vectors of this step; return a mask of them, bool (V,)."""
        every, steps = self.recipe.revive_every, self.recipe.steps
        dead_V, mean = self._dead_codes(step + 1), self.count_V.mean()
        if not every or (step + 1) % every or step + 1 > RESTART_UNTIL * steps:
            return torch.zeros_like(dead_V)
        # As many as there are codes: how many of them are dead, a GPU would have to be asked.
        z_VC = self._sample(z_BLC, len(dead_V), self._generator(step + 1))
        z_VC, dead_V1 = z_VC[(dead_V.cumsum(0) - 1).clamp_(min=0)], dead_V[:, None]
        self.weight_VC.copy_(torch.where(dead_V1, z_VC, self.weight_VC))
        # The averages too, or the next update would restore the dead code.
        self.count_V.copy_(torch.where(dead_V, mean, self.count_V))
        self.sum_VC.copy_(torch.where(dead_V1, z_VC.double() * mean, self.sum_VC))
        return dead_V

    def _dead_codes(self, steps: int) -> Tensor:
        """Return a mask of the codes that hardly any vector was nearest to, after some steps.

        No code is dead while the equal counts that it began with last; they fade by the decay, but after
        a third of the training they are left out, so that a short one can restart codes too.
        """
        decay, count_V = self.recipe.codebook_decay, self.count_V
        if decay**steps > DEAD_SHARE and steps >= LEFT_OUT_AFTER * self.recipe.steps:
            count_V = count_V - decay**steps * self.first_count
        return count_V < DEAD_SHARE * count_V.mean()

    def usage(self, step: int) -> Tensor:
        """Return the share of the codes used in the last RECENT_STEPS steps, 0-d float64."""
        return (self.last_V > step - RECENT_STEPS).double().mean()

    def state(self) -> dict[str, Tensor]:
        """Return the moving averages, to resume from."""
        return {"count_V": self.count_V, "sum_VC": self.sum_VC, "last_V": self.last_V}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Load the moving averages."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def _record_hits(self, step: int, count_SV: Tensor) -> None:
        hits_SV = self.quantiser.ema_vocab_hit_SV
        decay = 0.0 if step == 0 else HITS_DECAY[step >= FIRST_HITS]
        hits_SV.lerp_(count_SV.to(hits_SV.dtype), 1 - decay)

    def _sums_at(self, codes_VC: Tensor) -> Tensor:
        return codes_VC.detach().double() * self.count_V[:, None]

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.recipe.seed << 32) + number)

    def _sample(self, z_BLC: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw vectors from all processes' batches, without replacement while they last, (n, C)."""
        B, L, C = z_BLC.shape
        z_NC, total = z_BLC.reshape(B * L, C), B * L * self.ranks.world
        orders = [torch.randperm(total, generator=generator) for _ in range(0, n, total)]
        place_n = torch.cat([*orders, torch.empty(0, dtype=torch.int64)])[:n]
        # In the order of the images: each process holds a share of each micro-batch.
        size = self.recipe.batch_size // self.recipe.grad_accum_steps // self.ranks.world * L
        share_n, within_n = place_n // size, place_n % size
        mine_m = (share_n % self.ranks.world == self.ranks.rank).nonzero()[:, 0]
        row_m = (share_n // self.ranks.world * size + within_n)[mine_m]
        sample_nC, device = z_NC.new_zeros(n, C), z_NC.device
        sample_nC.index_copy_(0, to_device(mine_m, device), z_NC[to_device(row_m, device)])
        return self.ranks.all_reduce(sample_nC)
