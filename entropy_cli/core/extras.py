"""Packages that only some commands need: imported where they are used."""

import importlib
from typing import Any

from entropy_cli.core.errors import EntropyCliError


def import_extra(module: str, extra: str, wanted_by: str) -> Any:  # noqa: ANN401 - a module
    """Import a module of an extra.

    Args:
        module: its name, with dots.
        extra: which installs it.
        wanted_by: what needs it, for people.

    Raises:
        EntropyCliError: it is not installed; with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EntropyCliError(
            f"{wanted_by} needs an extra: pip install 'entropy-cli[{extra}]'."
        ) from error
