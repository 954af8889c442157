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
from numpy.typing import NDArray

from entropy_cli.core.extras import import_extra

Array = NDArray[np.float64]
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
SCALE = 1e6  # of the objective while it is minimised: sums near 1e-3 would meet any tolerance at once
EXPONENTS = (5e-3, 4.0)
MOST_LOG = 700.0  # of a size, up or down: more is no float
LEAST_SHARE = 1e-9  # of the smallest loss: an E this small is none
# e-folds that a term at the centre may be below the smallest loss. Much fainter ones have no gradient:
# the nearly linear objective makes the optimiser leap there, and it would not find its way back.
FAINTEST = 20.0
NEAR = 1.01  # optima up to 1 % above the best count as found
NOTHING = 1e-15  # an objective of rounding alone


@dataclass(frozen=True)
class Data:
    """Points in logarithms.

    Attributes:
        log_size_TP: ln of the size of each term and point, less the term's centre, (T, P).
        log_loss_P: ln of the losses, (P,).
        centre_T: what was taken off: fits are better conditioned, and the same in any unit.
        weight_P: how often each point counts: a resample's multiplicities.
    """

    log_size_TP: Array
    log_loss_P: Array
    centre_T: Array
    weight_P: Array

    @property
    def form(self) -> Form:
        """Of so many terms."""
        return "power" if len(self.log_size_TP) == 1 else "chinchilla"

    @property
    def least_loss(self) -> float:
        """The smallest loss, above every E."""
        return math.exp(self.log_loss_P[self.weight_P > 0].min())

    def centred(self, centre_T: Array) -> "Data":
        """The same with other centres."""
        moved_TP = self.log_size_TP + (self.centre_T - centre_T)[:, None]
        return replace(self, log_size_TP=moved_TP, centre_T=centre_T)


def data_of(sizes: Sequence[Sequence[float]], losses: Sequence[float]) -> Data:
    """Points from sizes of each term and losses, all positive; centred on the mean log sizes."""
    log_size_TP = np.log(np.asarray(sizes, dtype=np.float64))
    log_loss_P = np.log(np.asarray(losses, dtype=np.float64))
    none_T = np.zeros(len(log_size_TP))
    data = Data(log_size_TP, log_loss_P, none_T, np.ones_like(log_loss_P))
    return data.centred(log_size_TP.mean(1))


def log_prediction(theta: Array, data: Data) -> tuple[Array, Array]:
    """Logarithms of the predicted losses, (P,), and each part's share in them, (1 + T, P): E first."""
    part_KP = np.empty((1 + len(data.log_size_TP), len(data.log_loss_P)))
    part_KP[0] = theta[0]
    part_KP[1:] = theta[1::2, None] - theta[2::2, None] * data.log_size_TP
    top_P = part_KP.max(0)
    part_KP = np.exp(part_KP - top_P)
    sum_P = part_KP.sum(0)
    return top_P + np.log(sum_P), part_KP / sum_P


def objective(theta: Array, data: Data, threshold: float = THRESHOLD) -> tuple[float, Array]:
    """Sum over the points of the Huber loss of predicted less measured log loss, and its gradient.

    Args:
        theta: [ln E, offset, exponent, ...], see the module.
        data: points.
        threshold: where the loss goes from quadratic to linear; infinity is least squares.

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


Bounds = list[tuple[float, float]]


def bounds_of(data: Data, log_floor: float | None = None) -> Bounds:
    """Where each parameter may be: E between nothing and the smallest loss, or fixed."""
    top = math.log(data.least_loss)
    first = (top + math.log(LEAST_SHARE), top) if log_floor is None else (log_floor, log_floor)
    return [first, *[(top - FAINTEST, top + FAINTEST), EXPONENTS] * len(data.log_size_TP)]


def minimise(
    start: Array, data: Data, bounds: Bounds, threshold: float = THRESHOLD
) -> tuple[Array, float]:
    """The nearest minimum: its parameters and the objective there.

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


def grid_of(data: Data, log_floor: float | None = None) -> list[Array]:
    """A grid of parameters to start from: for each E and exponents the offsets that suit the data."""
    shares: tuple[float, ...]
    slopes: tuple[float, ...]
    splits: tuple[float, ...]
    if data.form == "power":
        shares = (0.05, 0.3, 0.6, 0.75, 0.85, 0.9, 0.95, 0.99)
        slopes, splits = (0.03, 0.08, 0.15, 0.25, 0.4, 0.6, 0.9, 1.3, 2.0), (1.0,)
        if log_floor is not None:
            slopes = tuple(np.geomspace(0.01, 3.5, 72))
    else:
        shares, slopes, splits = (0.2, 0.6, 0.8, 0.95), (0.15, 0.4, 0.8), (0.3, 0.7)
        if log_floor is not None:
            slopes = (0.08, 0.15, 0.25, 0.4, 0.6, 0.9)
    floors = [math.log(data.least_loss * share) for share in shares]
    starts = []
    for floor, split in itertools.product(floors if log_floor is None else [log_floor], splits):
        rest = float(np.log(np.exp(np.median(data.log_loss_P)) - math.exp(floor)))
        offsets = [rest + math.log(part) for part in (split, 1 - split) if part]
        for exponents in itertools.product(slopes, repeat=len(offsets)):
            terms = [one for pair in zip(offsets, exponents, strict=True) for one in pair]
            starts.append(np.array([floor, *terms]))
    return starts


@dataclass(frozen=True)
class Fit:
    """The best minimum found.

    Attributes:
        theta: its parameters, see the module.
        log_floor: ln of E where it was given, else None.
        objective: there.
        starts: from how many it was searched.
        near: how many of them ended within 1 % of it.
        near_E: smallest and largest E of these, nats per token.
    """

    data: Data
    theta: Array
    log_floor: float | None
    objective: float
    starts: int
    near: int
    near_E: tuple[float, float]

    @property
    def free(self) -> int:
        """Number of parameters that are fitted."""
        return len(self.theta) - (self.log_floor is not None)

    @property
    def residual_P(self) -> Array:
        """Predicted less measured log loss."""
        return log_prediction(self.theta, self.data)[0] - self.data.log_loss_P

    @property
    def at_bound(self) -> str | None:
        """Name of an exponent as small or as large as is searched."""
        names = [name for name in PARAMETERS[self.data.form] if name in ("alpha", "beta")]
        for name, exponent in zip(names, self.theta[2::2], strict=True):
            if not 1.01 * EXPONENTS[0] < exponent < 0.99 * EXPONENTS[1]:
                return name
        return None


def fit(
    data: Data, log_floor: float | None = None, tick: Callable[[int], object] = lambda _: None
) -> Fit:
    """Minimise the objective from a grid of starts.

    Args:
        data: points, at least one.
        log_floor: ln of a given E, below every loss; None fits it.
        tick: is told of each start that is done.

    Raises:
        EntropyCliError: scipy is not installed.
    """
    bounds = bounds_of(data, log_floor)
    found = []
    for start in grid_of(data, log_floor):
        found.append(minimise(start, data, bounds))
        tick(1)
    theta, best = min(found, key=lambda one: one[1])
    near = [math.exp(at[0]) for at, value in found if value <= NEAR * best + NOTHING]
    return Fit(data, theta, log_floor, best, len(found), len(near), (min(near), max(near)))


def parameters(theta: Array, data: Data) -> dict[str, float]:
    """The parameters by name, in nats per token and in the units of the sizes.

    Returns:
        E; N0 and alpha, or A, B, alpha and beta. A and B are nats times size to the exponent.
    """
    floor = math.exp(theta[0])
    if floor < 2 * LEAST_SHARE * data.least_loss:
        floor = 0.0
    exponents = [float(exponent) for exponent in theta[2::2]]
    logs = [float(log) for log in theta[1::2] + theta[2::2] * data.centre_T]
    sizes = [logs[0] / exponents[0]] if data.form == "power" else logs
    values = (floor, *(math.exp(max(-MOST_LOG, min(log, MOST_LOG))) for log in sizes), *exponents)
    return dict(zip(PARAMETERS[data.form], values, strict=True))
