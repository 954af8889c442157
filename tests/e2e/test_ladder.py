"""`ladder`, `estimate --ladder`, `merge --ladder`, and who takes the ladder of a result."""

import json
import math
import shutil
import signal

import numpy as np
import pytest

from entropy_cli.cli import main
from entropy_cli.images.image_set import GROUPS, hash_path
from entropy_cli.results.floors import read_floor
from entropy_cli.results.schema import read_result
from entropy_cli.results.text import render
from tests.conftest import PATCH_NUMS

RUNGS = ["uniform", "unigram", "position", "class", "context"]


@pytest.fixture(scope="module")
def saved(images, checkpoint, tmp_path_factory):
    """A folder with tokens and result of `estimate --ladder` on the tiny folder."""
    folder = tmp_path_factory.mktemp("saved")
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 4]
    argv += ["--ladder", "--save-tokens", folder / "tokens.npy", "-o", folder / "result.json"]
    assert main([*map(str, argv)]) == 0
    return folder


@pytest.fixture
def files(saved, tmp_path):
    """Copies of its tokens and result; the result without the ladder."""
    for name in ("tokens.npy", "tokens.paths.txt"):
        shutil.copy(saved / name, tmp_path)
    result = json.loads((saved / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**result, "ladder": None}))
    return tmp_path / "tokens.npy", tmp_path / "result.json"


def numbers(ladder):
    return {key: value for key, value in ladder.items() if key != "provenance"}


def test_the_document(cli, files, tmp_path):
    tokens, result = files
    output = tmp_path / "ladder.json"
    code, out, err = cli("ladder", "--tokens", tokens, "--result", result, "--json", "-o", output)
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(output.read_text())
    assert (found["schema"], found["schema_version"]) == ("entropy-cli/ladder", 1)
    row = sum(side * side for side in PATCH_NUMS)
    assert found["tokens"] == {"images": 70, "tokens": row, "vocab_size": 48, "distinct_rows": 70}
    assert [rung["id"] for rung in found["rungs"]] == RUNGS
    assert found["rungs"][0]["average"]["token_weighted"]["value"] == pytest.approx(math.log(48))
    for rung in found["rungs"]:
        mean = rung["average"]["token_weighted"]
        weighted = sum(q["value"] * n * n for q, n in zip(rung["scales"], PATCH_NUMS, strict=True)) / row
        assert mean["value"] == pytest.approx(weighted, abs=1e-12)
        assert mean["ci95"][0] <= mean["value"] <= mean["upper95"] <= mean["ci95"][1]
        for weights in rung["weights"]:
            assert not weights or sum(weights.values()) == pytest.approx(1)
    plug_in, held_out = found["bracket"][-1].values()
    assert plug_in < held_out
    assert found["lowest"]["upper95"] == min(
        rung["average"]["token_weighted"]["upper95"]
        for rung in found["rungs"]
        if rung["id"] == found["lowest"]["rung"]
    )
    floor, folders = found["floor"], found["settings"]["classes"]
    given_class = floor["without_class"] - math.log(folders) / row
    assert floor["value"] == pytest.approx(max(0, given_class), abs=1e-12)
    assert found["memorisation"] is None and {refused["id"] for refused in found["refused"]} >= {"fano"}
    code, text, _ = cli("ladder", "--tokens", tokens, "--result", result, "--table", "--explain")
    assert code == 0 and max(map(len, text.splitlines())) <= 80
    assert text.startswith("Irreducible loss of the hard tokens: at most ")
    code, short, _ = cli("ladder", "--tokens", tokens, "--result", result)
    assert len(short.splitlines()) <= 24


def test_of_one_run_or_of_shards_it_is_the_same(cli, saved, files, images, checkpoint, tmp_path):
    tokens, result = files
    ladder = json.loads((saved / "result.json").read_text())["ladder"]
    for units, per_nat in (("nats", 1.0), ("bits", 1 / math.log(2))):
        limit = per_nat * ladder["lowest"]["upper95"]
        words = render(read_result(saved / "result.json"), units)
        assert f"irreducible loss at most {math.ceil(limit * 100) / 100:.2f} {units}" in words
    _, alone, _ = cli("ladder", "--tokens", tokens, "--result", result, "--json")
    assert numbers(json.loads(alone)) == numbers(ladder)
    argv = ("--data", images, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 4, "--ladder")
    states = [tmp_path / f"{i}.state" for i in range(2)]
    for i, state in enumerate(states):
        assert cli("estimate", *argv, "--shard", f"{i}/2", "--state", state)[0] == 0
    code, merged, err = cli("merge", *states, "--ladder", "--json")
    assert code == 0, err
    assert numbers(json.loads(merged)["ladder"]) == numbers(ladder)
    shard = tmp_path / "1.state.tokens.npy"
    np.save(shard, np.load(shard)[:, ::-1])
    code, _, err = cli("merge", *states, "--ladder")
    assert code == 3 and "other tokens than the run counted" in err
    shard.unlink()
    code, _, err = cli("merge", *states, "--ladder")
    assert code == 3 and "tokens of all shards" in err


def test_the_probe_sees_codes_or_with_a_checkpoint_their_sums(cli, files, checkpoint):
    tokens, result = files
    argv = ("ladder", "--tokens", tokens, "--result", result, "--probe", 6, "--json")
    found = [json.loads(cli(*argv, *more)[1]) for more in ((), (), ("--ckpt", checkpoint))]
    seconds = [one["settings"]["probe"].pop("seconds") for one in found]
    assert min(seconds) > 0
    assert numbers(found[0]) == numbers(found[1])  # repeatable
    assert found[0]["settings"]["probe"]["sees"] != found[2]["settings"]["probe"]["sees"]
    assert [one["rungs"][-1]["id"] for one in found] == ["probe"] * 3
    assert found[0]["settings"]["probe"] == {
        **found[0]["settings"]["probe"],
        "steps": 6,
        "width": 128,
        "images": 70,
        "seconds_cap": None,
        "was_cut": False,
    }


def test_an_interrupt_while_it_climbs_keeps_the_images_that_were_read(
    cli, images, checkpoint, tmp_path, monkeypatch
):
    argv = ("estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--ladder", "--json")
    argv = (*argv, "--state", tmp_path / "state")
    with monkeypatch.context() as patched:
        path = "entropy_cli.streaming.ladder.climb"
        patched.setattr(path, lambda *_: signal.raise_signal(signal.SIGINT))
        code, _, err = cli(*argv)
    assert code == 130 and "to resume" in err
    code, out, err = cli(*argv)
    assert code == 0 and json.loads(out)["provenance"]["images_resumed"] == 70, err


def test_a_class_may_be_known_where_no_rung_sees_it(cli, files):
    """Folders of one image each make no rung, but a model may see them; without classes it does not."""
    tokens, result = files
    base = ("ladder", "--tokens", tokens, "--result", result, "--json")
    names = tokens.with_suffix(".paths.txt")
    alone = json.loads(cli(*base, "--classes", "none")[1])
    assert alone["settings"]["classes"] is None
    assert alone["floor"]["value"] == alone["floor"]["without_class"] > 0
    lines = [f"{i}/{line}" for i, line in enumerate(names.read_text().splitlines())]
    names.write_text("\n".join(lines) + "\n")
    content = json.loads(result.read_text())
    images_G = np.bincount([hash_path(line, 0)[1] % GROUPS for line in lines], minlength=GROUPS)
    content["replicates"]["images"] = images_G.tolist()
    result.write_text(json.dumps(content))
    code, out, err = cli(*base)
    assert code == 0, err
    found = json.loads(out)
    assert "class" not in [rung["id"] for rung in found["rungs"]]
    expected = alone["floor"]["value"] - math.log(70) / found["tokens"]["tokens"]
    assert found["floor"]["value"] == pytest.approx(max(0, expected), abs=1e-12)
    code, out, _ = cli(*base, "--cluster", "folder")
    assert code == 0 and json.loads(out)["floor"] is None


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--limit", 50), 3, "at least 64 images"),
        (("--context", "raster"), 3, "needs one square grid"),
        (("--context", "depth"), 3, "several depths"),
        (("--cluster", "folder"), 3, "Give more folders"),
        (("--probe", "0"), 2, "expected off or a whole number"),
        (("--ckpt", "x"), 2, "Give --probe STEPS"),
    ],
)
def test_what_it_refuses(cli, files, options, code, words):
    tokens, result = files
    found, _, err = cli("ladder", "--tokens", tokens, "--result", result, *options)
    assert found == code and words in err and "Traceback" not in err


def test_tokens_of_another_run_are_refused(cli, files, tmp_path):
    tokens, result = files
    argv = ("ladder", "--tokens", tokens, "--result", result)
    row_ML = np.load(tokens)
    for changed, words in (
        (row_ML[:-1], "69 rows"),
        (row_ML[:, :-1], "for each image"),
        (row_ML + 200, "expected 0 to 47"),
        (row_ML[:, ::-1], "other tokens than the run"),
        (row_ML.astype(np.float32), "integers"),
    ):
        np.save(tokens, changed)
        code, _, err = cli(*argv)
        assert code == 3 and words in err, err
    np.save(tokens, row_ML)
    paths = tokens.with_suffix(".paths.txt")
    names = paths.read_text()
    paths.write_text(names.replace("/", "/other-"))
    code, _, err = cli(*argv)
    assert code == 3 and "paths of other images" in err
    paths.unlink()
    code, _, err = cli(*argv)
    assert code == 3 and "tokens.paths.txt" in err


def test_too_few_images_cost_the_ladder_not_the_result(cli, images, checkpoint, tmp_path):
    output = tmp_path / "result.json"
    argv = ("--data", images, "--ckpt", checkpoint, "--workers", 0, "--limit", 30, "-o", output)
    code, out, err = cli("estimate", *argv, "--ladder")
    assert code == 3 and "at least 64 images" in err and "assignment entropy" in out
    assert json.loads(output.read_text())["ladder"] is None


def test_a_training_split_says_what_memorising_reaches(cli, checkpoint, tmp_path, images):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(images)
    output = tmp_path / "result.json"
    argv = ("--data", tmp_path / "data", "--ckpt", checkpoint, "--workers", 0, "-o", output, "--ladder")
    assert cli("estimate", *argv)[0] == 0
    found = json.loads(output.read_text())["ladder"]["memorisation"]
    row = sum(side * side for side in PATCH_NUMS)
    assert found == {"least_loss": math.log(70) / row, "cliff_token": 2}


def test_who_takes_it(cli, files, tmp_path):
    tokens, result = files
    with_ladder = tmp_path / "with.json"
    argv = ("ladder", "--tokens", tokens, "--result", result, "--result-output", with_ladder)
    assert cli(*argv)[0] == 0
    ladder = json.loads(with_ladder.read_text())["ladder"]
    limit = {rung["id"]: rung["average"]["token_weighted"]["upper95"] for rung in ladder["rungs"]}
    for name in ("page.html", "page.md", "page.svg"):
        code, _, err = cli("report", with_ladder, "-o", tmp_path / name)
        assert code == 0, err
        assert "irreducible loss" in (tmp_path / name).read_text().lower()
    code, _, _ = cli("report", with_ladder, result, "-o", tmp_path / "both.md")
    assert "Ladders of the hard tokens" in (tmp_path / "both.md").read_text()
    for loss, rung, words in (
        ((limit["class"] + limit["position"]) / 2, "class", "ABOVE the class rung"),
        (limit["context"] - 0.5, "context", "0.50 nats below the context rung"),
    ):
        log = tmp_path / "log.csv"
        log.write_text("step,loss\n" + "".join(f"{i},{loss}\n" for i in range(30)))
        code, out, _ = cli("monitor", log, "--floor", with_ladder)
        assert code == 0 and words in " ".join(out.split()), rung
    assert cli("monitor", log, "--floor", with_ladder, "-o", tmp_path / "run.svg")[0] == 0
    picture = (tmp_path / "run.svg").read_text()
    assert f"context rung, at most {limit['context']:.3f}" in picture and "Ladder: loss" not in picture
    # The ceiling is the result's own held-out limit, the ladder's where it has none.
    content = json.loads(with_ladder.read_text())
    upper95 = content["average"]["token_weighted"]["unigram_bracket"]["upper95"]
    assert read_floor(with_ladder).mean.ceiling == read_floor(result).mean.ceiling == upper95
    for of in (*content["scales"], *content["average"].values()):
        del of["unigram_bracket"]
    (tmp_path / "older.json").write_text(json.dumps(content))
    floor = read_floor(tmp_path / "older.json")
    assert floor.mean.ceiling == limit["unigram"] != upper95
    for side, quantity in zip(PATCH_NUMS, ladder["rungs"][1]["scales"], strict=True):
        assert floor.scales[side].ceiling == quantity["upper95"]
    rng = np.random.default_rng(0)
    row = sum(side * side for side in PATCH_NUMS)
    for codes, words, code in ((48, "your model: ", 0), (49, "got 49 codes", 3)):
        np.save(tmp_path / "logits.npy", np.zeros((4, row, codes), np.float32))
        np.save(tmp_path / "labels.npy", rng.integers(codes, size=(4, row)))
        dump = ("--logits", tmp_path / "logits.npy", "--labels", tmp_path / "labels.npy")
        assert cli("loss", *dump, "-o", tmp_path / "loss.json")[0] == 0
        found, out, err = cli(*argv[:-2], "--model", tmp_path / "loss.json")
        assert found == code and words in out + err
        assert codes == 49 or "ABOVE the unigram rung" in " ".join(out.split())
    nums = ("--patch-nums", ",".join(map(str, PATCH_NUMS)))
    for codes, number, sides, words in (
        (48, row, nums, "ABOVE the position rung"),
        (48, row, (), "ABOVE the position rung"),
        (49, row, nums, "is of other tokens"),
        (48, row + 1, (), f"has 48 codes and {row} tokens an image, the logits 48 and {row + 1} a"),
    ):
        np.save(tmp_path / "logits.npy", rng.normal(size=(4, number, codes)).astype(np.float32))
        np.save(tmp_path / "labels.npy", rng.integers(codes, size=(4, number)))
        options = ("--logits", tmp_path / "logits.npy", "--labels", tmp_path / "labels.npy")
        code, out, _ = cli("loss", *options, *sides, "--floor", with_ladder)
        assert code == 0 and words in " ".join(out.split()), out


@pytest.mark.parametrize(
    "path, value",
    [
        ("rungs", []),
        ("rungs.1.scales", []),
        ("rungs.1.weights", []),
        ("rungs.2.gain", None),
        ("rungs.1.id", "unigram, again"),
        ("bracket", []),
        ("patch_nums", []),
        ("scale_tokens", [1]),
        ("lowest.rung", "another"),
        ("lowest.upper95", 1e308),
    ],
)
def test_a_ladder_that_no_estimate_writes_is_refused_by_all_readers(cli, saved, tmp_path, path, value):
    content = json.loads((saved / "result.json").read_text())
    *parents, last = (int(key) if key.isdigit() else key for key in path.split("."))
    part = content["ladder"]
    for key in parents:
        part = part[key]
    part[last] = value
    if last == "id":
        content["ladder"]["lowest"]["rung"] = content["ladder"]["rungs"][2]["id"] = value
    (tmp_path / "bad.json").write_text(json.dumps(content))
    code, _, err = cli("report", tmp_path / "bad.json", "-o", tmp_path / "r.html")
    assert code == 3 and f"`$.ladder.{path.split('.')[0]}" in err.splitlines()[-1], err


def test_rungs_of_any_name_are_drawn(cli, saved, tmp_path):
    content = json.loads((saved / "result.json").read_text())
    for rung in content["ladder"]["rungs"]:
        rung["sees"] = "<script>|$x^$\ud800\x1b[2J" * 20
    (tmp_path / "odd.json").write_text(json.dumps(content))
    for kind in ("html", "png", "md", "csv"):  # warnings are errors here
        code, out, err = cli("report", tmp_path / "odd.json", "-o", tmp_path / f"r.{kind}")
        assert code == 0 and "\x1b" not in out + err, err
