"""A comparison as a page, a picture, Markdown or CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entropy_cli.core.figures import (
    colour_ramp,
    inline_svg,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
)
from entropy_cli.core.page import html_table, ordered_list, write_page
from entropy_cli.results.page.comparison import NamedResult, comparison_tables, difference, remarks
from entropy_cli.results.page.figures import HEIGHT, LADDER, WIDTH, with_errors
from entropy_cli.results.page.markdown_and_csv import NUMBERS, estimates_of, markdown_table

TITLE = "Assignment entropies compared"
ROOM = 1.04  # beyond the largest value, for its marker


def comparison_page(path: Path, several: Sequence[NamedResult]) -> None:
    """Write the page of a comparison."""
    with styled():
        drawn = []
        for draw in (_averages, _scales):
            figure = new_figure(WIDTH, HEIGHT)
            draw(figure.add_subplot(), several)
            words = f"{TITLE}: {', '.join(named.name for named in several)}"
            drawn.append(f"<figure>{inline_svg(figure, words)}</figure>")
    parts = [f'<div class="panels">{"".join(drawn)}</div>']
    parts += [html_table(one) for one in comparison_tables(several)]
    write_page(path, TITLE, [*parts, "<h2>Notes</h2>", ordered_list(remarks(several))])


def comparison_sheet(several: Sequence[NamedResult]) -> Any:  # noqa: ANN401 - a figure of matplotlib
    """Both pictures on one sheet."""
    figure = new_figure(2 * WIDTH, HEIGHT)
    for i, draw in enumerate((_averages, _scales), 1):
        draw(figure.add_subplot(1, 2, i), several)
    return figure


def comparison_markdown(several: Sequence[NamedResult]) -> str:
    """Tables and notes."""
    notes = "\n".join(f"{i}. {remark}" for i, remark in enumerate(remarks(several), 1))
    parts = [f"# {TITLE}", *map(markdown_table, comparison_tables(several)), f"## Notes\n\n{notes}"]
    return "\n\n".join(parts) + "\n"


def comparison_csv(several: Sequence[NamedResult]) -> str:
    """Every token-weighted estimate of every result, and the differences from the first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["result", "quantity", *NUMBERS])
    for named in several:
        for name, numbers in estimates_of(named.result.average.token_weighted):
            writer.writerow([named.name, name, *numbers])
    first = several[0]
    for named in several[1:]:
        found = difference(first.result, named.result)
        low, high = found.ci95 or ("", "")
        how = "paired jackknife" if found.paired else "unpaired"
        quantity = f"assignment_entropy minus that of {first.name}"
        se = "" if found.se is None else found.se
        note = f"not comparable: {found.not_comparable}" if found.not_comparable else ""
        writer.writerow([named.name, quantity, found.value, "", se, low, high, how, note, ""])
    return text.getvalue()


def _averages(axes: Any, several: Sequence[NamedResult]) -> None:  # noqa: ANN401 - of matplotlib
    """The token-weighted averages, a row for each result."""
    y = np.arange(len(several))[::-1]
    for name, words, colour, marker in LADDER:
        estimates = [getattr(named.result.average.token_weighted, name) for named in several]
        with_errors(axes, y, estimates, sideways=True, label=words, color=colour, marker=marker)
    axes.set_yticks(y, [named.name for named in several])
    axes.set(title="Token-weighted averages", xlabel="nats per token", ylim=(-0.6, len(several) - 0.4))
    axes.set_xlim(0, ROOM * axes.get_xlim()[1])
    legend_below(axes)


def _scales(axes: Any, several: Sequence[NamedResult]) -> None:  # noqa: ANN401 - of matplotlib
    """The assignment entropy of each scale against the tokens that it has."""
    for named, colour in zip(several, colour_ramp(len(several)), strict=True):
        scales = named.result.scales
        tokens_S = np.array([scale.tokens for scale in scales], float)
        estimates = [scale.assignment_entropy for scale in scales]
        with_errors(axes, tokens_S, estimates, label=named.name, color=colour, marker="o")
    axes.set(
        title="Assignment entropy of each scale", xlabel="tokens of the scale", ylabel="nats per token"
    )
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis)
    axes.set_ylim(0, ROOM * axes.get_ylim()[1])
    legend_below(axes)
