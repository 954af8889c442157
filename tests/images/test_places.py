"""Archives of every kind in place of the folder with the same images: the same list and bytes."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import plan_batches
from tests.archives import PLACES, make, png, write_parquet, write_tar, write_zip


@pytest.fixture
def folder(tmp_path):
    """Images in folders, one of them broken and one with a name of many bytes."""
    root = tmp_path / "folder"
    for i in range(11):
        path = root / ("a" if i % 2 else "b/é") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    (root / "a/broken.JPEG").write_bytes(b"no image")
    return root


def same(image):
    return image.convert("RGB")


@pytest.mark.parametrize("kind", PLACES)
def test_a_place_lists_and_reads_the_images_of_its_folder(folder, tmp_path, kind):
    place, copy = make(kind, folder, tmp_path)
    want, got = find_images(copy, seed=5), find_images(place, seed=5)
    assert [(f.path, f.size) for f in got.files] == [(f.path, f.size) for f in want.files]
    assert len(got) == got.found == 12 and got.fingerprint() == want.fingerprint()
    assert got.location == str(place)
    for i in range(12):
        assert got.group(i) == want.group(i)
        assert got.locate(i).open().read() == want.locate(i).read_bytes()
    again = find_images(place, seed=5)  # by the index that was kept
    assert list(again.files) == list(got.files)


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_read_the_same(folder, tmp_path, kind, workers):
    place, copy = make(kind, folder, tmp_path)
    batches = []
    for data, number in ((copy, 0), (place, workers)):
        source = CroppedImages(find_images(data), same)
        if number and kind in (
            "one zip",
            "one parquet",
        ):  # what the parent read, its children must not share
            source.read(0)
        plans = plan_batches(12, 4, [0])
        batches.append(list(read_batches(open_loader(source, plans, workers=number))))
    for want, got in zip(*batches, strict=True):
        assert got.names == want.names and np.array_equal(got.input_B, want.input_B)
        assert got.failed == want.failed


def names(data, *args):
    return sorted(file.path for file in find_images(data, *args).files)


def tar_of(path, members):
    """A tar of (name, bytes), in this order."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_samples_have_one_picture_and_their_class(tmp_path):
    members = []
    for i in range(3):
        members += [
            (f"d/{i}.seg.png", png(i)),
            (f"d/{i}.cls", b"%d\n" % (7 * i)),
            (f"d/{i}.jpg", png(i)),
        ]
    members += [("e.json", b"{}"), ("e.png", png(8)), ("e.webp", png(9))]  # JSON, and no class
    # Of one key, each with a class of its own; of two the later counts.
    members += [(f"h.{v}.{e}", b) for v in "12" for e, b in (("jpg", png(4)), ("cls", v.encode()))]
    members += [("i.cls", b"1"), ("i.png", png(8)), ("i.cls", b"2")]
    members += [("f.cls", b"n01440764"), ("f.png", png(8)), ("g.png", png(8)), ("g.v2.png", png(8))]
    found = find_images(tar_of(tmp_path / "x.tar", members))
    assert names(tmp_path / "x.tar") == [
        "d/0.jpg",
        "d/1.jpg",
        "d/2.jpg",
        "e.png",
        "f.png",
        "g.png",
        "g.v2.png",
        "h.1.jpg",
        "h.2.jpg",
        "i.png",
    ]
    assert [found.label_of(name) for name in ("h.1.jpg", "h.2.jpg", "i.png")] == [1, 2, 2]
    assert [found.label_of(f"d/{i}.jpg") for i in range(3)] == [0, 7, 14]
    assert {found.label_of(name) for name in ("e.png", "f.png", "g.png", "nothing")} == {None}
    assert found.note.endswith("samples: .seg.png: 3 files, .webp: 1 file")


def test_second_pictures_without_anything_beside_them(tmp_path):
    segmented = [(f"{i}.{end}", png(i)) for i in range(3) for end in ("jpg", "seg.png")]
    assert names(tar_of(tmp_path / "x.tar", segmented)) == ["0.jpg", "1.jpg", "2.jpg"]
    assert find_images(tmp_path / "x.tar").note.endswith("samples: .seg.png: 3 files")
    # One picture that has none, or none whose extension has no dot: a folder of images.
    for more in ([("3.jpg", png(3))], [("3.a.jpg", png(3)), ("3.b.jpg", png(4))]):
        tar = tar_of(tmp_path / "y.tar", [*segmented, *more])
        assert len(names(tar)) == 6 + len(more) and not find_images(tar).note
    plain = [(f"{i}.{end}", png(i)) for i in range(3) for end in ("jpg", "png", "gif")]
    assert len(names(tar_of(tmp_path / "z.tar", plain))) == 9


def test_labels_of_a_column(tmp_path):
    rows = [("a.png", png(0), 3), ("b.png", png(1), -1), (None, png(2), None), ("d/c.png", png(3), 999)]
    found = find_images(write_parquet(tmp_path / "x.parquet", rows))
    assert {name: found.label_of(name) for name in names(tmp_path / "x.parquet")} == {
        "2": None,
        "a.png": 3,
        "b.png": None,
        "d/c.png": 999,
    }
    assert find_images(tmp_path / "x.parquet", limit=1).label_of("nothing") is None


@pytest.mark.parametrize(
    "paths, expected",
    [
        (["a.jpg", "b/c.jpg", None], ["2", "a.jpg", "b/c.jpg"]),
        (["a", "b.txt", "c.jpg?x=y"], ["a", "b.txt", "c.jpg?x=y"]),  # images by their column
        (["image.png", "image.png", "x.png"], ["0", "1", "2"]),
        (["1", None, "x.png"], ["0", "1", "2"]),  # a path that is another row's number
        (["/etc/a.jpg", "../b.jpg", ".hidden.jpg"], ["0", "1", "2"]),
        (["./a.jpg", "x\0y.jpg", "é\n\u202e.jpg"], ["1", "a.jpg", "é\n\u202e.jpg"]),
    ],
)
def test_rows_are_named_by_their_paths_or_numbers(tmp_path, paths, expected):
    rows = [(path, png(i), i) for i, path in enumerate(paths)]
    assert names(write_parquet(tmp_path / "x.parquet", rows)) == sorted(expected)


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({"image": [png(0)], "mask": [b"x"]}, ("0", None)),
        ({"picture": [png(0)], "label": ["text"], "cls": [7]}, ("0", 7)),
        ({"jpg": [png(0)], "mask": [b"x"], "labels": [7]}, ("0", 7)),
        ({"img": [{"bytes": png(0), "path": "a.png"}], "mask": [b"x"]}, ("a.png", None)),
        ({"view": ["binary_view", png(0)]}, ("0", None)),
        (
            {"a": [b"x"], "b": [b"x"]},
            r"got the columns a \(binary\), b \(binary\), expected `im",
        ),
        ({"image": [[png(0)]]}, r"got the columns image \(list<.*: binary>\), expected"),
    ],
)
def test_columns_of_bytes_and_of_labels_by_other_names(tmp_path, columns, expected):
    import pyarrow
    import pyarrow.parquet

    given = {
        name: pyarrow.array(values[1:], values[0]) if values[0] == "binary_view" else values
        for name, values in columns.items()
    }
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table(given), path)
    if isinstance(expected, str):
        with pytest.raises(DatasetError, match=expected):
            find_images(path)
        return
    found = find_images(path)
    assert (found.name(0), found.label_of(found.name(0))) == expected
    assert found.files[0].size == len(png(0)) and found.locate(0).open().read() == png(0)


def test_archives_beside_images_are_left_aside(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/0.png").write_bytes(png(0))
    write_zip(tmp_path / "d/x.zip", [("1.png", tmp_path / "d/0.png")])
    assert names(tmp_path / "d") == ["0.png"]
    assert find_images(tmp_path / "d").note.endswith("image format: .zip: 1 file")


def test_a_few_images_beside_archives_of_more_are_left_aside(tmp_path):
    rows = [(f"{i}.png", png(i), 0) for i in range(11)]
    write_parquet(tmp_path / "d/data/train-0.parquet", rows)
    (tmp_path / "d/card").mkdir()
    (tmp_path / "d/card/look.png").write_bytes(png(0))
    assert len(names(tmp_path / "d")) == 11 and len(names(tmp_path / "d", "train")) == 11
    assert find_images(tmp_path / "d").note.endswith("are left aside: 1 (card/look.png)")
    (tmp_path / "d/cat").mkdir()
    (tmp_path / "d/cat/1.png").write_bytes(png(0))
    with pytest.raises(DatasetError, match=r"2 images \(card/look\.png, cat/1\.png\) beside archives"):
        find_images(tmp_path / "d")
    tar_of(tmp_path / "e/x.tar", [("notes.txt", bytes(30_000))])  # no archive of images
    (tmp_path / "e/look.png").write_bytes(png(0))
    (tmp_path / "e/model.pth.tar").write_bytes(bytes(30_000))  # a pickle, as PyTorch's examples save it
    assert names(tmp_path / "e") == ["look.png"]
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 30000\n"
    (tmp_path / "e/data.parquet").write_text(pointer)
    with pytest.raises(DatasetError, match=r"data\.parquet: is a pointer of Git LFS"):
        find_images(tmp_path / "e")


def test_archives_without_images_are_left_aside_in_a_folder(tmp_path):
    (tmp_path / "d").mkdir()
    tar_of(tmp_path / "d/0.tar", [("a.png", png(0))])
    tar_of(tmp_path / "d/labels.tar", [("a.txt", b"x")])
    assert names(tmp_path / "d") == ["0.tar/a.png"]
    assert "labels.tar: no images found" in find_images(tmp_path / "d").note
    (tmp_path / "d/0.tar").unlink()
    with pytest.raises(DatasetError, match=r"labels\.tar: no images found, but 1 \.txt"):
        find_images(tmp_path / "d")


def test_splits_are_folders_or_names_of_archives(tmp_path):
    root = tmp_path / "d/data"
    for name in ("train-0-of-2", "train-1-of-2", "validation-0-of-1", "test-0-of-1"):
        write_parquet(root / f"{name}.parquet", [(f"{name}.png", png(0), 0)])
    in_val = "data/validation-0-of-1.parquet/validation-0-of-1.png"
    found = find_images(tmp_path / "d")
    assert (found.split, found.name(0), found.found) == ("val", in_val, 1)
    assert names(tmp_path / "d", "val") == [in_val]
    assert len(names(tmp_path / "d", "train")) == 2 and len(names(tmp_path / "d", "all")) == 4
    (root / "validation-0-of-1.parquet").unlink()
    assert find_images(tmp_path / "d").split == "train" and len(names(tmp_path / "d")) == 2
    write_parquet(root / "bullet.parquet", [("b.png", png(0), 0)])  # which tells of no split
    assert find_images(tmp_path / "d").split == "folder" and len(names(tmp_path / "d")) == 4
    for name in ("bullet", "test-0-of-1"):
        (root / f"{name}.parquet").unlink()
    assert find_images(tmp_path / "d").split == "folder"  # that is all there is
    assert find_images(tmp_path / "d", "train").split == "train"
    with pytest.raises(DatasetError, match="has no val/ folder"):
        find_images(tmp_path / "d", "val")
    (tmp_path / "d/val").mkdir()
    write_parquet(tmp_path / "d/val/x.parquet", [("a.png", png(0), 0)])
    (tmp_path / "e/val/x.parquet").mkdir(parents=True)
    (tmp_path / "e/val/x.parquet/a.png").write_bytes(png(0))
    for data in (tmp_path / "d", tmp_path / "e"):
        assert (find_images(data).split, names(data)) == ("val", ["a.png"])


def test_splits_are_told_by_the_nearest_name_that_tells(tmp_path):
    for name in ("train", "test"):  # as the hub converts data sets
        write_parquet(tmp_path / f"d/default/{name}/0.parquet", [(f"{name}.png", png(0), 0)])
    assert names(tmp_path / "d") == ["default/train/0.parquet/train.png"]
    write_parquet(tmp_path / "d/default/train/val-0.parquet", [("v.png", png(0), 0)])
    assert find_images(tmp_path / "d").split == "val"
    assert names(tmp_path / "d", "train") == ["default/train/0.parquet/train.png"]


def test_splits_inside_the_only_archive(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "0.png").write_bytes(png(0))
    files = [(f"{split}/n0/{split}.png", tmp_path / "0.png") for split in ("train", "val")]
    for write, name in ((write_zip, "photos.zip"), (write_tar, "x.tar")):
        for data in (path := write(tmp_path / "d" / name, files), tmp_path / "d"):
            assert (find_images(data).split, names(data)) == ("val", ["n0/val.png"])
            assert names(data, "all") == ["train/n0/train.png", "val/n0/val.png"]
        path.unlink()


def test_patterns_of_zips_are_one_folder_and_of_parquet_files_one_of_files(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        write_zip(tmp_path / f"{i}.zip", [(f"{i}.png", tmp_path / f"{i}.png")])
        write_parquet(tmp_path / f"{i}.parquet", [("a.png", png(i), 0)])
    assert names(tmp_path / "{0..1}.zip") == ["0.png", "1.png"]
    assert names(tmp_path / "?.parquet") == ["0.parquet/a.png", "1.parquet/a.png"]
    assert names(tmp_path / "0.parquet") == ["a.png"]
    shutil.copy(tmp_path / "0.zip", tmp_path / "2.zip")
    with pytest.raises(DatasetError, match=r"^0\.png: is in .*0\.zip and in .*2\.zip"):
        find_images(tmp_path / "?.zip")


def test_folders_in_circles_are_no_archive(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/loop.zip").symlink_to(".")
    with pytest.raises(DatasetError, match="no images found"):
        find_images(tmp_path / "d")


def test_a_compressed_tar_is_unpacked_once(tmp_path, caplog):
    (tmp_path / "0.png").write_bytes(png(0))
    write_tar(tmp_path / "x.tgz", [("0.png", tmp_path / "0.png")], "w:gz")
    with caplog.at_level("INFO"):
        for _ in range(2):
            assert names(tmp_path / "x.tgz") == ["0.png"]
    assert [record.getMessage().count("is unpacked once, into") for record in caplog.records] == [1]


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    import builtins

    write_parquet(tmp_path / "x.parquet", [("a.png", png(0), 0)])
    really = builtins.__import__
    monkeypatch.setattr("importlib.import_module", lambda name: really("no_such_module"))
    with pytest.raises(
        Exception, match=r"reading Parquet files needs an extra: pip install 'entropy-cli"
    ):
        find_images(tmp_path / "x.parquet")
