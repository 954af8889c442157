"""Groups keep images that are alike together."""

import numpy as np
import pytest

from entropy_cli.entropy.ladder.limits import bound_rungs
from entropy_cli.entropy.ladder.rungs import climb
from entropy_cli.images.clusters import classes, first_equal, groups, near_equal
from entropy_cli.images.image_set import GROUPS, hash_path
from tests.ladder_sources import iid, tokens_of


def test_groups_are_those_of_estimate_unless_images_are_equal():
    names = [f"a/{i}.jpg" for i in range(50)]
    same_M = np.arange(50)
    expected = [hash_path(name, 3)[1] % GROUPS for name in names]
    assert groups(names, same_M, "image", 3).tolist() == expected
    same_M[40] = 7
    expected[40] = expected[7]
    assert groups(names, same_M, "image", 3).tolist() == expected


def test_a_folder_is_never_split_not_even_by_equal_images():
    names = [f"{folder}/{i}.jpg" for folder in "abcdefgh" for i in range(10)]
    same_M = np.arange(80)
    same_M[75] = 5  # h/5 is a/5
    same_M[33] = 70  # d/3 is h/0, which joins a, d and h
    group_M = groups(names, same_M, "folder", 0)
    by_folder = group_M.reshape(8, 10)
    assert (by_folder == by_folder[:, :1]).all()
    assert by_folder[0, 0] == by_folder[3, 0] == by_folder[7, 0] == hash_path("a", 0)[1] % GROUPS


def test_images_with_most_tokens_in_common_are_counted():
    rng = np.random.default_rng(0)
    for p in (np.full(64, 1 / 64), [0.7, *[0.3 / 63] * 63]):  # in the second any two have half in common
        idx_Ml = rng.choice(64, (300, 64), p=p)
        assert near_equal(idx_Ml, 0) == 0
        near_Ml = np.where(rng.random((60, 64)) < 0.05, 62 - idx_Ml[:60], idx_Ml[:60])
        assert near_equal(np.concatenate([idx_Ml, near_Ml]), 0) == 120
    assert near_equal(idx_Ml[:, :4], 0) == 0


def test_classes_are_folders_with_images_enough():
    assert classes(["a/1", "b/1", "a/2", "b/2"]).tolist() == [0, 1, 0, 1]
    assert classes(["a/1", "a/2"]) is None
    assert classes(["1", "2", "3"]) is None
    assert classes(["a/1", "b/1", "c/1", "c/2"]) is None


def test_repeated_images_in_one_fold_give_no_bound_below_the_truth():
    """Each of 250 images twice: by path the context lies nats below the truth, by row it does not."""
    truth = 5.1278392403087985
    idx_ML, sides, codes, context, _ = iid(np.random.default_rng(0), 250)
    twice = np.concatenate([idx_ML, idx_ML])
    names = [f"{i}.jpg" for i in range(500)]
    excess = {}
    for name, same_M in (("by_path", np.arange(500)), ("by_row", first_equal(twice))):
        tokens = tokens_of(twice, sides, codes, context)
        tokens.group_M[:] = groups(names, same_M, "image", 0)
        *_, last = bound_rungs(climb(tokens), tokens)
        excess[name] = last.average.token_weighted.value - truth
    assert excess["by_path"] == pytest.approx(-3.148, abs=0.25)
    assert excess["by_row"] == pytest.approx(0.0537, abs=0.25) and excess["by_row"] > 0
