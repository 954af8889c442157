"""k-means, which initialises codebooks."""

import torch
from torch import Tensor

from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Codebook

LLOYD_ITERATIONS = 10


def kmeans(
    z_NC: Tensor, codes_VC: Tensor, generator: torch.Generator, iterations: int = LLOYD_ITERATIONS
) -> Tensor:
    """Cluster vectors by Lloyd's iterations; an empty cluster's centre moves to a random vector.

    Args:
        z_NC: the vectors, N at least 1; with fewer than V some centres are equal.
        codes_VC: the initial centres, on the same device.
        generator: a CPU generator, which draws the vectors that replace empty clusters.
        iterations: the number of iterations.

    Returns:
        The centres, (V, C), in the vectors' dtype.
    """
    V = len(codes_VC)
    for _ in range(iterations):
        idx_N = assign(z_NC[None], Codebook(codes_VC, "l2"), ()).idx_Bl[0]
        count_V, sum_VC = cluster_sums(z_NC, idx_N, V)
        drawn_V = torch.randint(len(z_NC), (V,), generator=generator).to(z_NC.device)
        used_V1 = count_V[:, None] > 0
        codes_VC = torch.where(used_V1, sum_VC / count_V[:, None], z_NC[drawn_V].double()).to(z_NC.dtype)
    return codes_VC


def cluster_sums(z_NC: Tensor, idx_N: Tensor, V: int) -> tuple[Tensor, Tensor]:
    """Count and sum the vectors that each code is nearest to, both float64: (V,) and (V, C)."""
    count_V = code_counts(idx_N, V).double()
    sum_VC = z_NC.new_zeros((V, z_NC.shape[1]), dtype=torch.float64)
    return count_V, sum_VC.index_add_(0, idx_N, z_NC.double())


def code_counts(idx_N: Tensor, V: int) -> Tensor:
    """Count the tokens of each code, int64 (V,); unlike torch.bincount, a GPU does not wait for it."""
    return idx_N.new_zeros(V).index_add_(0, idx_N, torch.ones_like(idx_N))
