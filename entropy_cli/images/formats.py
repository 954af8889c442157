"""Image formats by file suffix, and messages about files of other formats."""

from collections import Counter
from collections.abc import Callable
from itertools import chain

from PIL import features

from entropy_cli.core.errors import DatasetError

# Pillow's names, in the order in which it tries them. Its other formats are not opened, whatever a file
# is called: they are rare, and for EPS Pillow would run Ghostscript on the file's content.
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
LIBRARIES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}  # which Pillow may lack

# Labels, tables and notes, which are expected beside images.
TEXTS = (".txt", ".md", ".html", ".log", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml")
USUAL = (*TEXTS, ".cls", ".db", ".ini")  # of webdataset, Thumbs.db and desktop.ini
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PARQUET = ".parquet"
# Archives that are read in place of folders, and others.
ARCHIVES = (".tar", *(f".tar{suffix}" for suffix in COMPRESSED), ".tgz", ".zip", PARQUET)
CHECKPOINTS = (".pth.tar", ".pt.tar", ".ckpt.tar")  # as PyTorch's examples call a pickle
PACKED = (*COMPRESSED, ".7z", ".rar", ".arrow", ".tfrecord", ".h5", ".hdf5", ".mdb", ".rec", ".beton")
MAX_SUFFIXES = 1000  # counted separately: some naming schemes give every file its own
MAX_NAMED = 4  # suffixes in a message
MAX_SHOWN = 24  # characters of a suffix
OTHERS = "others"


def _is_readable(name: str) -> bool:
    library = LIBRARIES.get(name)
    known = library in {*features.modules, *features.codecs}
    return library is None or (known and bool(features.check(library)))


READABLE = tuple(name for name in FORMATS if _is_readable(name))
SUFFIXES = tuple(chain.from_iterable(FORMATS[name] for name in READABLE))


def is_image(name: str) -> bool:
    """Return whether a file counts as an image: by its suffix, in upper or lower case."""
    return name.lower().endswith(SUFFIXES)


def is_archive(name: str) -> bool:
    """Return whether a file counts as an archive of images: by its suffix, in upper or lower case."""
    return name.lower().endswith(ARCHIVES) and not name.lower().endswith(CHECKPOINTS)


def without_archive_suffix(name: str) -> str:
    """Return the name of an archive without its suffix, any other name as it is."""
    return next((name[: -len(end)] for end in ARCHIVES if name.lower().endswith(end)), name)


class SkippedFiles:
    """Counts by suffix of the files that don't count as images."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()  # second pictures of samples, by all after the key

    def add(self, name: str, *, is_second: bool = False) -> None:
        """Count a file, or a second picture of a WebDataset sample."""
        key, dot, end = name.partition(".") if is_second else name.rpartition(".")
        suffix, counts = dot + end if key else "", self.seconds if is_second else self.counts
        if len(counts) >= MAX_SUFFIXES and suffix not in counts:
            suffix = OTHERS
        counts[suffix] += 1

    def note(self) -> str:
        """Return a line about what was left aside and may be images after all; "" if that is nothing."""
        unusual = Counter({s: count for s, count in self.counts.items() if s.lower() not in USUAL})
        words = {
            "left aside second pictures of WebDataset samples": self.seconds,
            "skipped files whose suffix is not that of an image format": unusual,
        }
        return "; ".join(f"{text}: {_named(counts, _files)}" for text, counts in words.items() if counts)

    def error(self, where: str) -> DatasetError:
        """Return the error for a folder or tar without any images."""
        found = _named(self.counts, lambda suffix, files: f"{files:,} {suffix}")
        suffixes = {suffix.lower() for suffix in self.counts}
        if packed := sorted(suffixes.intersection(PACKED)):
            advice = f"Images inside {', '.join(packed)} files are not read: unpack them into a folder."
        elif packed := sorted(suffixes.intersection(ARCHIVES)):
            advice = f"The {', '.join(packed)} files in it are not read: unpack it into a folder."
        else:
            advice = f"Expected files ending in {', '.join(SUFFIXES)}."
        return DatasetError(f"{where}: no images found{', but ' * bool(found)}{found}. {advice}")


def _files(suffix: str, files: int) -> str:
    return f"{suffix}: {files:,} file{'s' * (files > 1)}"


def _named(counts: Counter[str], words: Callable[[str, int], str]) -> str:
    """Describe the most frequent suffixes, and count the files with others."""
    named = [
        words(suffix[:MAX_SHOWN] + "..." * (len(suffix) > MAX_SHOWN) or "without suffix", files)
        for suffix, files in counts.most_common(MAX_NAMED)
    ]
    more = sum(files for _, files in counts.most_common()[MAX_NAMED:])
    return ", ".join([*named, f"and {more:,} more"] if more else named)
