"""Intervals of a scaling law's parameters, by profile likelihood and by bootstrap.

The likelihood is that of Huber noise whose scale is estimated with the parameters: with few points the
objective of the fit, nearly a sum of absolute values, has too little curvature.

Coverage of the profile's 95 % interval of E in 1,000 runs each of L = 5 + (4e8/N)^0.2 and noise of
0.005 nats: 0.951 with 6 sizes of 18 M to 2 B, 0.959 with 8, 0.950 with 12, 0.958 with 20, 0.946 with
30; with noise of 0.02 nats and 12 sizes 0.951, with a heavy-tailed noise (Student's t of 3 degrees)
0.933. With 4 sizes of 310 M to 2 B, for which the point estimate is refused, 0.973. A bootstrap of 12
points covers as well (0.95), one of 20 less (0.89; 100 runs each).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from entropy_cli.commands.fit.scaling_law import (
    EXPONENTS,
    MIN_E_SHARE,
    PARAMETERS,
    Array,
    Bounds,
    Data,
    Fit,
    minimise,
    parameter_bounds,
    parameters,
    residuals,
)
from entropy_cli.core.extras import import_extra
from entropy_cli.entropy.jackknife import t_quantile

TUNING = 1.345  # noise scales at which the likelihood turns from quadratic to linear: 95 % efficient
# E[min(|z|, TUNING)^2] for a standard normal z, so that the scale is that of normal noise.
CONSISTENCY = 0.7101645
MIN_NOISE = 1e-9  # of log losses: rounding of points that are on the curve
LINEAR = ("E", "alpha", "beta")  # parameters that are profiled without a logarithm
MAX_LOG_DISTANCE = 30.0  # an end of N0, A or B beyond this log factor is open
ONE_OPTIMUM = 1000  # points from which a resample's optimum is the one beside that of the fit
END_TOLERANCE = 1e-3  # of an interval's end, relative to its distance from the estimate

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Likelihood:
    """The working likelihood of a fit.

    Attributes:
        theta: its maximum.
        objective: Huber loss with this threshold at theta.
        threshold: of the Huber loss, in log loss.
        noise: scale of the noise, in log loss.
        gain: factor that makes a rise of the objective F(1, degrees) distributed.
        degrees: degrees of freedom, points minus fitted parameters.
    """

    theta: Array
    objective: float
    threshold: float
    noise: float
    gain: float
    degrees: int


def likelihood(fit: Fit) -> Likelihood | None:
    """Return the working likelihood of a fit; None without more points than parameters.

    Source:
        Huber & Ronchetti, Robust Statistics, 2nd ed., 2009: the scale is Proposal 2 (sec. 7.7) with
        degrees of freedom; the gain is that of the likelihood-ratio type test (sec. 13.3).
    """
    data, degrees = fit.data, len(fit.data.log_loss_P) - fit.free
    if degrees < 1:
        return None
    theta, value = minimise(fit.theta, data, parameter_bounds(data, fit.log_floor), math.inf)
    by_squares = math.sqrt(2 * value / degrees)
    # Least squares follow outliers, the robust fit does not: use the one with less noise.
    by_median = 1.4826 * float(np.median(abs(residuals(fit.theta, data))))
    starts = ((theta, by_squares), (fit.theta, by_median))
    solutions = [_solve_scale(fit, at, max(noise, MIN_NOISE), degrees) for at, noise in starts]
    theta, value, noise = min(solutions, key=lambda solution: solution[2])
    threshold = TUNING * noise
    residual_P = residuals(theta, data)
    slope_P = np.clip(residual_P, -threshold, threshold)
    inside = float((abs(residual_P) < threshold).mean())
    spread = max(float(slope_P @ slope_P) / degrees, MIN_NOISE**2)
    return Likelihood(theta, value, threshold, noise, 2 * inside / spread, degrees)


def _solve_scale(fit: Fit, theta: Array, noise: float, degrees: int) -> tuple[Array, float, float]:
    """Iterate parameters and noise scale to consistency; return parameters, objective and noise."""
    bounds = parameter_bounds(fit.data, fit.log_floor)
    theta, value = minimise(theta, fit.data, bounds, TUNING * noise)
    for _ in range(20):
        before, noise = noise, _scale(residuals(theta, fit.data), degrees, noise)
        theta, value = minimise(theta, fit.data, bounds, TUNING * noise)
        if abs(noise / before - 1) < 1e-3:
            break
    return theta, value, noise


def _scale(residual_P: Array, degrees: int, scale: float) -> float:
    """Iterate the scale of given residuals to consistency."""
    for _ in range(100):
        squares = np.minimum(abs(residual_P) / scale, TUNING) ** 2
        before = scale
        scale = max(scale * math.sqrt(squares.sum() / (degrees * CONSISTENCY)), MIN_NOISE)
        if abs(scale / before - 1) < 1e-9:
            break
    return scale


class _Profile:
    """Profile likelihood of one parameter; each fit starts from the last one."""

    def __init__(self, fit: Fit, likelihood: Likelihood, name: str) -> None:
        self.fit, self.likelihood, self.name = fit, likelihood, name
        self.last = likelihood.theta
        self.estimate = self.coordinate(likelihood.theta)

    def coordinate(self, theta: Array) -> float:
        """Return the parameter, or the logarithm of N0, A or B."""
        value = parameters(theta, self.fit.data)[self.name]
        return value if self.name in LINEAR else math.log(value)

    def search_limits(self) -> tuple[float, float]:
        """Return the range to search."""
        if self.name == "E":
            return 0.0, self.fit.data.least_loss
        if self.name in LINEAR:
            return EXPONENTS
        return self.estimate - MAX_LOG_DISTANCE, self.estimate + MAX_LOG_DISTANCE

    def statistic(self, value: float) -> float:
        """Return the F(1, degrees) statistic of the parameter being `value`."""
        data, bounds, index = self._fix_parameter(value)
        moved = self.fit.data.centre_T - data.centre_T
        own, best = self.likelihood.threshold, (math.inf, self.last)
        # Start with least squares: far from the minimum the nearly linear objective is misleading.
        for start, thresholds in (
            (self.last, (math.inf, own)),
            (self.likelihood.theta, (math.inf, own)),
            (self.last, (own,)),
        ):
            theta = start.copy()
            theta[1::2] += theta[2::2] * moved
            theta[index] = bounds[index][0]
            for threshold in thresholds:
                theta, objective = minimise(theta, data, bounds, threshold)
            best = min(best, (objective, theta), key=lambda pair: pair[0])
        self.last = best[1].copy()
        self.last[1::2] -= self.last[2::2] * moved
        return self.likelihood.gain * (best[0] - self.likelihood.objective)

    def _fix_parameter(self, value: float) -> tuple[Data, Bounds, int]:
        """Return data centred so that the parameter is in theta, bounds that fix it, and its index."""
        data = self.fit.data
        bounds = parameter_bounds(data, self.fit.log_floor)
        if self.name == "E":
            index, value = 0, math.log(max(value, MIN_E_SHARE * data.least_loss))
        elif self.name in ("alpha", "beta"):
            index = 2 if self.name == "alpha" else 4
        else:
            term = int(self.name == "B")
            centre_T = data.centre_T.copy()
            centre_T[term] = value if self.name == "N0" else 0.0
            data, index = data.centred(centre_T), 1 + 2 * term
            value = 0.0 if self.name == "N0" else value
            bounds = [(-math.inf, math.inf) if i % 2 else pair for i, pair in enumerate(bounds)]
        bounds[index] = (value, value)
        return data, bounds, index


def profile_statistic(fit: Fit, likelihood: Likelihood, name: str, value: float) -> float:
    """Return the test statistic of a parameter value, F(1, degrees) distributed if it is true.

    Args:
        fit: a fit with the parameter free.
        likelihood: of the fit.
        name: of the parameter.
        value: in nats per token or the unit of sizes.
    """
    profile = _Profile(fit, likelihood, name)
    return profile.statistic(value if name in LINEAR else math.log(value))


def profile_interval(fit: Fit, likelihood: Likelihood, name: str, central: float = 0.95) -> Interval:
    """Return the interval of parameter values that a likelihood-ratio type test does not reject.

    Args:
        fit: a fit with the parameter free.
        likelihood: of the fit.
        name: of the parameter.
        central: confidence level.

    Returns:
        Both ends; those of E are within 0 and the smallest loss. None is an open end. The interval
        contains the fitted value, although the maximum of the likelihood may differ slightly.
    """
    critical = t_quantile(likelihood.degrees, central) ** 2
    profile = _Profile(fit, likelihood, name)
    own = profile.coordinate(fit.theta)
    ends: list[float | None] = []
    for limit in profile.search_limits():
        profile.last = likelihood.theta
        end = _interval_end(profile, limit, critical)
        end = min(end, own) if limit < profile.estimate else max(end, own)
        ends.append(end if name in LINEAR else None if end == limit else math.exp(end))
    return ends[0], ends[1]


def _interval_end(profile: _Profile, limit: float, critical: float) -> float:
    """Return where the statistic reaches the critical value before the limit, else the limit."""
    far = limit - profile.estimate
    if far == 0:
        return limit

    def excess(share: float) -> float:  # nearly linear, because the statistic is nearly a parabola
        statistic = profile.statistic(profile.estimate + share * far)
        return math.sqrt(max(0.0, statistic)) - math.sqrt(critical)

    inside, share = 0.0, 1e-4
    while excess(share) < 0:
        if share == 1.0:
            return limit
        inside, share = share, min(1.0, 3 * share)
    # The statistic is slightly noisy: at the same share it may now be on the other side.
    if excess(share) > 0:
        if excess(inside) < 0:
            brentq = import_extra("scipy.optimize", "fit", "a fit").brentq
            share = brentq(excess, inside, share, xtol=END_TOLERANCE * share, rtol=END_TOLERANCE)
        else:
            share = inside
    return profile.estimate + share * far


def bootstrap(
    fit: Fit, resamples: int, seed: int, progress: Callable[[int], object]
) -> dict[str, Array]:
    """Refit to points drawn with replacement, each from the optimum and two starts beside it.

    Resamples of more than ONE_OPTIMUM points start from the optimum alone.

    Args:
        fit: a fit with more distinct sizes than parameters.
        resamples: at least 2; those with too few distinct sizes are drawn again.
        seed: of the draws.
        progress: called with 1 after each resample.

    Returns:
        One value per resample for each parameter, E in nats per token.
    """
    data, generator = fit.data, np.random.default_rng(seed)
    starts = starts_beside(fit)
    if len(data.log_loss_P) > ONE_OPTIMUM:
        starts = starts[:1]
    drawn: list[dict[str, float]] = []
    P = len(data.log_loss_P)
    while len(drawn) < resamples:
        idx_P = generator.integers(P, size=P)
        if np.unique(data.log_size_TP[:, idx_P], axis=1).shape[1] <= fit.free:
            continue
        resample = replace(data, weight_P=np.bincount(idx_P, minlength=P).astype(np.float64))
        bounds = parameter_bounds(resample, fit.log_floor)
        theta, _ = min((minimise(start, resample, bounds) for start in starts), key=lambda pair: pair[1])
        drawn.append(parameters(theta, resample))
        progress(1)
    return {name: np.array([values[name] for values in drawn]) for name in PARAMETERS[data.form]}


def starts_beside(fit: Fit) -> list[Array]:
    """Return the optimum of a fit, and a start on either side of it."""
    starts, E = [fit.theta], math.exp(fit.theta[0])
    for factor, other_E in ((0.7, 0.8 * E), (1.4, (E + fit.data.least_loss) / 2)):
        start = fit.theta.copy()
        start[2::2] = np.clip(factor * start[2::2], *EXPONENTS)
        start[0] = math.log(other_E) if fit.log_floor is None else fit.log_floor
        starts.append(start)
    return starts


def central_interval(values: Array, central: float) -> tuple[float, float]:
    """Return the interval between the percentiles that leave out as much on either side."""
    low, high = np.quantile(values, [(1 - central) / 2, (1 + central) / 2])
    return float(low), float(high)
