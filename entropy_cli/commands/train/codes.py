"""The codes of a tokenizer in training: where they begin, what they follow, which come to life again.

Every process sees the sums over all of them and draws the same numbers, so that their codes stay equal.

Source:
    van den Oord et al., Neural Discrete Representation Learning, arXiv:1711.00937, appendix A.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from entropy_cli.commands.train.recipe import UNTIL_REVIVAL_ENDS, Recipe
from entropy_cli.entropy.kmeans import cluster_sums, kmeans
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.tokenizers.layers.vqvae import Quantised, Quantiser

LAPLACE = 1e-5  # tokens added to each code's average count
DEAD = 0.03  # of the mean count
RECENT = 100  # steps in which a code counts as used
KMEANS_ROUNDS = 2
VECTORS_PER_CODE = 32  # that k-means sees
# VAR's, which counts every scale of a step as one: its first hits weigh a tenth in all scales but one.
FIRST_HITS, HITS_DECAY = 100, (0.9, 0.99)  # of VAR's counts per scale: of the first steps, and later


class Codes:
    """The codebook of a quantiser, and the moving averages that go with it.

    Attributes:
        count_V: average number of tokens of a step that a code is nearest to.
        sum_VC: average sum of their vectors.
        last_V: the last step in which a code was used.
    """

    def __init__(self, quantiser: Quantiser, recipe: Recipe, ranks: Ranks) -> None:
        self.quantiser, self.recipe, self.ranks = quantiser, recipe, ranks
        self.weight_VC = quantiser.embedding.weight
        self.weight_VC.requires_grad = recipe.codebook == "gradient"
        V = recipe.vocab_size
        tokens = recipe.batch_size * sum(quantiser.tokens)  # of a step
        count_V = torch.full((V,), tokens / V, dtype=torch.float64)
        self.count_V = count_V.to(self.weight_VC.device)
        self.last_V = torch.full_like(self.count_V, -RECENT, dtype=torch.int64)
        self.sum_VC = self._sum_of(self.weight_VC)

    @torch.no_grad()
    def init_kmeans(self, f_BChw: Tensor) -> None:
        """k-means of the residuals of these latents over all scales, the same in all processes.

        At first each scale's residual is what is left if the earlier scales' vectors were codes; then
        what those codes leave.
        """
        generator, V = self._generator(0), self.recipe.vocab_size
        for begun in range(KMEANS_ROUNDS):
            steps = self.quantiser.scales(f_BChw, self._lookup() if begun else lambda z_BlC: z_BlC)
            z_BLC = torch.cat([z_BlC for z_BlC, _ in steps], 1)
            vectors = z_BLC[..., 0].numel() * self.ranks.world
            z_NC = self._drawn(z_BLC, min(VECTORS_PER_CODE * V, vectors), generator)
            first_VC = self._drawn(z_BLC, V, generator)
            codes_VC = kmeans(z_NC, self.weight_VC if begun else first_VC, generator)
            self.weight_VC.copy_(self.ranks.broadcast(codes_VC))
        self.sum_VC = self._sum_of(self.weight_VC)

    def _lookup(self) -> Callable[[Tensor], Tensor]:
        nearest, embedding = self.quantiser.nearest(), self.quantiser.embedding
        return lambda z_BlC: embedding(nearest(z_BlC))

    def sums(self, quantised: Quantised) -> Tensor:
        """What processes add up after a step, in one tensor: counts by scale, and vectors."""
        z_NC, idx_N = quantised.z_BLC.flatten(0, 1), quantised.idx_BL.flatten()
        _, sum_VC = cluster_sums(z_NC, idx_N, self.recipe.vocab_size)
        count_SV = self.quantiser.counts(quantised.idx_BL)
        return torch.cat([count_SV.double().flatten(), sum_VC.flatten()])

    @torch.no_grad()
    def ema_update(self, step: int, sums: Tensor) -> None:
        """Move averages, and codes if they follow them, by the sums over all processes of a step."""
        S, V = self.quantiser.ema_vocab_hit_SV.shape
        count_SV, sum_VC = sums[: S * V].view(S, V), sums[S * V :].view(V, -1)
        count_V = count_SV.sum(0)
        self.last_V[count_V > 0] = step
        self._record_hits(step, count_SV)
        self.count_V.lerp_(count_V, 1 - self.recipe.codebook_decay)
        self.sum_VC.lerp_(sum_VC, 1 - self.recipe.codebook_decay)
        if self.recipe.codebook == "ema":
            total, V = self.count_V.sum(), len(self.count_V)
            smooth_V = (self.count_V + LAPLACE) / (total + V * LAPLACE) * total
            self.weight_VC.copy_(self.sum_VC / smooth_V[:, None])

    @torch.no_grad()
    def restart_dead_codes(self, step: int, z_BLC: Tensor) -> Tensor:
        """Put random vectors of this step in the place of dead codes; which those are, as bool (V,)."""
        every, steps = self.recipe.revive_every, self.recipe.steps
        mean = self.count_V.mean()
        dead_V = self.count_V < DEAD * mean
        if not every or (step + 1) % every or step + 1 > UNTIL_REVIVAL_ENDS * steps:
            return torch.zeros_like(dead_V)
        z_DC = self._drawn(z_BLC, int(dead_V.sum()), self._generator(step + 1))
        self.weight_VC[dead_V] = z_DC
        # The averages too, or the next step would put the code back where it was.
        self.count_V[dead_V] = mean
        self.sum_VC[dead_V] = z_DC.double() * mean
        return dead_V

    def usage(self, step: int) -> float:
        """Share of the codes used in the last steps."""
        return float((self.last_V > step - RECENT).double().mean())

    def state(self) -> dict[str, Tensor]:
        """To go on from."""
        return {"count_V": self.count_V, "sum_VC": self.sum_VC, "last_V": self.last_V}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from it."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def _record_hits(self, step: int, count_SV: Tensor) -> None:
        hits_SV = self.quantiser.ema_vocab_hit_SV
        decay = 0.0 if step == 0 else HITS_DECAY[step >= FIRST_HITS]
        hits_SV.lerp_(count_SV.to(hits_SV.dtype), 1 - decay)

    def _sum_of(self, codes_VC: Tensor) -> Tensor:
        return codes_VC.detach().double() * self.count_V[:, None]

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.recipe.seed << 32) + number)

    def _drawn(self, z_BLC: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
        """Random vectors among all processes', (wanted, C): each gives those that it has.

        None comes twice unless there are fewer.
        """
        B, L, C = z_BLC.shape
        z_NC, total = z_BLC.reshape(B * L, C), B * L * self.ranks.world
        orders = [torch.randperm(total, generator=generator) for _ in range(0, wanted, total)]
        place_n = torch.cat([*orders, torch.empty(0, dtype=torch.int64)])[:wanted].to(z_NC.device)
        # In the order of the pictures, of which each process has a share of each part of a batch.
        mine = self.recipe.batch_size // self.recipe.grad_accum_steps // self.ranks.world * L
        share_n, within_n = place_n // mine, place_n % mine
        here_n = share_n % self.ranks.world == self.ranks.rank
        found_nC = z_NC.new_zeros(wanted, C)
        found_nC[here_n] = z_NC[(share_n // self.ranks.world * mine + within_n)[here_n]]
        return self.ranks.all_reduce(found_nC)
