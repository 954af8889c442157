"""The tree of folders that tars were made from, and the images in it."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.patterns import expand_pattern
from entropy_cli.images.tar_file import BROKEN_LINK, Tar, TarImage
from entropy_cli.images.tar_index import FOLDER, HARD_LINK, SYMLINK, Member, index_tar

MAX_LINKS = 40  # one after the other, as on Linux


@dataclass(frozen=True)
class Tars:
    """The tars that images are in.

    Attributes:
        name: the pattern, as it was given.
        location: the pattern, with every folder above it.
        tars: in the order of the pattern.
    """

    name: str
    location: str
    tars: tuple[Tar, ...]

    def locate(self, file: ImageFile) -> TarImage:
        """Where an image is."""
        return TarImage(self.tars[file.tar], file.offset, file.size)


def open_tars(pattern: str, progress: Callable[[int], object]) -> "TarFolder":
    """Index tars.

    Args:
        pattern: of their paths.
        progress: is given how many images were found.

    Returns:
        The folder that the tars together were made from.

    Raises:
        DatasetError: a tar is not there or can't be used, or two hold the same image.
    """
    tree, tars = _Tree(), []
    for number, path in enumerate(expand_pattern(pattern)):
        tar, index = index_tar(path, progress)
        tars.append(tar)
        for member in index.members():
            if (other := tree.add(number, member)) is not None:
                raise DatasetError(
                    f"{member.path}: is in {tars[other].path} and in {path}. Leave one out."
                )
    tree.source = Tars(pattern, str(Path(pattern).resolve()), tuple(tars))
    return TarFolder(tree, (tree.root,))


_Node = int | dict[str, "_Node"]  # a number of a row, or a folder
_Folders = tuple[dict[str, _Node], ...]  # from the root down


class _Tree:
    """The members of all tars: rows of numbers, and folders that say which row is where."""

    def __init__(self) -> None:
        self.source = Tars("", "", ())
        self.root: dict[str, _Node] = {}
        self.tars, self.offsets, self.sizes = array("i"), array("q"), array("q")
        self.links: dict[int, str] = {}  # rows that are symbolic links

    def add(self, tar: int, member: Member) -> int | None:
        """Put a member in its place; gives the tar that has another image there, if one has.

        Within one tar the later counts, as when it is extracted.

        Raises:
            DatasetError: there is a folder where a file should be, or the reverse.
        """
        *folders, name = member.path.split("/")
        at = self._folder(folders, member)
        if member.kind == FOLDER:
            self._folder([*folders, name], member)
            return None
        before = at.get(name)
        if isinstance(before, dict):
            raise self._path_conflict(member)
        if before is not None and self.tars[before] != tar and is_image(name):
            return self.tars[before]
        at[name] = self._row(tar, member)
        return None

    def _folder(self, names: Sequence[str], member: Member) -> dict[str, _Node]:
        """The folder at a path, made if need be."""
        at = self.root
        for name in names:
            below = at.setdefault(name, {})
            if isinstance(below, int):
                raise self._path_conflict(member)
            at = below
        return at

    def _row(self, tar: int, member: Member) -> int:
        row, offset, size = len(self.tars), member.offset, member.size
        if member.kind == SYMLINK:
            self.links[row] = member.link
        elif member.kind == HARD_LINK:
            target = self._lookup(member.link)
            if isinstance(target, int) and self.tars[target] == tar:
                offset, size = self.offsets[target], self.sizes[target]
                if target in self.links:
                    self.links[row] = self.links[target]
        self.tars.append(tar)
        self.offsets.append(offset)
        self.sizes.append(size)
        return row

    def _lookup(self, path: str) -> _Node | None:
        """What is at a path, following no links."""
        at: _Node | None = self.root
        for part in path.split("/"):
            at = at.get(part) if isinstance(at, dict) else None
        return at

    def _path_conflict(self, member: Member) -> DatasetError:
        return DatasetError(
            f"{member.path}: is a file and a folder at once in the tars, or part of it is."
        )

    def follow(self, folders: _Folders, path: str) -> tuple[_Folders, int | None] | None:
        """Where a path leads from a folder, through links.

        Returns:
            The folders down to it, and the row if it is a file; None if it leads nowhere in the tars.
        """
        row, links, pending = None, 0, path.split("/")[::-1]
        while pending:
            part = pending.pop()
            if row is not None:  # a file has nothing in it
                return None
            if part == "..":
                folders = folders[:-1]
            elif part not in ("", "."):
                node = folders[-1].get(part)
                if node is None:
                    return None
                if isinstance(node, dict):
                    folders = (*folders, node)
                elif node not in self.links:
                    row = node
                else:
                    links, target = links + 1, self.links[node]
                    if links > MAX_LINKS or not target or target.startswith("/"):
                        return None
                    pending += target.split("/")[::-1]
            if not folders:
                return None
        return folders, row


@dataclass(frozen=True)
class TarFolder:
    """A folder in tars; `folders` are those from the root down to it."""

    tree: _Tree
    folders: _Folders

    @property
    def source(self) -> Tars:
        """The tars."""
        return self.tree.source

    def identity(self) -> Hashable:
        """The same for the same folder."""
        return id(self.folders[-1])

    def ancestors(self) -> Iterable[Hashable]:
        """Identities of the folders that it is in."""
        return [id(folder) for folder in self.folders[:-1]]

    def entries(self) -> "Sequence[_TarEntry]":
        """What is in it, sorted by name."""
        return [_TarEntry(name, self) for name in sorted(self.folders[-1])]

    def subfolder(self, name: str) -> "TarFolder | None":
        """A folder in it, or None."""
        found = self.tree.follow(self.folders, name)
        return TarFolder(self.tree, found[0]) if found and found[1] is None else None


@dataclass(frozen=True)
class _TarEntry:
    name: str
    parent: TarFolder

    def folder(self) -> TarFolder | None:
        return self.parent.subfolder(self.name)

    def image(self, path: str) -> ImageFile:
        """Of size 0 for a link that leads nowhere, which counts as an unreadable image."""
        tree = self.parent.tree
        found = tree.follow(self.parent.folders, self.name)
        if found is None or (row := found[1]) is None:
            return ImageFile(path, 0, 0, BROKEN_LINK)
        return ImageFile(path, tree.sizes[row], tree.tars[row], tree.offsets[row])
