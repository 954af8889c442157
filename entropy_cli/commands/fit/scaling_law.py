"""Scaling laws of the loss: their forms, the robust objective with its gradient, and the fit.

L = E + sum over terms t of exp(offset_t - exponent_t x_t), where x_t is the logarithm of a size less
`Data.centre_T`: one term (model size) is the form "power", two (model and data size) "chinchilla".
A parameter vector is [ln E, offset_1, exponent_1, offset_2, exponent_2].
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropy_cli.core.extras import import_extra

Array = NDArray[np.float64]
Bounds = list[tuple[float, float]]
Form = Literal["power", "chinchilla"]
PARAMETERS: Mapping[Form, tuple[str, ...]] = {
    "power": ("E", "N0", "alpha"),
    "chinchilla": ("E", "A", "B", "alpha", "beta"),
}
FORMULAS: Mapping[Form, str] = {
    "power": "L = E + (N0/N)^alpha",
    "chinchilla": "L = E + A/N^alpha + B/D^beta",
}
THRESHOLD = 1e-3  # of the Huber loss, in log loss
SCALE = 1e6  # of the objective during minimisation: sums near 1e-3 would meet any tolerance at once
EXPONENTS = (5e-3, 4.0)
MAX_LOG = 700.0  # of a size in either direction, or exp overflows
MIN_E_SHARE = 1e-9  # of the smallest loss: a smaller E counts as 0
# e-folds between a term at the centre and the smallest loss. Much smaller terms have no gradient: the
# nearly linear objective makes the optimiser jump there and never return.
OFFSET_RANGE = 20.0
NEAR_BEST = 1.01  # objectives up to 1 % above the best count as the best
ROUNDING = 1e-15  # objective of an exact fit
# Of the search: E as shares of the smallest loss, exponents, exponents if E is given, and how the median
# loss less E is split among the terms. 72 starts each.
START_GRIDS: Mapping[Form, tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[Any]]] = {
    "power": (
        (0.05, 0.3, 0.6, 0.75, 0.85, 0.9, 0.95, 0.99),
        (0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9, 1.3, 2.0),
        np.geomspace(0.01, 3.5, 72).tolist(),
        [(1.0,)],
    ),
    "chinchilla": (
        (0.2, 0.6, 0.8, 0.95),
        (0.15, 0.4, 0.8),
        (0.08, 0.15, 0.25, 0.4, 0.6, 0.9),
        [(0.3, 1 - 0.3), (0.7, 1 - 0.7)],
    ),
}


@dataclass(frozen=True)
class Data:
    """Logarithms of the points.

    Attributes:
        log_size_TP: ln of the size of each term and point, minus the term's centre, (T, P).
        log_loss_P: ln of the losses, (P,).
        centre_T: subtracted, (T,): fits are better conditioned, and the same in any unit.
        weight_P: multiplicity of each point in a resample, (P,).
    """

    log_size_TP: Array
    log_loss_P: Array
    centre_T: Array
    weight_P: Array

    @property
    def form(self) -> Form:
        """The form with this number of terms."""
        return "power" if len(self.log_size_TP) == 1 else "chinchilla"

    @property
    def least_loss(self) -> float:
        """The smallest loss, an upper bound of E."""
        return math.exp(self.log_loss_P[self.weight_P > 0].min())

    def centred(self, centre_T: Array) -> "Data":
        """Return the same points with other centres, (T,)."""
        moved_TP = self.log_size_TP + (self.centre_T - centre_T)[:, None]
        return replace(self, log_size_TP=moved_TP, centre_T=centre_T)


def make_data(sizes: ArrayLike, losses: ArrayLike) -> Data:
    """Build points from positive sizes of each term and losses, centred on the mean log sizes."""
    log_size_TP, log_loss_P = np.log(np.ascontiguousarray(sizes)), np.log(np.asarray(losses))
    data = Data(log_size_TP, log_loss_P, np.zeros(len(log_size_TP)), np.ones_like(log_loss_P))
    return data.centred(log_size_TP.mean(1))


def log_prediction(theta: Array, data: Data) -> tuple[Array, Array]:
    """Return the log of the predicted losses, (P,), and the share of E and each term, (1 + T, P)."""
    part_KP = np.empty((1 + len(data.log_size_TP), len(data.log_loss_P)))
    part_KP[0] = theta[0]
    part_KP[1:] = theta[1::2, None] - theta[2::2, None] * data.log_size_TP
    top_P = part_KP.max(0)
    part_KP = np.exp(part_KP - top_P)
    sum_P = part_KP.sum(0)
    return top_P + np.log(sum_P), part_KP / sum_P


def residuals(theta: Array, data: Data) -> Array:
    """Return predicted minus measured log losses, (P,)."""
    return log_prediction(theta, data)[0] - data.log_loss_P


def objective(theta: Array, data: Data, threshold: float = THRESHOLD) -> tuple[float, Array]:
    """Sum the Huber loss of predicted minus measured log losses over the points, with its gradient.

    Args:
        theta: [ln E, offset, exponent, ...], see the module.
        data: the points.
        threshold: where the loss turns from quadratic to linear; infinity is least squares.

    Source:
        Hoffmann et al., Training Compute-Optimal Large Language Models, 2022, eq. 3; the sum, not the
        mean, as Besiroglu et al., Chinchilla Scaling: A replication attempt, 2024.
    """
    log_loss_P, share_KP = log_prediction(theta, data)
    residual_P = log_loss_P - data.log_loss_P
    slope_P = np.minimum(np.maximum(residual_P, -threshold), threshold)
    # r^2 / 2 inside the threshold d, d |r| - d^2 / 2 outside: in both cases slope (r - slope / 2)
    value = float(data.weight_P @ (slope_P * (residual_P - slope_P / 2)))
    pull_KP = share_KP * (data.weight_P * slope_P)
    gradient = np.empty_like(theta)
    gradient[0] = pull_KP[0].sum()
    gradient[1::2] = pull_KP[1:].sum(1)
    gradient[2::2] = -(pull_KP[1:] * data.log_size_TP).sum(1)
    return value, gradient


def parameter_bounds(data: Data, log_floor: float | None = None) -> Bounds:
    """Return the search bounds of each parameter: E from 0 to the smallest loss, or fixed."""
    top = math.log(data.least_loss)
    first = (top + math.log(MIN_E_SHARE), top) if log_floor is None else (log_floor, log_floor)
    return [first, *[(top - OFFSET_RANGE, top + OFFSET_RANGE), EXPONENTS] * len(data.log_size_TP)]


def minimise(
    start: Array, data: Data, bounds: Bounds, threshold: float = THRESHOLD
) -> tuple[Array, float]:
    """Minimise the objective from a start; return the parameters and the objective there.

    Raises:
        EntropyCliError: scipy is not installed.
    """
    optimize = import_extra("scipy.optimize", "fit", "a fit")
    scale = SCALE if math.isinf(threshold) else SCALE * THRESHOLD / threshold

    def scaled(theta: Array) -> tuple[float, Array]:
        value, gradient = objective(theta, data, threshold)
        return scale * value, scale * gradient

    found: Any = optimize.minimize(
        scaled,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 3000, "maxfun": 6000, "maxcor": 20},
    )
    return found.x, found.fun / scale


def start_grid(data: Data, log_floor: float | None = None) -> list[Array]:
    """Return a grid of start parameters: for each E and exponents, the offsets that match the data."""
    shares, slopes, slopes_if_given, splits = START_GRIDS[data.form]
    floors = [math.log(data.least_loss * share) for share in shares]
    if log_floor is not None:
        floors, slopes = [log_floor], slopes_if_given
    starts = []
    for floor, split in itertools.product(floors, splits):
        reducible = float(np.log(np.exp(np.median(data.log_loss_P)) - math.exp(floor)))
        offsets = [reducible + math.log(part) for part in split]
        for exponents in itertools.product(slopes, repeat=len(offsets)):
            terms = zip(offsets, exponents, strict=True)
            starts.append(np.array([floor, *itertools.chain.from_iterable(terms)]))
    return starts


@dataclass(frozen=True)
class Optima:
    """Starts of a search, how many ended within 1 % of the best objective, and the range of their E."""

    starts: int
    within_1_percent: int
    E: tuple[float, float]


@dataclass(frozen=True)
class Fit:
    """The best minimum of a search.

    Attributes:
        theta: its parameters, see the module.
        log_floor: ln of a given E, else None.
        objective: its value at theta.
        optima: of all starts of the search.
    """

    data: Data
    theta: Array
    log_floor: float | None
    objective: float
    optima: Optima

    @property
    def free(self) -> int:
        """The number of fitted parameters."""
        return len(self.theta) - (self.log_floor is not None)

    @property
    def at_bound(self) -> str | None:
        """The name of an exponent at a bound of the search, or None."""
        low, high = 1.01 * EXPONENTS[0], 0.99 * EXPONENTS[1]
        exponents = zip(("alpha", "beta"), self.theta[2::2], strict=False)
        return next((name for name, exponent in exponents if not low < exponent < high), None)


def fit(
    data: Data, log_floor: float | None = None, progress: Callable[[int], object] = lambda _: None
) -> Fit:
    """Minimise the objective from a grid of starts.

    Args:
        data: at least one point.
        log_floor: ln of a given E, below every loss; None fits E.
        progress: called with 1 after each start.

    Raises:
        EntropyCliError: scipy is not installed.
    """
    bounds = parameter_bounds(data, log_floor)
    found = []
    for start in start_grid(data, log_floor):
        found.append(minimise(start, data, bounds))
        progress(1)
    theta, best = min(found, key=lambda pair: pair[1])
    near = [math.exp(at[0]) for at, value in found if value <= NEAR_BEST * best + ROUNDING]
    optima = Optima(len(found), len(near), (min(near), max(near)))
    return Fit(data, theta, log_floor, best, optima)


def parameters(theta: Array, data: Data) -> dict[str, float]:
    """Return the parameters by name, in nats per token and in the units of the sizes.

    Returns:
        E; N0 and alpha, or A, B, alpha and beta. A and B are nats times size to the exponent.
    """
    floor, exponent_T = math.exp(theta[0]), theta[2::2]
    if floor < 2 * MIN_E_SHARE * data.least_loss:
        floor = 0.0
    log_T = theta[1::2] + exponent_T * data.centre_T
    if data.form == "power":
        log_T = log_T / exponent_T
    sizes = [math.exp(log) for log in np.clip(log_T, -MAX_LOG, MAX_LOG)]
    return dict(zip(PARAMETERS[data.form], (floor, *sizes, *exponent_T.tolist()), strict=True))
