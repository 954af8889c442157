"""Files in repositories of the Hugging Face hub, through its own client and cache."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.extras import import_extra
from entropy_cli.core.remote.address import HubAddress, is_safe, without_secrets

logger = logging.getLogger(__name__)

MOST_NAMED = 6  # files or revisions in a message
# From the sizes of all files by path, and the path that was asked for, the files to fetch.
Choose = Callable[[Mapping[str, int], str], Sequence[str]]


class Plan(NamedTuple):
    """The files that have to be fetched."""

    folder: str  # where it goes
    files: dict[str, int]  # bytes by path


class _Listing(NamedTuple):
    commit: str
    sizes: dict[str, int]


class HubFiles:
    """The files of an address of the hub."""

    def __init__(self, address: HubAddress, choose: Choose) -> None:
        """Take an address and a function that chooses among the files of the repository."""
        self.address, self.choose = address, choose
        names = ("", ".errors", ".constants", ".utils")
        modules = (import_extra(f"huggingface_hub{n}", "hub", f"reading {address}") for n in names)
        self.hub, self.errors, self.constants, self.utils = modules
        self.of_repo: dict[str, Any] = {"repo_id": address.repo, "repo_type": address.kind}

    def plan(self) -> Plan:
        """Return what is not in the cache yet.

        Raises:
            EntropyCliError: there is no such repository, revision or file, no access, or no connection.
        """
        listing = self._list()
        if listing is None:
            self._cached()
            return Plan(self._cache(), {})
        missing = [n for n in self._chosen(listing) if not self._is_cached(listing.commit, n)]
        return Plan(self._cache(), {name: listing.sizes[name] for name in missing})

    def fetch(self) -> Path:
        """Fetch what is not in the cache yet; return the local path of what the address names.

        Raises:
            EntropyCliError: as of `plan`, or a file can't be fetched.
        """
        listing = self._list()
        if listing is None:
            return self._cached()
        names = self._chosen(listing)
        missing = sum(listing.sizes[name] for name in names if not self._is_cached(listing.commit, name))
        if missing:
            logger.info("%s: fetching %s", self.address, in_bytes(missing))
        if missing and not (sys.stderr and sys.stderr.isatty() and logger.isEnabledFor(logging.INFO)):
            self.utils.disable_progress_bars()
        # The first goes by the revision's name, which the cache then knows without a connection.
        revisions = [self.address.revision, *[listing.commit] * (len(names) - 1)]
        try:
            for name, revision in zip(names, revisions, strict=True):
                local = Path(self.hub.hf_hub_download(filename=name, revision=revision, **self.of_repo))
                size = local.stat().st_size
                if size != listing.sizes[name]:
                    raise EntropyCliError(
                        f"{self.address}: {name}: got {size:,} bytes, expected {listing.sizes[name]:,}. "
                        f"Remove {local.resolve()}, and fetch it again."
                    )
        except EntropyCliError:
            raise
        except Exception as error:  # of the hub's client, its transport, or the disk
            raise EntropyCliError(f"{self.address}: can't be fetched: {reason(error)}.") from error
        return self._local(local, names[-1])

    def _local(self, file: Path, name: str) -> Path:
        """Return the path of what was asked for, in the snapshot that holds a file of this name."""
        snapshot = file
        for _ in name.split("/"):
            snapshot = snapshot.parent
        return snapshot / self.address.path

    def _list(self) -> _Listing | None:
        """List the files of the revision; return None without a connection."""
        api, address = self.hub.HfApi(), self.address
        try:
            info = api.repo_info(revision=address.revision, files_metadata=True, **self.of_repo)
        except self.errors.GatedRepoError as error:
            raise EntropyCliError(
                f"{address}: no access: ask for it on the repository's page, then log in with "
                "`hf auth login`, or set HF_TOKEN."
            ) from error
        except self.errors.RepositoryNotFoundError as error:
            raise EntropyCliError(
                f"{address}: no such repository, or a private one. Check the name (of a data "
                "set hf://datasets/ORG/NAME); for a private one log in with `hf auth login`, or set "
                "HF_TOKEN."
            ) from error
        except self.errors.RevisionNotFoundError as error:
            raise EntropyCliError(
                f"{address}: no such revision. There are {_some(self._revisions())}."
            ) from error
        except self.errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            if status in (401, 403):
                raise EntropyCliError(
                    f"{address}: no access (status {status}). Log in with `hf auth login`, or set "
                    "HF_TOKEN."
                ) from error
            self._warn(error)
            return None
        except self.errors.OfflineModeIsEnabled:
            return None
        except Exception as error:  # of the transport, which differs between versions of the client
            is_transport = type(error).__module__.startswith(("httpx", "requests", "urllib3"))
            if not (is_transport or isinstance(error, OSError)):
                raise
            self._warn(error)
            return None
        sizes = {file.rfilename: file.size or 0 for file in info.siblings if is_safe(file.rfilename)}
        return _Listing(info.sha, sizes)

    def _warn(self, error: Exception) -> None:
        """Warn that the cache alone is used."""
        logger.warning("%s: no connection (%s); what is cached is used", self.address, reason(error))

    def _revisions(self) -> list[str]:
        refs = self.hub.HfApi().list_repo_refs(**self.of_repo)
        return [ref.name for ref in (*refs.branches, *refs.tags)]

    def _chosen(self, listing: _Listing) -> Sequence[str]:
        names = self.choose(listing.sizes, self.address.path)
        if names:
            return names
        parent = self.address.path.rpartition("/")[0]
        near = (
            [n for n in listing.sizes if n.startswith(f"{parent}/")] if parent else list(listing.sizes)
        )
        raise EntropyCliError(
            f"{self.address}: no such file there, or none that can be used. There are "
            f"{_some(near or list(listing.sizes))}."
        )

    def _is_cached(self, commit: str, name: str) -> bool:
        found = self.hub.try_to_load_from_cache(filename=name, revision=commit, **self.of_repo)
        return isinstance(found, str)

    def _cached(self) -> Path:
        """Return the local path of what the address names, from the cache alone."""
        try:
            folder = self.hub.snapshot_download(
                revision=self.address.revision, local_files_only=True, **self.of_repo
            )
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__ != self.errors.__name__:
                raise
            raise self._not_cached() from error
        snapshot = Path(folder)
        path = snapshot / self.address.path
        sizes = {
            file.relative_to(snapshot).as_posix(): file.stat().st_size
            for file in snapshot.rglob("*")
            if file.is_file()
        }
        chosen = self.choose(sizes, self.address.path)
        if not chosen:
            raise self._not_cached()
        if self.address.path not in sizes:  # of a folder or a pattern a part may be there
            logger.warning(
                "%s: no connection to compare with; the %d files of it in the cache are used, which may "
                "not be all",
                self.address,
                len(chosen),
            )
        return path

    def _not_cached(self) -> EntropyCliError:
        return EntropyCliError(
            f"{self.address}: is not in the cache ({self._cache()}), and there is no connection to "
            "the hub (HF_HUB_OFFLINE, HF_ENDPOINT). Fetch it where there is one."
        )

    def _cache(self) -> str:
        return str(self.constants.HF_HUB_CACHE)


def in_bytes(number: int) -> str:
    """Return a number of bytes for people."""
    unit, size = next(((u, s) for u, s in (("GB", 1e9), ("MB", 1e6)) if number >= s / 10), ("kB", 1e3))
    return f"{number / size:.1f} {unit}"


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, without secrets."""
    lines = without_secrets(str(error)).splitlines() or [""]
    return (lines[0] or type(error).__name__).rstrip(".")[:200]


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "") or "none"
