"""Fit a scaling law to a table of trained models, with intervals and a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from entropy_cli.commands.fit.intervals import (
    Interval,
    bootstrap,
    central_interval,
    likelihood,
    profile_interval,
)
from entropy_cli.commands.fit.points import Points
from entropy_cli.commands.fit.result import ComparedFloor, FitResult, Intervals
from entropy_cli.commands.fit.scaling_law import (
    MIN_E_SHARE,
    PARAMETERS,
    Fit,
    Form,
    make_data,
    parameters,
)
from entropy_cli.commands.fit.scaling_law import fit as fit_data
from entropy_cli.commands.fit.sources import read_sources
from entropy_cli.commands.fit.stability import unstable_E
from entropy_cli.commands.fit.verdict import Judgement, contradicts_fixed_E, judge_fit, judge_points
from entropy_cli.core.errors import DatasetError
from entropy_cli.results.floors import Floor, read_floor

if TYPE_CHECKING:  # it imports torch
    from entropy_cli.core.progress_bars import Bars

STARTS = 72  # of the search
RESAMPLES, RESAMPLES_TO_COMPARE = 500, 100  # of the bootstrap; fewer if the profile is used
MANY_POINTS, RESAMPLES_OF_MANY = 1000, 200  # whose fits take long
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
        sources: a table of the points, or results of `evaluate`.
        form: None is chinchilla where the table has data sizes or FLOP, else power.
        columns: of each kind, None if detected by name or not used.
        drop_largest: number of largest losses to leave out.
        fixed_E: a given E in nats per token.
        floor: a result of `estimate` to compare E with.
        average: average of that result: all tokens, or the final scale.
        resamples: of the bootstrap; 0 for none, None for the default.
    """

    sources: tuple[Path, ...]
    form: Form | None
    columns: Mapping[str, str | None]
    drop_largest: int
    fixed_E: float | None
    floor: Path | None
    average: Literal["mean", "last"]
    resamples: int | None
    seed: int
    command: str

    @property
    def named(self) -> str:
        """The names of the sources."""
        return ", ".join(map(str, self.sources))


def fit(config: FitConfig, bars: "Bars") -> tuple[FitResult, Points]:
    """Fit a scaling law to the points of a table; return the points to draw as well.

    Raises:
        DatasetError: the table can't be used, or a given E is not below its losses.
        ResultError: the floor's file can't be used.
        EntropyCliError: scipy is not installed.
    """
    with_data_size = None if config.form is None else config.form == "chinchilla"
    table, notes_of_sources = read_sources(config.sources, config.columns, with_data_size=with_data_size)
    floor = None if config.floor is None else read_floor(config.floor)
    points, notes = _select_points(table, config)
    notes += notes_of_sources
    log_floor = _log_floor(points, config)
    data = make_data(points.size_TP, points.loss_P)
    judgement = judge_points(data, E_is_fixed=log_floor is not None)
    if points.are_steps:
        curve = ONE_CURVE.format(points.columns["size"])
        if log_floor is None:
            judgement = Judgement("refused", curve, bounded=False)
        else:
            notes.append(f"Beware: {curve}.")
    if config.form is None and data.form == "chinchilla" and judgement is not None:
        notes.append("--form power fits the model sizes alone.")
    P, size_P = len(points.loss_P), points.size_TP[0]
    result = FitResult(
        form=data.form,
        points=P,
        dropped=config.drop_largest,
        columns=points.columns,
        sizes=(float(size_P.min()), float(size_P.max())),
        reason="" if judgement is None else judgement.reason,
        fixed_E=config.fixed_E,
        notes=tuple(notes),
        provenance={"table": config.named, "command": config.command},
    )
    bounded = judgement is not None and judgement.bounded and log_floor is None
    if judgement is None or (bounded and len(PARAMETERS[data.form]) < P):
        with bars("starts", STARTS, "start") as bar:
            fitted = fit_data(data, log_floor, bar.update)
        result = _fit_result(result, fitted, config, bars, refused=judgement is not None)
    if floor is not None:
        result = replace(result, floor=_compare_floor(floor, config.average, result.E_range95))
    return result, points


def _select_points(table: Points, config: FitConfig) -> tuple[Points, list[str]]:
    """Return the points to fit, and notes about them."""
    loss_P, drop, notes = table.loss_P, config.drop_largest, list[str]()
    if drop >= len(loss_P):
        raise DatasetError(
            f"{config.named}: --drop-largest {drop} leaves none of {len(loss_P)} points. Drop fewer."
        )
    order_P = np.argsort(-loss_P, kind="stable")  # of equal losses the first of the table
    at_limit = loss_P[order_P[drop]]
    if drop and loss_P[order_P[drop - 1]] == at_limit:
        notes.append(
            f"Of the points with loss {at_limit:g} some are dropped: those earlier in the table."
        )
    points = table.select(np.sort(order_P[drop:]))
    repeated = len(points.loss_P) - np.unique(points.size_TP, axis=1).shape[1]
    if repeated:
        notes.append(f"{repeated} points repeat the size of another; each counts as a run.")
    largest = points.size_TP[0].max()
    if largest < MIN_PARAMETERS and not table.are_steps:
        small = f"the largest model has {largest:g} parameters"
        if "FLOP" in table.columns and largest < MIN_PARAMETERS_WITH_FLOP:
            raise DatasetError(
                f"{config.named}: {small}, expected numbers of parameters. Write 310M or 3.1e8."
            )
        notes.append(f"Note that {small}: if sizes are in another unit, N0 is in that unit.")
    return points, notes


def _log_floor(points: Points, config: FitConfig) -> float | None:
    """Return ln of a given E, which has to be below every loss."""
    if config.fixed_E is None:
        return None
    least = int(points.loss_P.argmin())
    loss = float(points.loss_P[least])
    if config.fixed_E >= loss:
        raise DatasetError(
            f"--floor {config.fixed_E:g}: expected an E below every loss, but {points.where[least]} "
            f"has {loss:g}. Give a lower E, or leave --floor out to fit E."
        )
    return math.log(max(config.fixed_E, MIN_E_SHARE * loss))


def _fit_result(
    result: FitResult, fitted: Fit, config: FitConfig, bars: "Bars", *, refused: bool
) -> FitResult:
    """Add the intervals, the verdict and, unless refused, the parameters to a result."""
    many, few = result.points > MAX_FOR_PROFILE, result.points <= MAX_WITHOUT_BOOTSTRAP
    found = {"profile": _profile_intervals(fitted, bars, only_E=refused)}
    resamples = config.resamples
    if few and resamples:
        note = f"No bootstrap: it needs more than {MAX_WITHOUT_BOOTSTRAP} points."
        result = replace(result, notes=(*result.notes, note))
    if resamples is None:
        resamples = RESAMPLES if many else RESAMPLES_TO_COMPARE
        resamples = RESAMPLES_OF_MANY if result.points > MANY_POINTS else resamples
    if resamples and not few and not refused:
        found["bootstrap"] = _bootstrap_intervals(fitted, resamples, config.seed, bars)
    kind = "bootstrap" if many and "bootstrap" in found else "profile"
    chosen = found[kind]
    result = replace(
        result,
        objective=fitted.objective,
        E_range95=chosen.ci95.get("E"),
        intervals=found,
        interval_kind=kind,
    )
    return result if refused else _judged(result, fitted, chosen)


def _judged(result: FitResult, fitted: Fit, chosen: Intervals) -> FitResult:
    """Add the verdict and, unless refused, the parameters to a result."""
    estimates, fixed_E = parameters(fitted.theta, fitted.data), result.fixed_E
    if fixed_E is not None:
        estimates["E"] = fixed_E
    judgement = judge_fit(fitted, estimates, chosen.ci90)
    if fixed_E and judgement.verdict == "ok":
        reason = contradicts_fixed_E(fit_data(fitted.data, None), fixed_E)
        judgement = judgement if reason is None else Judgement("weak", f"E is given; {reason}")
    if fixed_E is None and judgement.verdict == "ok":
        reason = unstable_E(fitted, chosen.ci95["E"])
        judgement = judgement if reason is None else Judgement("weak", reason)
    result = replace(result, verdict=judgement.verdict, reason=judgement.reason)
    if judgement.verdict == "refused":
        return result
    return replace(result, parameters=estimates, ci95=chosen.ci95, optima=fitted.optima)


def _parameter_names(fitted: Fit) -> tuple[list[str], list[str]]:
    """Return the names of the fitted parameters, and of those that decide the verdict."""
    names = list(PARAMETERS[fitted.data.form])
    if fitted.log_floor is None:
        return names, ["E"]
    return names[1:], [name for name in names if name in ("alpha", "beta")]


def _profile_intervals(fitted: Fit, bars: "Bars", *, only_E: bool) -> Intervals:
    working = likelihood(fitted)
    assert working is not None  # there are more points than parameters
    names, judged = (["E"], ["E"]) if only_E else _parameter_names(fitted)
    found: dict[float, dict[str, Interval]] = {0.95: {}, 0.9: {}}
    with bars("profile likelihood", len(names) + len(judged), "interval") as bar:
        for central, group in ((0.95, names), (0.9, judged)):
            for name in group:
                found[central][name] = profile_interval(fitted, working, name, central)
                bar.update(1)
    return Intervals(found[0.95], found[0.9], noise=working.noise)


def _bootstrap_intervals(fitted: Fit, resamples: int, seed: int, bars: "Bars") -> Intervals:
    names, judged = _parameter_names(fitted)
    estimates = parameters(fitted.theta, fitted.data)
    with bars("bootstrap", resamples, "resample") as bar:
        drawn = bootstrap(fitted, resamples, seed, bar.update)
    return Intervals(
        ci95={name: central_interval(drawn[name], 0.95) for name in names},
        ci90={name: central_interval(drawn[name], 0.9) for name in judged},
        # The few resamples with an exponent near 0 have an N0 without end: no error beyond the value.
        se={name: se for name in names if (se := float(drawn[name].std(ddof=1))) <= estimates[name]},
        resamples=resamples,
        seed=seed,
    )


def _compare_floor(
    floor: Floor, average: Literal["mean", "last"], known: Interval | None
) -> ComparedFloor:
    level = floor.mean if average == "mean" else floor.last
    assert level is not None  # an estimate has both
    position = None
    if known is not None:
        low, high = known
        assert low is not None and high is not None
        position = "below" if level.floor < low else "above" if level.floor > high else "inside"
    return ComparedFloor(floor.source, average, level.floor, level.half_width, position)
