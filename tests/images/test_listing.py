"""The compact list: the order, groups and fingerprint of plain Python objects, without their memory."""

import hashlib
import os
import pickle
import random

import pytest

from entropy_cli.images import image_set as images
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.listing import ImageFile, ImageList

NAMES = ["a.jpg", "b/ä é.png", os.fsdecode(b"c/\xff\xfe.jpg"), "d/漢字/𝄞.JPEG", "d/a.jpg", "-", ""]


def plain(paths_and_sizes, seed):
    """The definition, told again: order, groups and fingerprint."""

    def keys(path):
        digest = hashlib.blake2b(os.fsencode(path), digest_size=16, salt=seed.to_bytes(8, "little"))
        key = digest.digest()
        return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")

    ordered = sorted(paths_and_sizes, key=lambda file: (keys(file[0])[0], file[0]))
    lines = b"".join(os.fsencode(path) + b"\0" + str(size).encode() + b"\n" for path, size in ordered)
    return ordered, [keys(path)[1] % 32 for path, _ in ordered], hashlib.sha256(lines).hexdigest()


@pytest.fixture
def folder(tmp_path):
    """Names of every kind; gives the folder, and paths and sizes."""
    rng, expected = random.Random(0), []
    names = [*NAMES[:5], *(f"{i % 7}/{rng.random()}.jpg" for i in range(500))]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * rng.randrange(300))
        expected.append((name, path.stat().st_size))
    return tmp_path, expected


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
@pytest.mark.parametrize("limit", [None, 1, 100, 10_000])
def test_order_groups_and_fingerprint_are_those_of_plain_objects(folder, seed, limit):
    found = find_images(folder[0], seed=seed, limit=limit)
    ordered, groups, _ = plain(folder[1], seed)
    _, _, fingerprint = plain(ordered[:limit], seed)
    assert [(file.path, file.size) for file in found.files] == ordered[:limit]
    assert [found.group(i) for i in range(len(found.files))] == groups[:limit] and GROUPS == 32
    assert found.fingerprint() == fingerprint and found.found == 505


def test_the_fingerprint_of_before(tmp_path):
    for name, size in (("a/1.jpg", 3), ("a/2.png", 0), ("ü.webp", 70)):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    # Written down when the list was one of plain objects: states of then must still fit.
    assert find_images(tmp_path).fingerprint()[:32] == "b338970ce182dff571d019ac2a77924d"


def test_where_hashes_collide_the_path_decides(folder, monkeypatch):
    monkeypatch.setattr(images, "hash_path", lambda path, _: (len(path) % 3, 0))
    got = [file.path for file in find_images(folder[0]).files]
    assert got == sorted((path for path, _ in folder[1]), key=lambda path: (len(path) % 3, path))


@pytest.mark.parametrize("in_tars", [False, True])
def test_it_is_a_sequence(in_tars):
    place = [(i % 3, i * 512 - 1) if in_tars else (-1, 0) for i in range(7)]
    files = [ImageFile(name, 2**40 * i, *place[i]) for i, name in enumerate(NAMES)]
    listed = ImageList.from_files(iter(files))
    assert list(listed) == files and len(listed) == 7 and listed[-1] == files[-1]
    assert list(reversed(listed)) == files[::-1] and files[3] in listed
    for part in (slice(None, 3), slice(1, None, 2), slice(None, None, -1), slice(9, None)):
        assert list(listed[part]) == files[part]
    for index in (7, -8):
        with pytest.raises(IndexError):
            listed[index]
    assert list(pickle.loads(pickle.dumps(listed))) == files
    assert not ImageList.from_files([]) and list(ImageList.from_files([])) == []


def test_an_image_costs_little_more_than_its_path():
    listed = ImageList.from_files(ImageFile(f"{i:040d}", i) for i in range(10_000))
    assert len(pickle.dumps(listed, protocol=5)) < 10_000 * (40 + 8 + 8) + 1000
