"""Test whether the fitted E stays where it is when the largest or the smallest sizes are left out."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from entropy_cli.commands.fit.intervals import (
    Interval,
    likelihood,
    profile_statistic,
    starts_beside,
)
from entropy_cli.commands.fit.scaling_law import Array, Data, Fit, minimise, parameter_bounds
from entropy_cli.entropy.jackknife import t_quantile

NEGLIGIBLE = 1e-3  # moves of E relative to it: points on the curve leave only rounding
SIZES = ("model", "data")


def unstable_E(fit: Fit, ci95: Interval) -> str | None:
    """Return why E is not to be trusted beyond its interval, or None.

    A law that does not hold over the whole range still has a narrow interval. It shows when the points
    of one end are left out: E leaves its interval, or is itself excluded by the points that remain.

    Args:
        fit: a fit with E free.
        ci95: the 95 % interval of E, in nats per token.
    """
    low, high = ci95
    assert low is not None and high is not None
    E = math.exp(fit.theta[0])
    for name, data in _parts(fit):
        found = [minimise(start, data, parameter_bounds(data)) for start in starts_beside(fit)]
        theta, value = min(found, key=lambda pair: pair[1])
        part = replace(fit, data=data, theta=theta, objective=value)
        moved = math.exp(part.theta[0])
        if abs(moved - E) <= NEGLIGIBLE * E:
            continue
        without = f"without the {name} E is {moved:.4g}"
        if not low <= moved <= high:
            return f"{without}, outside its 95 % interval of {low:.4g} to {high:.4g}"
        working = likelihood(part)
        critical = math.inf if working is None else t_quantile(working.degrees) ** 2
        if working is not None and profile_statistic(part, working, "E", E) > critical:
            return f"{without}, and the rest excludes {E:.4g}: the law does not hold for all sizes"
    return None


def _parts(fit: Fit) -> Iterator[tuple[str, Data]]:
    """Yield the points without either end of each size, where they still determine the parameters."""
    data = fit.data
    for kind, log_size_P in zip(SIZES, np.round(data.log_size_TP, 9), strict=False):
        for end, at in (("largest", log_size_P.max()), ("smallest", log_size_P.min())):
            part = _select(data, log_size_P != at)
            if np.unique(np.round(part.log_size_TP, 9), axis=1).shape[1] >= fit.free:
                yield f"{end} {kind} size", part


def _select(data: Data, keep_P: Array) -> Data:
    return replace(
        data,
        log_size_TP=data.log_size_TP[:, keep_P],
        log_loss_P=data.log_loss_P[keep_P],
        weight_P=data.weight_P[keep_P],
    )
