"""The promise of the 95 % intervals, by simulation on images drawn from known populations."""

import pytest
import torch

from entropy_cli.entropy.entropy import entropy
from entropy_cli.entropy.summary import summarise
from entropy_cli.entropy.sums import ImageSums
from entropy_cli.entropy.vocabulary import Vocabulary
from tests.conftest import torch_threads
from tests.reference import empty_tally

RUNS, POPULATIONS = 2000, 1  # the share of 2,000 runs that cover is known to 0.5 %
KINDS = 400  # of images in a population; tokens of one image are alike
ALL = ("assignment_entropy", "marginal_entropy", "mutual_information", "unigram_entropy", "varentropy")
MEANS = ("assignment_entropy", "varentropy")


@pytest.fixture
def one_thread():
    """Threads only get in each other's way on such small tensors."""
    with torch_threads(1):
        yield


def population(codes):
    """Law of the tokens of each kind of image, and the soft assignment of each token."""
    zipf_V = 1 / torch.arange(1, codes + 1)
    law = torch.distributions.Dirichlet(zipf_V / zipf_V.sum() * 0.7 * codes)
    soft_VV = 3 * torch.randn(codes, codes) + 2 * torch.randn(codes)
    return law.sample((KINDS,)).double(), torch.softmax(soft_VV.double(), 1)


def covered(codes, tokens, images, seed):
    """For each quantity, whether the interval of each run covers the truth; None where it has none."""
    torch.manual_seed(seed)
    law_KV, soft_VV = population(codes)
    entropy_V = entropy(soft_VV)
    varentropy_V = (soft_VV * (soft_VV.log() + entropy_V[:, None]).square()).sum(1)
    p_V = law_KV.mean(0)
    truth = {
        "assignment_entropy": (p_V @ entropy_V).item(),
        "varentropy": (p_V @ varentropy_V).item(),
        "marginal_entropy": entropy(p_V @ soft_VV).item(),
        "unigram_entropy": entropy(p_V).item(),
    }
    truth["mutual_information"] = truth["marginal_entropy"] - truth["assignment_entropy"]
    inside = {name: [] for name in truth}
    zeros_B = torch.zeros(images, dtype=torch.float64)
    for _ in range(RUNS):
        idx_Bl = torch.multinomial(law_KV[torch.randint(KINDS, (images,))], tokens, replacement=True)
        counts_BE = torch.zeros(images, codes, dtype=torch.int64)
        counts_BE.scatter_add_(1, idx_Bl, torch.ones_like(idx_Bl))
        sums = ImageSums(
            tokens=tokens,
            idx_Bl=idx_Bl,
            entropy_BT=entropy_V[idx_Bl].sum(1, keepdim=True),
            varentropy_BT=varentropy_V[idx_Bl].sum(1, keepdim=True),
            distance_BT=zeros_B[:, None],
            min_distance_B=zeros_B,
            soft_BTE=(counts_BE.double() @ soft_VV)[:, None],
        )
        tally = empty_tally(32, [tokens], 1, codes)
        tally.add(torch.randint(32, (images,)), [sums])  # groups of unequal size, some empty
        scale = summarise(tally, [Vocabulary(codes)]).scales[0]
        for name, value in truth.items():
            ci95 = scale[name].ci95
            inside[name].append(None if ci95 is None else ci95[0] <= value <= ci95[1])
    return inside


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "codes, tokens, images, names",
    [
        (16, 16, 4, MEANS),  # as few as there may be: corrected entropies need more
        (16, 16, 24, ALL),
        (32, 1, 400, ALL),
    ],
)
def test_intervals_cover_the_truth(codes, tokens, images, names):
    runs = [covered(codes, tokens, images, seed) for seed in range(POPULATIONS)]
    for name in names:
        given = [inside for run in runs for inside in run[name] if inside is not None]
        assert len(given) > 0.95 * RUNS * POPULATIONS, name
        assert sum(given) / len(given) == pytest.approx(0.95, abs=0.015), name
