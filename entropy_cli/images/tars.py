"""The folder tree inside tars, with the images in it."""

from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.images.formats import is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.patterns import expand_pattern
from entropy_cli.images.tar_index import (
    BROKEN_LINK,
    FOLDER,
    HARD_LINK,
    SYMLINK,
    Member,
    Tar,
    TarImage,
    index_tar,
)

MAX_LINKS = 40  # followed in a row, as on Linux
MAX_PARTS = 4096  # of a path and of the links in it


@dataclass(frozen=True)
class Tars:
    """The tars that hold the images, in the order of the pattern."""

    name: str  # the pattern as the user gave it
    location: str  # the pattern as an absolute path
    tars: tuple[Tar, ...]

    def locate(self, file: ImageFile) -> TarImage:
        """Return the location of an image."""
        return TarImage(self.tars[file.tar], file.offset, file.size)


def open_tars(pattern: str, progress: Callable[[int], object]) -> "TarFolder":
    """Index tars and return the root folder, which unites the contents of all.

    `progress` is called with the numbers of images found.

    Raises:
        DatasetError: a tar doesn't exist or can't be used, or two tars hold the same image.
    """
    tree, tars = _Tree(), []
    for i, path in enumerate(expand_pattern(pattern)):
        tar, index = index_tar(path, progress)
        tars.append(tar)
        for member in index.members():
            if (other := tree.add(i, member)) is not None:
                raise DatasetError(
                    f"{member.path}: is in {tars[other].path} and in {path}. Leave one out."
                )
    tree.source = Tars(pattern, str(Path(pattern).resolve()), tuple(tars))
    return TarFolder(tree, (tree.root,))


_Node = int | dict[str, "_Node"]  # the index of a row, or a folder
_Folders = tuple[dict[str, _Node], ...]  # from the root down


class _Tree:
    """The members of all tars: a row for each file or link, and folders that hold indices of rows."""

    def __init__(self) -> None:
        self.source = Tars("", "", ())
        self.root: dict[str, _Node] = {}
        self.tars, self.offsets, self.sizes = array("i"), array("q"), array("q")
        self.links: dict[int, str] = {}  # rows that are symbolic links

    def add(self, tar: int, member: Member) -> int | None:
        """Add a member of a tar; return the index of another tar that has an image of the same path.

        Within one tar the later member wins, as when it is extracted.
        """
        *folders, name = member.path.split("/")
        parent = self._folder(folders, member)
        if member.kind == FOLDER:
            self._folder([*folders, name], member)
            return None
        existing = parent.get(name)
        if isinstance(existing, dict):
            raise self._path_conflict(member)
        if existing is not None and self.tars[existing] != tar and is_image(name):
            return self.tars[existing]
        parent[name] = self._row(tar, member)
        return None

    def _folder(self, names: Sequence[str], member: Member) -> dict[str, _Node]:
        """Return the folder at a path; create it if it doesn't exist."""
        folder = self.root
        for name in names:
            child = folder.setdefault(name, {})
            if isinstance(child, int):
                raise self._path_conflict(member)
            folder = child
        return folder

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
        """Return the node at a path, without following links; None if there is none."""
        node: _Node | None = self.root
        for part in path.split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def _path_conflict(self, member: Member) -> DatasetError:
        return DatasetError(
            f"{member.path}: the tars have this path, or a part of it, as both a file and a folder. "
            "Leave one of them out."
        )

    def follow(self, folders: _Folders, path: str) -> tuple[_Folders, int | None] | None:
        """Resolve a path from a folder, following links.

        Returns the folders down to the target, and its row if it is a file; None without a target.
        """
        row, links, pending, parts = None, 0, path.split("/")[::-1], 0
        while pending:
            part, parts = pending.pop(), parts + 1
            if row is not None or parts > MAX_PARTS:  # a file has nothing in it
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
                    pending += target.split("/", MAX_PARTS)[::-1]
            if not folders:
                return None
        return folders, row


@dataclass(frozen=True)
class TarFolder:
    """A folder in tars; `folders` is the chain from the root down to it."""

    tree: _Tree
    folders: _Folders

    def identity(self) -> Hashable:
        """Return a value that is equal for the same folder, by whatever path it was reached."""
        return id(self.folders[-1])

    def ancestors(self) -> list[Hashable]:
        """Return the identities of all folders above this one."""
        return [id(folder) for folder in self.folders[:-1]]

    def entries(self) -> "Iterator[tuple[str, TarFolder | None]]":
        """Iterate over the names in it, sorted, with the folders that they are or link to."""
        return ((name, self.subfolder(name)) for name in sorted(self.folders[-1]))

    def image(self, name: str, path: str) -> ImageFile:
        """Return an entry as an image; a broken link has size 0 and is unreadable."""
        target = self.tree.follow(self.folders, name)
        if target is None or (row := target[1]) is None:
            return ImageFile(path, 0, 0, BROKEN_LINK)
        tree = self.tree
        return ImageFile(path, tree.sizes[row], tree.tars[row], tree.offsets[row])

    def subfolder(self, name: str) -> "TarFolder | None":
        """Return the subfolder of this name, or None."""
        target = self.tree.follow(self.folders, name)
        return TarFolder(self.tree, target[0]) if target and target[1] is None else None
