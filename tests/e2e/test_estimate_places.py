"""`estimate` on archives of every kind: to the last digit what it says of their folder."""

import json

import pytest

from entropy_cli.images.image_set import find_images
from tests.archives import make, write_parquet
from tests.e2e.test_estimate import assert_same

SAME = ("scales", "average", "replicates", "history", "data", "settings", "temperatures")
KINDS = ["parquet files", "one zip", "stored zips", "tar of tars", "tar.zst"]


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_resumed_and_in_shards(cli, estimate, images, checkpoint, tmp_path, kind):
    place, copy = make(kind, images, tmp_path)
    broken = find_images(copy, seed=3).locate(40)
    options = ("--ckpt", checkpoint, "--batch-size", 4, "--seed", 3, "--temperature", 1)
    want = estimate("--data", copy, *options)
    got = estimate("--data", place, *options)
    assert [got[name] for name in SAME] == [want[name] for name in SAME]
    assert want["data"]["images_used"] == 70 and got["provenance"]["data"] == str(place)

    # Interrupted by an image that can't be read in the folder, and resumed with the archive.
    content = broken.read_bytes()
    broken.write_bytes(bytes(len(content)))
    state = ("--state", tmp_path / "state")
    assert estimate("--data", copy, *options, *state, "--on-error", "fail")[0] == 3
    broken.write_bytes(content)
    resumed = estimate("--data", place, *options, *state)
    assert 0 < resumed["provenance"]["images_resumed"] < 70
    assert [resumed[name] for name in SAME] == [want[name] for name in SAME]

    states = [tmp_path / f"{i}.state" for i in range(3)]
    for i, path in enumerate(states):
        assert cli("estimate", "--data", place, *options, "--shard", f"{i}/3", "--state", path)[0] == 0
    code, out, _ = cli("merge", "--json", *states)
    assert code == 0
    assert_same(json.loads(out), want)


def test_a_damaged_image_in_an_archive_is_counted(cli, images, checkpoint, tmp_path):
    paths = sorted(images.rglob("*.jpg"))[:20]
    rows = [(path.name, path.read_bytes(), 0) for path in paths]
    rows[4] = (rows[4][0], rows[4][1][:200], 0)
    data = write_parquet(tmp_path / "x.parquet", rows)
    code, out, err = cli("estimate", "--json", "--data", data, "--ckpt", checkpoint)
    assert code == 4 and json.loads(out)["data"]["failed"] == [rows[4][0]] and "Traceback" not in err
    data.write_bytes(data.read_bytes()[:-9])
    code, out, err = cli("estimate", "--data", data, "--ckpt", checkpoint)
    assert code == 3 and not out and "is damaged: as a Parquet file" in err.splitlines()[-1]
