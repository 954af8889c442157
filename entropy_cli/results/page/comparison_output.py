"""A comparison as an HTML page, a figure, Markdown or CSV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from entropy_cli.core.figures import (
    Axes,
    Figure,
    colour_ramp,
    inline_svg,
    legend_below,
    new_figure,
    plain_log_ticks,
    styled,
)
from entropy_cli.core.page import ordered_list, write_page
from entropy_cli.core.table import Cell, Table
from entropy_cli.results.page.comparison import NamedResult, comparison_tables, difference, remarks
from entropy_cli.results.page.figures import ENTROPIES, HEIGHT, WIDTH, plot_with_errors
from entropy_cli.results.page.report_output import NUMBERS, estimates_of, markdown_list

TITLE = "Assignment entropies compared"
MARGIN = 1.04  # beyond the largest value, for its marker


def comparison_page(path: Path, several: Sequence[NamedResult]) -> None:
    """Write the HTML page of a comparison."""
    alt_text = f"{TITLE}: {', '.join(named.name for named in several)}"
    with styled():
        figures = []
        for draw in (_averages, _scales):
            figure = new_figure(WIDTH, HEIGHT)
            draw(figure.add_subplot(), several)
            figures.append(f"<figure>{inline_svg(figure, alt_text)}</figure>")
    parts = [f'<div class="panels">{"".join(figures)}</div>']
    parts += [table.html() for table in comparison_tables(several)]
    write_page(path, TITLE, [*parts, "<h2>Notes</h2>", ordered_list(remarks(several))])


def comparison_figure(several: Sequence[NamedResult]) -> Figure:
    """Draw both panels of a comparison in one figure."""
    figure = new_figure(2 * WIDTH, HEIGHT)
    for i, draw in enumerate((_averages, _scales), 1):
        draw(figure.add_subplot(1, 2, i), several)
    return figure


def comparison_markdown(several: Sequence[NamedResult]) -> str:
    """Return the tables and notes of a comparison as Markdown."""
    parts = [
        f"# {TITLE}",
        *(table.markdown() for table in comparison_tables(several)),
        f"## Notes\n\n{markdown_list(remarks(several))}",
    ]
    return "\n\n".join(parts) + "\n"


def comparison_csv(several: Sequence[NamedResult]) -> str:
    """Return all token-weighted estimates, and the differences from the first result, as CSV."""
    rows: list[list[Cell]] = []
    for named in several:
        rows += [[named.name, *row] for row in estimates_of(named.result.average.token_weighted)]
    first = several[0]
    quantity = f"assignment_entropy minus that of {first.name}"
    for named in several[1:]:
        change = difference(first.result, named.result)
        low, high = change.ci95 or (None, None)
        estimator = "paired jackknife" if change.paired else "unpaired"
        note = f"not comparable: {change.not_comparable}" if change.not_comparable else None
        numbers = [change.value, None, change.se, low, high, estimator, note, None]
        rows.append([named.name, quantity, *numbers])
    return Table("comparison", "", ["result", "quantity", *NUMBERS], rows).csv()


def _averages(axes: Axes, several: Sequence[NamedResult]) -> None:
    """Draw the token-weighted averages, a row for each result."""
    y = np.arange(len(several))[::-1]
    for name, words, colour, marker in ENTROPIES:
        estimates = [getattr(named.result.average.token_weighted, name) for named in several]
        plot_with_errors(axes, y, estimates, sideways=True, label=words, color=colour, marker=marker)
    axes.set_yticks(y, [named.name for named in several])
    axes.set(title="Token-weighted averages", xlabel="nats per token", ylim=(-0.6, len(several) - 0.4))
    axes.set_xlim(0, MARGIN * axes.get_xlim()[1])
    legend_below(axes)


def _scales(axes: Axes, several: Sequence[NamedResult]) -> None:
    """Draw the assignment entropy of each scale against its number of tokens."""
    for named, colour in zip(several, colour_ramp(len(several)), strict=True):
        scales = named.result.scales
        tokens_S = np.array([scale.tokens for scale in scales], float)
        estimates = [scale.assignment_entropy for scale in scales]
        plot_with_errors(axes, tokens_S, estimates, label=named.name, color=colour, marker="o")
    axes.set(
        title="Assignment entropy of each scale", xlabel="tokens of the scale", ylabel="nats per token"
    )
    axes.set_xscale("log")
    plain_log_ticks(axes.xaxis)
    axes.set_ylim(0, MARGIN * axes.get_ylim()[1])
    legend_below(axes)
