"""Detect overfitting: validation that rises while training falls.

Series are one-dimensional, finite, float64, in order of training.
"""

from dataclasses import dataclass

import numpy as np

from entropy_cli.commands.monitor.detectors.noise import Series, mann_kendall, scatter, validate
from entropy_cli.core.errors import ShapeError

MIN_EVALUATIONS, LAST_EVALUATIONS = 10, 3
MEDIANS_DIFFERENCE = 0.947  # standard error of the difference of two medians of three Gaussians
TREND_Z = 3.09  # one-sided .1 %
MIN_RISING = 12  # evaluations after the best that show a trend


@dataclass(frozen=True)
class Overfitting:
    """Result of `overfitting`: whether validation rises while training falls."""

    fires: bool  # see the function; and `rise` is above `rise_needed`, and training fell since the best
    best: float  # lowest validation loss
    best_index: int  # its index among the evaluations
    last: tuple[float, ...]  # the last three evaluations, oldest first
    noise: float  # standard deviation of an evaluation
    z: float  # Mann-Kendall z of the evaluations after the best
    rise: float  # median of the last three minus that of three around the best, which is biased low
    rise_needed: float  # three standard errors of that difference
    train_at_best: float  # training loss at the best evaluation
    train_last: float  # at the last


def overfitting(val_n: Series, train_at_val_n: Series) -> Overfitting | None:
    """Test whether validation has risen from its best while training fell.

    Either the last three evaluations all exceed the best by 3 s, with the noise s of second differences;
    or all of them exceed it and those after it rise (z > 3.09), which also sees losses that alternate.
    Both losses are those at the evaluations. None below ten. Of 2500 runs with 10/20/40 evaluations and
    white noise s: fires on falling curves in at most .0008, on flat ones in .012/.009/.005 (without
    `rise_needed` .04), and in .12/.84/1.0 on those that rise by 9.5 s over the last 40 %.

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
    i = int(val_n.argmin())
    best, last_k = float(val_n[i]), val_n[-LAST_EVALUATIONS:]
    around = min(max(i - 1, 0), len(val_n) - LAST_EVALUATIONS)
    rise = float(np.median(last_k) - np.median(val_n[around : around + LAST_EVALUATIONS]))
    sigma, about_line = scatter(val_n), _about_line(val_n[i + 1 :])
    z = mann_kendall(val_n[i + 1 :])
    # Noise that alternates looks larger in second differences than it is about a line.
    if z > TREND_Z and about_line < sigma:
        sigma, exceeds = about_line, bool((last_k > best).all())
    else:
        exceeds = bool((last_k > best + 3 * sigma).all())
    rise_needed = 3 * sigma * MEDIANS_DIFFERENCE
    train_at_best, train_last = float(train_at_val_n[i]), float(train_at_val_n[-1])
    fires = exceeds and rise > rise_needed and train_last < train_at_best
    last = tuple(last_k.tolist())
    return Overfitting(fires, best, i, last, sigma, z, rise, rise_needed, train_at_best, train_last)


def _about_line(y_n: Series) -> float:
    """Return the standard deviation about a fitted line; infinite below twelve points."""
    if len(y_n) < MIN_RISING:
        return float("inf")
    x_n = np.arange(len(y_n)) - (len(y_n) - 1) / 2
    y_n = y_n - y_n.mean()
    residual_n = y_n - x_n * float(x_n @ y_n) / float(x_n @ x_n)
    return float(residual_n @ residual_n / (len(y_n) - 2)) ** 0.5
