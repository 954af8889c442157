"""Errors that a user can fix: a one-line message each, and the exit code of the command line."""


class EntropyCliError(Exception):
    """An error that the user can fix; shown as one line, exit code 3."""

    exit_code = 3


class CheckpointError(EntropyCliError):
    """A checkpoint can't be read, has an unknown layout, or holds unusable weights."""


class DatasetError(EntropyCliError):
    """An image folder, or an archive of one, is missing, empty or unreadable."""


class StateError(EntropyCliError):
    """A saved state is damaged, in use, or belongs to another run."""


class ResultError(EntropyCliError):
    """A result file can't be read or written."""


class ShapeError(EntropyCliError, ValueError):
    """A tensor does not have the shape that the function documents."""


class LogError(EntropyCliError):
    """A training log can't be read, or holds no losses."""
