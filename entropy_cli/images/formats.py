"""Which files are images, by their suffix, and what to say of the others."""

from collections import Counter
from collections.abc import Callable
from itertools import chain

from PIL import features

from entropy_cli.core.errors import DatasetError

# As Pillow names them, in the order in which it tries them. Its other formats stay shut, whatever a file
# is called: they are rare, and for EPS it would run Ghostscript on what the file says.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c"),
    "AVIF": (".avif",),
}
LIBRARIES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}  # that a Pillow may lack

# Labels, tables and notes, that are expected beside images.
TEXTS = (".txt", ".md", ".html", ".log", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml")
USUAL = (*TEXTS, ".cls", ".db", ".ini")  # as webdataset, Thumbs.db and desktop.ini
ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
PACKED = (*ARCHIVES, ".parquet", ".arrow", ".tfrecord", ".h5", ".hdf5", ".mdb", ".rec", ".beton")
MAX_SUFFIXES = 1000  # suffixes: of some names they are all different
MAX_NAMED = 4
MAX_SHOWN = 24  # characters of a suffix
OTHERS = "others"


def _is_readable(name: str) -> bool:
    library = LIBRARIES.get(name)
    if library is None:
        return True
    return library in {*features.modules, *features.codecs} and bool(features.check(library))


READABLE = tuple(name for name in FORMATS if _is_readable(name))
SUFFIXES = tuple(chain.from_iterable(FORMATS[name] for name in READABLE))


def is_image(name: str) -> bool:
    """Return whether a file is taken for an image: by its suffix, in upper or lower case."""
    return name.lower().endswith(SUFFIXES)


class SkippedFiles:
    """Count the files that aren't taken for images, by suffix."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count a file."""
        stem, dot, end = name.rpartition(".")
        suffix = dot + end if stem else ""
        if len(self.counts) >= MAX_SUFFIXES and suffix not in self.counts:
            suffix = OTHERS
        self.counts[suffix] += 1

    def note(self) -> str:
        """Return a line about files that may be images after all; nothing if none may be."""
        unusual = Counter({s: count for s, count in self.counts.items() if s.lower() not in USUAL})
        if not unusual:
            return ""
        named = _named(unusual, lambda suffix, files: f"{suffix}: {files:,} file{'s' * (files > 1)}")
        return f"left aside files with suffixes of no image format: {named}"

    def error(self, where: str) -> DatasetError:
        """Return the error that there are no images at all."""
        found = _named(self.counts, lambda suffix, files: f"{files:,} {suffix}")
        suffixes = {suffix.lower() for suffix in self.counts}
        if packed := sorted(suffixes.intersection(PACKED)):
            advice = f"Images are not read from within {', '.join(packed)}: unpack them into a folder."
        elif ".tar" in suffixes:
            advice = "Give the tars themselves, when they are out in a folder: --data 'FOLDER/*.tar'."
        else:
            advice = f"Expected files ending in {', '.join(SUFFIXES)}."
        return DatasetError(f"{where}: no images found{', but ' * bool(found)}{found}. {advice}")


def _named(counts: Counter[str], words: Callable[[str, int], str]) -> str:
    """The most frequent suffixes in words, and how many files there are with others."""
    named = [
        words(suffix[:MAX_SHOWN] + "..." * (len(suffix) > MAX_SHOWN) or "without suffix", files)
        for suffix, files in counts.most_common(MAX_NAMED)
    ]
    more = sum(files for _, files in counts.most_common()[MAX_NAMED:])
    return ", ".join([*named, f"and {more:,} more"] if more else named)
