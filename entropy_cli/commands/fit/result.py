"""The result of `fit` as JSON and as a table. Imports no torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from entropy_cli.commands.fit.intervals import Interval
from entropy_cli.commands.fit.scaling_law import FORMULAS, PARAMETERS, Form, Optima
from entropy_cli.commands.fit.verdict import Verdict
from entropy_cli.core.table import Table, definitions

SCHEMA = "entropy-cli/fit"
SCHEMA_VERSION = 1
MAX_DECIMALS, LARGE = 6, 1e5  # beyond which numbers are shown with four significant digits
UNITS = {
    "E": "nats per token",
    "N0": "parameters",
    "A": "nats x parameters^alpha",
    "B": "nats x tokens^beta",
}
MEANING = (
    "E is a model-based extrapolation to an infinite model and infinite data: another form or range of "
    "sizes gives another E"
)
MEANING_GIVEN = "E is given and not fitted: the other parameters hold for this E only"
KINDS = {"profile": "profile likelihood", "bootstrap": "bootstrap of the points"}
AVERAGES = {"mean": "token-weighted average", "last": "final scale"}


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the parameters, by one method.

    Attributes:
        ci95: low and high of each, None for an open end.
        ci90: of E, or of the exponents if E is given; they decide the verdict.
        se: standard deviations over the resamples of a bootstrap, of those below their value.
        resamples: of a bootstrap, drawn with `seed`.
        noise: scale of the log losses about the curve of a profile.
    """

    ci95: dict[str, Interval]
    ci90: dict[str, Interval]
    se: dict[str, float] | None = None
    resamples: int | None = None
    seed: int | None = None
    noise: float | None = None


@dataclass(frozen=True)
class ComparedFloor:
    """The assignment entropy of an estimate, compared with the fitted E.

    Attributes:
        average: "mean" (all tokens) or "last" (final scale).
        position: of the value relative to the interval of E: "inside", "below" or "above"; None without
            an interval.
    """

    source: str
    average: str
    value: float
    half_width: float | None
    position: str | None


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A scaling law of the loss in nats per token.

    Attributes:
        dropped: number of largest losses left out.
        columns: names in the table by their meaning.
        sizes: the smallest and the largest number of parameters.
        parameters: None if the fit is refused.
        ci95: of `intervals[interval_kind]`; None if refused or unknown.
        objective: sum of the Huber loss of the log residuals; None without a fit.
        E_range95: 95 % interval of E, also without a point estimate.
        fixed_E: the given E, if any.
        notes: sentences about the data and the fit.
    """

    form: Form
    points: int
    dropped: int
    columns: dict[str, str]
    sizes: tuple[float, float]
    parameters: dict[str, float] | None = None
    ci95: dict[str, Interval] | None = None
    objective: float | None = None
    verdict: Verdict = "refused"
    reason: str = ""
    E_range95: Interval | None = None
    interval_kind: str | None = None
    intervals: dict[str, Intervals] = field(default_factory=dict)
    optima: Optima | None = None
    fixed_E: float | None = None
    floor: ComparedFloor | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any]

    @property
    def chosen(self) -> Intervals | None:
        """The intervals of `interval_kind`."""
        return self.intervals.get(self.interval_kind or "")

    def to_json(self) -> str:
        """Return the result as JSON text."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "units": "nats per token",
            "formula": FORMULAS[self.form],
            **asdict(self),
        }
        return json.dumps(content, allow_nan=False, indent=1)


def render(result: FitResult) -> str:
    """Render the headline, a row for each parameter, and the details of the fit."""
    parts = [_headline(result)]
    if result.parameters is not None:
        parts.append(_parameters(result, result.parameters).text())
    parts.append(definitions(_details(result)))
    return "\n\n".join(parts)


def _headline(result: FitResult) -> str:
    if result.parameters is None:
        return "No extrapolated irreducible loss: the fit is refused."
    digits = _digits(result.ci95["E"]) if result.ci95 else None
    value = f"{_format_number(result.parameters['E'], digits)} nats per token"
    if result.fixed_E is not None:
        return f"Scaling law above a given E of {value}"
    between = "" if result.ci95 is None else f"\n95 % interval {_format_interval(result.ci95['E'])}"
    return f"Extrapolated irreducible loss E: {value}{between}"


def _parameters(result: FitResult, parameters: Mapping[str, float]) -> Table:
    errors, known = (result.chosen and result.chosen.se) or {}, result.ci95 or {}
    rows = []
    for name in PARAMETERS[result.form]:
        digits = _digits(known[name]) if name in known else None
        value = _format_number(parameters[name], digits)
        se = _format_number(errors[name], digits) if name in errors else ""
        between = _format_interval(known[name]) if name in known else "unknown"
        if name == "E" and result.fixed_E is not None:
            between = "given"
        rows.append([name, value, se, between, UNITS.get(name, "")])
    head = ["parameter", "value", "standard\nerror", "95 % interval", "unit"]
    return Table("parameters", "", head, rows, left=range(5)).without_empty_columns()


def _digits(ends: Interval) -> int | None:
    """Return the decimals that show two digits of an interval's half-width; None if it is open."""
    low, high = ends
    if low is None or high is None or high <= low:
        return None
    return max(0, 1 - math.floor(math.log10((high - low) / 2)))


def _format_interval(ends: Interval) -> str:
    digits = _digits(ends)
    low, high = ("open" if end is None else _format_number(end, digits) for end in ends)
    return f"{low} to {high}"


def _format_number(value: float, digits: int | None = None) -> str:
    """Format with so many decimals, or with four significant digits where none or many are known."""
    is_plain = digits is not None and digits <= MAX_DECIMALS and abs(value) < LARGE
    return f"{value:.{digits}f}" if is_plain else f"{value:.4g}"


def _details(result: FitResult) -> dict[str, str]:
    dropped = f", the {result.dropped} of largest loss left out" if result.dropped else ""
    read = ", ".join(f"{what} from {name!r}" for what, name in result.columns.items())
    low, high = result.sizes
    details = {
        "verdict": f"{result.verdict}: {result.reason}",
        "form": f"{FORMULAS[result.form]}, L in nats per token",
        "points": f"{result.points}, models of {low:.3g} to {high:.3g} parameters{dropped}; {read}",
    }
    if result.parameters is None and result.E_range95 is not None:
        details["E"] = f"95 % interval {_format_interval(result.E_range95)}"
        if result.chosen is not None and "E" in result.chosen.ci90:  # that of 95 % may have no low end
            details["E"] += f", 90 % interval {_format_interval(result.chosen.ci90['E'])}"
    if result.objective is not None:
        details["objective"] = _objective(result)
    if result.intervals:
        details["intervals"] = _intervals(result)
    if result.floor is not None:
        details["floor"] = _describe_floor(result.floor)
    if result.parameters is not None:
        details["meaning"] = MEANING if result.fixed_E is None else MEANING_GIVEN
    if result.notes:
        details["notes"] = " ".join(result.notes)
    return details


def _objective(result: FitResult) -> str:
    text, optima = (
        f"{result.objective:.6e}, the sum of the Huber loss (1e-3) of the log residuals",
        result.optima,
    )
    if optima is None:
        return text
    text += f"; best of {optima.starts} starts, {optima.within_1_percent} of them within 1 % of it"
    return text if result.fixed_E is not None else f"{text}, with E from {_format_interval(optima.E)}"


def _intervals(result: FitResult) -> str:
    methods = []
    for kind, found in result.intervals.items():
        method = KINDS[kind]
        if found.resamples is not None:
            method += f", {found.resamples} resamples with seed {found.seed}"
        if found.noise is not None:
            method += f", noise {found.noise:.2g} of the loss"
        if kind == result.interval_kind:
            method += " (above)" if result.parameters is not None else ""
        elif "E" in found.ci95:
            method += f": E {_format_interval(found.ci95['E'])}"
        methods.append(method)
    return "; ".join(methods)


def _describe_floor(floor: ComparedFloor) -> str:
    error, level = ("", "") if floor.half_width is None else (f" ± {floor.half_width:.4f}", "95 %, ")
    position = f"lies {floor.position} the 95 % interval of E"
    if floor.position is None:
        position = "is compared with no interval of E"
    value = f"the assignment entropy, {floor.value:.4f}{error} ({level}{AVERAGES[floor.average]})"
    return f"{value}, {position}; {floor.source}"
