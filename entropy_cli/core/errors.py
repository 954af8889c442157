"""Errors that a user can mend: one sentence each, and the exit code of the command line."""


class EntropyCliError(Exception):
    """Something the user can mend; shown as one line, exit code 3."""

    exit_code = 3


class CheckpointError(EntropyCliError):
    """A checkpoint that can't be read, is of an unknown layout, or holds unusable weights."""


class DatasetError(EntropyCliError):
    """An image folder, or tars of one, missing, empty or unreadable."""


class StateError(EntropyCliError):
    """A saved state that is damaged, in use, or of another run."""


class ResultError(EntropyCliError):
    """A result file that can't be read or written."""


class ShapeError(EntropyCliError, ValueError):
    """A tensor whose shape is not what the function documents."""


class LogError(EntropyCliError):
    """A training log that can't be read, or holds no losses."""


class NoLossError(LogError):
    """A log without a loss in it: one that grows may get one yet."""
