"""Shards of a run, computed anywhere and in any way, add up to the run."""

import contextlib
import json
from importlib.metadata import version

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from entropy_cli.core.progress_bars import SilentBar
from entropy_cli.streaming.state_file import checksum
from tests.e2e.test_estimate import assert_same


@pytest.fixture
def shards(cli, images, checkpoint, tmp_path):
    """Compute shards into state files; gives their paths."""

    def run(number, *options, batch_sizes=(4,), name="shard"):
        paths = []
        for i in range(number):
            path = tmp_path / f"{name}-{i}-of-{number}.state"
            code, _, err = cli(
                *("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--json"),
                *("--shard", f"{i}/{number}", "--state", path, *options),
                *("--batch-size", batch_sizes[i % len(batch_sizes)]),
            )
            assert code == 0, err
            paths.append(path)
        return paths

    return run


@pytest.fixture
def merge(cli):
    """Run `merge --json`; gives the result, or the exit code and the last line of stderr."""

    def run(*argv):
        code, out, err = cli("merge", "--json", *argv)
        return json.loads(out) if code == 0 else (code, err.splitlines()[-1])

    return run


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_shards_add_up_to_the_run(shards, merge, baseline, number):
    result = merge(*reversed(shards(number)))
    assert_same(baseline, result)
    for key in ("fingerprint", "images_fingerprint", "images_found", "failed"):
        assert result["data"][key] == baseline["data"][key]
    assert result["replicates"]["images"] == baseline["replicates"]["images"]
    assert result["history"][-1] == pytest.approx(baseline["history"][-1])
    assert len(result["history"]) == number and len(result["provenance"]["states"]) == number


def test_tasks_may_choose_other_batch_sizes(shards, merge, baseline):
    assert_same(baseline, merge(*shards(3, batch_sizes=(1, 16, 40))), tolerance=1e-5, counts_equal=False)


def test_shards_fit_the_same_temperatures(shards, merge, estimate, images, checkpoint):
    whole = estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--temperature", "auto")
    merged = merge(*shards(2, "--temperature", "auto"))
    assert [s["temperature"] for s in merged["scales"]] == [s["temperature"] for s in whole["scales"]]
    assert_same(whole, merged)
    assert merged["settings"] == whole["settings"]
    assert merged["provenance"]["temperature_fit"] == whole["provenance"]["temperature_fit"]
    assert merged["provenance"]["temperature_implied"] == pytest.approx(
        whole["provenance"]["temperature_implied"]
    )


def test_a_shard_says_what_fitting_costs_and_counts_it(cli, images, checkpoint, tmp_path, monkeypatch):
    shown = []

    @contextlib.contextmanager
    def bars(desc, total, unit, initial=0):
        bar = SilentBar()
        bar.update = lambda n: shown.append((total, n)) if unit == "img" and total else None
        yield bar

    monkeypatch.setattr("entropy_cli.run_options.tqdm_bar", bars)
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 16)
    code, _, err = cli(*run, "--shard", "1/3", "--state", tmp_path / "s", "-o", tmp_path / "r.json")
    assert code == 0
    told = "shard 1/3 reads the first 70 images to fit the temperature, as every shard does; one pilot"
    assert err.count(told) == 1
    assert [total for total, _ in shown] == [70 + 22] * 7 and sum(n for _, n in shown) == 70 + 22
    shown.clear()
    frozen = ("--temperature-from", tmp_path / "r.json", "--state", tmp_path / "t")
    code, _, err = cli(*run, "--shard", "1/3", *frozen)
    assert code == 0 and "to fit the temperature" not in err and sum(n for _, n in shown) == 22


def test_a_merge_keeps_how_its_parts_ran(cli, shards, merge, images, checkpoint, tmp_path):
    first, second, third = shards(3, batch_sizes=(4, 16, 8))
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--shard", "0/3")
    code, _, err = cli(*run, "--state", first)  # all done: not another run
    assert code == 0 and f"resuming from 32 of 32 images, saved in {first}" in err
    merge("--partial", third, first, "--state", tmp_path / "sum")
    runs = merge(tmp_path / "sum", second)["provenance"]["runs"]
    assert [part["shard"] for part in runs] == [[2, 3], [0, 3], [1, 3]]
    assert [part["batch_size"] for part in runs] == [8, 4, 16]
    for part in runs:
        assert part["torch"] == version("torch") and part["device"] and part["seconds"] > 0
        assert part["processes"] == 1 and part["images_resumed"] == 0


def test_a_shard_without_images_is_an_empty_state(cli, shards, merge, baseline, tmp_path):
    paths = shards(7)  # of five blocks
    assert blocks_done(paths[6]) == 0
    assert_same(baseline, merge(*paths))
    code, out, err = cli("merge", paths[5], paths[6], "--partial")
    assert code == 3 and out == "" and "nothing to estimate" in err


def test_an_empty_shard_leaves_no_older_result_in_its_place(cli, images, checkpoint, tmp_path):
    (tmp_path / "r.json").write_text('{"schema": "entropy-cli/estimate"}')
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--state", tmp_path / "s")
    code, out, err = cli(*run, "--shard", "6/7", "-o", tmp_path / "r.json", "--workers", 0)
    assert code == 0 and out == "" and "for want of blocks" in err
    assert not (tmp_path / "r.json").exists()


def test_a_shard_s_table_says_that_it_is_a_part(cli, images, checkpoint, tmp_path):
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--state", tmp_path / "s")
    _, out, _ = cli(*run, "--shard", "1/3", "--workers", 0, "--explain")
    assert "only shard 1/3 of the images" in out and "ONLY SHARD 1/3: 22 of 70 used" in out


def test_a_shard_s_result_is_of_its_own_images(estimate, images, checkpoint, baseline, tmp_path):
    result = estimate(
        *("--data", images, "--ckpt", checkpoint, "--shard", "1/3", "--state", tmp_path / "s")
    )
    assert result["data"]["images_used"] == 16 + 6
    assert result["data"]["images_found"] == 70
    assert result["data"]["fingerprint"] == baseline["data"]["fingerprint"]


def test_a_shard_of_a_limited_run_is_a_part_of_the_limit(shards, merge, estimate, images, checkpoint):
    limited = estimate("--data", images, "--ckpt", checkpoint, "--limit", 40, "--batch-size", 4)
    assert_same(limited, merge(*shards(2, "--limit", 40)))


def test_gaps_are_refused_unless_partial_is_enough(shards, merge, tmp_path):
    first, second, third = shards(3)
    code, err = merge(first, third)
    assert code == 3 and "22 of 70 images are in none" in err and "none of shard 1 of 3" in err
    partial = merge("--partial", first, third, "--state", tmp_path / "partial.state")
    assert partial["data"]["images_used"] == 70 - 22
    assert merge(tmp_path / "partial.state", second)["data"]["images_used"] == 70


def test_a_merged_state_goes_on_as_a_run_of_its_own(
    shards, merge, estimate, images, checkpoint, baseline, tmp_path
):
    first, _, third = shards(3)
    merge("--partial", first, third, "--state", tmp_path / "s")
    result = estimate(
        "--data", images, "--ckpt", checkpoint, "--batch-size", 4, "--state", tmp_path / "s"
    )
    assert result["provenance"]["images_resumed"] == 48
    assert_same(baseline, result)


def test_overlaps_are_refused(shards, merge):
    first, second = shards(2)
    code, err = merge(first, second, first)
    assert code == 3 and "is given twice" in err
    (whole,) = shards(1)
    code, err = merge(first, whole)
    assert code == 3 and "would count twice" in err and "block 0" in err and str(first) in err


@pytest.mark.parametrize(
    "option, words",
    [
        (("--seed", 1), "seed 1, but "),
        (("--temperature", 2), "temperature [2.0], but "),
        (("--limit", 64), "images 64, but "),
        (("--precision", "bf16"), 'precision "bf16", but '),
    ],
)
def test_other_settings_are_named(shards, merge, option, words):
    first, _ = shards(2)
    _, second = shards(2, *option, name="other")
    code, err = merge(first, second)
    assert code == 3 and words in err and str(second) in err and str(first) in err


def test_other_temperatures_are_named(shards, merge, tmp_path):
    first, second = shards(2, "--temperature", "auto")
    with safe_open(second, framework="pt") as file:
        meta = json.loads(file.metadata()["entropy-cli"])
    meta["temperatures"][2] = [0.5]
    text, tensors = json.dumps(meta), load_file(second)
    metadata = {"entropy-cli": text, "sha256": checksum(text, tensors)}
    save_file(tensors, tmp_path / "x", metadata)
    code, err = merge(first, tmp_path / "x")
    assert code == 3 and "temperature [0.5] at scale 2" in err


def test_a_state_of_another_shard_is_refused(shards, cli, images, checkpoint):
    first, _ = shards(2)
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--state", first)
    for option, words in ((("--shard", "1/2"), "shard 1/2"), ((), "all")):
        code, _, err = cli(*run, *option)
        assert code == 3 and "saved for shard 0/2 of the images" in err and words in err


def test_without_a_file_a_shard_s_state_is_kept(cli, images, checkpoint, tmp_path, merge, baseline):
    run = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 4)
    for i in range(2):
        code, _, err = cli(*run, "--shard", f"{i}/2")
        assert code == 0 and "for entropy-cli merge" in err
    assert_same(baseline, merge(*(tmp_path / "cache" / "entropy-cli").glob("*.safetensors")))


def test_unreadable_images_of_shards_are_all_counted(cli, checkpoint, tmp_path, merge, images):
    import shutil

    shutil.copytree(images, tmp_path / "data")
    for path in sorted((tmp_path / "data").rglob("*.jpg"))[::7]:
        path.write_bytes(b"broken")
    run = ("estimate", "--data", tmp_path / "data", "--ckpt", checkpoint, "--workers", 0)
    paths = [tmp_path / f"{i}.state" for i in range(3)]
    codes = {cli(*run, "--shard", f"{i}/3", "--state", path)[0] for i, path in enumerate(paths)}
    assert codes == {4}
    assert cli("merge", *paths)[0] == 4
    result = merge(*paths, "--max-failed", 0.2)
    assert result["data"]["images_failed"] == 10 and len(result["data"]["failed"]) == 10


def test_a_shard_of_nothing_but_broken_images_can_be_merged(cli, checkpoint, tmp_path, images, merge):
    import shutil

    shutil.copytree(images, tmp_path / "data")
    for i in range(40):
        (tmp_path / "data" / f"{i}.jpg").write_bytes(b"broken")
    run = ("estimate", "--data", tmp_path / "data", "--ckpt", checkpoint, "--workers", 0)
    paths = [tmp_path / f"{i}.state" for i in range(7)]
    for i, path in enumerate(paths):
        assert cli(*run, "--shard", f"{i}/7", "--state", path)[0] == 4
    result = merge(*paths, "--max-failed", 1)
    assert result["data"]["images_used"] == 70 and result["data"]["images_failed"] == 40


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "a/b", "1/0", "1/2/3", "²/3"])
def test_what_is_no_shard_is_wrong_usage(cli, images, checkpoint, text):
    code, _, err = cli("estimate", "--data", images, "--ckpt", checkpoint, f"--shard={text}")
    assert code == 2 and "expected I/N" in err


def test_the_place_in_an_array_is_the_shard(estimate, cli, images, checkpoint, monkeypatch, tmp_path):
    run = ("--data", images, "--ckpt", checkpoint, "--state", tmp_path / "s", "--shard", "slurm")
    code, _, err = cli("estimate", *run)
    assert code == 2 and "no task of a Slurm job array" in err
    for name, value in {"ID": 6, "MIN": 2, "MAX": 8, "STEP": 2, "COUNT": 4}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert estimate(*run)["data"]["images_used"] == 16  # block 2 alone
    for name, value in {"ID": 7, "COUNT": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        code, _, err = cli("estimate", *run)
        assert code == 2 and "no place in an even array" in err


def test_the_environment_alone_implies_no_shard(estimate, images, checkpoint, monkeypatch):
    for name, value in {"ID": 1, "MIN": 0, "MAX": 3, "STEP": 1, "COUNT": 4}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert estimate("--data", images, "--ckpt", checkpoint)["data"]["images_used"] == 70


def test_a_target_and_a_shard_exclude_each_other(cli, images, checkpoint):
    code, _, err = cli(
        "estimate", "--data", images, "--ckpt", checkpoint, "--shard", "0/2", "--target-ci", 0.1
    )
    assert code == 2 and "precise enough" in err


def test_what_is_no_state_is_one_line(merge, checkpoint, tmp_path, shards):
    code, err = merge(checkpoint)
    assert code == 3 and "is not a saved state" in err
    assert merge(tmp_path / "absent")[0] == 3
    (tmp_path / "empty").touch()
    assert merge(tmp_path / "empty")[0] == 3
    (state,) = shards(1)
    code, err = merge(state, "--state", state)
    assert code == 3 and "STATE" in err


def test_the_table_of_a_merge_says_so(cli, shards):
    code, out, _ = cli("merge", *shards(3, batch_sizes=(4, 16, 4)), "--explain")
    words = " ".join(out.split())
    assert code == 0 and "70 of 70 images" in words
    device = f"cpu ({torch.get_num_threads()} threads)"
    how = f"by adding 3 states, on {device}, in batches of 4, 16, with torch {version('torch')}, "
    assert how in words and " s in all" in words.partition(how)[2]


def blocks_done(path):
    with safe_open(path, framework="pt") as file:
        done_N = file.get_tensor("blocks_done")
    assert done_N.dtype == torch.bool
    return int(done_N.sum())
