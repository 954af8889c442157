"""Archives of every kind in place of the folder with the same images: the same list and bytes."""

import numpy as np
import pytest

from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import plan_batches
from tests.archives import PLACES, make, png


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
