"""Classes from every source, as the model is given them: the file of losses says which."""

import csv
import json
import re
import shutil

import pytest
from safetensors.torch import save_file

from entropy_cli.images.labels import imagenet_wnids
from tests.archives import write_parquet, write_tar, write_zip
from tests.commands.evaluate.conftest import model_weights
from tests.conftest import PATCH_NUMS
from tests.generator_checkpoints import levels

WNIDS = {wnid: i for wnid, i in imagenet_wnids().items() if i % 333 == 7}  # three, far apart


def save_model(path, classes):
    save_file(model_weights(classes=classes) | {"lvl_1L": levels(*PATCH_NUMS)}, path)
    return path


@pytest.fixture(scope="session")
def model_of(tmp_path_factory):
    """The tiny model with a number of classes."""
    folder = tmp_path_factory.mktemp("models")
    return {n: save_model(folder / f"{n}.safetensors", n) for n in (3, 12, 1000)}


@pytest.fixture(scope="session")
def sources(images):
    return sorted(images.rglob("*.jpg"))[:12]


@pytest.fixture
def data(tmp_path, sources):
    """A folder of twelve pictures of the given names, in turns with the given folders."""

    def write(folders, prefix=""):
        root = tmp_path / "data"
        for i, source in enumerate(sources):
            folder = root / folders[i % len(folders)]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / f"{prefix and prefix(i)}{i}.jpg")
        return root

    return write


@pytest.fixture
def labels_of(evaluate, checkpoint, tmp_path):
    """The result, and the class that each image was given; or the code and stderr."""

    def run(data, model, *argv):
        nats = ("--per-image", tmp_path / "nats.csv")
        given = ("--data", data, "--ckpt", checkpoint, "--model", model, "--temperature", 1)
        result = evaluate(*given, *nats, *argv)
        if not isinstance(result, dict):
            return result
        with (tmp_path / "nats.csv").open(newline="") as file:
            return result, {row["path"]: int(row["label"]) for row in csv.DictReader(file)}

    return run


def test_folders_of_some_of_imagenets_classes(labels_of, data, model_of):
    """Their places among the folders that are there would be 0, 1 and 2."""
    result, labels = labels_of(data(list(WNIDS)), model_of[1000])
    assert len(labels) == 12
    assert all(label == WNIDS[path.partition("/")[0]] for path, label in labels.items())
    assert (result["labels"]["source"], result["labels"]["classes_seen"]) == ("wnid", 3)


def test_wnids_in_the_names_of_a_flat_folder(labels_of, data, model_of):
    wnids = list(WNIDS)
    root = data([""], lambda i: f"{wnids[i % 3]}_")
    result, labels = labels_of(root, model_of[1000])
    assert all(label == WNIDS[path[:9]] for path, label in labels.items())
    assert result["labels"]["source"] == "wnid"


def test_folders_that_are_numbers_are_not_sorted_as_text(labels_of, data, model_of):
    result, labels = labels_of(data(["2", "10", "0011"]), model_of[12])
    assert all(label == int(path.partition("/")[0]) for path, label in labels.items())
    assert result["labels"]["source"] == "numbers" and set(labels.values()) == {2, 10, 11}


def test_as_many_folders_as_classes_are_counted_with_a_note(labels_of, data, model_of):
    result, labels = labels_of(data(["cats", "ants", "bees"]), model_of[3])
    order = {"ants": 0, "bees": 1, "cats": 2}
    assert all(label == order[path.partition("/")[0]] for path, label in labels.items())
    assert result["labels"]["source"] == "folders"
    assert "ants = 0, bees = 1, cats = 2" in result["labels"]["notes"][0]


@pytest.mark.parametrize(
    "folders, classes, words",
    [
        (["cats", "ants"], 3, "as many folders as classes (got 2 folders)"),
        (["3", "1", "0"], 3, None),  # counted in order, as there are three
        (["n01440764", "n99999999"], 1000, "no known wnid in the path"),
        (["n01440764", "n01443537"], 12, "ImageNet's wnids are for models of 1,000 classes"),
        ([""], 12, "no class can be told from the path"),
    ],
)
def test_folders_that_tell_no_class_are_refused_before_any_work(
    labels_of, data, model_of, folders, classes, words
):
    found = labels_of(data(folders), model_of[classes])
    if words is None:
        assert found[0]["labels"]["source"] == "folders"
        return
    code, err = found
    last = err.splitlines()[-1]
    assert code == 3 and words in last and "--labels" in last and "img/s" not in err


def test_a_file_of_labels_moves_only_the_losses_of_the_class(labels_of, data, model_of, tmp_path):
    root = data([""])
    lines = [f"{i}.jpg,{(5 * i) % 12}" for i in range(12)]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    result, labels = labels_of(root, model_of[12], "--labels", tmp_path / "l.csv")
    assert labels == {f"{i}.jpg": 5 * i % 12 for i in range(12)}
    (tmp_path / "rolled.csv").write_text("\n".join(f"{i}.jpg,{(5 * i + 1) % 12}" for i in range(12)))
    other, rolled = labels_of(root, model_of[12], "--labels", tmp_path / "rolled.csv")
    assert rolled != labels
    a, b = (each["average"]["token_weighted"] for each in (result, other))
    assert a["cross_entropy"] != b["cross_entropy"]
    assert a["cross_entropy_null"] == b["cross_entropy_null"]
    assert a["assignment_entropy"] == b["assignment_entropy"]
    assert result["data"]["fingerprint"] != other["data"]["fingerprint"]


def test_no_labels_are_the_null_class(labels_of, data, model_of, tmp_path):
    root = data(["a", "b", "c"])
    given, _ = labels_of(root, model_of[3])
    result, labels = labels_of(root, model_of[3], "--labels", "none")
    assert set(labels.values()) == {3} and result["labels"]["source"] == "none"
    assert result["labels"]["check"] is None
    null = given["average"]["token_weighted"]["cross_entropy_null"]
    got = result["average"]["token_weighted"]
    assert got["cross_entropy"]["value"] == pytest.approx(null["value"], abs=1e-6)
    assert got["cross_entropy_null"]["value"] is None


@pytest.mark.parametrize("kind", ["tars", "zip", "parquet"])
def test_archives_give_the_same_classes_and_pictures(cli, labels_of, data, model_of, tmp_path, kind):
    root = data(["a", "b", "c"])
    expected, labels = labels_of(root, model_of[3])
    files = [(p.relative_to(root).as_posix(), p) for p in sorted(root.rglob("*.jpg"))]
    out = tmp_path / "out"
    out.mkdir()
    if kind == "tars":  # each the folder of a class
        for name in "abc":
            part = [(p.name, p) for path, p in files if path.startswith(name)]
            write_tar(out / f"{name}.tar", part)
        place = out
    elif kind == "zip":
        place = write_zip(out / "x.zip", files)
    else:
        rows = [(path.replace("/", "_"), p.read_bytes(), "abc".index(path[0])) for path, p in files]
        place = write_parquet(out / "x.parquet", rows)
    result, found = labels_of(place, model_of[3])
    assert result["labels"]["source"] == ("column" if kind == "parquet" else "folders")
    assert sorted(found.values()) == sorted(labels.values())
    for path, label in found.items():
        if kind == "parquet":
            assert label == "abc".index(path.rpartition("/")[2][0])
        else:
            assert label == "abc".index(path.replace(".tar", "").rpartition("/")[0].rpartition("/")[2])
    # Other paths, other order: the same pictures with the same classes.
    got, want = (r["average"]["token_weighted"]["cross_entropy"]["value"] for r in (result, expected))
    assert got == pytest.approx(want, abs=1e-5)
    pages = []
    for name, each in (("place", result), ("folder", expected)):
        (tmp_path / f"{name}.json").write_text(json.dumps(each))
        assert cli("report", tmp_path / f"{name}.json", "-o", tmp_path / f"{name}.html")[0] == 0
        pages.append((tmp_path / f"{name}.html").read_text())
    pictures = [re.findall('data:image/jpeg;base64,[^"]*', page) for page in pages]
    assert len(pictures[0]) == 12 and pictures[0] == pictures[1]


def test_classes_of_webdataset_members(labels_of, data, model_of, tmp_path):
    root = data([""])
    files = []
    for i, path in enumerate(sorted(root.glob("*.jpg"))):
        (tmp_path / f"{i}.cls").write_text(str(i % 12))
        files += [(f"{i:03}.jpg", path), (f"{i:03}.cls", tmp_path / f"{i}.cls")]
    result, labels = labels_of(write_tar(tmp_path / "x.tar", files), model_of[12])
    assert result["labels"]["source"] == "column"
    assert {int(path.rpartition("/")[2][:3]): label for path, label in labels.items()} == {
        i: i % 12 for i in range(12)
    }


@pytest.mark.parametrize("label", [12, 2**62, -3])
def test_a_column_of_other_classes_is_refused(labels_of, sources, model_of, tmp_path, label):
    rows = [(f"{i}.jpg", p.read_bytes(), label if i == 7 else 0) for i, p in enumerate(sources)]
    code, err = labels_of(write_parquet(tmp_path / "x.parquet", rows), model_of[12])
    assert code == 3 and "--labels" in err.splitlines()[-1]


def test_labels_of_a_shard_are_those_of_the_whole_set(cli, options, whole, tmp_path):
    """A shard may see few classes."""
    code, _, err = cli(
        *("evaluate", *options, "--shard", "4/5", "--state", tmp_path / "s", "--workers", 0),
        *("-o", tmp_path / "r.json", "--per-image", tmp_path / "n.csv"),
    )
    assert code == 0, err
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["data"]["images_used"] == 6 and result["labels"]["check"] is None
    mine = (tmp_path / "n.csv").read_text().splitlines()[1:]
    assert [line.rsplit(",", 1)[0] for line in mine] == [
        line.rsplit(",", 1)[0] for line in whole[1]["nats"].read_text().splitlines()[65:]
    ]
