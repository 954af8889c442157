"""README and the pages of the guide as documents: their blocks, their commands, what these print."""

import math
import re
import shlex
import textwrap
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import typer

from entropy_cli.cli import app
from entropy_cli.commands.guide.cli import PAGES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(PAGES.glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands

# ```console has commands after "$ ", each with what it prints, and runs; ```python runs too. ```sh needs
# data of the reader's own and is only parsed; ```csv NAME becomes a file; ```text and ```json stay text.
BLOCK = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LEFT_OUT, WIDTH = "...", 80
END = re.compile(r"[|<>&;()]+")

TIMING = re.compile(r"\d+(\.\d+)? (s|images/s|threads)\b")
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
TOLERANCE = 0.02  # relative: other processors and versions of torch round otherwise


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    kind: str
    name: str
    text: str


def blocks(document):
    """List the fenced blocks of a document."""
    return [Block(*match.groups()) for match in BLOCK.finditer(document.read_text())]


def sessions(block):
    """List the commands of a console block, each with the output that is shown."""
    return [match.groups() for match in SESSION.finditer(block.text)]


def command_lines(block):
    """List the arguments of every entropy-cli in a block of commands."""
    shown = [command for command, _ in sessions(block)] if block.kind == "console" else [block.text]
    lines = "\n".join(shown).replace("\\\n", " ").splitlines()
    found = [arguments(line) for line in lines]
    return [argv for argv in found if argv is not None]


def arguments(line):
    """Return the arguments of entropy-cli on a shell's line, also behind torchrun or a pipe; or None."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for begin in (["entropy-cli"], ["-m", "entropy_cli"], [".venv/bin/entropy-cli"]):
        for at in range(len(words)):
            if words[at : at + len(begin)] == begin:
                rest = words[at + len(begin) :]
                end = next((i for i, word in enumerate(rest) if END.fullmatch(word)), len(rest))
                return rest[:end]
    return None


def parse(argv):
    """Let the program parse a command line, and that behind the -- of slurm; nothing runs."""
    name, *rest = argv
    if name.startswith("-"):
        return
    with COMMANDS[name].make_context(name, list(rest)):
        if "--" in rest:
            parse(["estimate", *rest[rest.index("--") + 1 :]])


def is_same(shown, printed):
    """Return whether what is shown is what was printed, but for rounding, times and parts left out."""
    words, at = _words(printed), 0
    parts = [_words(part) for part in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)]
    for i, part in enumerate(parts):
        starts = range(at, len(words) - len(part) + 1)
        if i == len(parts) - 1:
            starts = starts[-1:]
        if i == 0:
            starts = [start for start in starts if start == 0]
        at = next((j + len(part) for j in starts if _match(part, words[j:])), -1)
        if at < 0:
            return False
    return True


def _words(text):
    return re.sub(r"[-─]{3,}", "---", TIMING.sub(r"0 \2", text)).split()


def _match(part, words):
    return all(_same_word(one, other) for one, other in zip(part, words, strict=False))


def _same_word(one, other):
    if one == other:
        return True
    pieces = [NUMBER.split(word) for word in (one, other)]
    if len(pieces[0]) != len(pieces[1]) or pieces[0][::2] != pieces[1][::2]:
        return False
    pairs = zip(pieces[0][1::2], pieces[1][1::2], strict=True)
    return all(_close(*pair) for pair in pairs)


def _close(one, other):
    decimals = len(one.partition(".")[2])
    last_digits = 2.1 * 10**-decimals if decimals else 0
    return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=last_digits)


def excerpt(shown, printed):
    """Return today's output, of which as many lines at its ends as are shown now, if not all are."""
    lines, new = shown.splitlines(), printed.splitlines()
    if LEFT_OUT in lines:
        first, last = lines.index(LEFT_OUT), lines[::-1].index(LEFT_OUT)
        new = [*new[:first], LEFT_OUT, *new[len(new) - last :]]
    narrow = (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line] for line in new)
    return "\n".join(chain.from_iterable(narrow)) + "\n"
