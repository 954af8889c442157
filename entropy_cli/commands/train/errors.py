"""Name what may end a training, torch's errors and signals, in words that say how to go on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from entropy_cli.commands.train.result import TRAINER
from entropy_cli.core.errors import DatasetError, EntropyCliError
from entropy_cli.core.signals import Interrupted
from entropy_cli.images.loader import worker_death_error
from entropy_cli.streaming.device import is_out_of_memory


@contextlib.contextmanager
def named_to_resume(out: Path) -> Iterator[None]:
    """Let the message of a signal say how to resume."""
    try:
        yield
    except Interrupted as error:
        error.saved = (out / TRAINER).exists()
        error.resume_command = "the same command with --resume"
        raise


@contextlib.contextmanager
def user_errors(device: str) -> Iterator[None]:
    """Turn torch's errors that the user can fix into EntropyCliError."""
    try:
        yield
    except RuntimeError as error:
        if worker_death_error(error) is not None:
            advice = "Resume with --resume and fewer --workers."
            raise DatasetError(f"a process that decodes images died. {advice}") from error
        if is_out_of_memory(error):
            advice = "Resume with --resume and more --grad-accum-steps, or with --grad-checkpointing."
            raise EntropyCliError(f"--device {device}: not enough memory. {advice}") from error
        raise
