"""The interface of progress bars, for code that does not touch the terminal."""

import contextlib
from typing import Protocol


class Bar(Protocol):
    """The part of the interface of a tqdm bar that the program uses."""

    def update(self, n: int) -> object:
        """Advance the bar by n."""
        ...

    def set_description(self, desc: str, refresh: bool = True) -> object:  # noqa: FBT001, FBT002
        """Set the text before the bar; without `refresh` it appears at the next update."""
        ...


class Bars(Protocol):
    """A function that creates progress bars."""

    def __call__(
        self, desc: str, total: int | None, unit: str, initial: int = 0
    ) -> contextlib.AbstractContextManager[Bar]:
        """Create a bar; `total` is None if unknown, `initial` is how much is done already."""
        ...


class _NoBar:
    """A bar that draws nothing."""

    def update(self, n: int) -> None:
        """Do nothing."""

    def set_description(self, desc: str, refresh: bool = True) -> None:  # noqa: FBT001, FBT002
        """Do nothing."""


def no_bars(
    desc: str, total: int | None, unit: str, initial: int = 0
) -> contextlib.AbstractContextManager[Bar]:
    """Create a bar that draws nothing, for processes that do not report."""
    return contextlib.nullcontext(_NoBar())
