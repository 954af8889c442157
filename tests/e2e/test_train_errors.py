"""`train`: wrong usage is one line that says what fits; unreadable images are counted, not fatal."""

import json
import shutil

import pytest

from tests.trainings import SMALL, last_line, steps


@pytest.fixture
def train(cli, folder, tmp_path):
    """Train for four steps; return exit code, stdout and stderr."""

    def run(*options, data=folder, out=tmp_path / "out"):
        return cli(
            "train", "--data", data, "--output", out, *SMALL, "--steps", 4, "--eval-every", 4, *options
        )

    return run


@pytest.mark.parametrize(
    "options, code, words",
    [
        (["--batch-size", 28], 3, "27 images to train on are fewer than a batch of 28"),
        (["--batch-size", 28], 3, "Give --batch-size 27"),
        (["--batch-size", 28, "--grad-accum-steps", 4], 3, "Give --batch-size 24"),
        (["--batch-size", 9, "--grad-accum-steps", 4], 3, "Give a multiple of 4, such as 8."),
        (["--patch-nums", "1,2,3"], 3, "such as 1,2,3,4. Or give --image-size 12."),
        (["--patch-nums", "2,1,4"], 3, "a list that grows up to 4, such as 1,2,3,4"),
        (["--patch-nums", "1,1,4"], 3, "a list that grows up to 4"),
        (["--patch-nums", "1,x"], 2, "a whole number from 1 to 4,096"),
        (["--width", 48], 3, "Give a multiple of 32, such as"),
        (["--width", 5], 3, "such as 32"),
        (["--image-size", 18], 3, "Give a multiple of 4, such as 16"),
        (["--image-size", 1], 3, "such as 4"),
        (["--width-mult", "0"], 2, "a whole number from 1 to 64"),
        (["--steps", 0], 2, "--steps"),
        (["--norm", "layer"], 2, "--norm"),
        (["--device", "tpu"], 2, "expected auto, cpu"),
        (["--workers", "-1"], 2, "expected auto or a whole number"),
        (["--ema-decay", 2], 2, "--ema-decay"),
        (["--vocab-size", 1], 2, "--vocab-size"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_fits(train, tmp_path, options, code, words):
    got, out, err = train(*options)
    assert got == code, err
    assert out == "" and "Traceback" not in err
    assert words in last_line(err) and last_line(err).startswith("error: ")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "option",
    [
        "--lr",
        "--beta",
        "--l1",
        "--l2",
        "--grad-clip",
        "--weight-decay",
        "--codebook-decay",
        "--ema-decay",
        "--final-lr",
    ],
)
def test_numbers_that_are_none_are_refused(train, option, number):
    code, out, err = train(option, number)
    assert code == 2 and out == ""
    assert option in last_line(err)


@pytest.mark.parametrize("pictures", [0, 1])
def test_too_few_pictures(train, folder, tmp_path, pictures):
    (tmp_path / "data").mkdir()
    for path in sorted(folder.rglob("*.jpg"))[:pictures]:
        shutil.copy(path, tmp_path / "data")
    code, out, err = train(data=tmp_path / "data")
    assert code == 3 and out == "" and "Traceback" not in err
    assert str(tmp_path / "data") in last_line(err)


def test_no_such_folder(train, tmp_path):
    code, _, err = train(data=tmp_path / "nowhere")
    assert code == 3 and str(tmp_path / "nowhere") in last_line(err)


def test_a_folder_that_holds_a_training_is_kept(train, tmp_path):
    assert train()[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    code, _, err = train()
    assert code == 3 and "Give --resume" in last_line(err)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "out" / "trainer.pt").unlink()
    for options in ([], ["--resume"]):
        code, _, err = train(*options)
        assert code == 3 and "holds model.safetensors, but no trainer.pt" in last_line(err)


OTHERS = {
    "config.json": b"mine",
    "metrics.jsonl": b'{"step": 1, "loss": 2}\n',
    "reconstructions.png": b"mine",
    "model.safetensors": b"mine",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["anew", "resumed"])
def test_files_of_others_are_kept(train, tmp_path, name, resume):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(OTHERS[name])
    code, _, err = train(*resume)
    assert code == 3 and f"holds {name}, but no trainer.pt" in last_line(err)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name}
    assert (tmp_path / "out" / name).read_bytes() == OTHERS[name]


@pytest.mark.parametrize("first", [0, 1])
def test_a_training_killed_before_its_first_save_begins_anew(train, tmp_path, first):
    assert train(out=tmp_path / "other")[0] == 0
    lines = (tmp_path / "other" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text("".join(lines[:first]))
    assert train()[0] == 0
    assert steps(tmp_path / "out") == steps(tmp_path / "other")


@pytest.mark.parametrize("split", [False, True])
def test_the_output_is_not_among_the_images(train, folder, tmp_path, split):
    data = tmp_path / "data" / "train" if split else tmp_path / "data"
    shutil.copytree(folder, data)
    before = set(data.rglob("*"))
    code, _, err = train(data=tmp_path / "data", out=data / "out")
    assert code == 3 and "outside of --data" in last_line(err)
    assert set(data.rglob("*")) == before
    if split:
        assert train(data=tmp_path / "data", out=tmp_path / "data" / "out")[0] == 0


def test_a_folder_that_can_not_be_written_to(train, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        code, _, err = train(out=out)
        assert code == 3 and str(tmp_path / "file") in last_line(err)
        assert "Traceback" not in err
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.fixture
def broken(folder, tmp_path):
    """The pictures with two that are none."""
    shutil.copytree(folder, tmp_path / "broken")
    for path in sorted((tmp_path / "broken").rglob("*.jpg"))[3:5]:
        path.write_bytes(b"no picture")
    return tmp_path / "broken"


def test_unreadable_pictures_are_counted_and_listed(train, broken, tmp_path):
    code, out, err = train("--json", data=broken)
    assert code == 4
    assert json.loads(out)["images"]["failed"] == 2
    for path in broken.rglob("*.jpg"):
        assert (path.name in err) == (path.read_bytes() == b"no picture")
    code, _, _ = train("--max-failed", 0.5, data=broken, out=tmp_path / "other")
    assert code == 0


def test_files_left_aside_are_named_once(train, broken):
    (broken / "0.jpg_large").write_bytes(b"x")
    err = train(data=broken)[2]
    assert err.count("skipped files") == 1 and ".jpg_large: 1 file" in err


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_pictures_that_do_not_fit_in_memory(
    train, folder, broken, tmp_path, monkeypatch, workers, whole
):
    """Read when they are wanted, they are the same; one that can't be read does not stop a training."""
    data = folder if whole else broken
    kept = train("--json", data=data, out=tmp_path / "kept")
    monkeypatch.setattr("entropy_cli.commands.train.image_store.MOST_CACHED_BYTES", 0)
    code, out, err = train("--json", "--workers", workers, data=data, out=tmp_path / "read")
    assert (code, "Traceback" in err) == (0 if whole else 4, False), err
    assert json.loads(out)["images"]["failed"] == (0 if whole else 2)
    if whole:
        assert steps(tmp_path / "read") == steps(tmp_path / "kept")
        assert json.loads(out)["psnr_db"] == json.loads(kept[1])["psnr_db"]
        mean = json.loads(kept[1])["psnr_mean_image_db"]
        assert json.loads(out)["psnr_mean_image_db"] == pytest.approx(mean, abs=1e-9)


def test_all_unreadable(train, tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(20):
        (tmp_path / "data" / f"{i}.jpg").write_bytes(b"no picture")
    code, out, err = train(data=tmp_path / "data")
    assert code == 3 and out == "" and "can be read" in last_line(err)
