"""Archives that are damaged, or made to do harm: one clear line, or a reason for each image."""

import bz2
import gzip
import io
import struct
import tarfile
import time
import tracemalloc
import zipfile

import pytest

from entropy_cli.core.errors import DatasetError
from entropy_cli.images import parquet, unpacked
from entropy_cli.images.decode import read_image
from entropy_cli.images.image_set import find_images
from tests.archives import compress, png, write_parquet

CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def rgb(image):
    return image.convert("RGB")


def zip_of(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def reasons(data):
    """Why images can't be read, by path; None for those that can."""
    found = find_images(data)
    read = {found.name(i): read_image(found.locate(i), rgb) for i in range(len(found))}
    return {name: value if isinstance(value, str) else None for name, value in read.items()}


def fails(data, words):
    with pytest.raises(DatasetError, match=words) as error:
        find_images(data)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(data))


def edited(path, *changes):
    """Write over the bytes of a file: (place, bytes)."""
    content = bytearray(path.read_bytes())
    for place, new in changes:
        content[place : place + len(new)] = new
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_record_that_differs_from_its_checksum_is_a_failure(tmp_path, method):
    path = zip_of(tmp_path / "x.zip", [("a.png", png(0)), ("b.png", png(1))], method)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a.png")
    start = info.header_offset + 30 + len("a.png")
    edited(path, (start + info.compress_size // 2, b"\x55\xaa"))
    got = reasons(path)
    assert "damaged in its zip" in got["a.png"] and got["b.png"] is None


def test_encrypted_and_oddly_compressed_records_are_failures(tmp_path):
    members = [("a.png", png(0)), ("b.png", png(1)), ("c.png", png(2))]
    path = zip_of(tmp_path / "x.zip", members)
    content = path.read_bytes()
    first = content.index(CENTRAL)
    second = content.index(CENTRAL, first + 1)
    edited(path, (first + 8, b"\x01\x00"), (second + 10, struct.pack("<H", zipfile.ZIP_LZMA)))
    got = reasons(path)
    assert got == {
        "a.png": "encrypted in its zip",
        "b.png": "compressed in its zip by another method than deflate",
        "c.png": None,
    }


def test_a_zip_bomb_is_unpacked_no_further_than_an_image_may_be(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.png", "w") as out:
        for _ in range(300):
            out.write(bytes(2**20))
    path = tmp_path / "x.zip"
    path.write_bytes(bomb.getvalue())
    tracemalloc.start()
    assert reasons(path) == {"a.png": "300 MiB, expected at most 256 MiB"}
    # The directory may lie about the size.
    edited(path, (bomb.getvalue().index(CENTRAL) + 24, struct.pack("<I", 1000)))
    assert "damaged in its zip" in reasons(path)["a.png"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_records_that_overlap_are_refused(tmp_path):
    path = zip_of(tmp_path / "x.zip", [(f"{i}.png", png(0)) for i in range(3)])
    content = path.read_bytes()
    places, at = [], -1
    while (at := content.find(CENTRAL, at + 1)) >= 0:
        places.append(at)
    size = struct.pack("<I", len(content) // 2)
    edited(path, *((place + 42, bytes(4)) for place in places), *((p + 20, size) for p in places))
    fails(path, "overlap")


@pytest.mark.parametrize("name", ["/etc/1.png", "../1.png", "a/../../1.png"])
def test_names_that_lead_out_of_a_zip_are_refused(tmp_path, name):
    fails(zip_of(tmp_path / "x.zip", [("0.png", png(0)), (name, png(1))]), "leads out of it")


def test_names_of_windows_have_folders(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("c\\0.png", "..\\..\\up.png"):
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.create_system = name, 0
            archive.writestr(info, png(0))
    fails(path, "leads out of it")
    edited(path, *((path.read_bytes().index(b"..\\..\\up.png", at), b"dd\\ee\\up.png") for at in (0,)))
    at = path.read_bytes().index(b"..\\..\\up.png")
    assert set(reasons(edited(path, (at, b"dd\\ee\\up.png")))) == {"c/0.png", "dd/ee/up.png"}


def test_names_twice_in_a_zip_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zip_of(tmp_path / "x.zip", [("a.png", png(0)), ("a.png", png(1))])
    fails(path, "holds a.png twice")


def test_names_in_no_encoding_are_read(tmp_path):
    path = zip_of(tmp_path / "x.zip", [("aaa.png", png(0)), ("bb.png", png(1)), ("é.png", png(2))])
    content = path.read_bytes()
    for old, new in ((b"aaa.png", b"a\xff\xfe.png"), (b"bb.png", "ü.png".encode())):
        content = content.replace(old, new)
    path.write_bytes(content)
    got = reasons(path)
    assert len(got) == 3 and {"ü.png", "é.png"} < set(got) and set(got.values()) == {None}


def test_zip64_and_links_and_folders(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("d/a.png", "w", force_zip64=True) as out:
            out.write(png(0))
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "d/a.png")
        nowhere = zipfile.ZipInfo("nowhere.png")
        nowhere.create_system, nowhere.external_attr = 3, 0o120777 << 16
        archive.writestr(nowhere, "../../etc/passwd")
        archive.writestr("empty/", b"")
    # The end of a zip64: the places of the directory stand in a record of their own.
    content = path.read_bytes()
    end = content.rindex(END)
    count, size, place = struct.unpack("<10xHII", content[end : end + 20])
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, place)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    tail = content[end : end + 8] + b"\xff" * 12 + content[end + 20 :]
    path.write_bytes(content[:end] + record + locator + tail)
    got = reasons(path)
    assert got.pop("nowhere.png").startswith("a link that leads to no file")
    assert got == {"d/a.png": None, "link.png": None}


def test_zips_that_are_cut_or_damaged_end_in_one_line(tmp_path):
    whole = zip_of(tmp_path / "w.zip", [(f"{i}.png", png(i)) for i in range(3)]).read_bytes()
    path = tmp_path / "x.zip"
    for length in range(4, len(whole), 97):
        path.write_bytes(whole[:length])
        fails(path, "is damaged")
    directory = whole.index(CENTRAL)
    for place in range(directory, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = find_images(path)
            for i in range(len(found)):
                read_image(found.locate(i), rgb)
        except DatasetError as error:
            assert "\n" not in str(error)


def test_a_zip_that_changes_is_not_read_any_more(tmp_path):
    path = zip_of(tmp_path / "x.zip", [("a.png", png(0))])
    found = find_images(path)
    zip_of(path, [("a.png", png(1)), ("b.png", png(1))])
    assert "has changed since it was listed" in read_image(found.locate(0), rgb)


@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz"])
def test_compressed_tars_that_are_cut_or_damaged(tmp_path, suffix):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(png(0))
        archive.addfile(info, io.BytesIO(png(0)))
    whole, path = compress(suffix, tar.getvalue()), tmp_path / f"x.tar.{suffix}"
    for length in (len(whole) - 1, len(whole) // 2, 20):
        path.write_bytes(whole[:length])
        fails(path, "is damaged")
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xfe\xfd" + whole[len(whole) // 2 + 3 :])
    fails(path, "is damaged|is not a tar")
    path.write_bytes(compress(suffix, b"a text" * 1000))
    fails(path, "is compressed, but not a tar")
    kept = tmp_path / "cache/entropy-cli/unpacked"
    assert not list(kept.glob("*.tar"))  # nothing of what failed
    path.write_bytes(whole)
    assert find_images(path).found == 1 and len(list(kept.glob("*.tar"))) == 1
    path.write_bytes(compress(suffix, tar.getvalue() + bytes(10240)))
    assert find_images(path).found == 1 and len(list(kept.glob("*.tar"))) == 1  # the old one is gone


def test_a_compressed_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked, "MOST_MORE", 2**20)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 2**23
        archive.addfile(info, io.BytesIO(bytes(2**23)))
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(tar.getvalue()))
    fails(path, "unpacks to more than 100 times its size")
    path.write_bytes(bz2.compress(tar.getvalue()))
    fails(path, "unpacks to more than 100 times its size")
    assert {p.suffix for p in (tmp_path / "cache/entropy-cli/unpacked").iterdir()} == {".lock"}


def test_a_tar_inside_that_is_none_is_named(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (("a/n1.tar", b"x" * 2000),):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    fails(path, "x.tar, a/n1.tar in it: is not a tar")


def test_parquet_files_that_are_cut_or_damaged(tmp_path):
    rows = [(f"{i}.png", png(i), i) for i in range(6)]
    whole = write_parquet(tmp_path / "w.parquet", rows, group=2).read_bytes()
    path = tmp_path / "x.parquet"
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        fails(path, "damaged: as a Parquet file")
    path.write_bytes(b"PAR1" + bytes(104))
    fails(path, "damaged: as a Parquet file")
    for place in range(0, len(whole), 797):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x7F]) + whole[place + 1 :])
        try:
            found = find_images(path)
            for i in range(len(found)):
                read_image(found.locate(i), rgb)
        except DatasetError as error:
            assert "\n" not in str(error)


def test_a_parquet_file_that_changes_is_not_read_any_more(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [(f"{i}.png", png(i), i) for i in range(6)], group=1)
    found = find_images(path)
    assert not isinstance(read_image(found.locate(0), rgb), str)
    time.sleep(0.01)
    with path.open("r+b") as file:  # in place
        file.seek(100)
        file.write(b"xyz")
    assert "changed or cut off" in read_image(found.locate(1), rgb)


@pytest.mark.parametrize("store_schema", [True, False])
def test_one_image_in_all_rows_of_a_parquet_file_costs_no_memory(tmp_path, monkeypatch, store_schema):
    """Written once, by its number in a dictionary."""
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setattr(parquet, "GROUP_BYTES", 2**28)
    monkeypatch.setattr(parquet, "BATCH_BYTES", 2**23)
    values = pyarrow.DictionaryArray.from_arrays(
        [0] * 600, pyarrow.array([bytes(2**20)], pyarrow.binary())
    )
    path, table = tmp_path / "x.parquet", pyarrow.table({"image": values})
    pyarrow.parquet.write_table(table, path, store_schema=store_schema)
    assert path.stat().st_size < 2**21
    before = pyarrow.default_memory_pool().max_memory()
    found = find_images(path)
    assert found.found == 600 and found.files[0].size == 2**20
    assert pyarrow.default_memory_pool().max_memory() < max(before, 2**26)
    assert "row group has 0.6 GiB" in read_image(found.locate(0), rgb)


def test_rows_without_bytes_are_failures(tmp_path):
    rows = [("a.png", png(0), 0), ("elsewhere.png", None, 1), (None, png(1), 2)]
    path = write_parquet(tmp_path / "x.parquet", rows)
    got = reasons(path)
    assert "holds no more of it than a path" in got["elsewhere.png"]
    assert got["a.png"] is None and got["2"] is None


def test_columns_that_are_no_images_are_named(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), path)
    fails(path, r"got the columns text \(string\), label \(int64\), expected")
