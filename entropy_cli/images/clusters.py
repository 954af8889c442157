"""Group images that are alike: jackknife groups that keep them together, and classes from folders."""

from collections.abc import Sequence

import numpy as np

from entropy_cli.entropy.quantity import Cluster
from entropy_cli.images.image_set import cluster_key, group_of

LEAST_TOKENS = 16  # of fewer tokens most agree by chance
DEVIATIONS = 6  # standard deviations of the share that two images have in common
TRIES, PLACES = 16, 8


def groups(names: Sequence[str], same_M: np.ndarray, cluster: Cluster, seed: int) -> np.ndarray:
    """Return the jackknife group of each image, by the hash of its path or folder.

    Args:
        names: relative paths of the M images.
        same_M: for each image the index of the first one that equals it; they share a group, and so do
            their folders with "folder".
        cluster: what is never split.
        seed: of the hash.

    Returns:
        int64 in [0, 32), (M,).
    """
    keys = [cluster_key(name, cluster) for name in names]
    first: dict[str, int] = {}
    parent = [first.setdefault(key, i) for i, key in enumerate(keys)]

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, same in enumerate(same_M.tolist()):
        low, high = sorted((root(i), root(same)))
        parent[high] = low
    by_key = {i: group_of(keys[i], seed) for i in {root(i) for i in range(len(names))}}
    return np.array([by_key[root(i)] for i in range(len(names))], np.int64)


def first_equal(row_ML: np.ndarray) -> np.ndarray:
    """Return for each row the index of the first row that equals it, int64 (M,)."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(row_L.tobytes(), i) for i, row_L in enumerate(row_ML)], np.int64)


def near_equal(idx_Ml: np.ndarray, seed: int) -> int:
    """Return how many of M different images have most tokens in common with another.

    Most is more than halfway from the share that any two images have in common to all of them, and far
    beyond chance. Pairs are looked for among neighbours in the order of the codes at some places that
    are drawn at random, several times.
    """
    M, tokens = idx_Ml.shape
    if tokens < LEAST_TOKENS:
        return 0
    rng = np.random.default_rng(seed)
    common = (idx_Ml[1:] == idx_Ml[:-1]).mean(1)
    most = max((1 + common.mean()) / 2, common.mean() + DEVIATIONS * common.std())
    is_near_M = np.zeros(M, bool)
    for _ in range(TRIES):
        order_M = np.lexsort(idx_Ml[:, rng.choice(tokens, PLACES, replace=False)].T)
        near = (idx_Ml[order_M[1:]] == idx_Ml[order_M[:-1]]).mean(1) > most
        is_near_M[order_M[1:][near]] = is_near_M[order_M[:-1][near]] = True
    return int(is_near_M.sum())


def classes(names: Sequence[str]) -> np.ndarray | None:
    """Return the number of each image's folder, int64 (M,).

    None if there is one folder, or if half of them have fewer than two images.
    """
    number: dict[str, int] = {}
    class_M = np.array(
        [number.setdefault(cluster_key(name, "folder"), len(number)) for name in names], np.int64
    )
    is_useful = len(number) > 1 and np.median(np.bincount(class_M)) >= 2
    return class_M if is_useful else None
