"""Labels: each rule, what it takes for all images or for none, and each line that can be wrong."""

import json

import numpy as np
import pytest

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.image_set import find_images
from entropy_cli.images.labels import find_labels, imagenet_wnids

WNIDS = list(imagenet_wnids())


def found(paths, source="auto", classes=1000, null_class=1000, label_of=None):
    labels = find_labels(paths, source, classes, null_class, label_of)
    assert labels.index_N.dtype == np.int64 and len(labels.index_N) == len(paths)
    assert labels.classes_seen == len(set(labels.index_N.tolist()))
    return labels.source, labels.index_N.tolist()


def refused(*arguments, **options):
    with pytest.raises(DatasetError) as caught:
        find_labels(*arguments, **options)
    return str(caught.value)


def test_the_classes_are_imagenets():
    assert len(WNIDS) == 1000 and sorted(WNIDS) == WNIDS
    assert [WNIDS[i] for i in (0, 207, 999)] == ["n01440764", "n02099601", "n15075141"]


@pytest.mark.parametrize(
    "form", ["{}/x.JPEG", "val/{}/1.png", "{}.tar/1.png", "{}_10026.JPEG", "a/ILSVRC_val_07_{}.JPEG"]
)
def test_wnids_of_a_few_classes_keep_their_indices(form):
    classes = [999, 3, 17, 3]
    paths = [form.format(WNIDS[i]) for i in classes]
    assert found(paths) == ("wnid", classes)


def test_the_folder_counts_before_the_name_and_a_name_with_two_wnids_says_nothing():
    assert found([f"{WNIDS[5]}/{WNIDS[6]}_1.png", f"b/{WNIDS[6]}.png"]) == ("wnid", [5, 6])
    assert "b/" in refused([f"{WNIDS[5]}/1.png", f"b/{WNIDS[1]}_{WNIDS[2]}.png"], "auto", 1000, None)
    assert found([f"{WNIDS[4]}_1_{WNIDS[4]}.jpg"]) == ("wnid", [4])


def test_photographs_have_the_labels_of_the_generators_fixtures(shared):
    golden = json.loads((shared / "golden/generators/var_d4/expected.json").read_text())
    files = [file.removeprefix("imagenet-sample/").split("/", 1)[1] for file in golden["files"]]
    assert found(files) == ("wnid", golden["labels"])


def test_whole_numbers_are_classes_however_they_sort():
    assert found(["10/a.png", "9/a.png", "val/002/b.png"], classes=11) == ("numbers", [10, 9, 2])
    message = refused(["10/a.png", "9/a.png"], "auto", 10, None)
    assert "10/a.png" in message and "folders 0 to 9" in message and "2 folders" in message


def test_as_many_folders_as_classes_are_sorted_with_a_note():
    paths = ["fox/1.png", "ant/1.png", "val/bee/1.png", "fox/2.png"]
    labels = find_labels(paths, "auto", 3, 3)
    assert (labels.source, labels.index_N.tolist()) == ("folders", [2, 0, 1, 2])
    assert "ant = 0, bee = 1, fox = 2." in labels.notes[0]
    assert find_labels(["1.png", "2.png"], "auto", 1, 1).index_N.tolist() == [0, 0]  # flat, one class
    assert "2 folders" in refused(["fox/1.png", "ant/1.png"], "auto", 3, 3)
    assert "a/fox/1.png" in refused(["a/fox/1.png", "ant/1.png"], "auto", 2, 2)  # which folder counts?
    assert found(["fox.tar/1.png", "ant.tar/1.png"], classes=2)[1] == [1, 0]
    assert found(["sea-lion.zip/1.png", "sea.zip/1.png"], classes=2)[1] == [1, 0]  # as unpacked
    for shards in (["x-0.tar/1.png", "x-1.tar/1.png"], ["x-0-4fb1.parquet/1", "x-1-ea07.parquet/1"]):
        assert "2 folders" in refused(shards, "auto", 2, 2)


@pytest.mark.parametrize(
    "names", [("ant", "bee", "cat", "fox"), ("0", "1", "2", "3"), ("0", "1", "bee")]
)
def test_the_first_images_have_the_classes_that_all_have(tmp_path, names):
    for i, name in enumerate(names):
        (tmp_path / name).mkdir()
        for j in range(3):
            (tmp_path / name / f"{i}_{j}.png").touch()
    classes = len(names)

    def labels(limit):
        images = find_images(tmp_path, limit=limit)
        paths = [images.name(index) for index in range(len(images))]
        known = images.label_of, images.folders_left_out
        return find_labels(paths, "auto", classes, None, *known).index_N.tolist()

    whole = labels(None)
    assert len(set(whole)) == classes
    for limit in range(1, len(whole)):
        assert labels(limit) == whole[:limit]


def test_folders_beyond_a_limit_are_no_classes_too_many(tmp_path):
    """Of three folders the first images may be in two, as many as the model has classes."""
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    images = find_images(tmp_path, limit=2)
    paths = [images.name(index) for index in range(2)]
    message = refused(paths, "auto", 2, None, images.label_of, images.folders_left_out)
    assert "as many folders as classes (got 3 folders)" in message


def test_sorted_folders_are_no_labels_where_one_is_a_wnid():
    paths = [f"{i:04}/x.png" for i in range(1, 1000)]
    assert found([*paths, "zebra/x.png"])[0] == "folders"
    message = refused([*paths, f"{WNIDS[7]}/x.png"], "auto", 1000, None)
    assert "0001/x.png: no known wnid in the path, as 1 other images have" in message
    assert "n99999999/" in refused([*paths, "n99999999/x.png"][::-1], "auto", 1000, None)


def test_wnids_are_no_classes_of_a_model_of_other_data():
    paths = [f"{WNIDS[i]}/x.png" for i in (0, 1, 2)]
    message = refused(paths, "auto", 100, 100)
    assert f"{WNIDS[0]}/x.png: ImageNet's wnids are for models of 1,000 classes" in message
    assert found([paths[2], paths[0]], classes=2) == ("folders", [1, 0])


def test_the_data_sets_own_labels_are_taken_for_all_images_or_none():
    own = {"a.png": 4, "b.png": 0, "c.png": None, "d.png": -1}.get
    assert found(["a.png", "b.png"], classes=5, label_of=own) == ("column", [4, 0])
    assert found([f"{WNIDS[8]}_a.png"], label_of=lambda _: 3) == ("wnid", [8])
    assert "a label 4, but the model has 4 classes" in refused(["a.png", "b.png"], "auto", 4, 4, own)
    for missing in ("c.png", "d.png"):  # as in Hugging Face's test splits
        assert "a.png" in refused(["a.png", missing], "auto", 5, 5, own)


def test_the_null_class_is_one_for_all():
    assert found(["a.png", "b.png"], "none") == ("none", [1000, 1000])
    assert "no null class" in refused(["a.png"], "none", 1000, None)


def test_labels_of_images_in_tars(tmp_path):
    import tarfile

    root = tmp_path / "in"
    for i in (3, 900):
        (root / WNIDS[i]).mkdir(parents=True)
        (root / WNIDS[i] / "x.png").write_bytes(b"x")
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        tar.add(root, "data")
    images = find_images(tmp_path / "in.tar")
    labels = find_labels([images.name(i) for i in range(2)], "auto", 1000, 1000)
    assert sorted(labels.index_N.tolist()) == [3, 900] and labels.source == "wnid"


def test_the_digest_tells_other_labels_and_another_order():
    digests = {
        find_labels(paths, "auto", 10, 10).digest
        for paths in (["1/a", "2/a"], ["2/a", "1/a"], ["1/a", "1/b"], ["1/b", "2/z"])
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a/1.JPEG,7\nb.png,999\n",
        "path,label\n./a/1.JPEG,7\n\nb.png,999\n",
        f'"a/1.JPEG";{WNIDS[7]}\n"b.png"; {WNIDS[999]}\nother.png;0\n',
        "a/1.JPEG 7\nb.png 999\n",  # Caffe's val.txt
        f"ImageId,Boxes\na/1,{WNIDS[7]} 8 1 4 2 {WNIDS[7]} 1 2 3 4 \nb,{WNIDS[999]} 1 1 2 2\n",
        "\ufefffile\tclass\r\nb.png\t0999\r\na/1.JPEG\t7\r\n",
    ],
)
def test_files_of_labels(tmp_path, text):
    path = tmp_path / "labels"
    path.write_text(text)
    assert found(["b.png", "a/1.JPEG"], path) == ("file", [999, 7])


def test_a_path_may_hold_commas_and_spaces(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text('"a, b/1 2.png",3\n"say ""x"".png",4\n')
    assert found(['say "x".png', "a, b/1 2.png"], path) == ("file", [4, 3])
    path.write_text("a b/1 2.png 3\n")
    assert found(["a b/1 2.png"], path) == ("file", [3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,1\nb.png,2\n./a.png,1\n", "labels.csv, line 3: a.png is there twice"),
        ("path,label\na.png,1\nb.png,x\n", "line 3: got 'x', expected a whole number or a wnid"),
        ("a.png,x\n", "line 1: got 'x'"),
        ("path,label\nname,class\n", "line 2: got 'class'"),
        ("a.png,1.0\n", "line 1: got '1.0'"),
        ("a.png,-1\n", "line 1: got '-1'"),
        ("a.png,1000\n", "line 1: got '1000', expected a class from 0 to 999"),
        ("\n\na.png,n00000001\n", "line 3: got 'n00000001', expected one of ImageNet's 1,000 wnids"),
        ("a.png,1,2\n", "line 1: 3 cells, expected a path and a class"),
        ("a.png\n", "line 1: 1 cell, expected a path and a class"),
        ("a.png,\n", "line 1: 2 cells"),
        ("b.png,1\n", "labels.csv: no line for a.png. Expected one for each image"),
        ("path,label\n", "no labels. Expected lines"),
        ("", "no labels. Expected lines"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert message in refused(["a.png"], path, 1000, 1000)


def test_wnids_and_files_that_the_model_or_the_disk_does_not_have(tmp_path):
    path = tmp_path / "labels.csv"
    assert "labels.csv: can't be read: No such file" in refused(["a.png"], path, 10, 10)
    path.write_text(f"a.png,{WNIDS[1]}\n")
    assert "expected a class from 0 to 9: wnids are for" in refused(["a.png"], path, 10, 10)
