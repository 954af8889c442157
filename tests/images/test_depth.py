"""Images of 16 bits become those of 8 by dropping the low byte; what can't is unreadable."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from entropy_cli.images.decode import read_image
from entropy_cli.tokenizers.preprocess import chameleon_crop

HEIGHT, WIDTH = 6, 8
RNG = np.random.default_rng(0)
GREY_HW = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
DARK_HW = RNG.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint16)
COLOUR_HW3 = RNG.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)


def rgb(image):
    return image.convert("RGB")


def read(tmp_path, content, name="x.png"):
    (tmp_path / name).write_bytes(content)
    got = read_image(tmp_path / name, rgb)
    return got if isinstance(got, str) else got.permute(1, 2, 0).numpy()


def saved(values, name):
    content = io.BytesIO()
    Image.fromarray(values).save(content, name)
    return content.getvalue()


def png(bits, colour, values, chunks=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + data


def tiff(strips, bits, *, order="<", photometric=1, kind=1, planar=1, compression=1):
    """A TIFF of some strips of bytes, of values of the same depth and kind."""
    tags = {
        256: [WIDTH],
        257: [HEIGHT],
        258: bits,
        259: [compression],
        262: [photometric],
        273: [0] * len(strips),
        277: [len(bits)],
        278: [HEIGHT],
        279: [len(strip) for strip in strips],
        284: [planar],
        339: [kind] * len(bits),
    }
    table = 8 + 2 + 12 * len(tags) + 4
    packed = {}
    for _ in range(2):  # where the strips are is known when all else is laid out
        at = table + sum(len(value) for value in packed.values() if len(value) > 4)
        tags[273] = [at + sum(map(len, strips[:i])) for i in range(len(strips))]
        packed = {tag: struct.pack(f"{order}{len(v)}I", *v) for tag, v in tags.items()}
    entries, rest = b"", b""
    for tag, value in packed.items():
        place = value if len(value) == 4 else struct.pack(order + "I", table + len(rest))
        entries += struct.pack(order + "HHI", tag, 4, len(tags[tag])) + place
        rest += value if len(value) > 4 else b""
    head = struct.pack(order + "2sHIH", {"<": b"II", ">": b"MM"}[order], 42, 8, len(tags))
    return head + entries + bytes(4) + rest + b"".join(strips)


def twelve_bits(values_HW):
    """Two values in three bytes."""
    pairs = values_HW.reshape(-1, 2).tolist()
    return b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs)


@pytest.mark.parametrize("values_HW", [GREY_HW, DARK_HW], ids=["bright", "dark"])
@pytest.mark.parametrize("name", ["PNG", "TIFF", "PPM", "JPEG2000", "TIFF big endian", "TIFF packed"])
def test_grey_of_16_bits_loses_its_low_byte(tmp_path, values_HW, name):
    content = {
        "TIFF big endian": tiff([values_HW.astype(">u2").tobytes()], [16], order=">"),
        "TIFF packed": tiff([zlib.compress(values_HW.tobytes())], [16], compression=8),
    }.get(name) or saved(values_HW, name)
    expected_HW3 = np.repeat((values_HW >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read(tmp_path, content), expected_HW3)


def test_grey_that_an_older_pillow_opens_as_integers_is_of_16_bits_too(tmp_path, monkeypatch):
    from PIL import PngImagePlugin

    monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    np.testing.assert_array_equal(read(tmp_path, saved(DARK_HW, "PNG")), np.zeros((HEIGHT, WIDTH, 3)))


def test_grey_of_12_bits_keeps_its_8_highest(tmp_path):
    values_HW = GREY_HW >> 4
    got = read(tmp_path, tiff([twelve_bits(values_HW)], [12]))
    np.testing.assert_array_equal(got[..., 0], values_HW >> 4)


def test_colours_of_16_bits_lose_their_low_byte_in_pillow_itself(tmp_path):
    alpha_HW1 = GREY_HW[..., None]
    grey_alpha_HW2 = np.stack([GREY_HW, DARK_HW], axis=2)
    for content in (
        png(16, 2, COLOUR_HW3),
        png(16, 6, np.concatenate([COLOUR_HW3, alpha_HW1], axis=2)),
        tiff([COLOUR_HW3.tobytes()], [16] * 3, photometric=2),
        tiff([COLOUR_HW3.astype(">u2").tobytes()], [16] * 3, photometric=2, order=">"),
        tiff(
            [zlib.compress(colour_HW.tobytes()) for colour_HW in np.moveaxis(COLOUR_HW3, 2, 0)],
            [16] * 3,
            photometric=2,
            planar=2,
            compression=8,
        ),
    ):
        np.testing.assert_array_equal(read(tmp_path, content), COLOUR_HW3 >> 8)
    np.testing.assert_array_equal(read(tmp_path, png(16, 4, grey_alpha_HW2))[..., 0], GREY_HW >> 8)


def test_what_is_transparent_in_16_bits_is_compared_in_16_bits(tmp_path):
    values_HW = np.full((HEIGHT, WIDTH), 0x1234, np.uint16)
    values_HW[:, : WIDTH // 2] = 0x1235
    key = struct.pack(">I4sH", 2, b"tRNS", 0x1235)
    key += struct.pack(">I", zlib.crc32(key[4:]))
    (tmp_path / "x.png").write_bytes(png(16, 0, values_HW, key))
    got_3HW = read_image(tmp_path / "x.png", chameleon_crop(HEIGHT).apply)
    assert got_3HW[:, 3, 0].tolist() == [255] * 3 and got_3HW[:, 3, -1].tolist() == [0x12] * 3


def jpeg2000(bits):
    content = bytearray(saved((COLOUR_HW3 >> 8).astype(np.uint8), "JPEG2000"))
    start = content.find(b"\xff\x4f\xff\x51") + 42
    for component in range(3):
        content[start + 3 * component] = bits - 1
    return bytes(content)


UNREADABLE = {
    "float": (saved(GREY_HW.astype(np.float32), "TIFF"), "signed or fractions"),
    "float of a PFM": (b"Pf\n8 6\n-1.0\n" + GREY_HW.astype("<f4").tobytes(), "fractions"),
    "32 bits": (saved(DARK_HW.astype(np.int32), "TIFF"), "signed or fractions"),
    "32 bits, unsigned": (tiff([DARK_HW.astype("<u4").tobytes()], [32]), "have 32 bits"),
    "16 bits, signed": (tiff([GREY_HW.tobytes()], [16], kind=2), "signed"),
    "8 bits, signed": (tiff([DARK_HW.astype(np.uint8).tobytes()], [8], kind=2), "signed"),
    "white is 0": (tiff([GREY_HW.tobytes()], [16], photometric=0), "have 0 as white"),
    "planes": (
        tiff(
            [plane.tobytes() for plane in np.moveaxis(COLOUR_HW3, 2, 0)],
            [16] * 3,
            planar=2,
            photometric=2,
        ),
        "stored in planes",
    ),
    "JPEG 2000": (jpeg2000(10), "have 10 bits, which Pillow misreads"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_values_that_would_be_misread_are_a_reason(tmp_path, name):
    content, words = UNREADABLE[name]
    reason = read(tmp_path, content)
    assert isinstance(reason, str) and words in reason and "\n" not in reason


@pytest.mark.parametrize("photometric", [0, 1])
def test_8_bits_stay_what_they_are(tmp_path, photometric):
    values_HW = DARK_HW.astype(np.uint8)
    got = read(tmp_path, tiff([values_HW.tobytes()], [8], photometric=photometric))
    np.testing.assert_array_equal(got[..., 0], values_HW if photometric else 255 - values_HW)
    colour_HW3 = (COLOUR_HW3 >> 8).astype(np.uint8)
    planes = [plane.tobytes() for plane in np.moveaxis(colour_HW3, 2, 0)]
    got = read(tmp_path, tiff(planes, [8] * 3, planar=2, photometric=2))
    np.testing.assert_array_equal(got, colour_HW3)
