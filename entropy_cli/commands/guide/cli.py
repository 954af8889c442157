"""The command line of `entropy-cli guide`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from entropy_cli.terminal import print_result

PAGES = Path(__file__).parents[2] / "guide"
HOW = """\
Read one with: entropy-cli guide TOPIC
Examples after $ run in a clone after: entropy-cli demo --output build/demo"""
TOPICS = (
    "number",
    "temperature",
    "comparing",
    "checkpoints",
    "your-network",
    "families",
    "images",
    "places",
    "cluster",
    "training",
    "monitor",
    "logs",
    "loop",
    "ladder",
    "evaluate",
    "loss",
    "fit",
    "report",
    "bench",
    "gpu",
    "json",
    "python",
    "method",
    "safety",
    "changes",
)


def guide(
    topic: Annotated[
        str | None, typer.Argument(metavar="TOPIC", help="A page; without one, the list of them.")
    ] = None,
) -> None:
    """Print a page of the guide, or the list of its topics.

    Example: entropy-cli guide temperature
    """
    if topic is None:
        print_result(_contents())
        return
    if topic not in TOPICS:
        raise typer.BadParameter(f"{topic}: expected one of {', '.join(TOPICS)}.", param_hint="TOPIC")
    page = _page(topic)
    if sys.stdout.isatty():
        print_result(_rendered(page), is_escaped=True)
    else:
        print_result(page)


def _page(topic: str) -> str:
    return (PAGES / f"{topic}.md").read_text(encoding="utf-8").rstrip("\n")


def _contents() -> str:
    """Return a line for each topic: its name and the title of its page."""
    width = max(map(len, TOPICS))
    titles = {topic: _page(topic).partition("\n")[0].removeprefix("# ") for topic in TOPICS}
    lines = [f"{topic:{width}}  {title}" for topic, title in titles.items()]
    return "\n".join([*lines, "", HOW])


def _rendered(page: str) -> str:
    """Return a page with the terminal's own headings, tables and colours."""
    from rich.console import Console, ConsoleOptions
    from rich.markdown import CodeBlock, Markdown
    from rich.text import Text

    class Output(CodeBlock):
        """A block as wide as the page; rich's own has a margin, in which 80 columns don't fit."""

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
            yield Text(str(self.text).rstrip("\n"), style="cyan")

    class Page(Markdown):
        elements: ClassVar = {**Markdown.elements, "fence": Output}

    console = Console()
    with console.capture() as capture:
        console.print(Page(page))
    return capture.get().rstrip("\n")
