"""Tars in place of the folder they were made from: the same images, or one clear sentence."""

import gzip
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entropy_cli.core.errors import DatasetError
from entropy_cli.images import members
from entropy_cli.images.decode import CroppedImages, read_image
from entropy_cli.images.image_set import find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import plan_batches


def png_bytes(seed):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def write_tar(path, members, **options):
    """A tar of (name, bytes), (name, None) for a folder, or TarInfo without content."""
    with tarfile.open(path, "w", **options) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            if member[1] is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def same(image):
    return image.convert("RGB")


def agree(folder, tars, split="auto", seed=0):
    """Whether tars give the images of the folder, byte by byte; gives the tars' list."""
    want, got = find_images(folder, split, seed=seed), find_images(tars, split, seed=seed)
    assert [(f.path, f.size) for f in got.files] == [(f.path, f.size) for f in want.files]
    assert (got.split, got.found, got.fingerprint()) == (want.split, want.found, want.fingerprint())
    assert got.note.replace(got.source.name, want.source.name) == want.note
    for i in range(len(want.files)):
        a, b = (read_image(found.locate(i), same) for found in (want, got))
        assert type(a) is type(b) and (isinstance(a, str) or a.equal(b)), (want.files[i], a, b)
        assert got.group(i) == want.group(i)
    return got


@pytest.fixture
def tree(tmp_path):
    """A folder with everything in it that a folder may have, and what it is called."""
    root = tmp_path / "tree"
    names = [
        "val/a/1.png",
        "val/a/._1.png",
        "val/.hidden/2.png",
        "val/b/3.PNG",
        "val/b/notes.txt",
        "4.png",
    ]
    names += [f"train/{'deep/' * 60}5.png", f"train/{'n' * 150}é.png", os.fsdecode(b"train/\xff.png")]
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png_bytes(seed))
    (root / "val/b/data").write_bytes(png_bytes(99))
    (root / "val/broken.png").write_bytes(b"no image")
    (root / "val/empty.png").write_bytes(b"")
    for name, target in {
        "val/b/link.png": "../a/1.png",
        "val/b/chain.png": "link.png",
        "val/b/of_data.png": "./data",
        "val/b/through.png": "../linked/1.png",
        "val/dangling.png": "gone.png",
        "val/itself.png": "itself.png",
        "val/outside.png": "../../elsewhere.png",
        "val/absolute.png": "/nowhere/x.png",
        "val/slash.png": "a/1.png/",
        "val/linked": "a",
        "val/z": "./b/",
        "val/up": "..",
        "val/sideways": "../train",
        "val/nowhere": "gone",
    }.items():
        (root / name).symlink_to(target)
    os.link(root / "val/a/1.png", root / "val/hard.png")
    os.link(root / "val/b/link.png", root / "val/b/hard_link_of_link.png", follow_symlinks=False)
    os.mkfifo(root / "val/pipe.png")
    return root


@pytest.mark.parametrize("style", ["gnu", "pax", "python"])
@pytest.mark.parametrize("split", ["auto", "train", "val", "all"])
def test_a_tar_is_the_folder_it_was_made_from(tree, tmp_path, style, split):
    tar = tmp_path / "x.tar"
    if style == "python":
        with tarfile.open(tar, "w") as file:
            file.add(tree, "")
    else:
        subprocess.run(["tar", f"--format={style}", "-cf", tar, "-C", tree, "."], check=True)
    assert len(agree(tree, tar, split, seed=3).files) >= (3 if split == "train" else 15)


def test_several_tars_are_one_folder(tree, tmp_path):
    for part in ("val", "train"):
        subprocess.run(["tar", "-cf", tmp_path / f"{part}-0.tar", "-C", tree, part], check=True)
    subprocess.run(["tar", "-cf", tmp_path / "rest-0.tar", "-C", tree, "4.png"], check=True)
    for pattern in ("*-0.tar", "{rest,train,val}-{0..0}.tar", "{train,[rv]*}-?.tar"):
        for split in ("auto", "train", "all"):
            agree(tree, tmp_path / pattern, split)
    found = find_images(tmp_path / "*-0.tar")
    assert found.source.location == str(tmp_path / "*-0.tar")


def test_splits_need_no_images_of_their_own(tmp_path):
    one = write_tar(tmp_path / "x.tar", [("val", None), ("1.png", png_bytes(0))])
    with pytest.raises(DatasetError, match=r"x\.tar: no images found"):
        find_images(one)
    assert find_images(one, "all").found == 1
    with pytest.raises(DatasetError, match=r"x\.tar: has no train/ folder"):
        find_images(one, "train")


def test_in_one_tar_the_later_counts(tmp_path):
    early, late = png_bytes(0), png_bytes(1)
    hard = link("hard.png", "./1.png", tarfile.LNKTYPE)
    tar = write_tar(tmp_path / "x.tar", [("./1.png", early), hard, ("1.png", late)])
    found = find_images(tar)
    assert {f.path: found.locate(i).open().read() for i, f in enumerate(found.files)} == {
        "1.png": late,
        "hard.png": early,
    }


def test_one_image_in_two_tars_is_an_error_that_names_both(tmp_path):
    write_tar(tmp_path / "a.tar", [("labels.txt", b"a"), ("x/1.png", png_bytes(0))])
    write_tar(tmp_path / "b.tar", [("labels.txt", b"b"), ("./x/2.png", png_bytes(1))])
    assert find_images(tmp_path / "{a,b}.tar").found == 2
    assert find_images(tmp_path / "{a,b,a}.tar").found == 2  # one tar named twice is one tar
    write_tar(tmp_path / "c.tar", [("./x//1.png", png_bytes(0))])
    with pytest.raises(DatasetError, match=r"^x/1\.png: is in .*a\.tar and in .*c\.tar") as error:
        find_images(tmp_path / "?.tar")
    assert "\n" not in str(error.value)


def test_a_file_that_is_a_folder_elsewhere(tmp_path):
    write_tar(tmp_path / "a.tar", [("x", b""), ("1.png", png_bytes(0))])
    write_tar(tmp_path / "b.tar", [("x/1.png", png_bytes(0))])
    for pattern in ("{a,b}.tar", "{b,a}.tar"):
        with pytest.raises(DatasetError, match="as both a file and a folder"):
            find_images(tmp_path / pattern)


@pytest.mark.parametrize("name", ["/etc/1.png", "../1.png", "a/../../1.png", "a/.."])
def test_paths_that_lead_out_are_errors(tmp_path, name):
    tar = write_tar(tmp_path / "x.tar", [("0.png", png_bytes(0)), (name, b"")])
    with pytest.raises(DatasetError, match="leads out of it"):
        find_images(tar)


def broken_tars(tmp_path):
    """Name, content and words of the error."""
    whole = write_tar(tmp_path / "w", [(f"{i}.png", png_bytes(i)) for i in range(3)]).read_bytes()
    length = len(png_bytes(0))
    second = 512 + -(-length // 512) * 512
    used = whole.rstrip(b"\0")
    third_header = bytearray(whole)
    third_header[second + 20] ^= 1
    yield "compressed", gzip.compress(whole)[:-9], "is damaged: "
    yield "bzip2", b"BZh91AY&SY" + bytes(600), "is damaged: "
    yield "lz4", b"\x04\x22\x4d\x18" + bytes(600), "is a lz4 file"
    yield "no tar", gzip.compress(b"x" * 600), "is compressed, but not a tar"
    yield "cut in an image", used[:-300], "cut off"
    yield "cut in a header", whole[: second + 100], "damaged at"
    yield "cut between members", whole[:second], "no end mark"
    yield "cut in padding", used[: len(used) + 1], "damaged at|cut off"
    yield "joined", whole + whole, "two tars joined"
    yield "damaged", bytes(third_header), "damaged at"
    yield "text", b"not a tar at all\n" * 100, "is not a tar"
    yield "empty", b"", "is not a tar"
    yield "short", b"x", "is not a tar"
    yield "no member", bytes(10240), "no images"
    yield (
        "no image",
        write_tar(tmp_path / "w", [("a.txt", b"x"), (".b.png", b"")]).read_bytes(),
        "no images",
    )


def test_what_is_no_whole_tar_says_so_in_one_line(tmp_path):
    for name, content, words in broken_tars(tmp_path):
        (tmp_path / f"{name}.tar").write_bytes(content)
        with pytest.raises(DatasetError, match=words) as error:
            find_images(tmp_path / f"{name}.tar")
        assert str(error.value).startswith(str(tmp_path / f"{name}.tar")) and "\n" not in str(
            error.value
        )


def test_damaged_headers_never_end_in_anything_else(tmp_path):
    members = [("é" * 120 + f"{i}.png", png_bytes(i)) for i in range(2)]
    whole = write_tar(tmp_path / "w", members, format=tarfile.PAX_FORMAT).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(200):
        content = bytearray(whole)
        for _ in range(3):
            content[rng.integers(0, 1600)] = rng.integers(0, 256)
        (tmp_path / f"{i}.tar").write_bytes(content)
        try:
            found = find_images(tmp_path / f"{i}.tar")
            read_image(found.locate(0), same)
        except DatasetError:
            continue


def test_tars_that_are_not_there(tmp_path):
    write_tar(tmp_path / "x-0.tar", [("0.png", png_bytes(0))])
    (tmp_path / "x-2.tar").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("x.tar", r"x\.tar: no such file\. "),
        ("x-{0..1}.tar", r"x-1\.tar: no such file\. "),
        ("x-{000..009}.tar", r"x-000\.tar: no such file; of .*x-\{000\.\.009\}\.tar 10 files are"),
        ("y*.tar", r"y\*\.tar: no such file"),
        ("x-{0,2}.tar", r"x-2\.tar: is not an ordinary file"),
        ("pipe", "pipe: is not an ordinary file"),
        ("x-{0..99999999}.tar", "more than 100000 archives"),
        ("nothing", "nothing: no such folder"),
    ):
        with pytest.raises(DatasetError, match=words):
            find_images(tmp_path / name)


def test_the_index_is_kept_and_read_again_when_the_tar_changes(tmp_path, monkeypatch):
    tars = [write_tar(tmp_path / f"{i}.tar", [(f"{i}.png", png_bytes(i))]) for i in range(2)]
    data, counted = tmp_path / "{0..1}.tar", []
    before = find_images(data, progress=counted.append)
    assert len(list((tmp_path / "cache/entropy-cli/archives").iterdir())) == 2 and sum(counted) == 2
    opened, really = [], tarfile.open

    def counting(*args, **options):
        opened.extend([1] if options.get("mode") == "r:" else [])
        return really(*args, **options)

    monkeypatch.setattr(tarfile, "open", counting)
    again = find_images(data, progress=counted.append)
    assert not opened and list(again.files) == list(before.files) and sum(counted) == 4
    monkeypatch.chdir(tmp_path)  # the same tars by other names
    assert list(find_images(Path("[01].tar")).files) == list(before.files) and not opened
    write_tar(tars[0], [("0.png", png_bytes(5)), ("5.png", png_bytes(6))])
    changed = find_images(data)
    assert len(opened) == 1 and {f.path for f in changed.files} == {"0.png", "1.png", "5.png"}
    os.utime(tars[1], ns=(1, 1))
    find_images(data)
    assert len(opened) == 2
    assert len(list((tmp_path / "cache/entropy-cli/archives").iterdir())) == 2


def test_a_damaged_index_is_made_again(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [(f"{i}.png", png_bytes(i)) for i in range(3)])
    before = list(find_images(tar).files)
    (kept,) = (tmp_path / "cache/entropy-cli/archives").iterdir()
    whole = kept.read_bytes()
    for content in (b"", b"x" * 100, whole[:-30], whole[: len(whole) // 2], bytes(len(whole))):
        kept.write_bytes(content)
        assert list(find_images(tar).files) == before and kept.read_bytes() != content
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 0x55
        kept.write_bytes(content)
        assert list(find_images(tar).files) == before
    monkeypatch.setattr(members, "VERSION", members.VERSION + 1)
    assert list(find_images(tar).files) == before


def test_a_cache_that_cant_be_written_is_no_error(tmp_path, monkeypatch):
    tar = write_tar(tmp_path / "x.tar", [("0.png", png_bytes(0))])
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nothing")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert find_images(tar).found == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert find_images(tar).found == 1


@pytest.mark.parametrize("change", ["written", "shrunk", "gone"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_tar_that_changes_while_it_is_read_gives_reasons_not_images(tmp_path, change, workers):
    tar = write_tar(tmp_path / "x.tar", [(f"{i}.png", png_bytes(i)) for i in range(3)])
    os.utime(tar, (1, 1))  # clocks of file systems are coarse
    found = find_images(tar)
    if change == "written":
        write_tar(tar, [(f"{i}.png", png_bytes(i + 1)) for i in range(3)])
    elif change == "shrunk":
        os.truncate(tar, 5000)
    else:
        tar.unlink()
    (batch,) = read_batches(
        open_loader(CroppedImages(found, same), plan_batches(3, 16, [0]), workers=workers)
    )
    words = "No such file" if change == "gone" else "has changed since it was listed"
    assert not batch.names and len(batch.failed) == 3
    assert all(words in reason and "x.tar" in reason for _, reason in batch.failed)


def test_sparse_files_and_links_to_nowhere_have_a_reason(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "0.png").write_bytes(png_bytes(0))
    (tree / "link.png").symlink_to("gone.png")
    with (tree / "holes.png").open("wb") as file:
        file.write(png_bytes(1))
        file.truncate(1 << 20)
    os.mkfifo(tree / "pipe.png")
    subprocess.run(["tar", "-S", "-cf", tmp_path / "x.tar", "-C", tree, "."], check=True)
    found = find_images(tmp_path / "x.tar")
    assert found.fingerprint() == find_images(tree).fingerprint()
    reasons = {f.path: read_image(found.locate(i), same) for i, f in enumerate(found.files)}
    assert "no file in the archives" in reasons["link.png"] and "ordinary" in reasons["pipe.png"]
    assert "sparse" in reasons["holes.png"] and not isinstance(reasons["0.png"], str)


def test_reasons_of_damaged_images_name_no_memory(tmp_path):
    tar = write_tar(tmp_path / "x.tar", [("bad.png", b"no image")])
    reason = read_image(find_images(tar).locate(0), same)
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert reason == read_image(tmp_path / "bad.png", same)
    assert reason.startswith("not identified as one of JPEG, ")


def test_a_large_tar_does_not_keep_its_headers(tmp_path):
    """tarfile would keep a KB for each."""
    import tracemalloc

    tar = write_tar(tmp_path / "x.tar", [(f"{i}.png", b"") for i in range(3000)])
    tracemalloc.start()
    found = find_images(tar)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.found == 3000 and kept < 3000 * 100 and peak < 3000 * 700


def extended(content, kind=b"x"):
    """An extended header, whatever is in it."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + b"\0" * (-len(content) % 512)


FIELDS = b"".join(b"%09d k%05d=v\n" % (9 + 1 + 6 + 3, i) for i in range(20_000))
LINKS = [link(f"{i}.jpg", f"{'a/../' * 10_000}{i + 1}.jpg") for i in range(100)]


@pytest.mark.parametrize(
    "begin, words",
    [
        (extended(b"1" * 200_000), "is not a tar"),  # tarfile scans a number from each of its digits
        (extended(b"%d path=%s\n" % (200_000, b"1" * 199_987)), "is not a tar"),
        (extended(b"11 " * 50_000 + b"="), "is not a tar"),  # each record a name of all the rest
        (extended(FIELDS, b"g") + extended(b"11 path=xy\n"), "is not a tar|damaged"),  # copied for each
        (extended(b"%d path=%s\n" % (9011, b"a/" * 4500)), "parts, expected at most"),
    ],
)
def test_headers_that_tarfile_reads_for_hours_are_refused(tmp_path, begin, words):
    whole = write_tar(tmp_path / "x.tar", [("a.png", png_bytes(0))]).read_bytes()
    (tmp_path / "x.tar").write_bytes(begin + whole)
    start = time.process_time()
    with pytest.raises(DatasetError, match=words):
        find_images(tmp_path / "x.tar", "auto", seed=0)
    assert time.process_time() - start < 5


def test_long_links_are_followed_in_seconds(tmp_path):
    path = write_tar(tmp_path / "x.tar", [*LINKS, ("a.png", png_bytes(0))])
    start = time.process_time()
    assert len(find_images(path, "auto", seed=0).files) == 101
    assert time.process_time() - start < 5
