"""The folder tree inside archives, with the images in it."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.errors import DatasetError
from entropy_cli.core.progress_bars import Bars
from entropy_cli.images.archive_index import index_archive
from entropy_cli.images.formats import is_image
from entropy_cli.images.listing import ImageFile
from entropy_cli.images.members import (
    BROKEN_LINK,
    FOLDER,
    HARD_LINK,
    PICTURE,
    SECOND,
    SYMLINK,
    Archive,
    Member,
    NoImagesError,
    StoredImage,
)

MAX_LINKS = 40  # followed in a row, as on Linux
MAX_PARTS = 4096  # of a path and of the links in it
MOST_NOTES = 3  # on archives without images


@dataclass(frozen=True)
class Archives:
    """The archives that hold the images."""

    name: str  # the folder or pattern as the user gave it
    location: str  # the same as an absolute path
    archives: tuple[Archive, ...]
    notes: tuple[str, ...] = ()  # what was left aside

    def locate(self, file: ImageFile) -> StoredImage:
        """Return the location of an image."""
        return StoredImage(self.archives[file.archive], file.at, file.size)


def open_archives(
    name: str,
    archives: Iterable[tuple[str, Path]],
    progress: Callable[[int], object],
    bars: Bars,
    notes: Sequence[str] = (),
) -> "ArchiveFolder":
    """Index archives and return the root folder, which unites the contents of all.

    Args:
        name: the folder or pattern as the user gave it.
        archives: for each the path of the folder that it stands for, "" for the root; and its file.
            Those in folders are left aside if they have no images.
        progress: called with the numbers of images found.
        bars: makes progress bars of unpacking.
        notes: on what was left aside before.

    Raises:
        DatasetError: an archive doesn't exist or can't be used, or two hold the same image.
    """
    tree, opened, empty = _Tree(), list[Archive](), list[NoImagesError]()
    for folder, path in archives:
        try:
            archive, index = index_archive(path, progress, bars)
        except NoImagesError as error:
            if not folder:
                raise
            empty.append(error)
            continue
        prefix = f"{folder}/" if folder else ""
        for member in index.members():
            if (other := tree.add(len(opened), member, prefix)) is not None:
                raise DatasetError(
                    f"{member.path}: is in {opened[other].file.path} and in {path}. Leave one out, or "
                    "give their folder: each archive is then a subfolder of its own."
                )
        opened.append(archive)
    if not opened and empty:
        raise empty[0]
    notes = [*notes, *(f"{error} It is left aside." for error in empty[:MOST_NOTES])]
    if empty[MOST_NOTES:]:
        notes.append(f"{len(empty) - MOST_NOTES:,} more archives without images are left aside")
    tree.source = Archives(name, str(Path(name).resolve()), tuple(opened), tuple(notes))
    return ArchiveFolder(tree, (tree.root,))


_Node = int | dict[str, "_Node"]  # the index of a row, or a folder
_Folders = tuple[dict[str, _Node], ...]  # from the root down


class _Tree:
    """The members of all archives: a row for each file or link, and folders of indices of rows."""

    def __init__(self) -> None:
        self.source = Archives("", "", ())
        self.root: dict[str, _Node] = {}
        self.archives, self.places, self.sizes = array("i"), array("q"), array("q")
        self.kinds, self.labels = array("b"), array("i")
        self.links: dict[int, str] = {}  # rows that are symbolic links

    def add(self, archive: int, member: Member, prefix: str) -> int | None:
        """Add a member of an archive that stands for a folder.

        Within one archive the later member wins, as when it is extracted. Return the index of another
        archive that has an image of the same path.
        """
        *folders, name = (prefix + member.path).split("/")
        parent = self._folder(folders, member)
        if member.kind == FOLDER:
            self._folder([*folders, name], member)
            return None
        existing = parent.get(name)
        if isinstance(existing, dict):
            raise self._path_conflict(member)
        is_picture = member.kind == PICTURE or is_image(name)
        if existing is not None and self.archives[existing] != archive and is_picture:
            return self.archives[existing]
        parent[name] = self._row(archive, member, prefix)
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

    def _row(self, archive: int, member: Member, prefix: str) -> int:
        row, at, size = len(self.archives), member.at, member.size
        if member.kind == SYMLINK:
            self.links[row] = member.link
        elif member.kind == HARD_LINK:
            target = self._lookup(prefix + member.link)
            if isinstance(target, int) and self.archives[target] == archive:
                at, size = self.places[target], self.sizes[target]
                if target in self.links:
                    self.links[row] = self.links[target]
        self.archives.append(archive)
        self.places.append(at)
        self.sizes.append(size)
        self.kinds.append(member.kind)
        self.labels.append(member.label)
        return row

    def _lookup(self, path: str) -> _Node | None:
        """Return the node at a path, without following links; None if there is none."""
        node: _Node | None = self.root
        for part in path.split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def _path_conflict(self, member: Member) -> DatasetError:
        return DatasetError(
            f"{member.path}: the archives have this path, or a part of it, as both a file and a folder. "
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
class ArchiveFolder:
    """A folder in archives; `folders` is the chain from the root down to it."""

    tree: _Tree
    folders: _Folders

    @property
    def source(self) -> Archives:
        """The archives that it is in."""
        return self.tree.source

    def identity(self) -> Hashable:
        """Return a value that is equal for the same folder, by whatever path it was reached."""
        return id(self.folders[-1])

    def ancestors(self) -> list[Hashable]:
        """Return the identities of all folders above this one."""
        return [id(folder) for folder in self.folders[:-1]]

    def entries(self) -> "Iterator[tuple[str, ArchiveFolder | None]]":
        """Iterate over the names in it, sorted, with the folders that they are or link to."""
        return ((name, self.subfolder(name)) for name in sorted(self.folders[-1]))

    def is_image(self, name: str) -> bool:
        """Return whether an entry counts as an image."""
        kind = self._kind(name)
        return kind == PICTURE or (kind != SECOND and is_image(name))

    def is_second(self, name: str) -> bool:
        """Return whether an entry is a second picture of a sample."""
        return self._kind(name) == SECOND

    def _kind(self, name: str) -> int | None:
        row = self.folders[-1].get(name)
        return self.tree.kinds[row] if isinstance(row, int) else None

    def image(self, name: str, path: str) -> ImageFile:
        """Return an entry as an image; a broken link has size 0 and is unreadable."""
        target = self.tree.follow(self.folders, name)
        if target is None or (row := target[1]) is None:
            return ImageFile(path, 0, 0, BROKEN_LINK)
        tree = self.tree
        place = (tree.archives[row], tree.places[row], tree.labels[row])
        return ImageFile(path, tree.sizes[row], *place)

    def subfolder(self, name: str) -> "ArchiveFolder | None":
        """Return the subfolder of this name, or None."""
        target = self.tree.follow(self.folders, name)
        return ArchiveFolder(self.tree, target[0]) if target and target[1] is None else None
