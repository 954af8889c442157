"""Inputs of commands that are elsewhere: fetched into a cache before the command sees them."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entropy_cli.terminal import print_result, tqdm_bar

CHECKPOINTS = ("ckpt", "model", "file")  # parameters that may name a checkpoint elsewhere
DATA = "data"


def with_fetched(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose checkpoints and data may be addresses such as hf://ORG/REPO/FILE.

    The command gets the paths of the fetched files. A dry run of it fetches nothing: it says what would
    be fetched, and is over if that is anything.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of any command
        addresses = {name: kwargs[name] for name in (*CHECKPOINTS, DATA) if kwargs.get(name) is not None}
        if not any(":/" in str(value) for value in addresses.values()):
            return command(*args, **kwargs)

        from entropy_cli.core.errors import EntropyCliError
        from entropy_cli.core.remote.address import address_of, without_secrets
        from entropy_cli.core.remote.fetch import describe, fetch

        remote = {name: text for name, value in addresses.items() if (text := address_of(value))}
        choose = {name: _choose(name) for name in remote}
        if kwargs.get("dry_run"):
            words = [describe(text, choose[name]) for name, text in remote.items()]
            if any(words):
                print_result("\n".join(filter(None, words)))
                return 0
        for name, text in remote.items():
            path: Any = fetch(text, choose[name], tqdm_bar)
            path = path if isinstance(kwargs[name], Path) else str(path)
            kwargs[name] = path
            if "context" in kwargs:
                kwargs["context"].params[name] = path
        try:
            return command(*args, **kwargs)
        except EntropyCliError as error:  # about files in the cache, which the user knows as addresses
            text = str(error)
            for name, address in remote.items():
                text = text.replace(str(kwargs[name]), without_secrets(address))
            error.args = (text,)
            raise

    return run


def _choose(name: str) -> Any:  # noqa: ANN401 - a function
    from entropy_cli.images import roots
    from entropy_cli.tokenizers.checkpoints import shards

    return roots.files_to_fetch if name == DATA else shards.files_to_fetch
