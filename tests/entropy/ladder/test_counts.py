"""Predictions from counts: exact vectors, plain dictionaries, sums to 1, no leak of a fold."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from entropy_cli.entropy.ladder.contexts import Features, Layout, parents
from entropy_cli.entropy.ladder.discounting import discounted
from entropy_cli.entropy.ladder.lower_bounds import ALMOST_SURE, collision_floor, memorisation
from entropy_cli.entropy.ladder.mixture import fit_weights


@pytest.fixture(scope="module")
def vectors(shared):
    content = json.loads((shared / "design" / "ladder_vectors.json").read_text())
    return {vector["id"]: vector for vector in content["vectors"]}


def slices(fold_N):
    """Where each fold is among sorted tokens."""
    edges = np.searchsorted(fold_N, range(fold_N[-1] + 2)).tolist()
    return [slice(*edge) for edge in pairwise(edges)]


def by_dictionaries(code_N, context_N, below_N, fold_N):
    """The same probabilities, a token at a time."""
    p_N = []
    for i, fold in enumerate(fold_N):
        others = Counter((context_N[j], code_N[j]) for j in np.flatnonzero(fold_N != fold))
        once, twice = (sum(count == n for count in others.values()) for n in (1, 2))
        d = min(0.99, max(0.01, once / (once + 2 * twice))) if once + twice else 0.5
        in_context = defaultdict(int)
        for (context, code), count in others.items():
            if context == context_N[i]:
                in_context[code] += count
        total = sum(in_context.values())
        if not total:
            p_N.append(below_N[i])
            continue
        kept = max(in_context.get(code_N[i], 0) - d, 0) + d * len(in_context) * below_N[i]
        p_N.append(kept / total)
    return np.array(p_N)


def test_published_vectors(vectors):
    tokens, fold, expected = (
        np.array(vectors["discount_left"]["input"][key]) for key in ("tokens", "fold", "context")
    )
    order = np.argsort(fold, kind="stable")
    code_N, context_N = tokens[order].reshape(-1), expected[order].reshape(-1)
    folds = slices(np.repeat(fold[order], tokens.shape[1]))
    uniform_N = np.full(len(code_N), 1 / 5)
    unigram_N = discounted(code_N, np.zeros_like(code_N), uniform_N, folds)
    left_N = discounted(code_N, context_N, unigram_N, folds)
    for name, p_N in (("discount_unigram", unigram_N), ("discount_left", left_N)):
        found = p_N.reshape(tokens.shape)[np.argsort(order)]
        assert found.reshape(-1) == pytest.approx(vectors[name]["expected"]["p"], abs=1e-12)
    p_NJ = np.array(vectors["mixture_em"]["input"]["P"])
    best = vectors["mixture_em"]["expected"]
    assert fit_weights(p_NJ) == pytest.approx(best["w"], abs=0.002)
    assert -np.log(p_NJ @ fit_weights(p_NJ)).mean() == pytest.approx(best["nats"], abs=1e-5)
    for sides, rows in vectors["parents"]["expected"].items():
        side, coarser = map(int, sides.split("<-"))
        assert [rows["parent"], rows["neighbour"]] == [row.tolist() for row in parents(side, coarser)]


def test_collision_floor_and_memorisation(vectors):
    expected = vectors["collision_floor"]["expected"]
    assert expected["x"] == pytest.approx(ALMOST_SURE, abs=1e-12)
    for name, floor in expected.items():
        if name != "x":
            images, tokens = (int(part.split("=")[1]) for part in name.split())
            assert collision_floor(images) == pytest.approx(floor["nats_per_image"], abs=1e-9)
            assert collision_floor(images) / tokens == pytest.approx(floor["nats_per_token"], abs=1e-9)
    assert (1 + ALMOST_SURE) * np.exp(-ALMOST_SURE) == pytest.approx(0.05, abs=1e-12)
    imagenet = memorisation(1_281_167, 680, 4096)
    assert [memorisation(images, 5, 256).cliff_token for images in (1, 256, 257, 2**40)] == [0, 1, 2, 5]
    assert imagenet.least_loss == pytest.approx(0.0207, abs=5e-5) and imagenet.cliff_token == 2


@pytest.mark.parametrize(("codes", "contexts"), [(7, 3), (50, 400)], ids=["table", "sort"])
def test_a_level_equals_plain_dictionaries(codes, contexts):
    rng = np.random.default_rng(0)
    code_N, context_N = rng.integers(codes, size=300), rng.integers(contexts, size=300)
    below_N, fold_N = rng.random(300), np.sort(rng.integers(4, size=300))
    expected = by_dictionaries(code_N, context_N, below_N, fold_N)
    found = discounted(code_N, context_N, below_N, slices(fold_N))
    assert found == pytest.approx(expected, abs=1e-14)
    # A fold's probabilities don't depend on its other tokens.
    changed_N = code_N.copy()
    changed_N[1 : slices(fold_N)[0].stop] = codes - 1
    again = discounted(changed_N, context_N, below_N, slices(fold_N))
    assert again[0] == found[0] and not np.allclose(again[-50:], found[-50:])


@pytest.mark.parametrize("contexts", [3, 200], ids=["table", "sort"])
def test_probabilities_of_all_codes_sum_to_1(contexts):
    V, rng = 40, np.random.default_rng(1)
    asked_N = np.tile(np.arange(V), 3)  # the first fold has every code once in each of three contexts
    code_N = np.concatenate([asked_N, rng.choice(V // 2, size=900)])
    context_N = np.concatenate([np.repeat([0, 1, contexts - 1], V), rng.integers(contexts, size=900)])
    folds = [slice(0, 3 * V), slice(3 * V, 3 * V + 900)]
    unigram_N = discounted(code_N, 0 * code_N, np.full(len(code_N), 1 / V), folds)
    p_N = discounted(code_N, context_N, unigram_N, folds)
    for level_N in (unigram_N, p_N):
        sums = level_N[: 3 * V].reshape(3, V).sum(1)
        assert sums == pytest.approx(np.ones(3), abs=1e-12)
    assert (p_N > 0).all()


def test_features_are_the_codes_around_a_token():
    rng = np.random.default_rng(2)
    idx_ML = rng.integers(9, size=(3, 4 + 25 + 25))
    layout = Layout((4, 25, 25), (2, 5, 5))
    fine = Features(idx_ML, layout, 1, "var", None)
    near, beside = parents(5, 2)
    coarse = idx_ML[:, :4].reshape(3, 2, 2)
    before = Features(idx_ML, layout, 2, "depth", None)
    grid, depth = (idx_ML[:, part].reshape(3, 5, 5) for part in (slice(29, 54), slice(4, 29)))
    for m, y, x in np.ndindex(3, 5, 5):
        at = m * 25 + y * 5 + x
        assert fine.feature_N("parent")[at] == coarse[m, near[y], near[x]]
        assert fine.feature_N("parent beside")[at] == coarse[m, near[y], beside[x]]
        assert fine.feature_N("parent above or below")[at] == coarse[m, beside[y], near[x]]
        assert before.feature_N("left")[at] == (grid[m, y, x - 1] + 1 if x else 0)
        assert before.feature_N("up")[at] == (grid[m, y - 1, x] + 1 if y else 0)
        assert before.feature_N("up left")[at] == (grid[m, y - 1, x - 1] + 1 if x and y else 0)
        up_right = grid[m, y - 1, x + 1] + 1 if y and x < 4 else 0
        assert before.feature_N("up right")[at] == up_right
        assert before.feature_N("depth before")[at] == depth[m, y, x]
    assert "grandparent" not in fine.names() and "two depths before" in before.names()
