"""Patterns of archives for `--data`: braces and wildcards, expanded as in bash."""

import glob
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import is_archive

MAX_ARCHIVES = 100_000


def is_archive_pattern(data: Path) -> bool:
    """Return whether `--data` names archives: a file, a pattern or a missing one, but never a folder."""
    if data.is_dir():
        return False
    return data.exists() or is_archive(data.name) or bool(re.search(r"[*?\[{]", str(data)))


def expand_pattern(pattern: str) -> list[Path]:
    """Expand a pattern to paths of archives: braces first, then * ? [], as in bash.

    Raises:
        DatasetError: a part is empty, names a missing one, or there are more than MAX_ARCHIVES.
    """
    if Path(pattern).exists():
        return [Path(pattern)]
    words = list(itertools.islice(expand_braces(pattern), MAX_ARCHIVES + 1))
    if len(words) > MAX_ARCHIVES:
        raise DatasetError(
            f"{pattern}: names more than {MAX_ARCHIVES} archives. Check the braces in --data."
        )
    if "" in words:  # it would be the working folder
        raise DatasetError(f"{pattern}: a part is empty; is a variable unset? Check --data.")
    paths: dict[str, None] = {}  # without duplicates, in order
    missing = []
    for word in words:
        matches = sorted(glob.glob(word)) if not Path(word).exists() else [word]  # noqa: PTH207
        paths.update(dict.fromkeys(matches))
        if not matches:
            missing.append(word)
    if missing:
        more = f"; of {pattern} {len(missing):,} files are missing" if missing[1:] else ""
        raise DatasetError(f"{missing[0]}: no such file{more}. Check --data.")
    return [Path(path) for path in paths]


def expand_braces(text: str) -> Iterator[str]:
    """Iterate over the words that a brace expression stands for, as in bash.

    >>> list(expand_braces("{val,train}-{08..10}.tar"))[:4]
    ['val-08.tar', 'val-09.tar', 'val-10.tar', 'train-08.tar']
    """
    for opening in re.finditer("{", text):
        start = opening.start()
        if (parsed := _alternatives(text, start)) is not None:
            alternatives, end = parsed
            for alternative in alternatives:
                for middle in expand_braces(alternative):
                    for rest in expand_braces(text[end:]):
                        yield text[:start] + middle + rest
            return
    yield text


def _alternatives(text: str, start: int) -> tuple[Iterable[str], int] | None:
    """Return the alternatives in a pair of braces, and its end; None if bash would not expand it."""
    depth, commas = 0, [start]  # with the braces themselves
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            commas.append(i)
            break
        if depth == 1 and text[i] == ",":
            commas.append(i)
    else:
        return None
    if commas[2:]:
        return [text[a + 1 : b] for a, b in itertools.pairwise(commas)], i + 1
    numbers = _range(text[start + 1 : i])
    return None if numbers is None else (numbers, i + 1)


def _range(text: str) -> Iterator[str] | None:
    """Expand `first..last` or `first..last..step`; return None if the text is neither."""
    match = re.fullmatch(
        r"(-?[0-9]{1,18}|[a-zA-Z])\.\.(-?[0-9]{1,18}|[a-zA-Z])(?:\.\.(-?[0-9]{1,18}))?", text
    )
    if match is None or match[1].isalpha() != match[2].isalpha():
        return None
    letters = match[1].isalpha()
    first, last = (ord(end) if letters else int(end) for end in match.group(1, 2))
    step = abs(int(match[3] or 1)) or 1
    values = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    padded = any(re.match("-?0[0-9]", end) for end in match.group(1, 2))
    width = max(len(match[1]), len(match[2])) if padded else 0
    return (chr(value) if letters else f"{value:0{width}d}" for value in values)
