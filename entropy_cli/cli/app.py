"""The commands, and how errors become exit codes."""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from entropy_cli import __version__
from entropy_cli.cli import demo, estimate
from entropy_cli.errors import EntropyCliError

app = typer.Typer(
    help="How low can the loss of an image model go? Entropies of discrete visual tokenizers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("estimate")(estimate.estimate)
app.command("demo")(demo.demo)

# The base of every error that typer itself raises for wrong usage.
UsageError: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"entropy-cli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit codes are in the README."""
    _log_to_stderr()
    try:
        argv = list(sys.argv[1:] if argv is None else argv)
        code = app(args=argv, obj=argv, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UsageError as error:
        # No command given is answered with the help, which is not an error of one line.
        message = str(getattr(error, "format_message")())  # noqa: B009
        typer.echo(message if "\n" in message else f"error: {message}", err=True)
        return 2
    except EntropyCliError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        return 130
    except typer.Abort:
        return 130
    except BaseException as error:
        code = getattr(error, "exit_code", None)  # engine.runtime.Interrupted, without importing torch
        if code is None or isinstance(error, Exception):
            raise
        typer.echo(f"interrupted by {error}; the same command goes on from what is saved", err=True)
        return int(code)


class _StderrHandler(logging.Handler):
    """Messages above a progress bar, not through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(level + record.getMessage(), file=sys.stderr)


def _log_to_stderr() -> None:
    logger = logging.getLogger("entropy_cli")
    logger.handlers = [_StderrHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
