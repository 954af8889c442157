"""Fetch what an address names, wherever that is."""

from pathlib import Path

from entropy_cli.core.progress_bars import Bars
from entropy_cli.core.remote.address import address_of, hub_address, without_secrets
from entropy_cli.core.remote.files import OtherFiles
from entropy_cli.core.remote.hub import Choose, HubFiles, in_bytes

MOST_SHOWN = 8  # files of a description


def fetch(address: str, choose: Choose, bars: Bars) -> Path:
    """Return the local path of a file, folder or pattern of files elsewhere, fetched if need be.

    Args:
        address: hf://, https://, s3://, gs:// or another that fsspec knows, see `address_of`.
        choose: chooses among the files there.
        bars: makes progress bars.

    Raises:
        EntropyCliError: there is no such thing, no access, no connection, or a package is missing.
    """
    if address.startswith("hf://"):
        return HubFiles(hub_address(address), choose).fetch()
    return OtherFiles(address, choose).fetch(bars)


def local_path(path: Path, choose: Choose, bars: Bars) -> Path:
    """Return a path as it is, or where the file was fetched to if it is an address.

    Raises:
        EntropyCliError: as of `fetch`.
    """
    address = address_of(path)
    return path if address is None else fetch(address, choose, bars)


def describe(address: str, choose: Choose) -> str:
    """Describe what would have to be fetched; "" if that is nothing.

    Raises:
        EntropyCliError: as of `fetch`.
    """
    files = HubFiles(hub_address(address), choose) if address.startswith("hf://") else None
    plan = files.plan() if files else OtherFiles(address, choose).plan()
    if not plan.files:
        return ""
    shown = [f"  {name}  {in_bytes(size)}" for name, size in list(plan.files.items())[:MOST_SHOWN]]
    more = len(plan.files) - MOST_SHOWN
    head = f"would fetch {in_bytes(sum(plan.files.values()))} from {without_secrets(address)}"
    return "\n".join(
        [head, f"  into {plan.folder}", *shown, *([f"  and {more:,} more files"] if more > 0 else [])]
    )
