"""Ways to damage a file: its bytes, or what lies inside an envelope that is closed again around it."""

import io
import json
import struct
import tarfile
import warnings
import zipfile

from safetensors.torch import load, save

from entropy_cli.streaming.state_file import checksum

WORDS = (
    *(b"nan", b"inf", b"-1", b"0", b"1e999", b"9" * 400, b"0x" + b"f" * 300, b"null", b"true", b"''"),
    *(b"[", b"{", b"(", b'"', b"'", b",", b"\n", b"\r\n", b"\0", b"\xff", b"\x1b[2J", b"\\ud800"),
    *(b"../", b"/dev/zero", b"=1+1", b"<script>", b"$\\frac$", b"%s", b"loss", b"step", b"epoch"),
)
DEEP = 5000
NODES = (None, True, -1, 0, 1, 0.5, 1e308, 2**63, 10**30, "", "x", "\ud800", "\x1b[31m<b>|$", [], {})
MOST_BYTES, MOST_COPIES = 2**19, 20  # that are added at once, and that of the file


def mutated(content, rng, others):
    """Return a changed copy of a file; `others` are files whose parts may be put into it."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = _inside(content, rng, others) if rng.random() < 0.6 else _bytes(content, rng, others)
    return content


def _bytes(content, rng, others):
    """Flip, cut, overwrite, repeat, nest, swap or splice."""
    a, b = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    if rng.random() < 0.7:  # a short piece, more often near the beginning, where headers are
        a = min(a, rng.randrange(1, 2000)) if rng.random() < 0.5 else a
        b = min(len(content), a + rng.randrange(1, 40))
    piece, way = content[a:b], rng.randrange(9)
    if way == 0 and piece:
        bits = 1 << rng.randrange(8 * len(piece))
        new = (int.from_bytes(piece, "big") ^ bits).to_bytes(len(piece), "big")
    elif way == 1:
        return content[:a]
    elif way == 2:
        new = b""
    elif way == 3:
        new = rng.choice(WORDS)
    elif way == 4:
        new = rng.choice(WORDS) + piece
    elif way == 5:
        most = min(MOST_BYTES, MOST_COPIES * len(content)) // max(1, len(piece))
        new = piece * min(rng.choice((2, 10, 10**5)), most)
    elif way == 6:
        opening, closing = rng.choice(((b"[", b"]"), (b"{", b"}"), (b"(", b")"), (b'{"a":', b"}")))
        number = rng.choice((1, 70, DEEP, 10**5))
        new = opening * number + piece + closing * number
    elif way == 7:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        new = other[start : start + rng.choice((8, 100, 10**5))]
    else:
        new = bytes(rng.randrange(256) for _ in piece[:100])
    return content[:a] + new + content[b:]


def _inside(content, rng, others):
    """Change what lies in an envelope that checks it, if the file is one, else a JSON document."""
    try:
        if content[:2] == b"PK":
            return _zip(content, rng, others)
        if content[257:262] == b"ustar":
            return _tar(content, rng, others)
        if content[8:9] == b"{":
            return _safetensors(content, rng, others)
        if content[:6] == b"\x93NUMPY":
            return _npy(content, rng, others)
        return _lines(content, rng)
    except Exception:  # noqa: BLE001 - it is damaged already
        return _bytes(content, rng, others)


def _zip(content, rng, others):
    archive = zipfile.ZipFile(io.BytesIO(content))
    infos = archive.infolist()
    likely = [info for info in infos if info.filename.endswith((".pkl", ".npy"))]
    chosen = rng.choice(likely if likely and rng.random() < 0.8 else infos)
    file = io.BytesIO()
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", packing) as new:
        warnings.simplefilter("ignore")
        for info in infos:
            inner = archive.read(info)
            change = _inside if inner[:6] == b"\x93NUMPY" else _bytes
            new.writestr(info.filename, change(inner, rng, others) if info is chosen else inner)
    return file.getvalue()


def _tar(content, rng, others):
    """Change a header, and let its checksum fit."""
    at = 512 * rng.randrange(max(1, len(content) // 512))
    block = bytearray(_bytes(content[at : at + 512], rng, others)[:512].ljust(512, b"\0"))
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return content[:at] + bytes(block) + content[at + 512 :]


def _npy(content, rng, others):
    end = 10 + int.from_bytes(content[8:10], "little")
    header = _bytes(content[10:end], rng, others)[:65535]
    return content[:8] + struct.pack("<H", len(header)) + header + content[end:]


def _safetensors(content, rng, others):
    """Change the header; that of a saved state is signed again."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    meta = header.get("__metadata__", {})
    if "entropy-cli" in meta and rng.random() < 0.9:
        text, tensors = _document(meta["entropy-cli"], rng), load(content)
        tensors.pop(rng.choice([*tensors, "none"]), None)
        return save(tensors, {"entropy-cli": text, "sha256": checksum(text, tensors)})
    new = _document(content[8:end].decode(), rng).encode("utf-8", "replace")
    return struct.pack("<Q", len(new)) + new + content[end:]


def _lines(content, rng):
    """Change a JSON document, or one in a line."""
    text = content.decode()
    if text.lstrip()[:1] in "[{":
        try:
            return _document(text, rng).encode("utf-8", "surrogatepass")
        except ValueError:
            lines = text.split("\n")
            i = rng.randrange(len(lines))
            lines[i] = _document(lines[i], rng)
            return "\n".join(lines).encode("utf-8", "surrogatepass")
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    cells = lines[i].split(rng.choice((",", " ", ":")))
    k = rng.randrange(len(cells))
    cells[k] = rng.choice((*WORDS, cells[k].encode() * 1000)).decode("latin1")
    lines[j] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _document(text, rng):
    """Change a value of a JSON document, remove it, give it to another key, or nest it."""
    document = json.loads(text)
    places = []

    def collect(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                collect(node[key])

    collect(document)
    node, key = rng.choice(places)
    other, other_key = rng.choice(places)
    way = rng.randrange(6)
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, dict):
        node[rng.choice(("", "a.b", "\ud800", "x" * 10**5, "__class__", "../x"))] = node.pop(key)
    elif way == 2:
        node[key] = json.loads(json.dumps(other[other_key]))
    elif way == 3:
        node[key] = [node[key]] * rng.choice((1, 3, 1000))
    elif way == 4:
        node[key] = "@deep@"
    else:
        node[key] = rng.choice(NODES)
    return json.dumps(document).replace('"@deep@"', "[" * DEEP + "]" * DEEP)
