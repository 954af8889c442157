"""A name that is markup everywhere, through every command and every format: shown, and never obeyed."""

import csv
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.escaping import escape_terminal, one_line
from entropy_cli.images.labels import find_labels
from entropy_cli.results.evaluation import read_evaluation
from entropy_cli.results.evaluations.checks import with_checks
from entropy_cli.results.evaluations.per_image import write_per_image
from entropy_cli.results.schema import read_result
from entropy_cli.results.text import render
from tests.evaluations import evaluation_of

# A formula; colours of a terminal; text from right to left; C1's CSI; HTML; Markdown; mathematics that
# is none; a line that passes for another; half of a pair of surrogates, as of a name that is no UTF-8.
NASTY = "=1\x1b[31m\u202e\x9b2J<img src=x>&lt;|`b`[a](b)$x^$\rerror: forged\nerror: forged\udcff"
COLUMN = "=1\x1b[31m\u202e\x9b2J<img src=x>`b`[a](b)$x^$"  # in a table, whose lines are cut first


class Tags(HTMLParser):
    """Collects the tags and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, name) for name, _ in attrs] or [(tag, "")]


def assert_plain(text):
    """No control characters but line ends."""
    found = {c for c in text if not c.isprintable()} - {"\n"}
    assert not found, found


def assert_file_harmless(path):
    """What each format must not hold; a picture only must be there."""
    suffix, content = path.suffix, path.read_bytes()
    if suffix in (".png", ".pdf"):
        assert content[:4] in (b"\x89PNG", b"%PDF")
        return
    text = content.decode()
    assert_plain(text)
    if suffix == ".json":
        json.loads(text)
    if suffix == ".svg":
        ElementTree.fromstring(text)
    if suffix == ".html":
        tags = Tags()
        tags.feed(text)
        assert not {("img", "src"), ("a", "href")} & set(tags.found)
        assert "<img" not in text.partition("<body>")[2].replace("<!--", "")
    if suffix == ".md":
        without_code = re.sub("^- \\*\\*command\\*\\*: ``.*``$", "", text, flags=re.MULTILINE)
        assert "<img" not in without_code and not re.search(r"(?<!\\)[$|`\[]\w", without_code)
    if suffix == ".csv":
        cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
        assert len({len(row) for row in csv.reader(text.splitlines())}) == 1
        assert not any(cell.startswith(("=", "@", "+")) for cell in cells)


@pytest.fixture
def there(tmp_path, monkeypatch, images, checkpoint):
    """A working folder of files with the name: images, checkpoint, result, log, arrays, points."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / NASTY / "d"
    data.mkdir(parents=True)
    for i, path in enumerate(sorted(images.rglob("*.jpg"))[:20]):
        (data / f"{i}{NASTY}.jpg").write_bytes(path.read_bytes())
    (data / f"broken{NASTY}.jpg").write_bytes(b"no picture")
    (data / f"left{NASTY}.heic").write_bytes(b"x")
    (tmp_path / f"{NASTY}.safetensors").write_bytes(checkpoint.read_bytes())
    (tmp_path / "config.json").write_bytes(checkpoint.with_name("config.json").read_bytes())
    steps = [{"step": i, f"loss{NASTY}": 5 - i / 3, "_acc": i / 9} for i in range(9)]
    (tmp_path / f"{NASTY}.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    name = NASTY.replace("\udcff", "")
    save_file({name: torch.randn(6, 3, 5), "c": torch.randn(6, 3, 5)}, tmp_path / "logits.safetensors")
    save_file({name: torch.randint(5, (6, 3))}, tmp_path / f"labels{NASTY}.safetensors")
    np.save(f"{NASTY}.npy", np.zeros((6, 3), int))
    with (tmp_path / "points.csv").open("w", newline="") as file:
        rows = [(10**i, 2 + 9 / i, f"{i}{COLUMN}") for i in range(3, 9)]
        csv.writer(file).writerows([(f"N{COLUMN}", f"loss{COLUMN}", "run"), *rows])
    return tmp_path


def run(cli, *argv, written=(), codes=(0, 4)):
    """Run a command, and check its streams and the files that it wrote."""
    code, out, err = cli(*argv)
    assert code in codes and "Traceback" not in err, (argv, code, err)
    for text in (out, err):
        assert_plain(text)
        assert not re.search("^error: forged", text, re.MULTILINE), text
    for path in written:
        assert_file_harmless(path)
    return out, err


def outputs(folder, *suffixes):
    """Paths with the name, one for each suffix."""
    return [folder / f"out{NASTY}{suffix}" for suffix in suffixes]


def test_estimates_and_their_reports(cli, there):
    result, inputs = there / f"{NASTY}.json", ["--data", NASTY, "--ckpt", f"{NASTY}.safetensors"]
    out, err = run(
        cli, "estimate", *inputs, "--workers", 0, "-o", result, "--table", "--explain", written=[result]
    )
    assert "\\x1b[31m" in out and "broken=1\\x1b" in err
    run(cli, "estimate", *inputs, "--workers", 0, "--dry-run")
    run(cli, "estimate", *inputs, "--workers", 0, "--on-error", "fail", codes=[3])
    content = json.loads(result.read_text())
    content["scales"][0]["name"] = content["tokenizer"]["family"] = NASTY
    content["provenance"]["checkpoint_notes"] = [NASTY]
    (there / "other.json").write_text(json.dumps(content))
    for path in outputs(there, ".html", ".svg", ".md", ".csv"):
        run(cli, "report", "other.json", "-o", path, written=[path])
    for path in outputs(there, ".html", ".pdf", ".md", ".csv"):
        run(cli, "report", result, "other.json", "-o", path, written=[path])
    for i in range(2):
        run(cli, "estimate", *inputs, "--workers", 0, "--shard", f"{i}/2", "--state", f"{i}{NASTY}")
    run(cli, "merge", f"0{NASTY}", f"1{NASTY}", "--explain", "--table", "-o", result, written=[result])
    run(cli, "merge", f"0{NASTY}", codes=[3])
    for path in outputs(there, ".png", ".svg"):
        image = f"{NASTY}/d/0{NASTY}.jpg"
        run(cli, "show", image, *inputs[2:], "-o", path, "--result", "other.json", codes=[0, 3])
        run(cli, "show", image, *inputs[2:], "-o", path, written=[path])


def test_evaluations_and_their_reports(cli, there):
    inputs = ["--data", NASTY, "--ckpt", f"{NASTY}.safetensors", "--workers", 0]
    run(cli, "estimate", *inputs, "-o", "estimate.json")
    made = with_checks(evaluation_of(read_result("estimate.json")))
    content = json.loads(made.to_json())
    content["scales"][0]["name"] = content["model"]["family"] = content["model"]["precision"] = NASTY
    content["provenance"] |= {"model": f"a/{NASTY}.pth", "model_notes": [NASTY]}
    content["labels"]["notes"] = [NASTY]
    content["checks"][0] |= {"severity": "wrong", "message": NASTY}
    ends = [{"path": f"d/{NASTY}.jpg", "label": 1, "nats": 9.5}]
    content["extremes"] = {"worst": ends, "best": ends}
    (there / "nasty.json").write_text(json.dumps(content))
    assert_plain(escape_terminal(render(read_evaluation("nasty.json"), table=True, explain=True)))
    for path in outputs(there, ".html", ".svg", ".md", ".csv"):
        run(cli, "report", "nasty.json", "-o", path, written=[path])
        run(cli, "report", "nasty.json", "nasty.json", "-o", path, written=[path])
    made.write(there / f"{NASTY}.json")
    run(cli, "fit", f"{NASTY}.json", "nasty.json", codes=[0, 3])
    losses = there / "losses.csv"
    names = [f"d/{NASTY}.jpg", NASTY]
    write_per_image(losses, names.__getitem__, np.array([1, 2]), np.array([0.5, 1.0]))
    assert_file_harmless(losses)
    (there / "labels.csv").write_text(f'"{NASTY[:-1]}",1\n', "utf-8")
    for message in (there / "labels.csv", there / f"{NASTY}.json"):
        with pytest.raises(DatasetError) as caught:
            find_labels([NASTY], message, 1000, None)
        assert_plain(one_line(str(caught.value)))


def test_logs(cli, there):
    log = f"{NASTY}.jsonl"
    out, _ = run(cli, "monitor", log, "--table")
    assert "loss=1\\x1b[31m" in out
    for path in outputs(there, ".svg", ".html", ".json"):
        run(cli, "monitor", log, "-o", path, "--json", written=[path])
    run(cli, "monitor", log, "--loss", NASTY, codes=[3])
    run(cli, "monitor", log, "--format", NASTY, codes=[2])


def test_checkpoints_arrays_and_points(cli, there):
    for option in ("--table", "--json", "--full"):
        run(cli, "inspect", f"{NASTY}.safetensors", option)
        run(cli, "inspect", "logits.safetensors", option, codes=[0, 3])
    arrays = ["--logits", "logits.safetensors:c", "--labels", f"labels{NASTY}.safetensors"]
    for path in outputs(there, ".json"):
        run(cli, "loss", *arrays, "-o", path, "--table", written=[path])
    run(cli, "loss", "--logits", "logits.safetensors", *arrays[2:], codes=[3])
    run(cli, "loss", "--logits", f"{NASTY}.npy", "--labels", f"{NASTY}.npy", codes=[2, 3])
    result = there / f"{NASTY}.json"
    columns = ["--size", f"N{COLUMN}", "--loss", f"loss{COLUMN}"]
    for path in outputs(there, ".json", ".pdf"):
        run(cli, "fit", "points.csv", *columns, "-o", path, written=[path])
    run(cli, "fit", "points.csv", "--size", NASTY, codes=[3])
    run(cli, "bench", "--ckpt", f"{NASTY}.safetensors", "--data", f"{NASTY}none", codes=[3])
    run(cli, "slurm", "--array", 2, "--", "--data", NASTY, "--ckpt", result, codes=[0, 2, 3])
    sizes = ["--steps", 2, "--image-size", 16, "--width", 32, "--width-mult", "1,1", "--batch-size", 2]
    run(cli, "train", "--data", NASTY, "-o", f"t{NASTY}", *sizes, "--workers", 0)
    run(cli, "train", "--data", f"{NASTY}none", "-o", NASTY, codes=[3])
    run(cli, "guide", NASTY, codes=[2])
    run(cli, NASTY, codes=[2])
