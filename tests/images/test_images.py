"""Which images, in which order, in which group; decoding and VAR's crop to the pixel."""

import gc
import os

import numpy as np
import pytest
import torch
from PIL import Image

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.decode import CroppedImages, read_image
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import BLOCK, plan_batches
from entropy_cli.tokenizers.preprocess import var_crop


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def paths(*args, **kwargs):
    return [file.path for file in find_images(*args, **kwargs).files]


@pytest.fixture
def tree(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/2.PNG", "val/a/3.webp", "val/4.JPEG", "val/notes.txt")
    return tmp_path


@pytest.mark.parametrize(
    "split, name, expected",
    [
        ("auto", "val", {"a/3.webp", "4.JPEG"}),
        ("val", "val", {"a/3.webp", "4.JPEG"}),
        ("train", "train", {"a/1.jpg", "b/2.PNG"}),
        ("all", "all", {"train/a/1.jpg", "train/b/2.PNG", "val/a/3.webp", "val/4.JPEG"}),
    ],
)
def test_splits(tree, split, name, expected):
    found = find_images(tree, split)
    assert found.split == name and {file.path for file in found.files} == expected


def test_auto_falls_back_to_train_then_to_the_folder(tree):
    assert find_images(tree / "val").split == "folder"
    for path in (tree / "val").rglob("*.*"):
        path.unlink()
    (tree / "val/a").rmdir()
    (tree / "val").rmdir()
    assert find_images(tree).split == "train"


def test_missing_things_are_errors(tree):
    for data, split, words in (
        (tree / "nowhere", "auto", "no such folder"),
        (tree / "val/4.JPEG", "auto", "not a tar"),
        (tree / "train", "val", "no val/ folder"),
        (tree / "train/a", "train", "no train/ folder"),
    ):
        with pytest.raises(DatasetError, match=words):
            find_images(data, split)
    (tree / "empty").mkdir()
    touch(tree / "empty", "readme.txt")
    with pytest.raises(DatasetError, match="no images"):
        find_images(tree / "empty")


def test_links_are_followed_once_and_hidden_files_are_not_images(tmp_path):
    touch(tmp_path, "data/a/1.jpg", "elsewhere/2.jpg", "data/.hidden/3.jpg", "data/a/._1.jpg")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/twice").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "data/itself.jpg").symlink_to(tmp_path / "data/itself.jpg")
    (tmp_path / "data/itself").symlink_to(tmp_path / "data/itself")
    (tmp_path / "data/up").symlink_to(tmp_path)
    # Of two links to one folder the last in the alphabet counts: on every machine the same.
    assert set(paths(tmp_path / "data")) == {"a/1.jpg", "twice/2.jpg", "dangling.jpg", "itself.jpg"}


def test_the_order_is_a_permutation_by_seed(tmp_path):
    touch(tmp_path, *(f"{c}/{i}.jpg" for c in "abcdef" for i in range(50)))
    first, other = paths(tmp_path, seed=0), paths(tmp_path, seed=1)
    assert sorted(first) == sorted(other) and first != other and first != sorted(first)
    assert paths(tmp_path, seed=0) == first
    assert len({path[0] for path in first[:30]}) == 6  # not one class after the other
    assert paths(tmp_path, seed=0, limit=7) == first[:7]
    limited = find_images(tmp_path, limit=7)
    assert limited.found == 300


def test_groups_go_by_path_alone_and_are_even(tmp_path):
    touch(tmp_path, *(f"{i}.jpg" for i in range(3200)))
    full, some = find_images(tmp_path), find_images(tmp_path, limit=100)
    groups = [full.group(i) for i in range(3200)]
    assert groups[:100] == [some.group(i) for i in range(100)]
    sizes = np.bincount(groups, minlength=GROUPS)
    assert len(sizes) == GROUPS and sizes.min() > 60 and sizes.max() < 140
    other = find_images(tmp_path, seed=1)
    by_path = dict(zip([f.path for f in full.files], groups, strict=True))
    assert [other.group(i) for i in range(50)] != [by_path[f.path] for f in other.files[:50]]


def test_the_fingerprint_is_of_paths_and_sizes_only(tmp_path):
    touch(tmp_path, "a/1.jpg", "a/2.jpg")
    before = find_images(tmp_path).fingerprint()
    os.utime(tmp_path / "a/1.jpg", (1, 1))
    assert find_images(tmp_path).fingerprint() == before
    assert find_images(tmp_path, limit=1).fingerprint() != before
    (tmp_path / "a/1.jpg").write_bytes(b"longer")
    assert find_images(tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    "images, batch_size", [(70, 1), (70, 5), (70, 16), (70, 40), (70, 100), (3, 4), (32, 16)]
)
def test_batches_are_parts_of_a_block_or_whole_blocks(images, batch_size):
    blocks = -(-images // BLOCK)
    batches = plan_batches(images, batch_size, range(blocks))
    assert [i for batch in batches for i in batch] == list(range(images))
    assert [b for batch in batches for b in batch.completed_blocks] == list(range(blocks))
    for batch in batches:
        assert len(batch) <= max(batch_size, 1)
        touched = {i // BLOCK for i in batch}
        assert len(touched) == 1 or touched == set(batch.completed_blocks)


def test_a_plan_may_leave_blocks_out():
    batches = plan_batches(70, 32, [1, 4])
    assert [batch.completed_blocks for batch in batches] == [(1, 4)]
    assert list(batches[0]) == [*range(16, 32), *range(64, 70)]


MODES = {
    "grey.png": ("L", 100),
    "alpha.png": ("RGBA", (10, 200, 30, 128)),
    "palette.png": ("P", 3),
    "cmyk.jpg": ("CMYK", (0, 100, 200, 30)),
    "bits.png": ("1", 1),
    "colour.webp": ("RGB", (10, 200, 30)),
    "colour.bmp": ("RGB", (10, 200, 30)),
    "colour.tiff": ("RGB", (10, 200, 30)),
    "colour.ppm": ("RGB", (10, 200, 30)),
    "grey_alpha.png": ("LA", (100, 20)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_reaches_the_crop_as_it_is(tmp_path, name):
    mode, colour = MODES[name]
    Image.new(mode, (40, 30), colour).save(tmp_path / name)
    modes = []
    got = read_image(tmp_path / name, lambda image: modes.append(image.mode) or image.convert("RGB"))
    with Image.open(tmp_path / name) as image:
        expected = np.asarray(image.convert("RGB"))
        assert modes == [image.mode]
    assert got.dtype == torch.uint8 and got.shape == (3, 30, 40)
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


def test_the_orientation_that_a_camera_notes_is_not_applied(tmp_path):
    """As in the published loaders: the pixels are taken as they are stored."""
    image, exif = Image.effect_noise((40, 30), 50), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    image.save(tmp_path / "turned.png", exif=exif)
    got = read_image(tmp_path / "turned.png", rgb)
    np.testing.assert_array_equal(got[0].numpy(), np.asarray(image))


def rgb(image):
    return image.convert("RGB")


def test_unreadable_images_say_why(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    Image.effect_noise((60, 60), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name, word in (
        ("empty.jpg", "not identified as one of JPEG, PNG, "),
        ("text.jpg", "not identified as one of JPEG, PNG, "),
        ("folder.jpg", "not an ordinary file"),
        ("pipe.jpg", "not an ordinary file"),
        ("gone.jpg", "No such file or directory"),
        ("whole.png", "DecompressionBombError"),
    ):
        reason = read_image(tmp_path / name, rgb)
        assert isinstance(reason, str) and word in reason and "\n" not in reason
    monkeypatch.undo()
    assert "truncated" in read_image(tmp_path / "cut.png", rgb)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_carry_images_groups_and_failures(tmp_path, workers):
    for i in range(20):
        Image.new("RGB", (50, 40), (i, 0, 0)).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "07.png").write_bytes(b"broken")
    images = find_images(tmp_path)
    batches = list(
        read_batches(
            open_loader(
                CroppedImages(images, var_crop(32).apply), plan_batches(20, 8, range(2)), workers=workers
            )
        )
    )
    assert [len(batch.names) + len(batch.failed) for batch in batches] == [8, 8, 4]
    assert [path for batch in batches for path, _ in batch.failed] == ["07.png"]
    for batch in batches:
        assert batch.input_B.shape == (len(batch.names), 3, 32, 32)
        assert batch.input_B[:, 0, 0, 0].tolist() == [int(name[:2]) for name in batch.names]
        index = {file.path: i for i, file in enumerate(images.files)}
        assert batch.group_B.tolist() == [images.group(index[name]) for name in batch.names]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("where", ["Queue", "Event"])
@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), ImportError("no functioning sem_open")]
)
def test_workers_that_can_not_be_started_are_one_line(
    estimate, images, checkpoint, monkeypatch, where, error
):
    """Without /dev/shm or file handles; what torch has half started by then is not heard of again."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"multiprocessing.context.BaseContext.{where}", fail)
    code, err = estimate("--data", images, "--ckpt", checkpoint, "--workers", 2)
    assert code == 3 and "can't be started" in err and err.splitlines()[-1].endswith("--workers 0.")
    gc.collect()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_are_not_unreadable_for_want_of_file_handles(
    estimate, images, checkpoint, monkeypatch, workers
):
    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("entropy_cli.images.decode.OpenFile", fail)
    code, err = estimate("--data", images, "--ckpt", checkpoint, "--workers", workers)
    assert code == 3 and "Too many open files" in err.splitlines()[-1] and "unreadable" not in err
