"""Weird files, hostile names, extreme sizes: one line of error, or right numbers; never a traceback."""

import csv
import json
import os
import shutil

import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from entropy_cli.images.label_file import read_label_file
from tests.commands.evaluate.conftest import model_weights
from tests.conftest import PATCH_NUMS
from tests.generator_checkpoints import levels

HOSTILE = [
    b"=cmd|' -C calc'!A0.jpg",
    b'"quoted", really.jpg',
    b"a\nb.jpg",
    b"c\rd.jpg",
    b"\x1b[31mred.jpg",
    b"\xff\xfe.jpg",
    "\u2028\u0085.jpg".encode(),
    b" spaces .jpg",
    b"-o.jpg",
]


@pytest.fixture
def hostile(images, tmp_path):
    """Nine pictures with such names."""
    (tmp_path / "data").mkdir()
    for source, name in zip(sorted(images.rglob("*.jpg")), HOSTILE, strict=False):
        shutil.copy(source, os.fsencode(tmp_path / "data") + b"/" + name)
    return tmp_path / "data"


def shown_safely(text):
    return not any(ord(character) < 32 and character not in "\n\t" for character in text)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_names_of_images_are_a_row_each(cli, options, hostile, tmp_path, suffix):
    path = tmp_path / f"n.{suffix}"
    run = ("evaluate", *options, "--data", hostile, "--labels", "none", "--workers", 0)
    more = ("--per-image", path, "-o", tmp_path / "r.json", "--report", tmp_path / "r.html")
    code, out, err = cli(*run, *more, "--table", "--explain")
    assert code == 0 and shown_safely(out) and shown_safely(err), err
    if suffix == "csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["path"], float(row["nats"])) for row in csv.DictReader(file)]
        assert all(name[0] not in "=+-@" for name, _ in rows)  # no formula in a spreadsheet
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pydict()
        rows = list(zip(table["path"], table["nats"], strict=True))
        assert {"a\nb.jpg", "c\rd.jpg", '"quoted", really.jpg'} < set(table["path"])
    assert len(rows) == len(HOSTILE) == len({name for name, _ in rows})
    result = json.loads((tmp_path / "r.json").read_text())
    mean = sum(nats for _, nats in rows) / len(rows)
    assert mean == pytest.approx(result["total"]["nats_per_image"], rel=1e-9)
    assert "\x1b" not in (tmp_path / "r.html").read_text()


def test_any_name_can_have_a_label(evaluate, options, hostile, tmp_path):
    """Quoted as CSV quotes; a name is no other for its separators of lines."""
    names = [os.fsdecode(name) for name in HOSTILE if name != b" spaces .jpg"]
    (hostile / " spaces .jpg").unlink()
    with (tmp_path / "l.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows((name, i % 4) for i, name in enumerate(names))
    given = ("--labels", tmp_path / "l.csv", "--per-image", tmp_path / "n.parquet")
    result = evaluate(*options, "--data", hostile, *given)
    assert result["labels"]["source"] == "file" and result["data"]["images_used"] == len(names)
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "n.parquet").to_pydict()
    of = dict(zip(table["path"], table["label"], strict=True))
    for i, name in enumerate(names):
        if name.isprintable() or "\n" in name or "\u2028" in name:
            assert of[name] == i % 4, name


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no labels"),
        (b"path,label\n", "no labels"),
        (b"a.jpg,4\n", "expected a class from 0 to 3"),
        (b"a.jpg,-1\n", "expected a whole number or a wnid"),
        (b"a.jpg,1.0\n", "expected a whole number"),
        (b"a.jpg,1e2\n", "expected a whole number"),
        (b"a.jpg,99999999999999999999\n", "expected a whole number"),
        ("a.jpg,٣\n".encode(), "expected a whole number"),
        (b"a.jpg,n01440764\n", "wnids are for models of ImageNet's 1,000 classes"),
        (b"a.jpg,1\nb.jpg,\n", "2 cells, expected a path and a class"),
        (b"a.jpg,1\na.jpg,2\n", "a.jpg is there twice"),
        (b"a.jpg,1\n./a.jpg,1\n", "a.jpg is there twice"),
        (b"a.jpg,1,2\n", "3 cells, expected a path and a class"),
        (b"\x00\x01\x02\xff" * 100, "labels"),
        (b"\x1b[31m.jpg,1\n", "no line for"),
        (b"a.jpg,1\n", "no line for"),
        (b'"a.jpg,1\n' * 3, "labels.csv"),
        (b'{"a.jpg": 1}\n{"b.jpg": 1}', "begins as JSON, but can't be read as one document"),
        (b'{"a.jpg": 1.0}', "expected pairs of a path and a class"),
        (b'{"labels": [["a.jpg", [1]]]}', "expected pairs of a path and a class"),
        (b'{"labels": [["a.jpg", 1], ["b.jpg", 4]]}', "pair 2: got '4', expected a class from 0 to 3"),
        (b"{}", "no labels"),
    ],
)
def test_label_files_that_are_wrong(cli, options, tmp_path, content, words):
    (tmp_path / "labels.csv").write_bytes(content)
    run = ("evaluate", *options, "--labels", tmp_path / "labels.csv", "--workers", 0)
    code, out, err = cli(*run)
    assert (code, out) == (3, "") and words in err.splitlines()[-1], err
    assert shown_safely(err) and "Traceback" not in err


@pytest.mark.parametrize(
    "text", ["{0};{1}", "{0}\t{1}", "{0} {1}", "./{0},{1}", "{0} , {1}", '"{0}",{1}', "{0},00{1}"]
)
@pytest.mark.parametrize("form", ["plain", "header and carriage returns", "byte order mark"])
def test_label_files_of_many_forms(tmp_path, text, form):
    lines = [text.format(f"f/x{i}.jpg", i % 4) for i in range(20)]
    content = "\n".join(lines).encode()
    if form == "header and carriage returns":
        content = "\r\n".join([text.format("path", "class").replace("00", ""), *lines, ""]).encode()
    if form == "byte order mark":
        content = b"\xef\xbb\xbf" + content
    (tmp_path / "l").write_bytes(content)
    found = read_label_file(tmp_path / "l", 4, {})
    assert found.labels == {f"f/x{i}.jpg": i % 4 for i in range(20)}


def test_label_files_of_json(tmp_path):
    labels = {"x, 1.jpg": 1, "./f/x2.jpg": "2"}
    for content in (labels, {"labels": list(labels.items())}):
        (tmp_path / "l.json").write_text(json.dumps(content))
        assert read_label_file(tmp_path / "l.json", 4, {}).labels == {"x, 1.jpg": 1, "f/x2.jpg": 2}


@pytest.mark.parametrize(
    "folders", [["9" * 20, "1", "2", "3"], ["-1", "0", "1", "2"], ["1", "2", "3", "4"]]
)
def test_folders_that_are_nearly_numbers_are_only_counted(evaluate, options, images, tmp_path, folders):
    """Four folders for four classes: said in a note."""
    for folder, source in zip(folders, sorted(images.iterdir()), strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(next(iter(sorted(source.iterdir()))), tmp_path / folder / "x.jpg")
    result = evaluate(*options, "--data", tmp_path)
    assert result["labels"]["source"] == "folders" and result["labels"]["notes"]


def test_a_name_of_a_model_is_shown_safely(cli, options, model, tmp_path):
    path = tmp_path / "\x1b[31mred\n.safetensors"
    shutil.copy(model, path)
    run = ("evaluate", *options, "--model", path, "--workers", 0, "--table", "--explain")
    code, out, err = cli(*run, "--limit", 8, "--report", tmp_path / "r.md", "-o", tmp_path / "r.json")
    assert code == 0 and shown_safely(out) and shown_safely(err)
    assert "\x1b" not in (tmp_path / "r.md").read_text()
    code, out, err = cli("evaluate", *options, "--model", tmp_path / "\x1b[2J.pth")
    assert code == 3 and shown_safely(err) and "no such file" in err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}", b"\x80\x02}q\x00."])
def test_files_that_are_no_model(cli, options, tmp_path, content):
    for name in ("m.pth", "m.safetensors"):
        (tmp_path / name).write_bytes(content)
        code, out, err = cli("evaluate", *options, "--model", tmp_path / name)
        assert (code, out) == (3, "") and name in err.splitlines()[-1] and "Traceback" not in err


def test_a_model_that_is_cut_off(cli, options, model, tmp_path):
    content = model.read_bytes()
    for size in (100, len(content) // 2, len(content) - 1):
        (tmp_path / "m.safetensors").write_bytes(content[:size])
        code, out, err = cli("evaluate", *options, "--model", tmp_path / "m.safetensors")
        assert (code, out) == (3, "") and "m.safetensors" in err.splitlines()[-1]


def test_one_image_has_no_errors_and_a_result(cli, options, images, tmp_path):
    names = [path.relative_to(images) for path in images.rglob("*.jpg")]
    (tmp_path / "l.csv").write_text("\n".join(f"{name},1" for name in names))
    files = ("-o", tmp_path / "r.json", "--labels", tmp_path / "l.csv")
    for report in ("r.html", "r.md", "r.csv"):
        run = ("evaluate", *options, "--limit", 1, "--workers", 0, "--table", "--explain", *files)
        code, out, err = cli(*run, "--report", tmp_path / report, "--units", "bits")
        assert code == 0, err
        assert all(len(line) <= 80 or "/" in line for line in out.splitlines())  # but for paths
    result = json.loads((tmp_path / "r.json").read_text())
    loss = result["average"]["token_weighted"]["cross_entropy"]
    assert loss["se"] is None and loss["ci95"] is None and loss["note"]
    assert "cross_entropy" not in result["replicates"]
    (check,) = [check for check in result["checks"] if check["id"] == "labels"]
    assert check["severity"] == "care" and "too few images" in check["message"]


def test_a_class_more_or_less_is_no_other_label(evaluate, options, tmp_path):
    """A model of a million classes, of which four are seen."""
    weights = model_weights(classes=20_000)
    save_file(weights | {"lvl_1L": levels(*PATCH_NUMS)}, tmp_path / "m.safetensors")
    more = ("--model", tmp_path / "m.safetensors", "--labels", "none", "--limit", 16)
    result = evaluate(*options, *more)
    assert result["model"]["classes"] == 20_000 and result["labels"]["classes_seen"] == 1


def test_a_full_disk_under_the_state_leaves_a_result(cli, options, tmp_path, monkeypatch):
    from entropy_cli.streaming import state_file

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(state_file, "save_file", full)
    run = ("evaluate", *options, "--state", tmp_path / "s", "--save-every", 0, "--workers", 0)
    code, out, err = cli(*run, "-o", tmp_path / "r.json")
    assert code == 3 and "No space left" in err.splitlines()[-1] and "cross-entropy" in out
    assert json.loads((tmp_path / "r.json").read_text())["data"]["images_used"] == 70


def test_a_disk_that_fills_up_under_the_losses_is_one_line(cli, options, tmp_path, monkeypatch):
    from entropy_cli.results.evaluations import per_image

    def full(path, _):
        from entropy_cli.core.errors import ResultError

        raise ResultError(f"{path}: can't be written: No space left on device.")

    monkeypatch.setattr(per_image, "write_atomically", full)
    run = ("evaluate", *options, "--per-image", tmp_path / "n.csv", "--workers", 0)
    code, out, err = cli(*run, "-o", tmp_path / "r.json")
    assert code == 3 and "n.csv: can't be written" in err.splitlines()[-1] and "cross-entropy" in out
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, err = cli(*run)
    assert code == 0 and "resuming from 70 of 70" in err and (tmp_path / "n.csv").exists()


def test_what_another_program_wrote_is_kept(cli, options, tmp_path):
    for option, name in (("--per-image", "n.csv"), ("-o", "r.json"), ("--save-tokens", "t.npy")):
        (tmp_path / name).write_text("precious")
        code, out, err = cli("evaluate", *options, option, tmp_path / name)
        assert (code, out) == (3, "") and "--overwrite" in err.splitlines()[-1]
        assert (tmp_path / name).read_text() == "precious"


def test_weights_with_a_prefix_or_beside_an_optimizer(evaluate, options, model, whole, tmp_path):
    import torch

    weights = load_file(model)
    for content in (
        {f"module.{name}": weight for name, weight in weights.items()},
        {"model": {f"_orig_mod.{n}": w for n, w in weights.items()}, "optimizer": {"state": {}}},
    ):
        torch.save(content, tmp_path / "m.pth")
        result = evaluate(*options, "--model", tmp_path / "m.pth")
        assert (
            result["average"]["token_weighted"]["cross_entropy"]
            == (whole[0]["average"]["token_weighted"]["cross_entropy"])
        )
