"""Images that repeat another: found by their content, and counted."""

import json

import numpy as np

from entropy_cli.images.loader import digest


def repeated(images, folder, copies):
    """A folder of images, some of which are there twice."""
    for i, path in enumerate(sorted(images.rglob("*.jpg"))):
        (folder / path.name).write_bytes(path.read_bytes())
        if i < copies:
            (folder / f"copy-{path.name}").write_bytes(path.read_bytes())
    return folder


def test_repeated_images_are_counted_however_the_work_is_cut(
    cli, estimate, images, checkpoint, tmp_path
):
    (tmp_path / "data").mkdir()
    data = repeated(images, tmp_path / "data", copies=7)
    run = ("--data", data, "--ckpt", checkpoint, "--temperature", 1)
    whole = estimate(*run, "--batch-size", 5)
    (check,) = (check for check in whole["checks"] if check["id"] == "repeats")
    assert whole["provenance"]["repeats"] == 7
    assert check["severity"] == "care" and check["message"].startswith("7 images repeat another")
    states = [tmp_path / f"{i}.state" for i in range(3)]
    for i, state in enumerate(states):
        estimate(*run, "--shard", f"{i}/3", "--state", state, "--batch-size", 32)
    code, out, _ = cli("merge", *states, "--json")
    assert code == 0 and json.loads(out)["provenance"]["repeats"] == 7
    none = estimate("--data", images, "--ckpt", checkpoint, "--temperature", 1)
    assert none["provenance"]["repeats"] == 0
    assert not any(check["id"] == "repeats" for check in none["checks"])


def test_digests_differ_where_content_does():
    array = np.arange(30, dtype=np.float32).reshape(5, 6)
    other = array.copy()
    other[0, 2] += 1  # neither the largest nor the last
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array.copy())
    assert len({digest(array), digest(other), digest(array[::-1]), digest(array.T)}) == 4
    assert digest(np.zeros((3, 3, 3), np.uint8)) != digest(np.ones((3, 3, 3), np.uint8))
