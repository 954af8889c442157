"""The result of `fit` as JSON and as a table. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from entropy_cli.commands.fit.scaling_law import FORMULAS, PARAMETERS, Form
from entropy_cli.commands.fit.verdict import Verdict
from entropy_cli.core.table import Table, definitions

SCHEMA = "entropy-cli/fit"
SCHEMA_VERSION = 1
UNITS = {
    "E": "nats per token",
    "N0": "parameters",
    "A": "nats x parameters^alpha",
    "B": "nats x tokens^beta",
    "alpha": "",
    "beta": "",
}
MEANING = (
    "E is a model-based extrapolation to an infinite model and infinite data: another form or range of "
    "sizes gives another E"
)
MEANING_GIVEN = "E is given and not fitted: the other parameters hold for this E only"
KINDS = {"profile": "profile likelihood", "bootstrap": "bootstrap of the points"}


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the parameters, by one method.

    Attributes:
        ci95: low and high of each, None for an open end.
        ci90: of E, or of the exponents if E is given; they decide the verdict.
        se: standard deviations over the resamples of a bootstrap.
        resamples: of a bootstrap, drawn with `seed`.
        noise: scale of the log losses about the curve of a profile.
    """

    ci95: dict[str, tuple[float | None, float | None]]
    ci90: dict[str, tuple[float | None, float | None]]
    se: dict[str, float] | None = None
    resamples: int | None = None
    seed: int | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Optima:
    """Starts of a search, how many ended within 1 % of the best objective, and the range of their E."""

    starts: int
    within_1_percent: int
    E: tuple[float, float]


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


@dataclass(frozen=True)
class FitResult:
    """A scaling law of the loss in nats per token.

    Attributes:
        dropped: number of largest losses left out.
        columns: names in the table by their meaning.
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
    parameters: dict[str, float] | None
    ci95: dict[str, tuple[float | None, float | None]] | None
    objective: float | None
    verdict: Verdict
    reason: str
    E_range95: tuple[float | None, float | None] | None = None
    interval_kind: str | None = None
    intervals: dict[str, Intervals] = field(default_factory=dict)
    optima: Optima | None = None
    fixed_E: float | None = None
    floor: ComparedFloor | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
    value = f"{_format_number(result.parameters['E'])} nats per token"
    if result.fixed_E is not None:
        return f"Scaling law above a given E of {value}"
    between = ""
    if result.ci95 is not None:
        between = f"\n95 % interval {_format_interval(result.ci95['E'])}"
    return f"Extrapolated irreducible loss E: {value}{between}"


def _parameters(result: FitResult, parameters: Mapping[str, float]) -> Table:
    chosen = result.intervals.get(result.interval_kind or "")
    errors = {} if chosen is None else chosen.se or {}
    rows = []
    for name in PARAMETERS[result.form]:
        places = name in ("E", "alpha", "beta")
        value = _format_number(parameters[name], places=places)
        se = _format_number(errors[name], places=places) if name in errors else ""
        known = None if result.ci95 is None else result.ci95.get(name)
        between = "unknown" if known is None else _format_interval(known, places=places)
        if name == "E" and result.fixed_E is not None:
            between = "given"
        rows.append([name, value, se, between, UNITS[name]])
    head = ["parameter", "value", "standard\nerror", "95 % interval", "unit"]
    return Table("parameters", "", head, rows, left=range(5)).without_empty_columns()


def _format_interval(ends: tuple[float | None, float | None], *, places: bool = True) -> str:
    low, high = ("open" if end is None else _format_number(end, places=places) for end in ends)
    return f"{low} to {high}"


def _format_number(value: float, *, places: bool = True) -> str:
    """Format with four decimals, or with four significant digits if they are small."""
    return f"{value:.4f}" if places and (value == 0 or value >= 0.01) else f"{value:.4g}"


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
        details["E"] = f"95 % interval {_format_interval(result.E_range95)}" + _interval90_text(result)
    if result.objective is not None:
        details["objective"] = _objective(
            result.objective, result.optima, E_is_fixed=result.fixed_E is not None
        )
    if result.intervals:
        details["intervals"] = _intervals(result)
    if result.floor is not None:
        details["floor"] = _describe_floor(result.floor)
    if result.parameters is not None:
        details["meaning"] = MEANING if result.fixed_E is None else MEANING_GIVEN
    if result.notes:
        details["notes"] = " ".join(result.notes)
    return details


def _interval90_text(result: FitResult) -> str:
    """Return the 90 % interval of E as text; with few points that of 95 % may have no lower end."""
    chosen = result.intervals.get(result.interval_kind or "")
    known = None if chosen is None else chosen.ci90.get("E")
    return "" if known is None else f", 90 % interval {_format_interval(known)}"


def _objective(objective: float, optima: Optima | None, *, E_is_fixed: bool) -> str:
    text = f"{objective:.6e}, the sum of the Huber loss (1e-3) of the log residuals"
    if optima is None:
        return text
    text += f"; best of {optima.starts} starts, {optima.within_1_percent} of them within 1 % of it"
    return text if E_is_fixed else f"{text}, with E from {_format_interval(optima.E)}"


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
    """Describe the floor relative to the interval of E."""
    names = {"mean": "token-weighted average", "last": "final scale"}
    error = "" if floor.half_width is None else f" ± {floor.half_width:.4f}"
    value = f"the assignment entropy, {floor.value:.4f}{error} ({names[floor.average]})"
    if floor.position is None:
        position = "is compared with no interval of E"
    else:
        position = f"lies {floor.position} the 95 % interval of E"
    return f"{value}, {position}; {floor.source}"
