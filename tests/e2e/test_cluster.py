"""`estimate --cluster folder`: errors over folders, in one run, in shards, resumed and from Python."""

import hashlib
import json
import shutil

import pytest

from entropy_cli import estimate as estimate_in_python
from entropy_cli import load_tokenizer
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.image_set import GROUPS, hash_path
from entropy_cli.results.notes import notes
from entropy_cli.results.schema import from_dict
from tests.e2e.test_estimate import assert_same

FOLDERS = 12


@pytest.fixture(scope="module")
def scenes(images, tmp_path_factory):
    """The pictures in twelve folders of unequal size."""
    root = tmp_path_factory.mktemp("scenes")
    for i, path in enumerate(sorted(images.rglob("*.jpg"))):
        folder = root / f"scene {min(i % 17, FOLDERS - 1)}"
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture
def by_folder(estimate, scenes, checkpoint):
    return estimate("--data", scenes, "--ckpt", checkpoint, "--cluster", "folder", "--batch-size", 4)


def test_groups_are_whole_folders(estimate, by_folder, scenes, checkpoint):
    images_G = [0] * GROUPS
    for folder in scenes.iterdir():
        images_G[hash_path(folder.name, 0)[1] % GROUPS] += len(list(folder.iterdir()))
    assert by_folder["replicates"]["images"] == images_G
    by_image = estimate("--data", scenes, "--ckpt", checkpoint, "--cluster", "image", "--batch-size", 4)
    same = estimate("--data", scenes, "--ckpt", checkpoint, "--batch-size", 4)
    fingerprints = [r["data"]["fingerprint"] for r in (by_image, same, by_folder)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert (by_image["settings"]["cluster"], by_folder["settings"]["cluster"]) == ("image", "folder")
    for of, other in zip(by_folder["scales"], by_image["scales"], strict=True):
        assert of["code_counts"] == other["code_counts"]
        mean, mean_of_other = of["assignment_entropy"], other["assignment_entropy"]
        assert mean["value"] == pytest.approx(mean_of_other["value"], abs=1e-12)
        assert mean["se"] != pytest.approx(mean_of_other["se"], rel=1e-3)
    replicates = by_folder["replicates"]["assignment_entropy"]
    deleted_G = [row[-1] for row, images in zip(replicates, images_G, strict=True) if images]
    mean = sum(deleted_G) / len(deleted_G)
    variance = (len(deleted_G) - 1) / len(deleted_G) * sum((x - mean) ** 2 for x in deleted_G)
    se = by_folder["average"]["last_scale"]["assignment_entropy"]["se"]
    assert se == pytest.approx(variance**0.5, rel=1e-9)
    widest = max(a["assignment_entropy"]["ci95"][1] for a in by_folder["average"].values())
    assert widest > 0 and by_folder["history"][-1]["half_width"] == pytest.approx(
        by_folder["average"]["token_weighted"]["assignment_entropy"]["se"] * 2.26, rel=0.2
    )
    said = {r["settings"]["cluster"]: " ".join(notes(from_dict(r))) for r in (by_image, by_folder)}
    assert "from the same folders" in said["image"] and "other folders" in said["folder"]
    older = json.loads(json.dumps(by_image))
    del older["settings"]["cluster"]
    for of in (*older["scales"], *older["average"].values()):
        del of["unigram_bracket"]
    assert from_dict(older).settings.cluster == "image"  # as of earlier versions
    assert from_dict(older).average.token_weighted.unigram_bracket is None


def test_shards_resume_and_merge(cli, by_folder, scenes, checkpoint, tmp_path):
    paths = [tmp_path / f"{i}.state" for i in range(2)]
    argv = ["estimate", "--data", scenes, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 4]
    for i, path in enumerate(paths):
        shard = ["--shard", f"{i}/2", "--state", path]
        assert cli(*argv, *shard, "--cluster", "folder", "--json")[0] == 0
        code, _, err = cli(*argv, *shard)
        assert code == 3 and "was saved with cluster" in err.splitlines()[-1]
    code, out, _ = cli("merge", *paths, "--json")
    assert code == 0
    merged = json.loads(out)
    assert_same(by_folder, merged)
    assert merged["settings"]["cluster"] == "folder"
    assert merged["data"]["fingerprint"] == by_folder["data"]["fingerprint"]
    assert merged["history"][-1] == pytest.approx(by_folder["history"][-1])


def test_from_python(by_folder, scenes, checkpoint, pictures):
    tokenizer = load_tokenizer(checkpoint)
    found = estimate_in_python(scenes, tokenizer, workers=0, cluster="folder")
    assert found.settings.cluster == "folder"
    assert found.replicates["images"] == by_folder["replicates"]["images"]
    with pytest.raises(EntropyCliError, match=r"^cluster folder: read a folder"):
        estimate_in_python([pictures], tokenizer, cluster="folder")
    with pytest.raises(EntropyCliError, match=r"^cluster 'scene': expected image, folder"):
        estimate_in_python(scenes, tokenizer, cluster="scene")


def test_the_ladder_has_the_same_folds(cli, images, checkpoint, tmp_path):
    """Forty folders, so that all folds have some."""
    for path in sorted(images.rglob("*.jpg")):
        name = hashlib.sha256(path.name.encode()).hexdigest()
        folder = tmp_path / "data" / str(int(name, 16) % 40)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    argv = ("--data", tmp_path / "data", "--ckpt", checkpoint, "--workers", 0, "--cluster", "folder")
    tokens, saved = tmp_path / "tokens.npy", tmp_path / "result.json"
    code, out, err = cli("estimate", *argv, "--ladder", "--json", "--save-tokens", tokens, "-o", saved)
    assert code == 0, err
    result = json.loads(out)
    ladder = result["ladder"]
    assert cli("ladder", "--tokens", tokens, "--result", saved)[0] == 0  # groups of folders too
    states = [tmp_path / f"{i}.state" for i in range(2)]
    for i, state in enumerate(states):
        assert cli("estimate", *argv, "--ladder", "--shard", f"{i}/2", "--state", state)[0] == 0
    code, out, err = cli("merge", *states, "--ladder", "--json")
    assert code == 0, err
    assert json.loads(out)["ladder"]["lowest"] == pytest.approx(ladder["lowest"])
    assert ladder["settings"]["cluster"] == "folder" and ladder["floor"] is None
    found = result["average"]["token_weighted"]["unigram_bracket"]
    unigram = next(rung for rung in ladder["rungs"] if rung["id"] == "unigram")
    # The rung mixes in 1/V too.
    assert found["held_out"] == pytest.approx(unigram["average"]["token_weighted"]["value"], abs=0.05)


def test_what_has_no_folders_is_refused(cli, images, checkpoint, tmp_path):
    one = next(folder for folder in images.iterdir() if folder.is_dir())
    code, _, err = cli("estimate", "--data", one, "--ckpt", checkpoint, "--cluster", "folder")
    assert code == 3 and "in one folder, expected at least two" in err.splitlines()[-1]
    latents = ("--latents", tmp_path / "z.npy", "--rule", "sign")
    code, _, err = cli("estimate", *latents, "--cluster", "folder")
    assert code == 2 and "--cluster" in err
