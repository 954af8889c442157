"""`estimate` on tars: to the last digit what it says of the folder they were made from."""

import shutil
import subprocess
import tarfile

import pytest

SAME = ("scales", "average", "replicates", "history", "data", "settings", "temperatures")


@pytest.fixture
def folder(images, tmp_path):
    """Images in train/ and val/, one of which can't be read and one of which is a link."""
    root = tmp_path / "folder"
    for i, path in enumerate(sorted(images.rglob("*.jpg"))):
        place = root / ("train" if i % 3 == 0 else "val") / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (root / "val/noise/broken.jpg").write_bytes(b"no picture")
    (root / "val/link.jpg").symlink_to(f"noise/{min(p.name for p in (root / 'val/noise').glob('n*'))}")
    return root


@pytest.fixture
def tars(folder, tmp_path):
    """Three tars of it, each with a part of every kind of picture; gives their pattern."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    for i in range(3):
        with tarfile.open(tmp_path / f"part-{i:03d}.tar", "w") as tar:
            for path in files[i::3]:
                tar.add(path, f"./{path.relative_to(folder)}")
    return tmp_path / "part-{000..002}.tar"


@pytest.mark.parametrize("split", ["auto", "train", "all"])
@pytest.mark.parametrize("workers", [0, 2])
def test_tars_give_the_result_of_their_folder(
    estimate, folder, tars, checkpoint, tmp_path, split, workers
):
    options = ("--ckpt", checkpoint, "--split", split, "--batch-size", 4, "--seed", 3, "--max-failed", 1)
    want = estimate("--data", folder, *options)
    got = estimate("--data", tars, *options, "--workers", workers)
    assert [got[name] for name in SAME] == [want[name] for name in SAME]
    assert want["data"]["images_used"] in (24, 47, 71)
    assert len(want["data"]["failed"]) == (split != "train")
    assert got["provenance"]["data"] == str(tmp_path.resolve() / "part-{000..002}.tar")
    assert got["provenance"]["failed_reasons"] == want["provenance"]["failed_reasons"]


def test_one_tar_of_a_plain_folder(estimate, baseline, images, checkpoint, tmp_path, monkeypatch):
    subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", images, "."], check=True)
    monkeypatch.chdir(tmp_path)
    for limit in ((), ("--limit", 20)):
        want = estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 4, *limit)
        got = estimate("--data", "x.tar", "--ckpt", checkpoint, "--batch-size", 4, *limit)
        assert [got[name] for name in SAME] == [want[name] for name in SAME]
    assert got["provenance"]["data"] == str(tmp_path.resolve() / "x.tar")
    assert want["data"] != baseline["data"]


def test_a_run_on_a_folder_goes_on_with_tars(cli, estimate, folder, tars, checkpoint, tmp_path):
    options = ("--ckpt", checkpoint, "--batch-size", 4, "--state", tmp_path / "s", "--max-failed", 1)
    want = estimate("--data", folder, *options)
    got = estimate("--data", tars, *options)
    assert got["provenance"]["images_resumed"] == want["data"]["images_used"]
    assert got["scales"] == want["scales"]


def test_the_index_is_used_the_second_time(estimate, tars, checkpoint, tmp_path, monkeypatch):
    options = ("--data", tars, "--ckpt", checkpoint, "--max-failed", 1)
    before = estimate(*options)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", None)
        assert estimate(*options)["scales"] == before["scales"]
    with tarfile.open(tmp_path / "part-001.tar", "a") as tar:
        tar.add(tmp_path / "folder/val/noise/broken.jpg", "val/another.jpg")
    after = estimate(*options)
    assert after["data"]["images_failed"] == before["data"]["images_failed"] + 1
    assert after["data"]["images_used"] == before["data"]["images_used"] == 47


def test_what_is_wrong_with_tars_is_one_line(cli, checkpoint, tmp_path):
    (tmp_path / "text.tar").write_text("no tar")
    for data, words in (
        ("text.tar", "is not a tar"),
        ("gone-{00..10}.tar", "gone-{00..10}.tar 11 files are missing. Check --data."),
        ("*.rat", "no such file"),
    ):
        code, out, err = cli("estimate", "--data", tmp_path / data, "--ckpt", checkpoint)
        assert code == 3 and not out and words in err.splitlines()[-1], err
        assert "Traceback" not in err
