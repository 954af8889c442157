"""The commands, and how errors become exit codes."""

import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from entropy_cli import __version__
from entropy_cli.command import Command
from entropy_cli.commands.bench import cli as bench
from entropy_cli.commands.demo import cli as demo
from entropy_cli.commands.estimate import cli as estimate
from entropy_cli.commands.estimate import merge_cli as merge
from entropy_cli.commands.evaluate import cli as evaluate
from entropy_cli.commands.fit import cli as fit
from entropy_cli.commands.guide import cli as guide
from entropy_cli.commands.inspect import cli as inspect_
from entropy_cli.commands.ladder import cli as ladder
from entropy_cli.commands.loss import cli as loss
from entropy_cli.commands.monitor import cli as monitor
from entropy_cli.commands.report import cli as report
from entropy_cli.commands.show import cli as show
from entropy_cli.commands.slurm import cli as slurm
from entropy_cli.commands.train import cli as train
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.core.escaping import one_line
from entropy_cli.core.remote.address import without_secrets
from entropy_cli.core.signals import Interrupted, Signals
from entropy_cli.core.wrapping import wrap_message
from entropy_cli.remote_options import with_fetched
from entropy_cli.terminal import STDERR, VERBOSITY, with_verbosity

app = typer.Typer(
    help="How low can the loss of an image model go? Entropies of discrete visual tokenizers. To begin, "
    "try `entropy-cli demo` and `entropy-cli guide`.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS: dict[str, Callable[..., Any]] = {
    "estimate": estimate.estimate,
    "evaluate": evaluate.evaluate,
    "merge": merge.merge,
    "report": report.report,
    "show": show.show,
    "train": train.train,
    "monitor": monitor.monitor,
    "ladder": ladder.ladder,
    "loss": loss.loss,
    "fit": fit.fit,
    "inspect": inspect_.inspect,
    "bench": bench.bench,
    "demo": demo.demo,
    "slurm": slurm.slurm,
    "guide": guide.guide,
}
for name, command in COMMANDS.items():
    app.command(name, cls=Command)(with_verbosity(with_fetched(command)))

# Options of earlier versions: command, old name, new name.
RENAMED_OPTIONS = {
    "train": {
        "--accumulate": "--grad-accum-steps",
        "--average": "--ema-decay",
        "--clip": "--grad-clip",
        "--decay": "--codebook-decay",
        "--every": "--eval-every",
        "--half": "--save-fp16",
        "--out": "--output",
        "--recompute": "--grad-checkpointing",
    },
    "monitor": {"--every": "--interval"},
    "fit": {"--which": "--floor-average"},
    "bench": {"--against": "--baseline, which takes no value"},
    "demo": {"--out": "--output"},
    "slurm": {"--out": "--output"},
}

OUT_OF_MEMORY = "memory ran out. Use smaller sizes, or a machine with more memory"
SHOWN = 1200, 300  # characters of a message, at its beginning and its end

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
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit codes are in the README."""
    if sys.stderr is None:  # closed by the caller
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    _log_to_stderr()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # an encoding without ± or ≥ is no reason to fail
    try:
        with Signals():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except Interrupted as error:
        more = f"; to resume, run {error.resume_command}" if error.saved else ", nothing is saved"
        return _fail(f"interrupted by {error}{more}", error.exit_code)
    finally:
        if argv is None:  # the program's end, where a signal has nothing left to stop
            for number in Signals.NUMBERS:
                signal.signal(number, signal.SIG_IGN)


def _run(argv: list[str]) -> int:
    try:
        code = app(args=argv, obj=[*map(without_secrets, argv)], standalone_mode=False)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _usage_error(error)
    except EntropyCliError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}.", EntropyCliError.exit_code)
    except (MemoryError, RuntimeError) as error:
        from entropy_cli.streaming.device import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _fail(f"{OUT_OF_MEMORY} ({str(error).partition(chr(10))[0]})", EntropyCliError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)


def _usage_error(error: Exception) -> int:
    message = _renamed(error) or str(getattr(error, "format_message")())  # noqa: B009 - typer's own
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)
        return 2
    message = re.sub(
        "^Invalid value for (.*?): (?:Value error, )?(?=(is missing|is empty)?)", _option, message
    )
    name = getattr(getattr(error, "ctx", None), "info_name", None)
    more = f" See `entropy-cli {name} -h`." if message.startswith("Missing ") and name else ""
    return _fail(message + more, 2)


def _option(match: re.Match[str]) -> str:
    """Return the option of a message on its value, without what typer puts before it."""
    name = match[1].replace("'", "")
    return f"{name} " if match[2] else f"{name}: "


def _renamed(error: Exception) -> str | None:
    """Return the message for an unknown option that is the old name of one."""
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    old = getattr(error, "option_name", None)
    new = RENAMED_OPTIONS.get(str(command), {}).get(str(old))
    return new and f"{old} is now called {new}."


def _fail(message: str, code: int) -> int:
    STDERR.write(_shown(f"error: {message}") + "\n")
    STDERR.flush()
    return code


def _shown(message: str) -> str:
    """Return a message on one line, without secrets or a very long middle; wrapped on a terminal."""
    begin, end = SHOWN
    message = without_secrets(message)
    if len(message) > begin + end:
        message = f"{message[:begin]} ... {message[-end:]}"
    text = one_line(message)
    return wrap_message(text, shutil.get_terminal_size().columns) if STDERR.isatty() else text


class _StderrHandler(logging.Handler):
    """Prints messages above a progress bar, not through it."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(_shown(level + record.getMessage()), file=STDERR)


def _log_to_stderr() -> None:
    logger = logging.getLogger("entropy_cli")
    logger.handlers = [_StderrHandler()]
    VERBOSITY.level = logging.INFO
    logger.setLevel(VERBOSITY.level)
    logger.propagate = False
