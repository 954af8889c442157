"""Optional packages, imported only where a command uses them."""

import importlib
from typing import Any

from entropy_cli.core.errors import EntropyCliError


def import_extra(module: str, extra: str, feature: str) -> Any:  # noqa: ANN401 - a module
    """Import and return a module of an optional package.

    Args:
        module: the dotted name of the module.
        extra: the extra of entropy-cli that installs it.
        feature: what needs the module, for the message.

    Raises:
        EntropyCliError: the package is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EntropyCliError(
            f"{feature} needs an extra: pip install 'entropy-cli[{extra}]'."
        ) from error
