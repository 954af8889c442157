"""Files of labels: a line for each image, with its path and its class or wnid."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.reading import LOG_BYTES, parse_json, read_stream
from entropy_cli.images.formats import is_image

IMAGENET_CLASSES = 1000
DELIMITERS = ",;\t"
# A class, or a wnid; Kaggle's LOC_val_solution.csv has wnids with the boxes of the objects.
LABEL = re.compile(r"(?P<index>[0-9]{1,9})|(?P<wnid>n[0-9]+)(( n[0-9]+)?( [0-9]+){4})*")
SHOWN = 40  # characters of a cell in a message


@dataclass(frozen=True)
class LabelFile:
    """The classes in a file, by path; names without suffixes are for images of any format."""

    path: Path
    labels: Mapping[str, int]
    has_suffixes: bool

    def labels_of(self, paths: Iterable[str]) -> Iterator[int]:
        """Iterate over the classes of images.

        Raises:
            DatasetError: an image is not in the file.
        """
        for path in paths:
            name = path if self.has_suffixes else str(PurePosixPath(path).with_suffix(""))
            label = self.labels.get(name)
            if label is None:
                raise DatasetError(
                    f"{self.path}: no line for {path}. Expected one for each image, with its path as it "
                    f"is below the folder of images, such as {next(iter(self.labels))} there."
                )
            yield label


def read_label_file(path: Path, classes: int, wnids: Mapping[str, int]) -> LabelFile:
    """Read a file of lines path,index or path,wnid, with or without a header.

    Cells are separated by commas, semicolons, tabs, or the last space of the line, as in val.txt of
    Caffe; a cell with a separator in it is quoted, as in CSV. Or the file is a JSON object of classes by
    path, or has a list of such pairs under "labels", as StyleGAN's dataset.json.

    Args:
        path: of the file.
        classes: the number of classes of the model: indices count from 0 to below it.
        wnids: the index of each wnid, for a model of ImageNet's 1,000 classes.

    Raises:
        DatasetError: it can't be read, or a line has no path and class, another path's, or a class that
            the model does not have.
    """
    labels: dict[str, int] = {}
    for i, (place, cells) in enumerate(_rows(path)):
        where = f"{path}, {place}"
        if len(cells) != 2 or not all(cells):
            raise DatasetError(
                f"{where}: {len(cells)} cell{'s' * (len(cells) != 1)}, expected a path and a class. Fix "
                "the line, or quote paths with commas."
            )
        name, label = cells
        match = LABEL.fullmatch(label)
        if match is None and i == 0 and not is_image(name):
            continue  # the header
        name = name.removeprefix("./")
        if name in labels:
            raise DatasetError(f"{where}: {name} is there twice. Remove one of the lines.")
        labels[name] = _class(where, label, match, classes, wnids)
    if not labels:
        raise DatasetError(f"{path}: no labels. Expected lines of path,index or path,wnid.")
    return LabelFile(path, labels, any(map(is_image, labels)))


def _class(
    where: str, label: str, match: re.Match[str] | None, classes: int, wnids: Mapping[str, int]
) -> int:
    """Return the class that a cell says."""
    got = f"{where}: got {label[:SHOWN]!r}"
    if match is None:
        raise DatasetError(f"{got}, expected a whole number or a wnid such as n01440764. Fix the line.")
    if match["index"]:
        if (index := int(match["index"])) < classes:
            return index
        raise DatasetError(f"{got}, expected a class from 0 to {classes - 1}. Fix the line.")
    if classes != IMAGENET_CLASSES:
        raise DatasetError(
            f"{got}, expected a class from 0 to {classes - 1}: wnids are for models of ImageNet's 1,000 "
            "classes. Write numbers."
        )
    if match["wnid"] not in wnids:
        raise DatasetError(f"{got}, expected one of ImageNet's 1,000 wnids. Fix the line.")
    return wnids[match["wnid"]]


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the stripped cells of each line that is not blank, with the line's number.

    Or over those of each pair of a JSON document.
    """
    try:
        text = read_stream(path, LOG_BYTES).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror}.") from error
    if text.lstrip().startswith("{"):
        yield from ((f"pair {i}", cells) for i, cells in enumerate(_json_pairs(path, text), 1))
        return
    lines = list(io.StringIO(text, newline=""))  # names may have other separators of lines
    first = next(filter(str.strip, lines), "")
    delimiter = max(DELIMITERS, key=first.count)
    if delimiter not in first:
        spaced = ((i, line.rsplit(None, 1)) for i, line in enumerate(lines, 1) if line.strip())
        yield from ((f"line {i}", cells) for i, cells in spaced)
        return
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if cells := [cell.strip(" \t") for cell in row]:
                yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: not CSV: {error}. Fix the line.") from error


def _json_pairs(path: Path, text: str) -> Iterator[list[str]]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DatasetError(
            f"{path}: begins as JSON, but can't be read as one document: {error}. Expected lines of "
            "path,class, or an object of them."
        ) from error
    pairs = content["labels"] if isinstance(content.get("labels"), list) else list(content.items())
    for pair in pairs:
        if not isinstance(pair, list | tuple) or any(type(cell) not in (str, int) for cell in pair):
            raise DatasetError(f"{path}: got {str(pair)[:SHOWN]}, expected pairs of a path and a class.")
        yield [str(cell).strip() for cell in pair]
