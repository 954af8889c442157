"""The probe: a normalised predictor of images it was not fitted on, that sees what a model may."""

import numpy as np
import pytest
import torch

from entropy_cli.entropy.ladder.limits import bound_rungs
from entropy_cli.entropy.ladder.probe import Net, ProbeFit
from entropy_cli.entropy.ladder.rungs import climb
from entropy_cli.entropy.ladder.sights import CodesAround
from tests.ladder_sources import draw


def fitted(tokens, steps, seconds=None):
    sight = CodesAround(tokens.layout, tokens.vocab_size, tokens.context)
    probe = ProbeFit(tokens, sight, steps, seconds)
    probe.fit()
    return probe


def test_it_finds_what_counts_find_and_stays_above_the_truth():
    tokens = draw("markov", 400, 0)
    probe = fitted(tokens, 150)
    rungs = climb(tokens, probe.probabilities)
    *_, context, last = bound_rungs(rungs, tokens)
    mean = last.average.token_weighted
    assert last.id == "probe" and last.gain.value > 0 and not last.gain.is_none
    assert 2.9105 - 3 * mean.se < mean.value < context.average.token_weighted.value
    alone = -np.log(probe.probabilities(0)).mean()
    assert alone < 3.7  # from a unigram of 4.16: it sees the token to the left


def test_it_is_repeatable_and_starts_at_the_unigram():
    tokens = draw("iid_small", 128, 0)
    one, other = fitted(tokens, 8), fitted(tokens, 8)
    assert all((one.probabilities(s) == other.probabilities(s)).all() for s in range(2))
    sight = CodesAround(tokens.layout, 16, "var")
    log_unigram_SV = torch.log_softmax(torch.randn(2, 16), 1)
    net = Net(tokens, sight, log_unigram_SV)
    seen = sight(torch.from_numpy(tokens.idx_ML[:3]))[1]
    logits = net(seen, 1, None, torch.arange(16))
    assert torch.equal(logits, log_unigram_SV[1].expand(3, 16, 16))


@pytest.mark.parametrize("name", ["markov", "two_scale"])
def test_a_half_is_predicted_by_the_other_half_alone(name):
    """Other tokens in a half change nothing of its own predictions but those of the other half."""
    tokens = draw(name, 96, 0)
    even = tokens.group_M % 2 == 0
    before = fitted(tokens, 5)
    first = np.flatnonzero(even)[0]
    others = np.flatnonzero(even)[1:]
    last = len(tokens.layout.tokens) - 1
    tokens.idx_ML[others] = np.random.default_rng(1).permutation(tokens.idx_ML[others])[:, ::-1]
    after = fitted(tokens, 5)
    assert (after.probabilities(last)[first] == before.probabilities(last)[first]).all()
    assert (after.probabilities(last)[~even] != before.probabilities(last)[~even]).any()


@pytest.mark.parametrize(("context", "name"), [("var", "two_scale"), ("raster", "markov")])
def test_it_sees_only_what_comes_before(context, name):
    """A token's own scale, and tokens after it in raster order, don't move its prediction."""
    tokens = draw(name, 8, 0)
    sight = CodesAround(tokens.layout, tokens.vocab_size, context)
    idx_BL = torch.from_numpy(tokens.idx_ML)
    last = len(tokens.layout.tokens) - 1
    seen = sight(idx_BL)[last].code_BlK
    columns = tokens.layout.columns(last)
    for place in (0, 10, 63):
        changed = idx_BL.clone()
        start = columns.start if context == "var" else columns.start + place
        changed[:, start:] = (changed[:, start:] + 1) % tokens.vocab_size
        assert torch.equal(sight(changed)[last].code_BlK[:, place], seen[:, place])
    assert (seen < tokens.vocab_size).any()


def test_few_groups_stop_it_too():
    """Without images in the first groups, as with few folders, others are kept for stopping."""
    tokens = draw("markov", 200, 0)
    tokens.group_M[:] = 8 + np.arange(200) % 8
    probe = fitted(tokens, 60)
    assert min(probe.steps_done) > 0 and -np.log(probe.probabilities(0)).mean() < 4.1


def test_a_cap_of_seconds_cuts_it_and_says_so():
    probe = fitted(draw("iid_small", 128, 0), 500, seconds=0.0)
    assert probe.was_cut and probe.steps_done == [0, 0]
