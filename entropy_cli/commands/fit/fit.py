"""Fit a scaling law to a table of trained models, with intervals and a verdict."""

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
    MIN_E_SHARE,
    PARAMETERS,
    Data,
    Fit,
    Form,
    make_data,
    parameters,
)
from entropy_cli.commands.fit.scaling_law import fit as fit_data
from entropy_cli.commands.fit.verdict import Judgement, contradicts_fixed_E, judge_fit, judge_points
from entropy_cli.core.errors import DatasetError
from entropy_cli.results.floors import Floor, read_floor

if TYPE_CHECKING:  # it imports torch
    from entropy_cli.core.progress_bars import Bars

STARTS = 72  # of the search
RESAMPLES, RESAMPLES_TO_COMPARE = 500, 100  # of the bootstrap; fewer if the profile is used
MIN_PARAMETERS = 1e6  # of the largest model; smaller sizes may be in millions or billions
MIN_PARAMETERS_WITH_FLOP = 1e5  # below, the data size from FLOP would be wrong
MAX_WITHOUT_BOOTSTRAP = 8  # points: resamples of so few are too similar
MAX_FOR_PROFILE = 30  # points up to which the intervals of the profile are better
ONE_CURVE = (
    "the size column ({}) holds training steps: one training curve depends on its learning-rate "
    "schedule, and its limit is not the irreducible loss. Give a point for each model"
)


@dataclass(frozen=True)
class FitConfig:
    """Options of `fit`.

    Attributes:
        table: path of the points.
        drop_largest: number of largest losses to leave out.
        fixed_E: a given E in nats per token.
        floor: a result of `estimate` to compare E with.
        average: average of that result: all tokens, or the final scale.
        resamples: of the bootstrap; 0 for none, None for the default.
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
class FitOutput:
    """The result, and the points to draw it from."""

    result: FitResult
    points: list[Point]


def fit(config: FitConfig, bars: "Bars") -> FitOutput:
    """Fit a scaling law to the points of a table.

    Raises:
        DatasetError: the table can't be used, or a given E is not below its losses.
        ResultError: the floor's file can't be used.
        EntropyCliError: scipy is not installed.
    """
    table = read_points(config.table, config.columns, with_data_size=config.form == "chinchilla")
    floor = None if config.floor is None else read_floor(config.floor)
    kept, notes = _select_points(table, config)
    log_floor = _log_floor(kept, config.fixed_E, config.table)
    data = _make_data(kept)
    judgement = judge_points(data, E_is_fixed=log_floor is not None)
    if table.steps:
        curve = ONE_CURVE.format(table.columns.size)
        if log_floor is None:
            judgement = Judgement("refused", curve, bounded=False)
        if log_floor is not None:
            notes.append(f"Beware: {curve}.")
    result = FitResult(
        form=config.form,
        points=len(kept),
        dropped=config.drop_largest,
        columns=_column_names(table.columns),
        sizes=(min(point.size for point in kept), max(point.size for point in kept)),
        parameters=None,
        ci95=None,
        objective=None,
        verdict="refused",
        reason="" if judgement is None else judgement.reason,
        fixed_E=config.fixed_E,
        notes=tuple(notes),
        provenance={"table": str(config.table), "command": config.command},
    )
    free = len(PARAMETERS[config.form]) - (log_floor is not None)
    if judgement is None or (judgement.bounded and log_floor is None and len(kept) > free):
        with bars("starts", STARTS, "start") as bar:
            fitted = fit_data(data, log_floor, bar.update)
        result = _fit_result(result, fitted, config, bars, refused=judgement is not None)
    if floor is not None:
        result = replace(result, floor=_compare_floor(floor, config.average, result))
    return FitOutput(result, kept)


def _select_points(table: PointTable, config: FitConfig) -> tuple[list[Point], list[str]]:
    """Return the points to fit, and notes about them."""
    points, drop, notes = table.points, config.drop_largest, list[str]()
    if drop >= len(points):
        raise DatasetError(
            f"{config.table}: --drop-largest {drop} leaves none of {len(points)} points. Drop fewer."
        )
    order = sorted(points, key=lambda point: -point.loss)  # of equal losses the first of the table
    if drop and order[drop - 1].loss == order[drop].loss:
        notes.append(
            f"Of the points with loss {order[drop].loss:g} some are dropped: those earlier in the table."
        )
    left_out = {point.line for point in order[:drop]}
    kept = [point for point in points if point.line not in left_out]
    repeated = len(kept) - len({(point.size, point.data_size) for point in kept})
    if repeated:
        notes.append(f"{repeated} points repeat the size of another; each counts as a run.")
    largest = max(point.size for point in kept)
    if largest < MIN_PARAMETERS and not table.steps:
        small = f"the largest model has {largest:g} parameters"
        if table.columns.flop is not None and largest < MIN_PARAMETERS_WITH_FLOP:
            raise DatasetError(
                f"{config.table}: {small}, expected numbers of parameters. Write 310M or 3.1e8."
            )
        notes.append(f"Note that {small}: if sizes are in another unit, N0 is in that unit.")
    return kept, notes


def _column_names(columns: Columns) -> dict[str, str]:
    names = {
        "size": columns.size,
        "data size": columns.data_size,
        "FLOP": columns.flop,
        "loss": columns.loss,
    }
    return {kind: name for kind, name in names.items() if name is not None}


def _make_data(points: list[Point]) -> Data:
    sizes = [[point.size for point in points]]
    if points[0].data_size is not None:
        sizes.append([point.data_size for point in points if point.data_size is not None])
    return make_data(sizes, [point.loss for point in points])


def _log_floor(points: list[Point], fixed: float | None, table: Path) -> float | None:
    if fixed is None:
        return None
    least = min(points, key=lambda point: point.loss)
    if fixed >= least.loss:
        raise DatasetError(
            f"--floor {fixed:g}: expected an E below every loss, but {table}, line {least.line}, has "
            f"{least.loss:g}. Give a lower E, or leave --floor out to fit E."
        )
    return math.log(max(fixed, MIN_E_SHARE * least.loss))


def _fit_result(
    result: FitResult, fitted: Fit, config: FitConfig, bars: "Bars", *, refused: bool
) -> FitResult:
    """Add the intervals, the verdict and, unless refused, the parameters to a result."""
    estimates = parameters(fitted.theta, fitted.data)
    if config.fixed_E is not None:
        estimates["E"] = config.fixed_E
    found = {}
    fit_likelihood = likelihood(fitted)
    if fit_likelihood is not None:
        found["profile"] = _profile_intervals(fitted, fit_likelihood, bars, only_E=refused)
    if config.resamples and result.points <= MAX_WITHOUT_BOOTSTRAP:
        note = f"No bootstrap: it needs more than {MAX_WITHOUT_BOOTSTRAP} points."
        result = replace(result, notes=(*result.notes, note))
    many = result.points > MAX_FOR_PROFILE
    resamples = config.resamples
    if resamples is None:
        resamples = RESAMPLES if many else RESAMPLES_TO_COMPARE
    if not refused and result.points > MAX_WITHOUT_BOOTSTRAP and resamples:
        found["bootstrap"] = _bootstrap_intervals(fitted, resamples, config.seed, bars)
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
    if config.fixed_E and judgement.verdict == "ok":
        reason = contradicts_fixed_E(fit_data(fitted.data, None), config.fixed_E)
        judgement = judgement if reason is None else Judgement("weak", f"E is given; {reason}")
    result = replace(result, verdict=judgement.verdict, reason=judgement.reason)
    if judgement.verdict == "refused":
        return result
    optima = Optima(fitted.starts, fitted.near, fitted.near_E)
    return replace(result, parameters=estimates, ci95=chosen.ci95, optima=optima)


def _parameter_names(fitted: Fit) -> tuple[list[str], list[str]]:
    """Return the names of the fitted parameters, and of those that decide the verdict."""
    names = list(PARAMETERS[fitted.data.form])
    if fitted.log_floor is None:
        return names, ["E"]
    return names[1:], [name for name in names if name in ("alpha", "beta")]


def _profile_intervals(
    fitted: Fit, fit_likelihood: Likelihood, bars: "Bars", *, only_E: bool
) -> Intervals:
    names, judged = _parameter_names(fitted)
    if only_E:
        names = judged = ["E"] if fitted.log_floor is None else []
    found: dict[float, dict[str, Interval]] = {0.95: {}, 0.9: {}}
    with bars("profile likelihood", len(names) + len(judged), "interval") as bar:
        for central, group in ((0.95, names), (0.9, judged)):
            for name in group:
                found[central][name] = profile_interval(fitted, fit_likelihood, name, central)
                bar.update(1)
    return Intervals(ci95=found[0.95], ci90=found[0.9], noise=fit_likelihood.noise)


def _bootstrap_intervals(fitted: Fit, resamples: int, seed: int, bars: "Bars") -> Intervals:
    names, judged = _parameter_names(fitted)
    with bars("bootstrap", resamples, "resample") as bar:
        drawn = bootstrap(fitted, resamples, seed, bar.update)
    return Intervals(
        ci95={name: drawn.interval(name) for name in names},
        ci90={name: drawn.interval(name, 0.9) for name in judged},
        se={name: drawn.se(name) for name in names},
        resamples=resamples,
        seed=seed,
    )


def _compare_floor(floor: Floor, average: Literal["mean", "last"], result: FitResult) -> ComparedFloor:
    level = floor.mean if average == "mean" else floor.last
    assert level is not None  # an estimate has both
    position = None
    if result.E_range95 is not None:
        low, high = result.E_range95
        assert low is not None and high is not None
        position = "below" if level.floor < low else "above" if level.floor > high else "inside"
    return ComparedFloor(floor.source, average, level.floor, level.half_width, position)
