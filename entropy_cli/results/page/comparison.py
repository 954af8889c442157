"""The comparison of several results by one quantity: what those of estimates and of models share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Generic

from entropy_cli.core.figures import SERIES, legend_name
from entropy_cli.core.table import Cell, Table, lines
from entropy_cli.entropy.quantity import Estimate
from entropy_cli.results.evaluation import estimate_in
from entropy_cli.results.page.differences import Difference, Kind
from entropy_cli.results.page.figures import Draw
from entropy_cli.results.page.report import NUMBERS, Report, estimates_of, origin
from entropy_cli.results.schema import Check, Severity
from entropy_cli.results.tables import UNKNOWN, format_estimate

MARGIN = 1.04  # beyond the largest value, for its marker
UNPAIRED = "Differences are unpaired where the images are not those of the first result."


@dataclass(frozen=True)
class Compared(Generic[Kind]):
    """A result in a comparison.

    Attributes:
        name: of its file.
        result: the result.
        quantity: the name of the quantity that it is compared by.
        difference: of that quantity from the first result's; None for the first.
    """

    name: str
    result: Kind
    quantity: str
    difference: Difference | None

    @property
    def reason(self) -> str:
        """Why the result can't be compared with the first one, or ""."""
        return self.difference.not_comparable if self.difference else ""

    @property
    def label(self) -> str:
        """The name with a caveat on a second line, for tables and figures."""
        return lines(self.name, *([f"NOT COMPARABLE: {self.reason}"] if self.reason else []))

    def average(self, kind: str = "token_weighted") -> Estimate:
        """Return an average of the quantity."""
        found: Estimate = getattr(getattr(self.result.average, kind), self.quantity)
        return found

    def scales(self) -> list[Estimate]:
        """Return the quantity at each scale."""
        return [getattr(scale, self.quantity) for scale in self.result.scales]


def compare(
    results: Sequence[Kind],
    sources: Sequence[str],
    quantity: str,
    difference: Callable[[Kind, Kind], Difference],
) -> list[Compared[Kind]]:
    """Set each result beside the first; `sources` are their files."""
    changes = [None, *(difference(results[0], other) for other in results[1:])]
    each = zip(short_names(sources), results, changes, strict=True)
    return [Compared(name, result, quantity, change) for name, result, change in each]


def comparison_report(
    several: Sequence[Compared[Kind]],
    title: str,
    panels: Mapping[str, Draw],
    tables: Sequence[Table],
    notes: Sequence[str],
    checks: Callable[[Kind], Sequence[Check]],
    provenance: Callable[[Kind], Mapping[str, str]],
) -> Report:
    """Return the report of a comparison, given what is not the same for every kind of result."""
    first = several[0].name

    def messages(severity: Severity) -> list[str]:
        return [
            f"{one.name}: {'; '.join(found)}."
            for one in several
            if (found := [c.message for c in checks(one.result) if c.severity == severity])
        ]

    not_comparable = [
        f"{one.name} is NOT COMPARABLE with {first}: {one.reason}." for one in several if one.reason
    ]
    is_paired = all(one.difference is None or one.difference.paired for one in several)
    return Report(
        title=f"{title}: {', '.join(one.name for one in several)}",
        heading=title,
        headline=f"{finding(in_words(several), several)} nats per token",
        warnings=not_comparable + messages("wrong"),
        details=f"Token-weighted averages. Differences are from {first}.",
        subject=f"of {', '.join(one.label for one in several)}".replace("\n", " "),
        panels=panels,
        tables=tables,
        terms={},
        notes=[*notes, *messages("care"), *([] if is_paired else [UNPAIRED])],
        origins={one.name: origin(estimate_in(one.result), provenance(one.result)) for one in several},
        estimates=_estimates(several),
    )


def in_words(several: Sequence[Compared[Kind]]) -> str:
    """Return the quantity that results are compared by, in words."""
    return several[0].quantity.replace("cross_", "cross-").replace("_", " ").capitalize()


def finding(where: str, several: Sequence[Compared[Kind]], kind: str = "token_weighted") -> str:
    """Say between which values the results lie that can be compared with the first."""
    ends = sorted((one.average(kind).known, one.name) for one in several if not one.reason)
    shown = (f"{value:.3f} ({name})" for value, name in ends[:: len(ends) - 1 or 1])
    return f"{where}: {' to '.join(shown)}"


def styles(several: Sequence[Compared[Kind]]) -> Iterator[tuple[Compared[Kind], dict[str, Any]]]:
    """Iterate over the results and the style that each is drawn in."""
    for one, colour, marker in zip(several, cycle(SERIES), cycle("osD^v"), strict=False):
        label = legend_name(one.label.replace("\n", ", "))
        yield one, {"label": label, "color": colour, "marker": marker}


def differences_table(
    several: Sequence[Compared[Kind]], noun: str, place: int, head: str, cells: Sequence[str]
) -> Table:
    """Return a table of the quantity and its differences from the first result.

    Args:
        several: the results.
        noun: what they are.
        place: where a column goes that only this kind of result has.
        head: of that column.
        cells: of that column.
    """
    rows = []
    for one, cell in zip(several, cells, strict=True):
        row = [one.label, format_estimate(one.average())]
        if (change := one.difference) is None:
            row += ["reference", UNKNOWN, UNKNOWN]
        else:
            row += [change.text, change.interval, change.kind]
        row.insert(place, cell)
        rows.append([*row, str(estimate_in(one.result).data.images_used)])
    heads = [noun, in_words(several).lower(), "difference", "95 % interval", "error", "images"]
    heads.insert(place, head)
    caption = (
        "token-weighted averages ± standard error, nats per token; "
        f"difference from the first {noun} with its 95 % interval and error"
    )
    title = f"Differences from {several[0].name}"
    return Table("differences", title, heads, rows, caption, sortable=True)


def scales_table(several: Sequence[Compared[Kind]]) -> list[Table]:
    """Return a table of the quantity by scale, if all results have the same scales."""
    names, *others = ([scale.name for scale in estimate_in(one.result).scales] for one in several)
    if any(other != names for other in others):
        return []
    same = zip(names, *(one.scales() for one in several), strict=True)
    rows = [[name, *map(format_estimate, estimates)] for name, *estimates in same]
    head = ["scale", *(one.label for one in several)]
    return [Table("scales", f"{in_words(several)} by scale", head, rows, "nats per token")]


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names for results: the names of their files, with folders if those are not unique.

    >>> short_names(["a/result.json", "b/result.json"])
    ['a/result', 'b/result']
    """
    stems = [path.removesuffix(".json") for path in paths]
    short = [stem.rpartition("/")[2] for stem in stems]
    return short if len(set(short)) == len(short) else stems


def _estimates(several: Sequence[Compared[Kind]]) -> Table:
    """Return all token-weighted numbers, and the differences from the first result."""
    rows: list[list[Cell]] = [
        [one.name, *row] for one in several for row in estimates_of(one.result.average.token_weighted)
    ]
    quantity = f"{several[0].quantity} minus that of {several[0].name}"
    changes = ((one.name, one.difference) for one in several)
    rows += [[name, quantity, *change.row()] for name, change in changes if change is not None]
    return Table("comparison", "", ["result", "quantity", *NUMBERS], rows)
