"""The quantities of given latents, computed in float64 from their definitions, code by code."""

import numpy as np

from entropy_cli.entropy.sums import SumsLayout
from entropy_cli.entropy.tally import Tally
from entropy_cli.entropy.vocabulary import Vocabulary

LEVELS = (4, 3, 2)


def codes_of(rule, *, dims=None, levels=LEVELS):
    """All codes of a product, in the order of their numbers."""
    if rule == "levels":
        coordinates = [np.arange(n) - n // 2 for n in levels]
    else:
        half = 1 if rule == "sign" else dims**-0.5
        coordinates = [np.array([-half, half])] * dims
    order = coordinates if rule == "bsq" else coordinates[::-1]
    grids = np.meshgrid(*order, indexing="ij")
    code_VC = np.stack([grid.ravel() for grid in grids], 1).astype(float)
    return code_VC if rule == "bsq" else code_VC[:, ::-1]


def reference(z_MlC, code_VC, rule, temperature):
    """Plug-in quantities and hard tokens idx_Ml."""
    z_NC = np.asarray(z_MlC, np.float64).reshape(-1, code_VC.shape[1])
    code_VC = np.asarray(code_VC, np.float64)
    if rule in ("cosine", "bsq"):
        z_NC = z_NC / np.linalg.norm(z_NC, axis=1, keepdims=True)
    if rule == "cosine":
        code_VC = code_VC / np.linalg.norm(code_VC, axis=1, keepdims=True)
    if rule == "dot":
        logit_NV = z_NC @ code_VC.T
    else:
        logit_NV = -np.stack([((z_NC - code) ** 2).sum(1) for code in code_VC], 1)
    x_NV = logit_NV / temperature
    x_NV = x_NV - x_NV.max(1, keepdims=True)
    log_q_NV = x_NV - np.log(np.exp(x_NV).sum(1, keepdims=True))
    q_NV = np.exp(log_q_NV)
    entropy_N = -(q_NV * log_q_NV).sum(1)
    idx_N = logit_NV.argmax(1)
    counts_V = np.bincount(idx_N, minlength=len(code_VC))
    return {
        "assignment_entropy": entropy_N.mean(),
        "varentropy": ((q_NV * log_q_NV**2).sum(1) - entropy_N**2).mean(),
        "marginal_entropy": entropy(q_NV.mean(0)),
        "unigram_entropy": entropy(counts_V / counts_V.sum()),
        "counts": counts_V.tolist(),
        "idx": idx_N.reshape(len(z_MlC), -1),
    }


def entropy(p_V):
    p_V = p_V[p_V > 0]
    return -(p_V * np.log(p_V)).sum()


def empty_tally(groups, tokens_S, temperatures, codes):
    """A tally of scales that all have the same number of codes."""
    vocabularies = (Vocabulary(codes),) * len(tokens_S)
    return Tally.zeros(SumsLayout(groups, tuple(tokens_S), vocabularies, temperatures))
