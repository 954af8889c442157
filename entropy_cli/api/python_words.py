"""Errors in the words of the Python functions: their parameters in place of the command's options."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.images.loader import FEWER_WORKERS, NO_WORKERS
from entropy_cli.streaming.batch_processor import SMALLER_BATCHES

# What is more than a parameter's name; the first that fits counts.
PHRASES = {
    FEWER_WORKERS: "Give fewer workers.",
    NO_WORKERS: "Give workers=0.",
    SMALLER_BATCHES: "Use another device.",  # they neither choose batches nor resume
    "Give --data a": "Give as images a",
    "--data": "images",
    "--latents": "estimate a callable",
}
OPTION = re.compile(r"(?<![^\s(])--([a-z]+(?:-[a-z]+)*)")  # not within a path


@contextmanager
def naming_parameters() -> Iterator[None]:
    """Reword the errors that are raised inside; it can also be used as a decorator."""
    try:
        yield
    except EntropyCliError as error:
        error.args = (in_python_words(str(error)),)
        raise


def in_python_words(message: str) -> str:
    """Return a message with parameters in place of options.

    >>> in_python_words("Give --data a folder of images, or another --image-size.")
    'Give as images a folder of images, or another image_size.'
    """
    for phrase, words in PHRASES.items():
        message = message.replace(phrase, words)
    return OPTION.sub(lambda option: option[1].replace("-", "_"), message)
