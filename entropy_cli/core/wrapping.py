"""Break long lines at words, as a person reads them; files and pipes get them whole."""

import re
import textwrap

UNBROKEN = re.compile(r"pip install ('[^']*'|\S+)|`[^`]*`")  # to be copied as it stands
SPACE = "\N{NO-BREAK SPACE}"  # where a line must not be broken; messages show it as an escape
MARK = "$ "  # before a command that was run


def wrap_message(text: str, width: int) -> str:
    r"""Return one line of text as lines, all but the first indented.

    >>> wrap_message("warning: 12 images are too few.", 20)
    'warning: 12 images\n  are too few.'
    """
    if text.startswith(MARK):
        return wrap_command(text, width, indent="    ")
    return _wrap(UNBROKEN.sub(lambda match: match[0].replace(" ", SPACE), text), width, "  ")


def wrap_command(command: str, width: int, *, indent: str) -> str:
    r"""Return a shell command as lines that can be pasted; an option and its value stay together.

    >>> wrap_command("entropy-cli fit a.csv --size params", 24, indent="  ")
    'entropy-cli fit a.csv \\\n  --size params'
    """
    words = re.sub(r"(?<= )(-\S+) (?!-)|^\$ ", lambda match: match[0][:-1] + SPACE, command)
    return _wrap(words, max(1, width - 2), indent).replace("\n", " \\\n")


def _wrap(text: str, width: int, indent: str) -> str:
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(text).replace(SPACE, " ")
