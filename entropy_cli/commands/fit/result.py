"""What a scaling fit found, as JSON and as a table. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from entropy_cli.commands.fit.scaling_law import FORMULAS, PARAMETERS, Form
from entropy_cli.commands.fit.verdict import Verdict
from entropy_cli.core.text import columns, definitions

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
    "E is what the form says that an endless model, trained on endless data, would reach: it is "
    "model-based, and another form or range of sizes gives another E"
)
MEANING_GIVEN = "E is as given, not found: the exponents and sizes hold above this E only"
KINDS = {"profile": "profile likelihood", "bootstrap": "bootstrap of the points"}


@dataclass(frozen=True)
class Intervals:
    """95 % intervals of the parameters, by one method.

    Attributes:
        ci95: low and high of each, None for an open end.
        ci90: of E, or of the exponents where E is given: the verdict goes by them.
        se: standard deviations over the resamples of a bootstrap.
        resamples: of a bootstrap, drawn with `seed`.
        noise: scale of the log losses about a profile's curve.
    """

    ci95: dict[str, tuple[float | None, float | None]]
    ci90: dict[str, tuple[float | None, float | None]]
    se: dict[str, float] | None = None
    resamples: int | None = None
    seed: int | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Optima:
    """Of a search from many starts: how many ended within 1 % of the best objective, and their E."""

    starts: int
    within_1_percent: int
    E: tuple[float, float]


@dataclass(frozen=True)
class ComparedFloor:
    """An estimate's assignment entropy beside the fitted E.

    Attributes:
        average: "mean" (all tokens) or "last" (scale).
        position: of the value against the interval of E: "inside", "below" or "above"; None without.
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
        dropped: how many of the largest losses were left out.
        columns: of the table, by what they are.
        parameters: None where the fit is refused.
        ci95: those of `intervals[interval_kind]`; None where refused or not to be had.
        objective: sum of the Huber loss of the log residuals; None where nothing was fitted.
        E_range95: 95 % interval of E, also where no point estimate is given.
        fixed_E: E where it was given.
        notes: sentences on what was read and done.
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
        """As JSON text."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "units": "nats per token",
            "formula": FORMULAS[self.form],
            **asdict(self),
        }
        return json.dumps(content, allow_nan=False, indent=1)


def render(result: FitResult) -> str:
    """The headline, a row for each parameter, and how they were found."""
    parts = [_headline(result)]
    if result.parameters is not None:
        parts.append(_parameters(result))
    parts.append(definitions(_about(result)))
    return "\n\n".join(parts)


def _headline(result: FitResult) -> str:
    if result.parameters is None:
        return "No extrapolated irreducible loss: the fit is refused."
    value = f"{_number(result.parameters['E'])} nats per token"
    if result.fixed_E is not None:
        return f"Scaling law above a given E of {value}"
    between = ""
    if result.ci95 is not None:
        between = f", 95 % interval {_between(result.ci95['E'])}"
    return f"Extrapolated irreducible loss E: {value}{between}"


def _parameters(result: FitResult) -> str:
    assert result.parameters is not None
    chosen = result.intervals.get(result.interval_kind or "")
    errors = None if chosen is None else chosen.se
    rows = [["parameter", "value", "standard error", "95 % interval", "unit"]]
    for name in PARAMETERS[result.form]:
        places = name in ("E", "alpha", "beta")
        se = "" if errors is None or name not in errors else _number(errors[name], places=places)
        between = "given"
        if name != "E" or result.fixed_E is None:
            known = None if result.ci95 is None else result.ci95.get(name)
            between = "unknown" if known is None else _between(known, places=places)
        rows.append([name, _number(result.parameters[name], places=places), se, between, UNITS[name]])
    if errors is None:
        rows = [[row[0], row[1], *row[3:]] for row in rows]
    return columns(rows, left=len(rows[0]))


def _between(ends: tuple[float | None, float | None], *, places: bool = True) -> str:
    low, high = ("open" if end is None else _number(end, places=places) for end in ends)
    return f"{low} to {high}"


def _number(value: float, *, places: bool = True) -> str:
    """With four places, or with four digits where these would say little."""
    return f"{value:.4f}" if places and (value == 0 or value >= 0.01) else f"{value:.4g}"


def _about(result: FitResult) -> dict[str, str]:
    dropped = f", the {result.dropped} of largest loss left out" if result.dropped else ""
    read = ", ".join(f"{what} from {name!r}" for what, name in result.columns.items())
    low, high = result.sizes
    about = {
        "verdict": f"{result.verdict}: {result.reason}",
        "form": f"{FORMULAS[result.form]}, L in nats per token",
        "points": f"{result.points}, models of {low:.3g} to {high:.3g} parameters{dropped}; {read}",
    }
    if result.parameters is None and result.E_range95 is not None:
        about["E"] = f"all that can be said: 95 % interval {_between(result.E_range95)}" + _narrower(
            result
        )
    if result.objective is not None:
        about["objective"] = _objective(
            result.objective, result.optima, given=result.fixed_E is not None
        )
    if result.intervals:
        about["intervals"] = _intervals(result)
    if result.floor is not None:
        about["floor"] = compared(result.floor)
    if result.parameters is not None:
        about["meaning"] = MEANING if result.fixed_E is None else MEANING_GIVEN
    if result.notes:
        about["notes"] = " ".join(result.notes)
    return about


def _narrower(result: FitResult) -> str:
    """The 90 % interval beside that of 95 %, which few points may leave without a lower end."""
    chosen = result.intervals.get(result.interval_kind or "")
    known = None if chosen is None else chosen.ci90.get("E")
    return "" if known is None else f", 90 % interval {_between(known)}"


def _objective(objective: float, optima: Optima | None, *, given: bool) -> str:
    said = f"{objective:.6e}, the sum of the Huber loss (1e-3) of the log residuals"
    if optima is None:
        return said
    said += f"; best of {optima.starts} starts, {optima.within_1_percent} of them within 1 % of it"
    return said if given else f"{said}, with E from {_between(optima.E)}"


def _intervals(result: FitResult) -> str:
    said = []
    for kind, found in result.intervals.items():
        how = KINDS[kind]
        if found.resamples is not None:
            how += f", {found.resamples} resamples with seed {found.seed}"
        if found.noise is not None:
            how += f", noise {found.noise:.2g} of the loss"
        if kind == result.interval_kind:
            how += " (above)" if result.parameters is not None else ""
        elif "E" in found.ci95:
            how += f": E {_between(found.ci95['E'])}"
        said.append(how)
    return "; ".join(said)


def compared(floor: ComparedFloor) -> str:
    """The floor beside E's interval, in words."""
    names = {"mean": "token-weighted average", "last": "last scale"}
    near = "" if floor.half_width is None else f" ± {floor.half_width:.4f}"
    value = f"the assignment entropy, {floor.value:.4f}{near} ({names[floor.average]})"
    if floor.position is None:
        where = "stands beside no interval of E"
    else:
        where = {"inside": "lies inside", "below": "lies below", "above": "lies above"}[floor.position]
        where += " the 95 % interval of E"
    return f"{value}, {where}; {floor.source}"
