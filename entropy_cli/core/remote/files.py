"""Files on web servers and in buckets, fetched by fsspec into the program's own cache."""

import hashlib
import json
import logging
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.files import cache_folder, create_in_cache, write_atomically
from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.remote.address import ORIGIN, is_safe, read_origin, without_secrets
from entropy_cli.core.remote.hub import Choose, Plan, in_bytes, reason

logger = logging.getLogger(__name__)

NEEDED = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp requests", "https": "aiohttp requests"}
MOST_BYTES = 200  # of a file name
SILENCE_S = 60  # until a server that sends nothing is given up; a file may take as long as it does
VERSION = (
    *("ETag", "Last-Modified", "Content-MD5", "Digest"),  # of the web
    *("etag", "md5Hash", "LastModified", "mtime", "last_modified", "created"),
)


class OtherFiles:
    """The file or folder of an address, and where it is kept."""

    def __init__(self, address: str, choose: Choose) -> None:
        """Take an address and a function that chooses among the files of its folder."""
        self.address, self.choose, self.shown = address, choose, without_secrets(address)
        self.scheme = address.partition("://")[0]
        self.is_web = self.scheme.startswith("http")
        fsspec = import_extra("fsspec", "hub", f"reading {self.shown}")
        if "::" in address or not is_safe(address.partition("://")[2]):
            raise EntropyCliError(f"{self.shown}: expected an address without .. and ::.")
        try:
            options = _web_options(self.shown) if self.is_web else {}
            self.fs, self.path = fsspec.core.url_to_fs(address, **options)
        except ImportError as error:
            packages = NEEDED.get(self.scheme, self.scheme)
            raise EntropyCliError(
                f"{self.shown}: {self.scheme}:// needs another package: pip install {packages}."
            ) from error
        except ValueError as error:
            raise EntropyCliError(f"{self.shown}: {reason(error)}.") from error

    def plan(self) -> Plan:
        """Return what is not in the cache yet.

        Raises:
            EntropyCliError: there is no such file, no access, or no connection.
        """
        _, folder, files = self._look()
        kept = _kept(folder)
        sizes = {name: info.get("size") or 0 for name, info in files.items()}
        return Plan(str(folder), {n: sizes[n] for n in files if not _is_kept(folder, kept, n, files[n])})

    def fetch(self, bars: Bars) -> Path:
        """Fetch what is not in the cache yet; return its local path.

        Raises:
            EntropyCliError: as of `plan`, or a file can't be fetched or is not of its size.
        """
        try:
            is_folder, folder, files = self._look()
        except _NoConnectionError as error:
            return self._cached(error)
        kept = _kept(folder)
        create_in_cache(folder)
        for name in [name for name in kept if is_folder and name not in files]:
            kept.pop(name)  # which the folder does not hold any more
            (folder / name).unlink(missing_ok=True)
        try:
            for name, info in files.items():
                if not _is_kept(folder, kept, name, info):
                    kept.pop(name, None)
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    self._fetch(name, info, folder / name, bars)
                    kept[name] = _version(info)
        finally:
            is_whole = all(name in kept for name in files)
            self._record(folder, kept, is_folder=is_folder, is_whole=is_whole)
        return folder if is_folder else folder / _name(self.address)

    def _record(self, folder: Path, kept: dict[str, Any], *, is_folder: bool, is_whole: bool) -> None:
        """Write down where the files in a folder of the cache came from."""
        is_file = self.is_web and not is_folder
        address = self.shown if is_folder or is_file else posixpath.dirname(self.shown)
        origin = {"address": address, "is_file": is_file, "is_whole": is_whole, "files": kept}
        text = json.dumps(origin)
        write_atomically(folder / ORIGIN, lambda path: path.write_text(text, "utf-8"), announced=False)

    def _cached(self, error: EntropyCliError) -> Path:
        """Return what an earlier run kept."""
        file, folder = self._folder(is_folder=False), self._folder(is_folder=True)
        for path, place in ((file / _name(self.address), file), (folder, folder)):
            if path.exists():
                if not read_origin(place).get("is_whole"):
                    raise EntropyCliError(
                        f"{error} An earlier run has fetched only a part of it. Check the connection."
                    ) from error
                logger.warning("%s; what is cached is used", str(error).rstrip("."))
                return path
        raise EntropyCliError(
            f"{error} It is not in the cache ({cache_folder() / 'fetched'}). Check the address and the "
            "connection."
        ) from error

    def _look(self) -> tuple[bool, Path, dict[str, dict[str, Any]]]:
        """Return whether it is a folder, where it is kept, and its files."""
        info = self._ask(self.fs.info, self.path)
        is_folder = info.get("type") == "directory"
        parent = self.path if is_folder else posixpath.dirname(self.path)
        listed = {} if self.is_web else self._list(parent, self.fs.find if is_folder else self.fs.ls)
        own = _name(self.address)
        if not is_folder:
            listed[own] = info
        sizes = {name: each.get("size") or 0 for name, each in listed.items()}
        chosen = list(self.choose(sizes, "" if is_folder else own))
        if not chosen:
            names = ", ".join(sorted(listed)[:6]) or "nothing"
            raise EntropyCliError(f"{self.shown}: no file that can be used there: got {names}.")
        return is_folder, self._folder(is_folder=is_folder), {name: listed[name] for name in chosen}

    def _folder(self, *, is_folder: bool) -> Path:
        """Return the folder of the cache for the files of a folder; on the web each file has its own."""
        address = self.address if is_folder or self.is_web else posixpath.dirname(self.address)
        name = hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return cache_folder() / "fetched" / name

    def _list(self, folder: str, lister: Callable[..., Any]) -> dict[str, dict[str, Any]]:
        """Return the files in a folder, or at any depth below it, but hidden ones."""
        found = self._ask(lambda path: lister(path, detail=True), folder)
        entries = found.values() if isinstance(found, dict) else found
        names = {posixpath.relpath(f"/{e['name']}", f"/{folder}"): e for e in entries}
        return {
            name: entry
            for name, entry in names.items()
            if entry.get("type") == "file" and is_safe(name) and "/." not in f"/{name}"
        }

    def _ask(self, ask: Callable[[str], Any], path: str) -> Any:  # noqa: ANN401 - fsspec's
        try:
            return ask(path)
        except PermissionError as error:
            raise EntropyCliError(f"{self.shown}: no access: {reason(error)}.") from error
        except Exception as error:  # of any transport
            cause = error.__cause__ or error  # fsspec takes any failure on the web for a missing file
            status = getattr(cause, "status", None)
            if status in (404, 410) or isinstance(cause, FileNotFoundError):
                raise EntropyCliError(f"{self.shown}: no such file.") from error
            if status in (401, 403):
                raise EntropyCliError(f"{self.shown}: no access (status {status}).") from error
            why = f"status {status}" if status else reason(cause) if status is None else "redirects"
            raise _NoConnectionError(f"{self.shown}: can't be reached: {why}.") from error

    def _fetch(self, name: str, info: dict[str, Any], path: Path, bars: Bars) -> None:
        fsspec = import_extra("fsspec.callbacks", "hub", f"reading {self.shown}")
        size = info.get("size")
        logger.info("%s: fetching %s (%s)", self.shown, name, "?" if size is None else in_bytes(size))

        def write(temporary: Path) -> None:
            with bars(f"fetching {name}", size, "B") as bar:

                class Callback(fsspec.Callback):  # type: ignore[misc,name-defined]
                    def relative_update(self, inc: int = 1) -> None:
                        bar.update(inc)

                try:
                    self.fs.get_file(info["name"], str(temporary), callback=Callback())
                except Exception as error:  # of any transport
                    raise EntropyCliError(f"{self.shown}: can't be fetched: {reason(error)}.") from error
            got = temporary.stat().st_size
            if size is not None and got != size:
                raise EntropyCliError(
                    f"{self.shown}: {name}: got {got:,} bytes, expected {size:,}. Try again."
                )

        write_atomically(path, write, announced=False)


class _NoConnectionError(EntropyCliError):
    """A server can't be asked."""


def _web_options(address: str) -> dict[str, Any]:
    """Return options of fsspec for the web: aiohttp would end a download after five minutes."""
    aiohttp = import_extra("aiohttp", "hub", f"reading {address}")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout}}


def _kept(folder: Path) -> dict[str, Any]:
    """Return the versions of the files in a folder of the cache, by name."""
    files = read_origin(folder).get("files")
    return files if isinstance(files, dict) else {}


def _is_kept(folder: Path, kept: dict[str, Any], name: str, info: dict[str, Any]) -> bool:
    version = _version(info)
    if len(version) < 2:  # of two files of one size nothing tells which it is
        return False
    path = folder / name
    return (
        kept.get(name) == version and path.is_file() and info.get("size") in (None, path.stat().st_size)
    )


def _version(info: dict[str, Any]) -> list[str]:
    return [str(info.get("size")), *(f"{key} {info[key]}" for key in VERSION if info.get(key))]


def _name(address: str) -> str:
    """Return a file name for an address: its last part, if that is a visible one everywhere."""
    path = urlsplit(address).path if address.startswith("http") else address
    name = posixpath.basename(path.rstrip("/"))
    name = unquote(name) if address.startswith("http") else name
    is_name = is_safe(name) and not name.startswith(".") and "/" not in name
    return name if is_name and 0 < len(name.encode()) <= MOST_BYTES else "file"
