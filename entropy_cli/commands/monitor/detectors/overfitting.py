"""Detect overfitting: validation that rises while training falls.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import (
    Series,
    block_medians,
    mann_kendall,
    scatter,
    validate,
)
from entropy_cli.core.errors import ShapeError

MIN_EVALUATIONS, LAST_EVALUATIONS = 10, 3
MOST = 100  # of more evaluations, medians of as many blocks are judged
MEDIANS_DIFFERENCE = 0.947  # standard error of the difference of two medians of three Gaussians
TREND_Z, PAIRS_Z = 3.09, 2.33  # one-sided .1 % and 1 %
CLEAR_Z = 4.0  # of evaluations whose noise may grow
MIN_RISING = 12  # evaluations after the best that show a trend
MIN_FREEDOM = 3  # of a unimodal fit
RHO_BIAS = 4.0  # over the evaluations: what a unimodal fit takes from the autocorrelation
FEW = 30.0  # over their square: how much larger the noise of few evaluations may be than it looks


@dataclass(frozen=True)
class Overfitting:
    """Result of `overfitting`: whether validation rises while training falls."""

    fires: bool  # see the function; and `rise` is above `rise_needed`, and training fell since the best
    best: float  # lowest validation loss, or median of a block
    best_index: int  # its index among the evaluations, or that of the middle of the block
    last: tuple[float, ...]  # the last three evaluations or blocks, oldest first
    rows: int  # evaluations of a block; 1 of up to a hundred
    noise: float  # standard deviation of an evaluation
    z: float  # Mann-Kendall z of the evaluations after the best
    rise: float  # median of the last three minus that of three around the best, which is biased low
    rise_needed: float  # three standard errors of that difference
    train_at_best: float  # training loss at the best evaluation
    train_last: float  # at the last


def overfitting(val_n: Series, train_at_val_n: Series) -> Overfitting | None:
    """Test whether validation has risen from its best while training fell.

    Either the last three evaluations all exceed the best by 3 s, with the noise s of `_noise`; or all of
    them exceed it and those after it rise (z > 3.09, or 2.33 of means of two), which also sees losses
    that alternate, or rise by z > 4, which also sees noise that grows. Both losses are those at the
    evaluations. None below ten. Of 1000 runs with 10/20/40/100 evaluations: fires on falling curves in
    none, on flat ones of white noise in at most .01, of AR(1) noise with phi .5 in .04/.05/.04/.03 (phi
    .8: .11/.15/.13/.05), and in .05/.67/1.0/1.0 on those that rise by 9.5 standard deviations of white
    noise over the last 40 %.

    Raises:
        ShapeError: the two differ in length.
    """
    val_n, train_at_val_n = validate(val_n), validate(train_at_val_n)
    if len(val_n) != len(train_at_val_n):
        raise ShapeError(
            f"got {len(train_at_val_n)} training losses for {len(val_n)} evaluations, expected one each"
        )
    if len(val_n) < MIN_EVALUATIONS:
        return None
    val_B, bounds_C = block_medians(val_n, MOST)
    train_B, _ = block_medians(train_at_val_n, MOST)
    i = int(val_B.argmin())
    best, last_k = float(val_B[i]), val_B[-LAST_EVALUATIONS:]
    around = min(max(i - 1, 0), len(val_B) - LAST_EVALUATIONS)
    rise = float(np.median(last_k) - np.median(val_B[around : around + LAST_EVALUATIONS]))
    rest_n = val_B[i + 1 :]
    sigma, about_line, z = _noise(val_B), _about_line(rest_n), mann_kendall(rest_n)
    z_pairs = mann_kendall(rest_n[len(rest_n) % 2 :].reshape(-1, 2).mean(1))
    # Noise that alternates looks larger in second differences than it is about a line.
    is_about_line = (z > TREND_Z or z_pairs > PAIRS_Z) and about_line < scatter(val_B)
    sigma = about_line if is_about_line else sigma
    margin = 0.0 if is_about_line or z > CLEAR_Z else 3 * sigma
    exceeds = bool((last_k > best + margin).all())
    rise_needed = 3 * sigma * MEDIANS_DIFFERENCE
    train_at_best, train_last = float(train_B[i]), float(train_B[-1])
    fires = exceeds and rise > rise_needed and train_last < train_at_best
    at, rows, last = int(bounds_C[i : i + 2].sum() - 1) // 2, -(-len(val_n) // MOST), last_k.tolist()
    return Overfitting(
        fires, best, at, tuple(last), rows, sigma, z, rise, rise_needed, train_at_best, train_last
    )


def _noise(val_n: Series) -> float:
    """Return the standard deviation of an evaluation, its autocorrelation included.

    The larger of that of second differences, which are blind to slow noise, and that about the best
    curve that falls to its minimum and then rises, times sqrt((1 + rho) / (1 - rho)).

    Source:
        Degrees of freedom of the fit, one for each level part: Meyer & Woodroofe (2000), Annals of
        Statistics 28(4), 1083-1104.
    """
    n, i, sigma = len(val_n), int(val_n.argmin()), scatter(val_n)
    fit_n = np.concatenate([_rising(val_n[:i][::-1])[::-1], _rising(val_n[i:])])
    residual_n, freedom = val_n - fit_n, n - len(np.unique(fit_n))
    squares = float(residual_n @ residual_n)
    if freedom >= MIN_FREEDOM and squares > 0:
        rho = float(residual_n[1:] @ residual_n[:-1]) / squares + RHO_BIAS / n
        rho = min(max(rho, 0.0), 0.99) if n >= MIN_RISING else 0.0
        sigma = max(sigma, (squares / max(freedom, n / 2) * (1 + rho) / (1 - rho)) ** 0.5)
    return sigma * (1 + FEW / n**2)


def _rising(y_n: Series) -> Series:
    """Return the rising curve nearest to a series, by pooling adjacent violators."""
    pools: list[tuple[float, int]] = []  # the mean of each, and its length
    for value in y_n.tolist():
        mean, length = value, 1
        while pools and pools[-1][0] >= mean:
            before, more = pools.pop()
            mean, length = (mean * length + before * more) / (length + more), length + more
        pools.append((mean, length))
    return np.repeat([mean for mean, _ in pools], [length for _, length in pools])


def _about_line(y_n: Series) -> float:
    """Return the standard deviation about a fitted line; infinite below twelve points."""
    if len(y_n) < MIN_RISING:
        return float("inf")
    x_n = np.arange(len(y_n)) - (len(y_n) - 1) / 2
    y_n = y_n - y_n.mean()
    residual_n = y_n - x_n * float(x_n @ y_n) / float(x_n @ x_n)
    return float(residual_n @ residual_n / (len(y_n) - 2)) ** 0.5
