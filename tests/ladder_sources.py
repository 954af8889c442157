"""Sources of tokens whose irreducible loss is known in closed form."""

import numpy as np

from entropy_cli.entropy.ladder.contexts import Layout
from entropy_cli.entropy.ladder.rungs import Tokens

CLASSES = 10


def power_law(codes, exponent):
    """(k + 3.7)^exponent, normalised."""
    p = (np.arange(codes) + 3.7) ** exponent
    return p / p.sum()


def parent_rows(side, coarser):
    """The row of a coarser grid under the middle of each row."""
    return np.floor((np.arange(side) + 0.5) * coarser / side).astype(int)


def tokens_of(idx_ML, sides, codes, context, *, class_M=None, seed=0):
    """Tokens of M images whose groups are drawn."""
    layout = Layout([side * side for side in sides], sides)
    group_M = np.random.default_rng(seed + 99).integers(32, size=len(idx_ML))
    return Tokens(idx_ML.astype(np.int64), layout, codes, group_M, class_M, context)


def iid(rng, M, *, codes=256, sides=(1, 2, 4, 8)):
    L = sum(side * side for side in sides)
    return rng.choice(codes, (M, L), p=power_law(codes, -0.8)), sides, codes, "var", None


def iid_small(rng, M):
    return iid(rng, M, codes=16, sides=(2, 4))


def markov(rng, M):
    """Rows are chains: with probability .5 the next code is one more, else it is uniform."""
    grid = rng.integers(64, size=(M, 8, 8))
    for column in range(1, 8):
        follows = rng.random((M, 8)) < 0.5
        grid[:, :, column] = np.where(follows, (grid[:, :, column - 1] + 1) % 64, grid[:, :, column])
    return grid.reshape(M, -1), (8,), 64, "raster", None


def two_scale(rng, M):
    """With probability .4 a token is a permutation of its parent's code."""
    permuted = np.random.default_rng(5).permutation(256)
    coarse = rng.choice(256, (M, 4, 4), p=power_law(256, -0.8))
    fine = rng.choice(256, (M, 8, 8), p=power_law(256, -0.8))
    row = parent_rows(8, 4)
    fine = np.where(rng.random(fine.shape) < 0.4, permuted[coarse[:, row[:, None], row]], fine)
    return np.concatenate([coarse.reshape(M, -1), fine.reshape(M, -1)], 1), (4, 8), 256, "var", None


def position(rng, M):
    """Each place has its own order of the codes."""
    columns = [rng.permutation(128)[rng.choice(128, M, p=power_law(128, -1))] for _ in range(36)]
    return np.stack(columns, 1), (6,), 128, "none", None


def of_classes(rng, M):
    """Each class has its own order of the codes."""
    class_M = rng.integers(CLASSES, size=M)
    permuted = np.stack([rng.permutation(256) for _ in range(CLASSES)])
    idx_ML = permuted[class_M[:, None], rng.choice(256, (M, 21), p=power_law(256, -1))]
    return idx_ML, (1, 2, 4), 256, "var", class_M


def xor(rng, M):
    """A token is the sum of its parent, that one's right neighbour, and noise: pairs say nothing."""
    coarse = rng.integers(32, size=(M, 3, 3))
    row = parent_rows(6, 3)
    both = coarse + np.roll(coarse, -1, 2)
    fine = (both[:, row[:, None], row] + rng.integers(4, size=(M, 6, 6))) % 32
    return np.concatenate([coarse.reshape(M, -1), fine.reshape(M, -1)], 1), (3, 6), 32, "var", None


SOURCES = {
    "iid": iid,
    "iid_small": iid_small,
    "markov": markov,
    "two_scale": two_scale,
    "position": position,
    "class": of_classes,
    "xor": xor,
}


def draw(name, images, seed):
    """Tokens of a source."""
    idx_ML, sides, codes, context, class_M = SOURCES[name](np.random.default_rng(seed), images)
    return tokens_of(idx_ML, sides, codes, context, class_M=class_M, seed=seed)
