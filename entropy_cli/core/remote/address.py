"""Addresses of files elsewhere, and where what was fetched came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.reading import JSON_BYTES, parse_json, read_bytes

# A path collapses the slashes of an address that went through it.
ADDRESS = re.compile(r"(hf|https?|s3|gs|memory):/{1,2}([^/].*)", re.DOTALL)
PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
HUB = re.compile(
    rf"(?P<kind>datasets/)?(?P<repo>{PART}/{PART})"
    r"(@(?P<revision>refs/(pr|convert)/[A-Za-z0-9._-]+|[^/]+))?(/(?P<path>.+?)/?)?"
)
SNAPSHOT = re.compile(
    r".*/(?P<kind>models|datasets)--(?P<repo>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})(?P<path>(/.*)?)"
)
PASSWORD = re.compile(r"(\b(?:https?|s3|gs|memory):/{1,2})[^/\s'\"]*@", re.IGNORECASE)
QUERY = re.compile(r"(\bhttps?:/{1,2}[^?\s'\"]*)\?[^\s'\"]*", re.IGNORECASE)
ORIGIN = ".origin"  # beside files that were fetched from elsewhere than the hub


@dataclass(frozen=True)
class HubAddress:
    """A file, a folder or a pattern of files in a repository of the hub."""

    kind: str  # model or dataset
    repo: str  # ORG/NAME
    revision: str | None
    path: str  # "" for the whole repository

    def __str__(self) -> str:
        """Return the address as a user writes it."""
        kind = "datasets/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{kind}{self.repo}{revision}" + (f"/{self.path}" if self.path else "")


def address_of(path: object) -> str | None:
    """Return the address that a path or text names, None if it names a local file."""
    match = ADDRESS.fullmatch(str(path))
    return f"{match[1]}://{match[2]}" if match else None


def hub_address(address: str) -> HubAddress:
    """Parse an address of the hub.

    Raises:
        EntropyCliError: it is none, or could lead out of the repository.
    """
    match = HUB.fullmatch(address.removeprefix("hf://"))
    path = (match["path"] or "") if match else ""
    revision = None if match is None or match["revision"] is None else unquote(match["revision"])
    if match is None or not is_safe(path) or not is_safe(revision or "x"):
        raise EntropyCliError(
            f"{address}: expected hf://ORG/REPO, hf://ORG/REPO@REVISION, or hf://datasets/ORG/NAME, "
            "each with /PATH to a file or folder if need be."
        )
    kind = "dataset" if match["kind"] else "model"
    return HubAddress(kind, match["repo"], revision, path)


def is_safe(path: str) -> bool:
    """Return whether a path stays below the folder that it is joined to."""
    is_plain = path.isprintable() and "\\" not in path
    return is_plain and not path.startswith("/") and not {"..", "."} & set(path.split("/"))


def without_secrets(text: str) -> str:
    """Return a text whose addresses have no password, and on the web no query, which may be signed.

    >>> without_secrets("https://me:p@ss@host/x?signature=a@b and s3://key:secret@bucket/x")
    'https://host/x and s3://bucket/x'
    """
    return PASSWORD.sub(r"\1", QUERY.sub(r"\1", text))


def provenance_of(name: str, path: Path) -> dict[str, str]:
    """Return the absolute path of an input for the record, and where it was fetched from if it was.

    Args:
        name: the key of the path; `name_address` and, for the hub, `name_commit` are the others.
        path: of the input.
    """
    origin = origin_of(path)
    # The hub's cache has links to files that are named by hashes.
    where = str(path.absolute() if origin else path.resolve())
    return {name: where, **{f"{name}_{key}": value for key, value in origin.items()}}


def recorded_name(provenance: Mapping[str, Any], name: str) -> str:
    """Return the address of an input in a record, its commit cut short, or else its path; "" without."""
    where = provenance.get(f"{name}_address") or provenance.get(name) or ""
    return re.sub(r"@([0-9a-f]{7})[0-9a-f]{33}(?=/|$)", r"@\1", str(where))


def read_origin(folder: Path) -> dict[str, Any]:
    """Return the record of where the files in a folder came from, nothing if it can't be read."""
    try:
        origin = parse_json(read_bytes(folder / ORIGIN, JSON_BYTES))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def origin_of(path: Path) -> dict[str, str]:
    """Return where a file came from: `address`, and for the hub `commit`; nothing for a local one."""
    match = SNAPSHOT.fullmatch(str(path.absolute()))
    if match:
        kind = "datasets/" if match["kind"] == "datasets" else ""
        repo = match["repo"].replace("--", "/", 1)
        return {
            "address": f"hf://{kind}{repo}@{match['commit']}{match['path']}",
            "commit": match["commit"],
        }
    for folder in (path, path.parent):
        origin = read_origin(folder)
        if isinstance(origin.get("address"), str):
            is_whole = folder == path or origin.get("is_file")
            return {"address": origin["address"] + ("" if is_whole else f"/{path.name}")}
    return {}
