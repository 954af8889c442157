"""Rungs on sources in closed form: above the truth, near it, and with limits that cover it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from entropy_cli.entropy.ladder.limits import bound_rungs
from entropy_cli.entropy.ladder.rungs import climb
from tests.ladder_sources import draw, iid_small, tokens_of

WITHIN = {
    "iid": 0.012,
    "iid_small": 0.015,
    "markov": 0.05,
    "two_scale": 0.11,
    "position": 0.09,
    "class": 0.16,
    "xor": 1.6,
}
TRUTH = {  # nats per token: unigram entropy, irreducible loss; at the images of the vectors
    "iid": (5.1278392403087985, 5.1278392403087985),
    "iid_small": (2.6914473861030003, 2.6914473861030003),
    "markov": (4.1588830833596715, 2.910556585292481),
    "two_scale": (5.241233146596117, 4.014150323259813),
    "position": (4.825293586145385, 4.333921874976165),
    "class": (5.416354944785716, 4.842709223692511),
    "xor": (3.4657359027997265, 1.8021826694558576),
}


def test_truths_are_the_published_ones(shared):
    content = json.loads((shared / "design" / "ladder_vectors.json").read_text())
    sources = next(vector for vector in content["vectors"] if vector["id"] == "sources")["expected"]
    for source in sources:
        truth = source["truth"]
        assert TRUTH[source["id"]] == pytest.approx((truth["unigram"], truth["irreducible"]), abs=1e-6)
        assert source["must"]["value_at_most"] == f"own truth + {WITHIN[source['id']]:g}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WITHIN)
def test_rungs_lie_above_the_truth_and_near_it(name, seed):
    tokens = draw(name, 400 if name == "iid_small" else 1000, seed)
    rungs = bound_rungs(climb(tokens), tokens)
    unigram, irreducible = TRUTH[name]
    means = {rung.id: rung.average.token_weighted for rung in rungs}
    for rung, mean in means.items():
        assert mean.value >= irreducible - 3 * mean.se, rung
    last = rungs[-1].average.token_weighted
    assert last.value <= irreducible + WITHIN[name]
    assert abs(means["unigram"].value - unigram) < 0.04
    for after in rungs[2:]:
        assert after.gain.value >= -0.0004, after.id  # useless contexts cost all but nothing
    assert ("class" in means) == (name == "class")


def test_upper_limits_cover():
    """Of 100 seeds at least 93 have the truth below the limit."""
    covered = 0
    for seed in range(100):
        tokens = draw("iid_small", 400, seed)
        *_, last = bound_rungs(climb(tokens), tokens)
        covered += last.average.token_weighted.upper95 >= TRUTH["iid_small"][1]
    assert covered >= 93


def test_limits_are_the_jackknife_of_images_losses():
    tokens = draw("two_scale", 300, 0)
    rung = climb(tokens)[-1]
    *_, result = bound_rungs([rung], tokens)
    mean_M = (rung.loss_MS / np.array([16, 64])) @ np.array([0.2, 0.8])
    groups = np.unique(tokens.group_M)
    pseudo = []
    for group in groups:
        own = tokens.group_M == group
        h = len(own) / own.sum()
        pseudo.append(h * mean_M.mean() - (h - 1) * mean_M[~own].mean())
    h_G = np.array([len(mean_M) / (tokens.group_M == group).sum() for group in groups])
    jackknifed = len(groups) * mean_M.mean() - sum(
        (1 - 1 / h) * mean_M[tokens.group_M != g].mean() for h, g in zip(h_G, groups, strict=True)
    )
    se = np.sqrt(np.mean((np.array(pseudo) - jackknifed) ** 2 / (h_G - 1)))
    bound = result.average.token_weighted
    assert bound.value == pytest.approx(mean_M.mean(), abs=1e-12)
    assert bound.se == pytest.approx(se, rel=1e-9)
    assert bound.upper95 == pytest.approx(bound.value + 1.6955 * se, rel=1e-4)  # t, 31 degrees
    *_, result = bound_rungs([rung], replace(tokens, cluster="folder"))
    deleted_G = [mean_M[tokens.group_M != group].mean() for group in groups]
    of_folders = np.sqrt((len(groups) - 1) * np.var(deleted_G))
    assert result.average.token_weighted.se == pytest.approx(of_folders, rel=1e-9)
    assert of_folders != pytest.approx(se, rel=1e-3)


def test_relabelled_codes_change_nothing():
    tokens = draw("two_scale", 300, 1)
    permuted = np.random.default_rng(3).permutation(256)
    again = replace(tokens, idx_ML=permuted[tokens.idx_ML])
    for before, after in zip(climb(tokens), climb(again), strict=True):
        assert after.loss_MS == pytest.approx(before.loss_MS, abs=1e-6)


def test_the_order_of_images_changes_nothing_but_the_sample():
    tokens = draw("two_scale", 300, 1)  # all tokens of a scale are fewer than are sampled
    order = np.random.default_rng(4).permutation(300)
    again = replace(tokens, idx_ML=tokens.idx_ML[order], group_M=tokens.group_M[order])
    for before, after in zip(climb(tokens), climb(again), strict=True):
        assert after.loss_MS == pytest.approx(before.loss_MS[order], abs=1e-6)


def test_shuffling_images_within_a_place_takes_the_contexts_gain_away():
    tokens = draw("two_scale", 600, 2)
    rng = np.random.default_rng(5)
    shuffled = np.stack([rng.permutation(column) for column in tokens.idx_ML.T], 1)
    gains = [bound_rungs(climb(one), one)[-1].gain for one in (tokens, replace(tokens, idx_ML=shuffled))]
    assert gains[0].value > 0.9 and not gains[0].is_none
    assert abs(gains[1].value) < 0.002


def test_a_fold_is_coded_without_its_own_tokens():
    """Replacing one fold's tokens leaves its probabilities; only mixture weights of others move."""
    tokens = draw("iid_small", 200, 0)
    own = tokens.group_M % 8 == 3
    changed = tokens.idx_ML.copy()
    changed[np.flatnonzero(own)[1:]] = 15 - changed[np.flatnonzero(own)[1:]]
    unigram, again = (climb(replace(tokens, idx_ML=idx))[1] for idx in (tokens.idx_ML, changed))
    first = np.flatnonzero(own)[0]
    assert (again.loss_MS[first] == unigram.loss_MS[first]).all()
    assert not np.allclose(again.loss_MS[~own], unigram.loss_MS[~own])


def test_large_vocabularies_need_no_table():
    rng = np.random.default_rng(0)
    idx_ML, sides, _, context, _ = iid_small(rng, 200)
    small = tokens_of(idx_ML, sides, 2**40, context)
    large = replace(small, idx_ML=idx_ML * 2**36 + 5)
    for one, other in zip(climb(small), climb(large), strict=True):
        assert other.loss_MS == pytest.approx(one.loss_MS, abs=1e-6)
