"""Show text that comes from outside: a function for each target, which makes it harmless there.

File names, names in logs, fields of results and keys of checkpoints may hold anything. Control
characters, marks that reverse the direction of text and halves of surrogate pairs are shown as escapes.
"""

import html
import re

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - as spreadsheets
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", re.ASCII)
# What may be markup in CommonMark and GitHub's Markdown; underscores within words are not.
MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^(?=#|>|[+-]( |$)|=+$)|(?<=^\d)(?=[.)] )")


def escape_terminal(text: str) -> str:
    r"""Return a text whose control characters, other than line ends, are shown as escapes.

    >>> escape_terminal("a\x1b[2J\u202e")
    'a\\x1b[2J\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    r"""Return a text as `escape_terminal` does, with its line ends shown as escapes too.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return escape_terminal(text).replace("\n", "\\n")


def escape_html(text: str) -> str:
    """Return a text for HTML and for its attributes; line ends are kept.

    >>> escape_html('<a "b">')
    '&lt;a &quot;b&quot;&gt;'
    """
    return html.escape(escape_terminal(text))


def escape_markdown(text: str) -> str:
    r"""Return a text that has no markup in Markdown, and does not end a cell; line ends become <br>.

    >>> escape_markdown("a|b <c `d")
    'a\\|b &lt;c \\`d'
    """
    text = MARKUP.sub(r"\\\g<0>", escape_terminal(text))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")


def markdown_code(text: str) -> str:
    """Return a text as code in Markdown, on one line."""
    text = " ".join(escape_terminal(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"


def escape_csv(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula; numbers stay numbers.

    >>> escape_csv("=1+1"), escape_csv("-1.5")
    ("'=1+1", '-1.5')
    """
    is_formula = text.lstrip(" ").startswith(FORMULA) and not NUMBER.fullmatch(text)
    return escape_terminal(f"'{text}" if is_formula else text)
