"""WebDataset samples in a tar: members of one key, such as 0001.jpg, 0001.cls and 0001.seg.png."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from entropy_cli.images.formats import SUFFIXES, TEXTS, is_image
from entropy_cli.images.listing import NO_LABEL
from entropy_cli.images.members import FILE, SECOND, Member

SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # key and extension
CLASS = "cls"
BESIDE = {CLASS, *(suffix[1:] for suffix in TEXTS)}  # extensions that pictures have beside them
LABEL = re.compile(rb"\s*([0-9]{1,9})\s*")
LABEL_BYTES = 32
MOST_MEMBERS = 64  # of a sample


class Samples:
    """The samples of one tar, as its members go by; those of a sample follow each other.

    A sample's class becomes the label of its picture, the one whose extension has no further dot. Its
    other pictures are second ones, if it has texts or a class beside them, or if all samples have second
    ones. That shows at the end only: such members are then repeated, and of two the later counts.
    """

    def __init__(self, read: Callable[[int, int], bytes | bytearray]) -> None:
        """Take a function that reads the bytes of the tar from one place to another."""
        self._read = read
        self._undecided: list[Member] | None = []  # None once a sample had no second picture

    def members(self, members: Iterable[Member]) -> Iterator[Member]:
        """Iterate over the members with labels, and with second pictures marked."""
        key, sample = "", list[Member]()
        for member in members:
            match = SAMPLE.fullmatch(member.path) if member.kind == FILE else None
            own = match[1] if match else ""
            if sample and (own != key or not own or len(sample) == MOST_MEMBERS):
                yield from self._sample(sample, key)
                sample = []
            key = own
            sample.append(member)
        yield from self._sample(sample, key)
        for member in self._undecided or ():
            yield member._replace(kind=SECOND)

    def _sample(self, sample: Sequence[Member], key: str) -> Iterator[Member]:
        extensions = [member.path[len(key) + 1 :].lower() for member in sample]
        pictures = [i for i, member in enumerate(sample) if key and is_image(member.path)]
        plain = sorted(
            (i for i in pictures if "." not in extensions[i]), key=lambda i: _rank(extensions[i])
        )
        second = [i for i in pictures if i != plain[0]] if plain else []
        is_sample = not BESIDE.isdisjoint(extensions)
        if pictures and self._undecided is not None:
            # Without anything beside them, a.jpg and a.png are two images.
            is_alike = bool(second) and not is_sample and len(plain) == 1
            self._undecided = self._undecided + [sample[i] for i in second] if is_alike else None
        texts = {e: m for e, m in zip(extensions, sample, strict=True) if e.endswith(CLASS)}
        for i, member in enumerate(sample):
            if i in second and is_sample:
                yield member._replace(kind=SECOND)
            else:
                # The class of 0.v1.jpg is 0.v1.cls, or else 0.cls.
                own = extensions[i].rpartition(".")[0] + f".{CLASS}"
                text = texts.get(own, texts.get(CLASS))
                yield member._replace(label=self._label(text)) if i in pictures else member

    def _label(self, member: Member | None) -> int:
        if member is None or member.at < 0:
            return NO_LABEL
        content = self._read(member.at, member.at + min(member.size, LABEL_BYTES))
        match = LABEL.fullmatch(content)
        return int(match[1]) if match else NO_LABEL


def _rank(extension: str) -> int:
    """Return the place of a format in the order in which a sample's picture is looked for."""
    return SUFFIXES.index(f".{extension}") if f".{extension}" in SUFFIXES else len(SUFFIXES)
