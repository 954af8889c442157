"""What is opened as an image, by suffix and by content, and what is said of the other files."""

import io
import os

import numpy as np
import pytest
from PIL import Image, ImageFile

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.decode import read_image
from entropy_cli.images.formats import FORMATS, MAX_SUFFIXES, READABLE, SUFFIXES, SkippedFiles
from entropy_cli.images.image_set import find_images
from tests.images.test_tars import png_bytes, write_tar

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n"
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def rgb(image):
    return image.convert("RGB")


def saved(name, *more, **options):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, name, **options)
    return content.getvalue()


def test_an_eps_named_jpg_runs_nothing(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho 10.0; touch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "evil.jpg").write_bytes(EPS)
    tar = write_tar(tmp_path / "x.tar", [("evil.jpg", EPS)])
    for source in (tmp_path / "evil.jpg", find_images(tar).locate(0)):
        assert read_image(source, rgb) == f"not identified as one of {', '.join(READABLE)}"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["TGA", "ICO", "PCX", "SGI", "PDF"])
def test_other_formats_stay_shut(tmp_path, name):
    (tmp_path / "other.png").write_bytes(saved(name))
    assert "not identified" in read_image(tmp_path / "other.png", rgb)


@pytest.mark.parametrize("name", READABLE)
def test_every_suffix_of_a_format_is_read_whatever_its_case(tmp_path, name):
    content = saved(name)
    for suffix in FORMATS[name]:
        (tmp_path / f"low{suffix}").write_bytes(content)
        (tmp_path / f"up{suffix.upper()}").write_bytes(content)
    (tmp_path / "other.jpg").write_bytes(content)
    found = find_images(tmp_path)
    assert len(found) == 2 * len(FORMATS[name]) + 1 and not found.note
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    for i in range(len(found)):
        got_3HW = read_image(found.locate(i), rgb)
        np.testing.assert_array_equal(got_3HW.permute(1, 2, 0).numpy(), expected)


def test_formats_that_this_pillow_lacks_are_left_aside(tmp_path, monkeypatch):
    monkeypatch.setattr("entropy_cli.images.formats.SUFFIXES", SUFFIXES[:-1])
    assert SUFFIXES[-1] == ".avif"
    (tmp_path / "0.png").write_bytes(png_bytes(0))
    (tmp_path / "1.avif").write_bytes(b"")
    assert find_images(tmp_path).note.endswith(": .avif: 1 file")


@pytest.mark.parametrize("name", ["MPO", "GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_several_images_in_a_file_the_first_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (40, 30), colour) for colour in ((10, 200, 30), (200, 0, 0)))
    first.save(tmp_path / "several.jpg", name, save_all=True, append_images=[second])
    first_3HW = read_image(tmp_path / "several.jpg", rgb).int()
    assert first_3HW.shape == (3, 30, 40)
    assert np.abs(first_3HW[:, 15, 20].numpy() - (10, 200, 30)).max() < 4


WAYS = {
    "JPEG": [{}, {"progressive": True}],
    "PNG": [{}],
    "GIF": [{}, {"interlace": 1}],
    "BMP": [{}],
    "PPM": [{}],
    "WEBP": [{}, {"lossless": True}],
    "TIFF": [{"compression": kind} for kind in ("raw", "tiff_lzw", "tiff_deflate", "packbits")],
    "JPEG2000": [{}, {"no_jp2": True}],
    "AVIF": [{}],
}


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("name", READABLE)
def test_what_is_cut_off_is_never_filled_with_grey(tmp_path, name, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # as training codes do
    path = tmp_path / "cut.jpg"
    for way in WAYS[name]:
        content = saved(name, **way)
        path.write_bytes(content)
        whole_3HW = read_image(path, rgb)
        for share in np.linspace(0.02, 0.98, 25):
            path.write_bytes(content[: int(share * len(content))])
            assert isinstance(read_image(path, rgb), str), (way, share)
        for missing in range(1, 6):  # marks of the end: without them an image may be whole
            path.write_bytes(content[:-missing])
            got = read_image(path, rgb)
            assert isinstance(got, str) or got.equal(whole_3HW), (way, missing)
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES  # of this process, not only ours


@pytest.mark.parametrize("name", READABLE)
def test_tars_give_the_pixels_of_files_in_every_format(tmp_path, name):
    contents = [saved(name, **way) for way in WAYS[name]]
    tar = write_tar(tmp_path / "x.tar", [(f"{i}.jpg", content) for i, content in enumerate(contents)])
    found = find_images(tar)
    for i in range(len(found)):
        (tmp_path / "alone.jpg").write_bytes(contents[int(found.name(i)[0])])
        assert read_image(found.locate(i), rgb).equal(read_image(tmp_path / "alone.jpg", rgb))


def test_other_files_are_counted_by_suffix_on_one_line(tmp_path):
    names = ["0.jpg", "a/1.PNG", "a/x.jpg_large", "b/y.jpg_large", "q.jpg?size=large", "c/no_suffix"]
    harmless = ["labels.txt", "a/meta.JSON", "Thumbs.db", ".DS_Store", "a/._1.PNG", ".git/x.webm"]
    for name in (*names, *harmless):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(b"x")
    members = [(name, b"x") for name in (*names, *harmless)]
    tar = write_tar(tmp_path / "x.tar", members)
    words = ".jpg_large: 2 files, .jpg?size=large: 1 file, without suffix: 1 file"
    for data in (tmp_path / "tree", tar):
        found = find_images(data)
        assert len(found) == 2
        assert found.note.startswith(f"{data}: skipped files") and found.note.count(".jpg_large") == 1
        assert all(part in found.note for part in words.split(", ")) and "\n" not in found.note
        assert ".txt" not in found.note and ".db" not in found.note
    for name in names[2:]:
        (tmp_path / "tree" / name).unlink()
    assert not find_images(tmp_path / "tree").note


def test_many_suffixes_stay_a_short_line():
    skipped = SkippedFiles()
    for i in range(2 * MAX_SUFFIXES):
        skipped.add(f"{i}.{i}")
    for _ in range(3):
        skipped.add("x." + "y" * 500)
    assert (
        len(skipped.counts) <= MAX_SUFFIXES + 1 and sum(skipped.counts.values()) == 2 * MAX_SUFFIXES + 3
    )
    assert len(skipped.note()) < 200 and ", and " in skipped.note() and skipped.note().endswith(" more")


@pytest.mark.parametrize("in_tar", [False, True])
@pytest.mark.parametrize(
    "names, words",
    [
        (["a.arrow", "b.arrow", "README.md"], "2 .arrow, 1 .md. Images inside .arrow files"),
        (["x.rar"], r"1 .rar. Images inside .rar files are not read: unpack"),
        (["a.jpg_large"], "1 .jpg_large. Expected files ending in .jpg, .jpeg"),
        ([".DS_Store", "._1.jpg"], "no images found. Expected files ending in .jpg"),
    ],
)
def test_no_images_says_what_there_is(tmp_path, names, words, in_tar):
    data = tmp_path / "data"
    data.mkdir()
    for name in names:
        (data / name).write_bytes(b"x")
    if in_tar:
        data = write_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    with pytest.raises(DatasetError, match=words) as error:
        find_images(data)
    assert str(error.value).startswith(f"{data}: no images found") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, start, words",
    [
        ("x.rar", b"Rar!", "a rar file, expected a tar, zip or Parquet file. Unpack"),
        ("x", b"7z\xbc\xaf\x27\x1c", "a 7z file, expected"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS in place"),
    ],
)
def test_other_files_in_place_of_an_archive_are_called_by_their_name(tmp_path, name, start, words):
    (tmp_path / name).write_bytes(start + bytes(2000))
    with pytest.raises(DatasetError, match=f"is {words}"):
        find_images(tmp_path / name)


def test_a_huge_member_of_a_tar_is_read_piece_by_piece(tmp_path):
    import tracemalloc

    size = 64 << 20
    write_tar(tmp_path / "x.tar", [("big.jpg", bytes(size)), ("ok.png", png_bytes(0))])
    found = find_images(tmp_path / "x.tar")
    big = next(i for i in range(2) if found.name(i) == "big.jpg")
    tracemalloc.start()
    assert "not identified" in read_image(found.locate(big), rgb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size // 8
