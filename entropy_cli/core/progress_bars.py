"""What draws progress bars, for code that does not touch the terminal."""

import contextlib
from typing import Protocol


class Bar(Protocol):
    """The part of a tqdm bar that is used."""

    def update(self, n: int) -> object:
        """Go on by n."""
        ...

    def set_description(self, words: str, refresh: bool = True) -> object:  # noqa: FBT001, FBT002
        """Say what is going on, at once or when the bar moves next."""
        ...


class Bars(Protocol):
    """Makes a progress bar; `total` None if unknown, `initial` if part is done."""

    def __call__(
        self, words: str, total: int | None, unit: str, initial: int = 0
    ) -> contextlib.AbstractContextManager[Bar]:
        """Make one."""
        ...


class _Silent:
    """A bar that nobody sees."""

    def update(self, n: int) -> None:
        """Nothing."""

    def set_description(self, words: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Nothing."""


def no_bars(
    words: str, total: int | None, unit: str, initial: int = 0
) -> contextlib.AbstractContextManager[Bar]:
    """For processes that do not report."""
    return contextlib.nullcontext(_Silent())
