"""From a table of trained models to a scaling law, its intervals and a verdict."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from entropy_cli.commands.fit.intervals import (
    Interval,
    Likelihood,
    bootstrap,
    likelihood,
    profile_interval,
)
from entropy_cli.commands.fit.points import Columns, Point, PointTable, read_points
from entropy_cli.commands.fit.result import ComparedFloor, FitResult, Intervals, Optima
from entropy_cli.commands.fit.scaling_law import (
    LEAST_SHARE,
    PARAMETERS,
    Data,
    Fit,
    Form,
    data_of,
    parameters,
)
from entropy_cli.commands.fit.scaling_law import fit as fit_data
from entropy_cli.commands.fit.verdict import Judgement, judge_fit, judge_points, speaks_against
from entropy_cli.core.errors import DatasetError
from entropy_cli.results.floors import Floor, read_floor

if TYPE_CHECKING:  # it imports torch, which a fit has no use for
    from entropy_cli.core.progress_bars import Bars

STARTS = 72  # of the search
RESAMPLES, RESAMPLES_BESIDE = 500, 100  # of a bootstrap, and of one beside better intervals
LEAST_PARAMETERS = 1e6  # of the largest model; below, sizes may be meant in millions or billions
FAR_TOO_FEW = 1e5  # with FLOP, from which the data size would be wrong
FEW = 8  # points up to which resamples are too alike, and too often of too few sizes
MOST_FOR_PROFILE = 30  # points up to which the profile's intervals are the better ones
ONE_CURVE = (
    "the sizes are steps of a training by their column's name ({}): one training curve is shaped by "
    "its learning rates, and what it tends to is no irreducible loss. Give a point for each model"
)


@dataclass(frozen=True)
class FitRequest:
    """What to fit and how.

    Attributes:
        drop_largest: how many of the largest losses to leave out.
        fixed_E: E in nats per token, if given.
        floor: a result of `estimate` to compare E with.
        average: which of its averages.
        resamples: of the bootstrap; 0 for none, None as many as its use asks for.
    """

    table: Path
    form: Form
    columns: Columns = field(default_factory=Columns)
    drop_largest: int = 0
    fixed_E: float | None = None
    floor: Path | None = None
    average: Literal["mean", "last"] = "mean"
    resamples: int | None = None
    seed: int = 0
    command: str = ""


@dataclass(frozen=True)
class Fitted:
    """A result and the points that it is of."""

    result: FitResult
    points: list[Point]


def fit(request: FitRequest, bars: "Bars") -> Fitted:
    """Fit a scaling law to the points of a table.

    Raises:
        DatasetError: the table can't be used, or a given E is not below its losses.
        ResultError: the floor's file can't be used.
        EntropyCliError: scipy is not installed.
    """
    table = read_points(request.table, request.columns, with_data_size=request.form == "chinchilla")
    floor = None if request.floor is None else read_floor(request.floor)
    kept, notes = _kept(table, request)
    log_floor = _log_floor(kept, request.fixed_E, request.table)
    data = _data(kept)
    judgement = judge_points(data, given=log_floor is not None)
    if table.steps:
        curve = ONE_CURVE.format(table.columns.size)
        if log_floor is None:
            judgement = Judgement("refused", curve, bounded=False)
        if log_floor is not None:
            notes.append(f"Beware: {curve}.")
    result = FitResult(
        form=request.form,
        points=len(kept),
        dropped=request.drop_largest,
        columns=_named(table.columns),
        sizes=(min(point.size for point in kept), max(point.size for point in kept)),
        parameters=None,
        ci95=None,
        objective=None,
        verdict="refused",
        reason="" if judgement is None else judgement.reason,
        fixed_E=request.fixed_E,
        notes=tuple(notes),
        provenance={"table": str(request.table), "command": request.command},
    )
    free = len(PARAMETERS[request.form]) - (log_floor is not None)
    if judgement is None or (judgement.bounded and log_floor is None and len(kept) > free):
        with bars("starts", STARTS, "start") as bar:
            fitted = fit_data(data, log_floor, bar.update)
        result = _fitted(result, fitted, request, bars, refused=judgement is not None)
    if floor is not None:
        result = replace(result, floor=_compared(floor, request.average, result))
    return Fitted(result, kept)


def _kept(table: PointTable, request: FitRequest) -> tuple[list[Point], list[str]]:
    """The points to fit, and what to say about the choice."""
    points, drop, notes = table.points, request.drop_largest, list[str]()
    if drop >= len(points):
        raise DatasetError(
            f"{request.table}: --drop-largest {drop} leaves nothing of {len(points)} points. Drop fewer."
        )
    order = sorted(points, key=lambda point: -point.loss)  # of equal losses the first of the table
    if drop and order[drop - 1].loss == order[drop].loss:
        notes.append(
            f"Of the points with loss {order[drop].loss:g} some are dropped and some are not; those "
            "earlier in the table went first."
        )
    left_out = {point.line for point in order[:drop]}
    kept = [point for point in points if point.line not in left_out]
    repeated = len(kept) - len({(point.size, point.data_size) for point in kept})
    if repeated:
        notes.append(f"{repeated} points repeat the size of another; they count as runs of their own.")
    largest = max(point.size for point in kept)
    if largest < LEAST_PARAMETERS and not table.steps:
        small = f"The largest model has {largest:g} parameters: sizes are no multiples of a million"
        if table.columns.flop is not None and largest < FAR_TOO_FEW:
            raise DatasetError(f"{request.table}: {small[0].lower()}{small[1:]}. Write 310M or 3.1e8.")
        notes.append(f"{small} here, or N0 is in their unit.")
    return kept, notes


def _named(columns: Columns) -> dict[str, str]:
    given = {
        "size": columns.size,
        "data size": columns.data_size,
        "FLOP": columns.flop,
        "loss": columns.loss,
    }
    return {what: name for what, name in given.items() if name is not None}


def _data(points: list[Point]) -> Data:
    sizes = [[point.size for point in points]]
    if points[0].data_size is not None:
        sizes.append([point.data_size for point in points if point.data_size is not None])
    return data_of(sizes, [point.loss for point in points])


def _log_floor(points: list[Point], fixed: float | None, table: Path) -> float | None:
    if fixed is None:
        return None
    least = min(points, key=lambda point: point.loss)
    if fixed >= least.loss:
        raise DatasetError(
            f"--floor {fixed:g}: no loss can be at its floor or below, but {table}, line {least.line}, "
            f"has {least.loss:g}. Give an E below it, or leave E to the fit."
        )
    return math.log(max(fixed, LEAST_SHARE * least.loss))


def _fitted(
    result: FitResult, fitted: Fit, request: FitRequest, bars: "Bars", *, refused: bool
) -> FitResult:
    """The result with what the fit found, as far as it can be said."""
    estimates = parameters(fitted.theta, fitted.data)
    if request.fixed_E is not None:
        estimates["E"] = request.fixed_E
    found = {}
    working = likelihood(fitted)
    if working is not None:
        found["profile"] = _profiled(fitted, working, bars, only_E=refused)
    if request.resamples and result.points <= FEW:
        few = f"No bootstrap: it takes more than {FEW} points, of fewer the resamples are too alike."
        result = replace(result, notes=(*result.notes, few))
    many = result.points > MOST_FOR_PROFILE
    resamples = request.resamples
    if resamples is None:
        resamples = RESAMPLES if many else RESAMPLES_BESIDE
    if not refused and result.points > FEW and resamples:
        found["bootstrap"] = _bootstrapped(fitted, resamples, request.seed, bars)
    kind = "bootstrap" if "bootstrap" in found and many else "profile"
    chosen = found[kind]
    result = replace(
        result,
        objective=fitted.objective,
        E_range95=chosen.ci95.get("E"),
        intervals=found,
        interval_kind=kind,
    )
    if refused:
        return result
    judgement = judge_fit(fitted, estimates, chosen.ci90)
    if request.fixed_E and judgement.verdict == "ok":
        against = speaks_against(fit_data(fitted.data, None), request.fixed_E)
        judgement = judgement if against is None else Judgement("weak", f"E is given; {against}")
    result = replace(result, verdict=judgement.verdict, reason=judgement.reason)
    if judgement.verdict == "refused":
        return result
    optima = Optima(fitted.starts, fitted.near, fitted.near_E)
    return replace(result, parameters=estimates, ci95=chosen.ci95, optima=optima)


def _names(fitted: Fit) -> tuple[list[str], list[str]]:
    """Names of the parameters that are fitted, and of those that the verdict goes by."""
    names = list(PARAMETERS[fitted.data.form])
    if fitted.log_floor is None:
        return names, ["E"]
    return names[1:], [name for name in names if name in ("alpha", "beta")]


def _profiled(fitted: Fit, working: Likelihood, bars: "Bars", *, only_E: bool) -> Intervals:
    names, judged = _names(fitted)
    if only_E:
        names = judged = ["E"] if fitted.log_floor is None else []
    at: dict[float, dict[str, Interval]] = {0.95: {}, 0.9: {}}
    with bars("profile likelihood", len(names) + len(judged), "interval") as bar:
        for central, of in ((0.95, names), (0.9, judged)):
            for name in of:
                at[central][name] = profile_interval(fitted, working, name, central)
                bar.update(1)
    return Intervals(ci95=at[0.95], ci90=at[0.9], noise=working.noise)


def _bootstrapped(fitted: Fit, resamples: int, seed: int, bars: "Bars") -> Intervals:
    names, judged = _names(fitted)
    with bars("bootstrap", resamples, "resample") as bar:
        drawn = bootstrap(fitted, resamples, seed, bar.update)
    return Intervals(
        ci95={name: drawn.interval(name) for name in names},
        ci90={name: drawn.interval(name, 0.9) for name in judged},
        se={name: drawn.se(name) for name in names},
        resamples=resamples,
        seed=seed,
    )


def _compared(floor: Floor, average: Literal["mean", "last"], result: FitResult) -> ComparedFloor:
    level = floor.mean if average == "mean" else floor.last
    assert level is not None  # an estimate has both
    position = None
    if result.E_range95 is not None:
        low, high = result.E_range95
        assert low is not None and high is not None
        position = "below" if level.floor < low else "above" if level.floor > high else "inside"
    return ComparedFloor(floor.source, average, level.floor, level.half_width, position)
