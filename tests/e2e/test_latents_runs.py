"""Runs on latents: in parts, interrupted, with rows that are no numbers; and the wrong options."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest

from entropy_cli.entropy.tally import Tally
from tests.conftest import subprocess_environment, torchrun
from tests.e2e.test_estimate import assert_same

RANDOM = np.random.default_rng(7)
Z = RANDOM.normal(size=(150, 9, 3)).astype(np.float32)
CODES = RANDOM.normal(size=(13, 3)).astype(np.float32)
LAST = ("--channels", "last")  # nothing else tells the number of bits


@pytest.fixture
def inputs(tmp_path):
    """The options that give latents and codes."""
    np.save(tmp_path / "z.npy", Z)
    np.save(tmp_path / "codes.npy", CODES)
    return ("--latents", tmp_path / "z.npy", "--codebook", tmp_path / "codes.npy")


def test_rows_that_are_no_numbers_are_unreadable_images(cli, estimate, inputs, tmp_path):
    z = Z.copy()
    z[[3, 70], 4, 1] = np.nan, -np.inf
    np.save(tmp_path / "z.npy", z)
    code, out, err = cli("estimate", "--json", "--workers", 0, *inputs)
    result = json.loads(out)
    assert code == 4 and sorted(result["data"]["failed"]) == ["3", "70"]
    assert result["data"]["images_used"] == 148
    assert "unreadable: 70: its latents have NaN or infinity" in err
    assert cli("estimate", "--workers", 0, *inputs, "--max-failed", 0.02)[0] == 0
    code, err = estimate(*inputs, "--on-error", "fail")
    assert code == 3 and "Stopped by --on-error fail" in err.splitlines()[-1]
    np.save(tmp_path / "z.npy", np.delete(Z, [3, 70], 0))
    clean = estimate(*inputs)
    for name in ("assignment_entropy", "unigram_entropy"):
        one, two = (r["average"]["token_weighted"][name]["plug_in"] for r in (result, clean))
        assert one == pytest.approx(two, abs=1e-7)


def test_seeds_move_order_and_groups_and_a_limit_takes_the_first(estimate, inputs):
    one, two = estimate(*inputs), estimate(*inputs, "--seed", 4)
    assert one["scales"][0]["code_counts"] == two["scales"][0]["code_counts"]
    assert one["replicates"]["images"] != two["replicates"]["images"]
    few, others = estimate(*inputs, "--limit", 20), estimate(*inputs, "--limit", 20, "--seed", 4)
    assert few["data"]["images_used"] == 20 and few["data"]["images_found"] == 150
    assert few["scales"][0]["code_counts"] != others["scales"][0]["code_counts"]
    assert_same(one, estimate(*inputs, "--limit", 999), tolerance=0)


@pytest.mark.parametrize("temperature", ["0.5,2", "auto"])
def test_shards_add_up(cli, estimate, inputs, tmp_path, temperature):
    options = (*inputs, "--temperature", temperature)
    whole = estimate(*options)
    states = [tmp_path / f"{i}.state" for i in range(3)]
    for i, state in enumerate(states):
        assert estimate(*options, "--shard", f"{i}/3", "--state", state)["data"]["images_used"] < 150
    code, out, err = cli("merge", "--json", *states)
    assert code == 0, err
    merged = json.loads(out)
    assert_same(whole, merged)
    assert merged["settings"] == whole["settings"]
    assert [s["temperature"] for s in merged["scales"]] == [s["temperature"] for s in whole["scales"]]


def interrupt_at(monkeypatch, number):
    """SIGTERM at the number-th adding of images."""
    seen = []
    add_images = Tally.add

    def add(self, *args):
        add_images(self, *args)
        seen.append(1)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Tally, "add", add)


@pytest.mark.parametrize("temperature", ["1", "auto"])
def test_an_interrupted_run_goes_on(estimate, inputs, monkeypatch, temperature):
    options = (*inputs, "--temperature", temperature)
    whole = estimate(*options)
    interrupt_at(monkeypatch, 3)
    code, err = estimate(*options)
    assert code == 143 and "to resume, run the same command" in err.splitlines()[-1]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(inputs[1].parent / "cache"))  # was undone with the rest
    result = estimate(*options)
    assert result["provenance"]["images_resumed"] == 48
    assert_same(whole, result)


def test_other_latents_or_codes_are_another_run(estimate, inputs, tmp_path):
    state = ("--state", tmp_path / "s")
    estimate(*inputs, *state)
    np.save(tmp_path / "z.npy", Z + 1)
    code, err = estimate(*inputs, *state)
    assert code == 3 and "other images" in err.splitlines()[-1]
    np.save(tmp_path / "z.npy", Z)
    np.save(tmp_path / "codes.npy", CODES + 1)
    code, err = estimate(*inputs, *state)
    assert code == 3 and "another checkpoint" in err.splitlines()[-1]
    np.save(tmp_path / "codes.npy", CODES)
    code, err = estimate(*inputs, *state, "--rule", "dot")
    assert code == 3 and 'rule "l2", but this run has "dot"' in err.splitlines()[-1]


def test_another_codebook_of_the_same_file_is_another_run(estimate, inputs, tmp_path):
    """The file's hash does not tell which of its tensors were the codes."""
    path = tmp_path / "codes.npz"
    np.savez(path, a=CODES, b=CODES + 1)
    run = ("--latents", tmp_path / "z.npy", "--state", tmp_path / "s", "--codebook")
    estimate(*run, f"{path}:a")
    code, err = estimate(*run, f"{path}:b")
    assert code == 3 and 'codebooks ["a"], but this run has ["b"]' in err.splitlines()[-1]


def test_a_run_stops_at_its_target(estimate, tmp_path):
    np.save(tmp_path / "z.npy", RANDOM.normal(size=(3000, 2, 4)).astype(np.float32))
    result = estimate("--latents", tmp_path / "z.npy", "--rule", "sign", "--target-ci", 0.1, *LAST)
    assert result["target_reached"] is True and 1000 <= result["data"]["images_used"] < 3000


def test_batches_and_workers_move_nothing(estimate, cli, inputs):
    whole = estimate(*inputs)
    for options in (("--batch-size", 1), ("--batch-size", 100)):
        assert_same(whole, estimate(*inputs, *options), tolerance=1e-6)
    code, out, _ = cli("estimate", "--json", "--workers", 2, *inputs)
    assert code == 0
    assert_same(whole, json.loads(out), tolerance=0)


def test_auto_is_for_distances(estimate, inputs, tmp_path):
    for rule in ("l2", "cosine"):
        result = estimate(*inputs, "--rule", rule, "--temperature", "auto")
        assert result["provenance"]["temperature_fit"]["images"] == 150
    np.save(tmp_path / "bounded.npy", Z.clip(-1, 0))
    for options in (
        (*inputs, "--rule", "dot"),
        (*inputs[:2], "--rule", "sign", *LAST),
        (*inputs[:2], "--rule", "bsq", *LAST),
        ("--latents", tmp_path / "bounded.npy", "--levels", "2,2,2"),
    ):
        code, err = estimate(*options, "--temperature", "auto")
        assert code == 3 and "squared distances" in err.splitlines()[-1]


def test_levels_need_bounded_latents(estimate, inputs):
    for bounds in ((-5, 5), (-5, 1), (-1, 5)):  # outside at both ends, and at one of them
        np.save(inputs[1], Z.clip(*bounds))
        code, err = estimate(*inputs[:2], "--levels", "3,3,3")
        assert code == 3 and "beyond the outermost level" in err.splitlines()[-1]
    code, err = estimate(*inputs[:2], "--levels", "3,3")
    assert code == 3 and "with C = 2" in err.splitlines()[-1]


@pytest.mark.slow
def test_several_processes_give_the_numbers_and_tokens_of_one(estimate, inputs, tmp_path):
    options = (*inputs, "--temperature", "auto", "--save-tokens", tmp_path / "two.npy")
    argv = [*torchrun(2), "entropy_cli", "estimate", "--json", "--workers", "0", *map(str, options)]
    environment = {**subprocess_environment(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    alone = estimate(*inputs, "--temperature", "auto", "--save-tokens", tmp_path / "one.npy")
    assert_same(alone, json.loads(done.stdout), tolerance=1e-6)
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert (tmp_path / "one.paths.txt").read_text() == (tmp_path / "two.paths.txt").read_text()
    assert not list((tmp_path / "cache" / "entropy-cli").iterdir())


LATENTS, CODEBOOK = ("--latents", "z.npy"), ("--codebook", "c.npy")


@pytest.mark.parametrize(
    "options, words",
    [
        ((), "--data is missing: give --data and --ckpt, or --latents"),
        (("--data", "x"), "--ckpt is missing"),
        (LATENTS, "need a --codebook, or a --rule without one"),
        ((*LATENTS, *CODEBOOK, "--data", "x"), "--data: has no use for latents"),
        ((*LATENTS, *CODEBOOK, "--ckpt", "x"), "--ckpt: has no use for latents"),
        ((*LATENTS, *CODEBOOK, "--family", "var"), "--family: has no use"),
        ((*LATENTS, *CODEBOOK, "--patch-nums", "1,2"), "--patch-nums: has no use"),
        ((*LATENTS, *CODEBOOK, "--image-size", 32), "--image-size: has no use"),
        ((*LATENTS, *CODEBOOK, "--precision", "fp16"), "--precision: has no use"),
        ((*LATENTS, *CODEBOOK, "--weights", "ema"), "--weights: has no use"),
        ((*LATENTS, *CODEBOOK, "--split", "val"), "--split: has no use"),
        ((*LATENTS, *CODEBOOK, "--rule", "sign"), "--codebook: has no use under the rule sign"),
        ((*LATENTS, *CODEBOOK, "--rule", "bsq"), "--codebook: has no use under the rule bsq"),
        ((*LATENTS, *CODEBOOK, "--rule", "levels"), "--codebook: has no use under the rule levels"),
        ((*LATENTS, *CODEBOOK, "--levels", "3,3"), "--levels: has no use under the rule l2"),
        ((*LATENTS, "--rule", "l2"), "--codebook is missing: the rule l2 compares"),
        ((*LATENTS, "--rule", "cosine"), "--codebook is missing"),
        ((*LATENTS, "--rule", "dot"), "--codebook is missing"),
        ((*LATENTS, "--rule", "levels"), "--levels is missing: the rule levels needs"),
        ((*LATENTS, "--rule", "sign", "--levels", "2,2"), "--levels: has no use under the rule sign"),
        ((*LATENTS, "--levels", "3,1"), "a whole number from 2 to 65,536"),
        ((*LATENTS, "--levels", "3,x"), "a whole number from 2 to 65,536"),
        ((*LATENTS, "--levels", ""), "is empty; is a variable unset?"),
        ((*LATENTS, "--rule", "logits"), "--rule"),
        ((*LATENTS, *CODEBOOK, "--temperature", "0"), "expected numbers between"),
        ((*LATENTS, *CODEBOOK, "--save-tokens", "t.txt"), "--save-tokens: t.txt: expected FILE.npy"),
        (("--data", "x", "--ckpt", "y", *CODEBOOK), "--codebook: belongs to --latents"),
        (("--data", "x", "--ckpt", "y", "--channels", "last"), "--channels: belongs to --latents"),
        (("--data", "x", "--ckpt", "y", "--rule", "bsq"), "bsq is for --latents"),
    ],
)
def test_options_that_do_not_fit_latents_are_refused(cli, options, words):
    code, out, err = cli("estimate", *options)
    assert code == 2 and out == "" and words in err.splitlines()[-1], err
    assert len(err.splitlines()) == 1


def test_a_codebook_without_a_name_is_no_codebook(estimate, inputs):
    """As an unset variable of a shell gives."""
    for rule in ((), ("--rule", "l2")):
        code, err = estimate(*inputs[:2], "--codebook", "", *rule)
        assert code == 2 and "--codebook is empty" in err.splitlines()[-1]


def test_nothing_that_is_read_is_overwritten(estimate, inputs, tmp_path):
    for option, path in (
        ("--save-tokens", tmp_path / "z.npy"),
        ("--save-tokens", tmp_path / "codes.npy"),
        ("-o", tmp_path / "z.npy"),
        ("--state", tmp_path / "codes.npy"),
    ):
        before = path.read_bytes()
        code, err = estimate(*inputs, option, path)
        assert code == 3 and "is the same file as" in err.splitlines()[-1]
        assert path.read_bytes() == before
    code, err = estimate(*inputs, "--save-tokens", tmp_path / "t.npy", "-o", tmp_path / "t.paths.txt")
    assert code == 3 and "is the same file as" in err.splitlines()[-1]
