"""Each crop against the library, or the published arithmetic, that it stands for; equal to the pixel."""

import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from entropy_cli.images.decode import read_image
from entropy_cli.tokenizers.preprocess import (
    adm_crop,
    chameleon_crop,
    opencv_crop,
    resize_crop,
    resize_window,
    var_crop,
)

SIZE = 48
SIZES = [
    (64, 64),
    (48, 48),  # as it is
    (47, 49),
    (96, 96),  # halved exactly
    (96, 131),
    (97, 95),
    (95, 200),
    (191, 383),
    (192, 192),
    (400, 200),  # halved twice
    (501, 377),
    (377, 501),
    (20, 13),
    (3, 5),
    (1, 1),
    (1, 700),
    (700, 1),
    (2, 333),
    (49, 2001),
    (1000, 31),
]
MODES = [
    "RGB",
    "RGBA",
    "LA",
    "P",
    "P with transparency",
    "L",
    "L with transparency",
    "1",
    "CMYK",
    "YCbCr",
    "I;16",
    "I",
    "F",
]


def torchvision_resize(shorter_side, interpolation):
    def crop(picture, size):
        resized = transforms.Resize(shorter_side(size), interpolation)(picture.convert("RGB"))
        return transforms.CenterCrop((size, size))(resized)

    return crop


def adm(picture, size):
    picture = picture.convert("RGB")
    while min(picture.size) >= size * 2:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    factor = size / min(picture.size)
    width, height = round(picture.width * factor), round(picture.height * factor)
    img_HWC = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return img_HWC[top : top + size, left : left + size]


def albumentations(picture, size):
    cv2 = pytest.importorskip("cv2")
    img_HWC = np.array(picture.convert("RGB"))
    height, width = img_HWC.shape[:2]
    factor = size / float(min(width, height))
    if factor != 1:
        new = round(width * factor), round(height * factor)
        img_HWC = cv2.resize(img_HWC, new, interpolation=cv2.INTER_LINEAR)
    top, left = (img_HWC.shape[0] - size) // 2, (img_HWC.shape[1] - size) // 2
    return img_HWC[top : top + size, left : left + size]


def chameleon(picture, size):
    if picture.mode != "RGB":
        rgba = np.array(picture.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            share = rgba[..., 3:] / 255.0
            rgb = (1 - share) * 255 + share * rgba[..., :3]
            picture = Image.fromarray(rgb.astype("uint8"))
    factor = size / min(picture.size)
    width, height = round(factor * picture.width), round(factor * picture.height)
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return resized.crop((left, top, left + size, top + size))


CROPS = {
    "var": (var_crop, torchvision_resize(lambda size: round(1.125 * size), InterpolationMode.LANCZOS)),
    "bilinear": (
        lambda size: resize_crop(size, Image.Resampling.BILINEAR),
        torchvision_resize(lambda size: size, InterpolationMode.BILINEAR),
    ),
    "bicubic": (
        lambda size: resize_crop(size, Image.Resampling.BICUBIC),
        torchvision_resize(lambda size: size, InterpolationMode.BICUBIC),
    ),
    "adm": (adm_crop, adm),
    "opencv": (opencv_crop, albumentations),
    "chameleon": (chameleon_crop, chameleon),
}

every_crop = pytest.mark.parametrize("name", CROPS)


def drawn(size, mode="RGB", seed=0):
    """A gradient with noise and a hard edge, of some mode."""
    rng = np.random.default_rng((seed, *size))
    width, height = size
    y, x = np.mgrid[:height, :width]
    channels = [x / width, y / height, (x > y) * 0.9, (x + y) / (width + height)]
    noise = rng.integers(-40, 40, (height, width, 4))
    img_HWC = np.clip(np.stack(channels, -1) * 255 + noise, 0, 255).astype(np.uint8)
    colour, alpha = Image.fromarray(img_HWC[..., :3]), Image.fromarray(img_HWC[..., 3])
    if mode in ("RGBA", "LA"):
        picture = colour.convert(mode)
        picture.putalpha(alpha)
    elif mode.startswith("P"):
        picture = colour.quantize(32)
        picture.info.update({"transparency": bytes(range(0, 256, 8))} if "with" in mode else {})
    elif mode == "I;16":
        picture = Image.fromarray(img_HWC[..., 0].astype(np.uint16) * 257)
    else:
        picture = colour.convert(mode.split()[0])
        picture.info.update({"transparency": 99} if "with" in mode else {})
    assert picture.mode == mode.split()[0]
    return picture


def assert_agree(name, picture, size):
    make, reference = CROPS[name]
    got = make(size).apply(picture)
    assert got.mode == "RGB" and got.size == (size, size)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(reference(picture, size)))


@every_crop
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size(name, size):
    assert_agree(name, drawn(size), SIZE)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")  # as read_image does
@every_crop
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(113, 150), (30, 20)], ids=str)
def test_every_mode(name, mode, size):
    assert_agree(name, drawn(size, mode), SIZE)


@every_crop
def test_many_sizes(name):
    rng = np.random.default_rng(0)
    for i in range(100):
        size = int(rng.integers(1, 60))
        # Up to eight times as large or as small, and as long.
        short = max(1, round(size * 8 ** rng.uniform(-1, 1)))
        long = round(short * 8 ** rng.uniform(0, 1))
        assert_agree(name, drawn((short, long) if i % 2 else (long, short), seed=i), size)


@every_crop
def test_photographs(shared, name):
    paths = sorted((shared / "imagenet-sample").rglob("*.JPEG"))[::20]
    assert len(paths) >= 5
    for path in paths:
        with Image.open(path) as picture:
            assert_agree(name, picture, 256)
            expected = np.asarray(CROPS[name][1](picture, 256))
        got = read_image(path, CROPS[name][0](256).apply)
        np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


def test_windows_of_opencvs_resize():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for i in range(400):
        old = [int(n) for n in rng.integers(1, (9, 90, 400)[i % 3], 2)]
        # Also sides that change by other factors than each other, and exact halves.
        new = [(n + 1) // 2 for n in old] if i % 5 == 0 else [int(n) for n in rng.integers(1, 200, 2)]
        if i % 10 == 0:
            old = [2 * n for n in new]
        img_HWC = rng.integers(0, 256, (old[1], old[0], 3), dtype=np.uint8)
        window = int(rng.integers(1, min(new) + 1))
        left, top = (int(rng.integers(0, n - window + 1)) for n in new)
        whole = cv2.resize(img_HWC, new, interpolation=cv2.INTER_LINEAR)
        got = resize_window(img_HWC, tuple(new), (left, top), window)
        np.testing.assert_array_equal(got, whole[top : top + window, left : left + window])


def test_whole_range_of_transparency_on_white():
    # Every value with every opacity.
    alpha, value = np.mgrid[:256, :256].astype(np.uint8)
    picture = Image.fromarray(np.stack([value, value.T, value[::-1], alpha], -1))
    assert_agree("chameleon", picture, 256)


@every_crop
def test_a_long_and_narrow_picture_is_refused_before_it_is_blown_up(name):
    with pytest.raises(Image.DecompressionBombError, match="1 x 60000"):
        CROPS[name][0](256).apply(Image.new("L", (1, 60_000)))


@every_crop
def test_pickles(name):
    crop, picture = CROPS[name][0](SIZE), drawn((100, 77))
    again = pickle.loads(pickle.dumps(crop))
    assert again == crop
    assert again.apply(picture).tobytes() == crop.apply(picture).tobytes()


def test_words():
    assert var_crop(256).words == "shorter side to 288 (LANCZOS), centre crop 256 x 256"
    assert [CROPS[name][0](256).words for name in ("bilinear", "bicubic")] == [
        "shorter side to 256 (BILINEAR), centre crop 256 x 256",
        "shorter side to 256 (BICUBIC), centre crop 256 x 256",
    ]
    assert adm_crop(256).words == (
        "halved (BOX) while the shorter side is at least 512, then shorter side to 256 (BICUBIC), "
        "centre crop 256 x 256"
    )
    assert opencv_crop(256).words == (
        "shorter side to 256 (INTER_LINEAR of OpenCV), centre crop 256 x 256"
    )
    assert chameleon_crop(512).words == (
        "transparency on white, shorter side to 512 (LANCZOS), centre crop 512 x 512"
    )
    assert len({make(256).words for make, _ in CROPS.values()}) == len(CROPS)
